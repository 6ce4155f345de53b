"""One mutant tried: its module is loaded with the fault in it, and the tests that run the line are run."""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from scripts.mutation.covering import QUIET, Profile, Reach
from scripts.mutation.mutants import Mutant
from scripts.mutation.processes import OVERDUE, forked

KILLED: Final = "killed"
SURVIVED: Final = "survived"
TIMEOUT: Final = "timeout"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant; a timeout counts as noticed."""

    file: str
    mutant: Mutant
    outcome: str
    tests: int
    """How many tests run its line."""


def load(packages: Sequence[str]) -> None:
    """Import what is not of the house, so that every fork has it already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in packages:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def tried(root: Path, file: str, mutant: Mutant, reach: Reach, *, seconds: float) -> Verdict:
    """Try a mutant with the tests that run its line, the quickest first, of `seconds` seconds of them at most."""
    known = reach.covering(file, mutant.lines)
    chosen, planned = [], 0.0
    for test in known:
        planned += reach.tests[test]
        if chosen and planned > seconds:
            break
        chosen.append(test)
    source = mutant.applied((root / file).read_text())
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    with tempfile.TemporaryDirectory() as place:
        code = forked(
            lambda: _run(name, source, chosen),
            patience=60 + 10 * min(planned, seconds),
            output=Path(place, "said"),
        )
    outcome = {0: SURVIVED, OVERDUE: TIMEOUT}.get(code, KILLED)
    return Verdict(file, mutant, outcome, len(known))


def _run(name: str, source: str, tests: Sequence[str]) -> int:
    sys.meta_path.insert(0, _Faulty(name, source))
    files = sorted({test.partition("::")[0] for test in tests})
    return int(pytest.main(["-x", *QUIET, *files], plugins=[_Only(tests)]))


class _Only(Profile):
    """A pytest plugin: runs these tests and no other, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._places = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._places]
        items.sort(key=lambda item: self._places[item.nodeid])


class _Faulty(MetaPathFinder):
    """Finds one module, and gives it another source."""

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(self._source, spec.loader.path)
        return spec


class _Loader(Loader):
    def __init__(self, source: str, path: str) -> None:
        self._source, self._path = source, path

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._path, "exec"), module.__dict__)  # noqa: S102 - it is our own module
