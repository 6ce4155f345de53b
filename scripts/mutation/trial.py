"""One mutant tried: its module is loaded with the fault in it, and the tests that run the line are run."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import accumulate, zip_longest
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Final

import pytest
from _pytest.runner import runtestprotocol

from scripts.mutation.covering import QUIET, Profile, Reach
from scripts.mutation.mutants import Function, Mutant, functions
from scripts.mutation.processes import OVERDUE, forked
from tests import rules

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


def load(names: Sequence[str]) -> None:
    """Import what the tests will need, so that every fork has it already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def dependents(root: Path, name: str) -> set[str]:
    """Return a module and every other of the house and of its tests that imports it, by way of others too."""
    house = [
        *rules.read(root / "tokenhub_core", prefix="tokenhub_core"),
        *rules.read(root / "addon" / "tokenhub_addon", prefix="tokenhub_addon"),
        *rules.read(root / "tests", prefix="tests"),
    ]
    known = {module.name for module in house}
    imports = {module.name: rules.imports(module, known) for module in house}
    found, front = set[str](), {name}
    while front:
        found |= front
        front = {other for other, several in imports.items() if several & front} - found
    return found


@dataclass(frozen=True, slots=True)
class Subject:
    """A file whose mutants are tried, with the module it is and all that has to be loaded anew with it."""

    file: str
    path: str
    name: str
    source: str
    anew: frozenset[str]
    functions: tuple[Function, ...]

    @classmethod
    def of(cls, root: Path, file: str) -> Subject:
        """Read a file."""
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        source = (root / file).read_text()
        path = str(root / file)
        return cls(file, path, name, source, frozenset(dependents(root, name)), tuple(functions(source)))

    def around(self, mutant: Mutant) -> Function | None:
        """Return the outermost function in whose body a fault is."""
        return next(
            (one for one in self.functions if one.begin <= mutant.begin and mutant.end <= one.end), None
        )


def tried(
    subject: Subject,
    mutants: Sequence[Mutant],
    reach: Reach,
    *,
    seconds: float,
    tell: Callable[[Verdict], None],
) -> None:
    """Try the mutants of a file, each with the tests that run its line, and tell what became of it.

    The quickest tests come first, and of those that take longer than `seconds` seconds only as many as fit.
    """
    tests = {
        mutant: _chosen(reach.covering(subject.file, mutant.lines), reach.tests, seconds)
        for mutant in mutants
    }
    wanted = sorted({test for several in tests.values() for test in several})
    quick = {
        mutant: code
        for mutant in mutants
        if reach.runs(subject.file, mutant.lines) and (code := _code(subject, mutant)) is not None
    }
    noticed: set[Mutant] = set()

    def first(one: Verdict) -> None:
        # What was made of a function while its module was loaded has the code of then: that is tried once more.
        if one.outcome != SURVIVED:
            noticed.add(one.mutant)
            tell(one)

    if quick:
        _session(wanted, _Bench(subject, quick, tests, reach, first))
    for mutant in mutants:
        if mutant not in noticed:
            tell(_loaded_anew(subject, mutant, tests[mutant], reach))


def _chosen(known: Sequence[str], took: Mapping[str, float], seconds: float) -> list[str]:
    sums = accumulate(took[test] for test in known)
    return [
        test
        for number, (test, whole) in enumerate(zip(known, sums, strict=True))
        if not number or whole <= seconds
    ]


def _verdict(subject: Subject, mutant: Mutant, code: int, tests: Sequence[str]) -> Verdict:
    # No test at all has noticed nothing.
    unnoticed = code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    outcome = SURVIVED if unnoticed else TIMEOUT if code == OVERDUE else KILLED
    return Verdict(subject.file, mutant, outcome, len(tests))


def _patience(tests: Sequence[str], reach: Reach) -> float:
    return 120 + 20 * sum(reach.tests[test] for test in tests)


# --- in place ------------------------------------------------------------------------------------------------


def _code(subject: Subject, mutant: Mutant) -> CodeType | None:
    """Return the faulty code of the outermost function around a fault; None where it stands in none."""
    function = subject.around(mutant)
    if function is None:
        return None
    try:
        whole = compile(mutant.applied(subject.source), subject.path, "exec")
    except SyntaxError:
        return None
    return _codes(whole).get((function.name, function.line))


def _codes(whole: CodeType) -> dict[tuple[str, int], CodeType]:
    """Return the code of every function and method of a module, by its qualified name and first line."""
    found = {}
    for code in (one for one in whole.co_consts if isinstance(one, CodeType)):
        found[code.co_qualname, code.co_firstlineno] = code
        found |= _codes(code)
    return found


class _Bench(Profile):
    """A pytest plugin: when all is collected, a fork for every mutant, in which its function has the faulty code."""

    def __init__(
        self,
        subject: Subject,
        codes: Mapping[Mutant, CodeType],
        tests: Mapping[Mutant, Sequence[str]],
        reach: Reach,
        tell: Callable[[Verdict], None],
    ) -> None:
        self._subject, self._codes, self._tests, self._reach, self._tell = subject, codes, tests, reach, tell

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of the run."""
        items = {item.nodeid: item for item in session.items}
        functions = [
            one
            for one in gc.get_objects()
            if isinstance(one, FunctionType) and one.__code__.co_filename == self._subject.path
        ]
        with tempfile.TemporaryDirectory() as place:
            for mutant, code in self._codes.items():
                mine = [one for one in functions if _same(one.__code__, code)]
                if not mine or any(one.__code__.co_freevars != code.co_freevars for one in mine):
                    continue
                chosen = [items[test] for test in self._tests[mutant] if test in items]
                left = forked(
                    partial(_exchanged, mine, code, chosen),
                    patience=_patience(self._tests[mutant], self._reach),
                    output=Path(place, "said"),
                )
                self._tell(_verdict(self._subject, mutant, left, self._tests[mutant]))
        return True


def _same(one: CodeType, other: CodeType) -> bool:
    return (one.co_qualname, one.co_firstlineno) == (other.co_qualname, other.co_firstlineno)


def _exchanged(functions: Sequence[FunctionType], code: CodeType, items: Sequence[pytest.Item]) -> int:
    """Run tests until one fails, with another code in these functions."""
    for function in functions:
        function.__code__ = code
    for item, following in zip_longest(items, items[1:]):
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return 1
    return 0


def _session(tests: Sequence[str], plugin: object) -> None:
    files = sorted({test.partition("::")[0] for test in tests})
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main([*QUIET, "-s", *files], plugins=[plugin])


# --- loaded anew ---------------------------------------------------------------------------------------------


def _loaded_anew(subject: Subject, mutant: Mutant, tests: Sequence[str], reach: Reach) -> Verdict:
    """Try a mutant of what runs when its module is loaded: that, and all that knows it, is loaded in a fork."""
    with tempfile.TemporaryDirectory() as place:
        code = forked(
            lambda: _run(subject, mutant, tests), patience=_patience(tests, reach), output=Path(place, "said")
        )
    return _verdict(subject, mutant, code, tests)


def _run(subject: Subject, mutant: Mutant, tests: Sequence[str]) -> int:
    _forget(subject.anew)
    sys.meta_path.insert(0, _Faulty(subject.name, mutant.applied(subject.source)))
    files = sorted({test.partition("::")[0] for test in tests})
    return int(pytest.main(["-x", *QUIET, *files], plugins=[_Only(tests)]))


def _forget(names: Iterable[str]) -> None:
    """Make the next import load these modules again: their packages have them as attributes, too."""
    for name in names:
        sys.modules.pop(name, None)
        package, _, last = name.rpartition(".")
        if (around := sys.modules.get(package)) is not None and last in vars(around):
            delattr(around, last)


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
