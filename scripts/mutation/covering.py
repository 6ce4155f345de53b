"""Which tests run which lines, how long each takes, and what of the code no test reaches.

It runs in a process of its own, which is forked before anything of the house was imported.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import coverage
import msgspec
import pytest
from hypothesis import Phase, settings

from scripts.mutation.processes import forked

QUIET: Final = (
    *("-q", "-p", "no:cacheprovider", "-m", "not load and not agents"),
    # Its plugins are loaded before a fork, and have no assertions of ours.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
"""What pytest is told in every fork."""


class Reach(msgspec.Struct, frozen=True):
    """What the tests of an area reach."""

    tests: dict[str, float]
    """Every test by its node id, with the seconds that it took."""
    lines: dict[str, dict[int, list[str]]]
    """File → line → the tests that run it. Lines that only importing runs have none."""
    parts: dict[str, tuple[int, int, list[str]]]
    """File → how many lines and branches there are and how many are reached, and those that are not."""
    loaded: list[str]
    """The modules that the tests load, those left out that pytest loads itself."""

    def runs(self, file: str, lines: Sequence[int]) -> bool:
        """Tell whether a test runs one of these lines; what runs only while its module is loaded none does."""
        known = self.lines.get(file, {})
        return any(known.get(line) for line in lines)

    def covering(self, file: str, lines: Sequence[int]) -> list[str]:
        """Return the tests of the first line that has any, the quickest first; where none has, all of them."""
        known = self.lines.get(file, {})
        found = next((known[line] for line in lines if known.get(line)), list(self.tests))
        return sorted(found, key=lambda test: self.tests.get(test, 0.0))


class Profile:
    """A pytest plugin: a generated example that fails is enough, a smaller one is not looked for."""

    def pytest_configure(self) -> None:
        """Come after the conftest, and before the first test module."""
        settings.register_profile(
            "mutation", settings.default, phases=(Phase.explicit, Phase.generate), print_blob=False
        )
        settings.load_profile("mutation")


class _Watch(Profile):
    """A pytest plugin: says to the coverage which test runs, and keeps the time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured
        self.tests: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._measured.switch_context(item.nodeid)
        begun = time.monotonic()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] = time.monotonic() - begun
            self._measured.switch_context("")


class RedError(Exception):
    """The tests fail as it is: of what would make them fail, nothing can be said."""


def reach(root: Path, files: Sequence[str], tests: Sequence[str]) -> Reach:
    """Run the tests once and return what they reach of these files."""
    with tempfile.TemporaryDirectory() as place:
        kept = Path(place, "reach.json")
        code = forked(lambda: _measure(root, files, tests, kept), patience=3600, output=Path(place, "said"))
        if code != 0:
            raise RedError(Path(place, "said").read_text(errors="replace")[-3000:])
        return msgspec.json.decode(kept.read_bytes(), type=Reach)


def _measure(root: Path, files: Sequence[str], tests: Sequence[str], kept: Path) -> int:
    measured = coverage.Coverage(
        data_file=None, branch=True, include=[str(root / file) for file in files], config_file=False
    )
    measured.start()
    watch = _Watch(measured)
    code = int(pytest.main([*QUIET, *tests], plugins=[watch]))
    measured.stop()
    if code == 0:
        kept.write_bytes(msgspec.json.encode(_read(measured, watch.tests, root, files)))
    return code


def _read(measured: coverage.Coverage, tests: dict[str, float], root: Path, files: Sequence[str]) -> Reach:
    data = measured.get_data()
    lines = {
        file: {
            line: [test for test in several if test]
            for line, several in data.contexts_by_lineno(str(root / file)).items()
        }
        for file in files
    }
    with tempfile.TemporaryDirectory() as place:
        told = Path(place, "coverage.json")
        measured.json_report(outfile=str(told), ignore_errors=True)
        report = json.loads(told.read_text())["files"]
    # Their names are as seen from where the report was made.
    by_path = {str(Path(name).resolve()): parts for name, parts in report.items()}
    parts = {file: _parts(by_path[str((root / file).resolve())]) for file in files}
    loaded = [name for name in sys.modules if not name.rpartition(".")[2].startswith(_PYTESTS)]
    return Reach(tests, lines, parts, loaded)


_PYTESTS: Final = ("test_", "conftest", "__main__")


def _parts(found: dict[str, Any]) -> tuple[int, int, list[str]]:
    summary = found["summary"]
    missing = [str(line) for line in found["missing_lines"]]
    missing += [f"{begin}→{end if end > 0 else 'exit'}" for begin, end in found["missing_branches"]]
    whole = summary["num_statements"] + summary["num_branches"]
    return whole, summary["covered_lines"] + summary["covered_branches"], missing
