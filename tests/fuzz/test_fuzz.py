"""A first look of the fuzz lane at every parser, and the lane itself: what it finds, keeps, and gives up on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fuzz import __main__ as command
from tests.fuzz import lane, parsers
from tests.fuzz.dialects import Run, Target
from tests.fuzz.lane import Finding, Outcome, Unit
from tests.fuzz.mutation import Mutator
from tokenhub_core.types import Dialect

NAMES = [target.name for target in parsers.targets()]
LATER = 1e12
"""An end in seconds since the epoch that does not come."""


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_takes_whatever_comes(name: str) -> None:
    """Two thousand inputs: only the documented errors, no hang, and every promise kept."""
    outcome = lane.worked(Unit(name, 0, 2_000, LATER))

    assert not outcome.findings, outcome.findings[0].told
    assert outcome.runs == 2_000


def test_every_dialect_is_fuzzed_in_all_its_parts() -> None:
    """Each has requests and answers; each that streams has streams; and all seeds are there."""
    for dialect in Dialect:
        assert {f"open-{dialect}", f"answer-{dialect}"} <= set(NAMES)
        assert (f"stream-{dialect}" in NAMES) == dialect.translates
    assert all(target.seeds for target in parsers.targets())


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Make a parser that fails in three ways the only one."""

    def run(data: bytes) -> None:
        if data.startswith(b"\xff"):
            raise KeyError(data)
        if data.startswith(b"\xfe"):
            raise ValueError(data)
        while data == b"hang":
            pass

    def targets() -> tuple[Target, ...]:
        return (Target("frail", run, (b"abcdefgh",), structured=False),)

    monkeypatch.setattr(lane, "targets", targets)
    monkeypatch.setattr(command, "targets", targets)
    return run


@pytest.mark.usefixtures("only")
def test_what_fails_in_one_place_is_found_once() -> None:
    """A finding is an exception and its place, with the first input that led there."""
    outcome = lane.worked(Unit("frail", 3, 20_000, LATER))

    assert sorted(finding.place.partition(" ")[0] for finding in outcome.findings) == [
        "KeyError",
        "ValueError",
    ]
    assert all(finding.data[0] in {0xFF, 0xFE} for finding in outcome.findings)
    assert outcome.plus(outcome).findings == outcome.findings
    assert outcome.plus(outcome).runs == 40_000


def test_an_input_that_never_ends_is_stopped(only: Run) -> None:
    """Two seconds of CPU time are the most that one input gets."""
    began = time.process_time()
    with lane.watched(), pytest.raises(lane.HungError):
        only(b"hang")
    assert time.process_time() - began < 4


@pytest.mark.usefixtures("only")
def test_a_unit_ends_at_its_time() -> None:
    """However many inputs are left: the lane as a whole is bounded."""
    assert lane.worked(Unit("frail", 1, 10**9, time.time() + 0.05)).runs < 10**6


def test_a_unit_can_be_repeated() -> None:
    """The same seed makes the same inputs, another one others."""
    seeds = (b'{"a":[1,{"b":null}]}', b'data: {"c":"d"}\n\n')

    def made(seed: int) -> list[bytes]:
        mutator = Mutator(seeds, seed=seed, structured=True)
        return [mutator.next() for _ in range(300)]

    assert made(1) == made(1) != made(2)
    assert len(set(made(1))) > 200


def test_a_lane_stopped_early_has_tried_all_parsers_alike() -> None:
    """Units come in turns, and the last of a parser is as short as it must be."""
    units = list(lane.units(("a", "b"), runs=lane.UNIT + 5, seed=1, until=LATER))

    assert [(unit.target, unit.runs) for unit in units] == [
        ("a", lane.UNIT),
        ("b", lane.UNIT),
        ("a", 5),
        ("b", 5),
    ]
    assert len({unit.seed for unit in units}) == 2


def test_a_run_can_be_made_in_parts() -> None:
    """The second part makes the inputs that the first one did not come to."""
    whole = list(lane.units(("a", "b"), runs=3 * lane.UNIT, seed=1, until=LATER))
    first = list(lane.units(("a", "b"), runs=lane.UNIT, seed=1, until=LATER))

    assert (
        first + list(lane.units(("a", "b"), runs=3 * lane.UNIT, seed=1, until=LATER, skip=lane.UNIT)) == whole
    )


@pytest.mark.usefixtures("only")
def test_a_finding_is_a_file_that_can_be_tried_again(tmp_path: Path) -> None:
    """The report says the command; its parser stands in the file's name."""
    path = Finding("frail", b"\xff", "KeyError at x:1", "…").keep(tmp_path / "new")

    again = CliRunner().invoke(command.main, [str(path)])
    assert isinstance(again.exception, KeyError)

    path.write_bytes(b"mended")
    assert "frail takes it" in CliRunner().invoke(command.main, [str(path)]).output


def test_without_atheris_the_guided_lane_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no dependency of ours."""
    monkeypatch.setattr(command, "find_spec", lambda _name: None)

    result = CliRunner().invoke(command.main, ["--guided"])

    assert result.exit_code == 1
    assert "pip install atheris" in result.output


def test_the_lane_runs_in_processes_and_reports(tmp_path: Path) -> None:
    """A very small run of the real thing: every parser that was asked for has a line, and nothing was found."""
    options = [
        "--runs",
        "50",
        "--only",
        "retry",
        "--only",
        "address",
        "--jobs",
        "1",
        "--folder",
        str(tmp_path),
    ]
    result = CliRunner().invoke(command.main, options)

    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.output.splitlines() if "slowest" in line] == [
        ["address", "50"],
        ["retry-after", "50"],
    ]
    assert "100 inputs, 0 findings" in result.output


def test_a_finding_makes_the_lane_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code says so, and a parser that ran out of time is told."""
    finding = Finding("frail", b"\xff", "KeyError at x:1", "…")
    outcome = Outcome("frail", 7, 1.0, 0.001, (finding,))

    assert command.report({"frail": outcome}, ["frail"], 9, tmp_path) == 1

    out = capsys.readouterr().out
    assert "out of time" in out
    assert "again: scripts/test fuzz" in out
