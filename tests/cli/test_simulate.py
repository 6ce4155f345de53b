"""`tokenhub simulate` against a TokenHub that is serving."""

from __future__ import annotations

import pytest

from tests.cli.running import Running, Shell
from tokenhub_core.cli.simulate import simulate


@pytest.fixture
def run(served: Running) -> Shell:
    served.do(served.it.provider(served.fake, "p", "cheap", "dear"))
    served.admin("PATCH", "/models/dear", {"input_per_1k": 0.1, "output_per_1k": 0.1, "weight": 9})
    return Shell(simulate, served.it.data / "data")


def test_the_flags_are_those_of_a_call(run: Shell) -> None:
    """Mode, model, tokens, needs, limits and dialect decide as in a call."""
    assert [one["model"] for one in run.json("--mode", "cheap")["candidates"]] == ["cheap", "dear"]
    assert run.json("--model", "dear")["decision"]["model_id"] == "dear"
    told = run.json(
        *("--tokens", "1000", "--max-output", "10", "--needs", "vision, tools", "--provider", "p"),
        *(
            "--budget",
            "0.01",
            "--latency",
            "5000",
            "--min-weight",
            "2",
            "--dialect",
            "gemini",
            "--no-fallback",
        ),
        *("--stream", "--seed", "s"),
    )
    assert (told["input_tokens"], told["asked"]["max_output_tokens"], told["seed"]) == (1000, 10, "s")
    assert (told["asked"]["needs"], told["asked"]["stream"]) == (["chat", "tools", "vision"], True)
    wished = {name for name, source in told["policy"]["why"].items() if source == "request"}
    assert wished == {"provider", "max_budget_usd", "max_latency_ms", "min_weight", "fallback"}
    assert told["dialect"] == "gemini"
    assert [one["reason"] for one in told["exclusions"]] == ["budget_exceeded"]


def test_people_get_tables(run: Shell) -> None:
    """Candidates, who is left out, and who would be asked; a refusal is no failure of the command."""
    told = run("--mode", "cheap", "--min-weight", "6")
    assert "dear @ p would be asked first (routed-weight-9)" in told
    assert "weight_below_minimum" in told
    assert "cheap @ p" in told
    assert "refused with 402 budget_exceeded" in run("--budget", "0")
    assert "refused with 404 model_not_found" in run("--model", "nobody")


def test_a_need_that_there_is_not_is_refused(run: Shell) -> None:
    """By its name, before anybody is asked."""
    assert "not wings" in run.refusal("--needs", "tools,wings")


def test_nothing_is_changed(run: Shell, served: Running) -> None:
    """No call is made and no record is written."""
    before = (served.admin("GET", "/health"), served.admin("GET", "/logs"), len(served.fake.requests))
    run("--mode", "cheap")
    assert (served.admin("GET", "/health"), served.admin("GET", "/logs"), len(served.fake.requests)) == before
