"""The mutants of `scripts/mutate`: which faults it makes, what it says of them, and one small run of the real thing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from scripts.mutation import report, trial
from scripts.mutation.areas import AREAS
from scripts.mutation.covering import Reach
from scripts.mutation.mutants import Mutant, functions, mutants, sampled
from scripts.mutation.processes import OVERDUE, forked
from scripts.mutation.trial import KILLED, SURVIVED, Verdict
from tests.patience import PROGRAM_PATIENCE

ROOT = Path(__file__).parents[1]
FILES = [file for area in AREAS.values() for file in area.files(ROOT)]


def faults(source: str) -> dict[str, list[str]]:
    """Return the sources that come of one, by kind of fault."""
    found: dict[str, list[str]] = {}
    for one in mutants(source):
        found.setdefault(one.kind, []).append(one.applied(source))
    return found


@pytest.mark.parametrize(
    ("source", "kind", "faulty"),
    [
        ("a = b < c", "comparison", ["a = b <= c"]),
        ("a = b <= c != d", "comparison", ["a = b < c != d", "a = b <= c == d"]),
        ("a = b is not None", "comparison", ["a = b is None"]),
        ("a = (b) in (c)", "comparison", ["a = (b) not in (c)"]),
        ("a = b and c", "boolean", ["a = b or c"]),
        ("a = (b\n  or c)", "boolean", ["a = (b\n  and c)"]),
        ("a = not b", "boolean", ["a = b"]),
        ("if a: b()", "boolean", ["if (not (a)): b()"]),
        ("a = b + c", "arithmetic", ["a = b - c"]),
        ("a = 1", "constant", ["a = 2"]),
        ("a = True", "constant", ["a = False"]),
        ("a = 'é'", "constant", ["a = 'é~'"]),
        ("def f():\n    return a", "return", ["def f():\n    return None"]),
        ("def f():\n    a()", "removed statement", ["def f():\n    pass"]),
        ("def f():\n    raise a", "removed statement", ["def f():\n    pass"]),
        ("a.b = c", "removed statement", ["pass"]),
        ("f(a, b, *c)", "swapped argument", ["f(b, a, *c)"]),
    ],
)
def test_a_fault_is_one_small_edit(source: str, kind: str, faulty: list[str]) -> None:
    """Of each kind those that there are, and nothing else of the text changes."""
    assert faults(source)[kind] == faulty


@pytest.mark.parametrize(
    "source",
    [
        '"""Words."""',
        "a: Final[int]",
        "import a",
        "type A = 1 | 2",
        "assert a == 1",
        "a = b",
        "@dataclass(frozen=True)\nclass A(B, frozen=True):\n    ...",
        "def f(a: A = b, *c: 'D') -> E['F']: ...",
        "a = f'b{c}'",
        "if TYPE_CHECKING:\n    a = 1",
    ],
)
def test_what_a_type_checker_or_nobody_sees_is_left_alone(source: str) -> None:
    """A mutant of it would say nothing of the tests."""
    assert mutants(source) == []


@pytest.mark.parametrize("file", FILES)
def test_every_fault_can_be_compiled_and_is_one(file: str) -> None:
    """Another program than the module's, of whose tree one place differs."""
    source = (ROOT / file).read_text()
    whole = ast.dump(ast.parse(source))
    found = mutants(source)
    assert len(set(found)) == len(found)
    for one in sampled(found, 40, 7):
        assert ast.dump(ast.parse(one.applied(source))) != whole
        assert one.diff(source)


@given(st.integers(0, 50), st.integers(0, 60), st.integers())
def test_a_sample_is_drawn_without_repeating_and_can_be_drawn_again(
    size: int, wanted: int, seed: int
) -> None:
    """In the order of the source; all of them where there are no more."""
    several = [Mutant("constant", (n,), n, n + 1, "x") for n in range(size)]
    drawn = sampled(several, wanted, seed)
    assert drawn == sampled(several, wanted, seed)
    assert len(drawn) == min(size, wanted)
    assert drawn == sorted(set(drawn), key=several.index)


def test_functions_are_named_as_their_code_is() -> None:
    """Methods by their class; what stands in a function is a part of it."""
    source = (
        "class A:\n    @b\n    def f(self):\n        def g(): pass\n        return g\nasync def h(): pass\n"
    )
    assert [(one.name, one.line) for one in functions(source)] == [("A.f", 2), ("h", 6)]


def test_work_in_a_fork_ends_with_it(tmp_path: Path) -> None:
    """Its code comes back, an exception is a failure, and what never ends is ended."""

    def boom() -> int:
        raise RuntimeError("boom")

    def never() -> int:
        while True:
            time.sleep(60)

    said = tmp_path / "said"
    assert forked(lambda: 0, patience=60, output=said) == 0
    assert forked(lambda: 7, patience=60, output=said) == 7
    assert forked(boom, patience=60, output=said) == 1
    assert "RuntimeError: boom" in said.read_text()
    assert forked(never, patience=0.1, output=said) == OVERDUE


def test_the_tests_of_a_line_come_with_the_quickest_first() -> None:
    """Where a line has none of its own, those of its statement; what only importing runs is everybody's."""
    known = Reach({"a": 2.0, "b": 1.0, "c": 0.5}, {"f": {1: [], 2: ["a", "b"], 3: ["c"]}}, {}, [])
    assert known.covering("f", (2, 3)) == ["b", "a"]
    assert known.covering("f", (9, 3)) == ["c"]
    assert known.covering("f", (1,)) == ["c", "b", "a"]


def test_what_only_loading_runs_is_not_run_by_a_test() -> None:
    """A fault there takes effect where the module is loaded anew, and nowhere else."""
    known = Reach({"a": 2.0}, {"f": {1: [], 2: ["a"]}}, {}, [])
    assert known.runs("f", (1, 2))
    assert not known.runs("f", (1,))
    assert not known.runs("g", (2,))


def test_a_module_is_forgotten_though_its_package_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is called as something of the interpreter's own is; the other way round it is gone from there."""
    around, inside = ModuleType("tokenhub_around"), ModuleType("tokenhub_around.audit")
    vars(around)["audit"] = inside
    monkeypatch.setitem(sys.modules, "tokenhub_around", around)
    monkeypatch.setitem(sys.modules, "tokenhub_around.audit", inside)
    trial._forget(["tokenhub_around.audit"])
    assert not hasattr(around, "audit")
    sys.modules["tokenhub_around.audit"] = inside
    trial._forget(["tokenhub_around", "tokenhub_around.audit"])
    assert "tokenhub_around.audit" not in sys.modules


def test_what_survives_in_place_is_tried_once_more_with_its_module_loaded_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A function that another one made while the module was loaded has still the code of then."""
    subject = trial.Subject.of(ROOT, "tokenhub_core/signing.py")
    inside = [one for one in mutants(subject.source) if subject.around(one) is not None]
    one, other = inside[:2]
    lines = {line: ["a"] for mutant in (one, other) for line in mutant.lines}
    known = Reach({"a": 1.0}, {subject.file: lines}, {}, [])

    def session(tests: Sequence[str], bench: Any) -> None:
        assert list(tests) == ["a"]
        for mutant, outcome in ((one, SURVIVED), (other, KILLED)):
            bench._tell(Verdict(subject.file, mutant, outcome, 1))

    monkeypatch.setattr(trial, "_session", session)
    monkeypatch.setattr(
        trial, "_loaded_anew", lambda subject, mutant, *_: Verdict(subject.file, mutant, "timeout", 1)
    )
    told = list[tuple[Mutant, str]]()
    trial.tried(subject, [one, other], known, seconds=1, tell=lambda v: told.append((v.mutant, v.outcome)))
    assert told == [(other, KILLED), (one, "timeout")]


def test_a_score_counts_what_was_noticed() -> None:
    """Of four mutants one survived: 75 %, and the table says so."""
    mutant = Mutant("constant", (1,), 4, 5, "2")
    verdicts = [Verdict("f", mutant, outcome, 1) for outcome in (KILLED, KILLED, "timeout", SURVIVED)]
    assert report.score(verdicts) == 75.0
    assert report.score([]) == 100.0
    console = Console(record=True, width=140)
    reached = {"area": Reach({}, {}, {"f": (10, 9, ["1→2"])}, [])}
    report.show(reached, verdicts, console)
    report.survivors(verdicts, {"f": "a = 1"}, console)
    text = console.export_text()
    assert "75.0" in text
    assert "90.0" in text
    assert "1→2" in text
    assert "+a = 2" in text
    told = report.as_json(reached, verdicts, {"f": "a = 1"}, seed=1)
    assert (told["score"], told["how"], len(told["mutants"])) == (75.0, {"seed": 1}, 4)


def test_a_run_says_what_is_reached_and_what_is_noticed(tmp_path: Path) -> None:
    """On the real thing: the marks of tokens, with their own tests."""
    told = _run(tmp_path, "tests/access/test_marks.py")
    assert told["reached"][MARKS]["missing"] == []
    outcomes = [one["outcome"] for one in told["mutants"]]
    assert len(outcomes) == 6
    assert KILLED in outcomes
    assert told["score"] == pytest.approx(100 * (1 - outcomes.count(SURVIVED) / 6))


MARKS = "tokenhub_core/access/marks.py"


def _run(folder: Path, tests: str) -> Any:
    told = folder / "told.json"
    command = [sys.executable, "-m", "scripts.mutation", "--module", MARKS, "--tests", tests]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'addon'}"}
    subprocess.run(
        [*command, "--sample", "6", "--json", told],
        check=True,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.DEVNULL,
        timeout=PROGRAM_PATIENCE,
    )
    return json.loads(told.read_text())


def test_every_area_has_its_files_and_its_tests() -> None:
    """No file is in two of them."""
    assert len(set(FILES)) == len(FILES)
    for area in AREAS.values():
        assert all((ROOT / name).exists() for name in (*area.modules, *area.tests))
