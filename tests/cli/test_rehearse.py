"""`tokenhub rehearse`: the report for people, and what is refused before anything is asked."""

from __future__ import annotations

import io
import os
from pathlib import Path

import msgspec
import orjson
import pytest
from rich.console import Console

from tests.cli.running import Running, Shell
from tests.routing.test_rehearsal import explored, rehearsed
from tokenhub_core.cli.rehearse import rehearse
from tokenhub_core.cli.rehearse import rehearsed as for_people
from tokenhub_core.routing.rehearsal import sentences
from tokenhub_core.routing.replay import Wish
from tokenhub_core.types import Alias, Json, Target

GOLDEN = Path(__file__).parents[1] / "golden" / "rehearsal"


@pytest.fixture
def run(served: Running) -> Shell:
    served.do(served.it.provider(served.fake, "p", "cheap", "dear"))
    served.admin("PATCH", "/models/dear", {"input_per_1k": 0.1, "output_per_1k": 0.1, "weight": 9})
    return Shell(rehearse, served.it.data / "data")


def report(wish: Wish, count: int) -> Json:
    """Return what the API would tell of an experiment."""
    told = rehearsed(explored(count), wish)
    return {
        "since": 1_790_000_000.0,
        "until": 1_790_604_800.0,
        "host": "",
        "program": "",
        "facts": "today",
        "policy": {"mode": "cheap", "max_budget_usd": None},
        "explore": "off",
        "complete": True,
        **msgspec.to_builtins(told),
        "said": sentences(told),
    }


@pytest.mark.parametrize(
    ("name", "wish", "count"),
    [
        ("experiment", Wish(aliases=(Alias("fast", (Target("dear", 1),)),)), 600),
        ("no-overlap", Wish({"max_budget_usd": 0.01}, model="middle"), 120),
    ],
)
def test_the_report_reads_as_it_always_did(name: str, wish: Wish, count: int) -> None:
    """Figures, intervals, sentences and tables, in eighty columns; `UPDATE_GOLDEN=1` writes it anew."""
    console = Console(width=80, record=True, highlight=False, emoji=False, file=io.StringIO())
    console.print(for_people(report(wish, count)))
    said = "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(said)
    assert said == path.read_text()


def test_logged_calls_are_decided_again(run: Shell, served: Running) -> None:
    """The keys are those of directives; JSON is the API's own report."""
    for _ in range(3):
        served.call("*")
    told = run.json(
        "--policy", "budget=0.001", "--policy", "min_weight=0", "--mode", "cheap", "--since", "1h"
    )
    assert (told["calls"], told["policy"]) == (3, {"mode": "cheap", "max_budget_usd": 0.001, "min_weight": 0})
    assert told["facts"] == "today"
    assert run.json("--as-logged", "--policy", "model=*")["facts"] == "as logged"
    said = run("--alias", "fast=cheap=3,dear=1", "--explore", "off", "--policy", "model=fast")
    assert "3 calls" in said
    assert "25.0" in said


def test_a_policy_can_stand_in_a_file(run: Shell, tmp_path: Path) -> None:
    """With the keys of directives or the fields of the API."""
    path = tmp_path / "policy.json"
    path.write_bytes(orjson.dumps({"mode": "cheap", "budget": 0.5, "max_latency_ms": 900}))
    told = run.json("--policy", str(path))
    assert told["policy"] == {"mode": "cheap", "max_budget_usd": 0.5, "max_latency_ms": 900}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--policy", "budget=much"), "budget is dollars, or none"),
        (("--policy", "budget=inf"), "budget is dollars, or none"),
        (("--policy", "fallback=maybe"), "fallback is yes or no"),
        (("--policy", "colour=red"), "the keys are mode, budget"),
        (("--policy", "/nowhere/policy.json"), "No such file"),
        (("--alias", "fast"), "NAME=MODEL"),
        (("--alias", "fast=cheap=x"), "a weight is a whole number"),
        (("--since", "yesterday"), "90m, 12h, 7d"),
        (("--policy", "model=nobody"), "there is no model 'nobody'"),
        (("--policy", "min_weight=11"), "min_weight"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_in_one_line(
    run: Shell, args: tuple[str, ...], words: str
) -> None:
    """By the command where it can tell, else in the server's words."""
    assert words in run.refusal(*args)
