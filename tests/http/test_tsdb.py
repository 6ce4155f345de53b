"""Curves and windows over the admin API: what was recorded is in them at once, and after a restart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.errors import ConfigError
from tokenhub_core.store.trends import PLACES
from tokenhub_core.telemetry.rollups import RESOLUTIONS


async def curve(it: House, query: str) -> list[float]:
    [one] = (await it.done("GET", f"/tsdb/query?{query}"))["series"]
    return [value for _, value in one["points"]]


def timeless(stats: dict[str, Any]) -> dict[str, Any]:
    """Return figures without the times at which they were asked for: those go on by ten seconds."""
    return {**stats, "as_of": 0, "global": [{**one, "since": 0} for one in stats["global"]]}


async def test_a_call_is_in_curves_and_windows_at_once_and_after_a_restart(
    tmp_path: Path, fake: FakeProvider
) -> None:
    """The same figures, to the token and the nano-dollar, and those of the log."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        for _ in range(3):
            assert (await it.chat()).status == 200
        assert (await it.chat("none")).status == 404
        before = await it.done("GET", "/stats")
        drawn = await it.done("GET", "/tsdb/query?metric=calls,cost_nanousd,latency_p95&group_by=model")
    async with house(tmp_path) as it:
        after = await it.done("GET", "/stats")
        logs = (await it.done("GET", "/logs"))["logs"]
    assert timeless(before) == timeless(after)
    assert before["complete"]
    assert [one["request_count"] for one in before["global"]] == [4] * 4
    day = before["global"][3]
    assert day["total_cost_usd"] == pytest.approx(sum(one["cost_nanousd"] for one in logs) / 1e9)
    assert day["total_tokens"] == sum(one["input_tokens"] + one["output_tokens"] for one in logs) > 0
    assert (day["error_count"], day["answered_count"], day["error_rate"]) == (1, 3, 0.25)
    assert day["p95_latency_ms"] == pytest.approx(
        sorted(one["total_ms"] for one in logs if one["status"] == 200)[1], rel=0.01
    )
    assert [(one["model"], one["request_count"]) for one in before["by_model"]["5m"]] == [
        ("gpt-4o", 3),
        ("", 1),
    ]
    assert set(before["by_mode"]) == {"1m", "5m", "1h", "24h"}
    values = {
        (one["metric"], one["value"]): sum(value for _, value in one["points"]) for one in drawn["series"]
    }
    assert (values["calls", "gpt-4o"], values["calls", ""]) == (3, 1)
    assert values["cost_nanousd", "gpt-4o"] == sum(one["cost_nanousd"] for one in logs)
    assert drawn["start"] % drawn["step"] == drawn["end"] % drawn["step"] == 0


async def test_a_dimension_chooses_calls(it: House, fake: FakeProvider) -> None:
    """By what they have there, or that they have none."""
    await it.provider(fake, "p", "gpt-4o")
    await it.chat()
    assert await curve(it, "metric=calls&step=86400&model=gpt-4o&status=2xx&cause=") == [1]
    assert await curve(it, "metric=calls&step=86400&model=") == []
    assert await curve(it, "metric=calls&step=86400&key=&provider=p") == [1]
    assert await curve(it, "metric=calls&provider=%00") == []


async def test_what_can_be_asked_for_is_listed(it: House) -> None:
    """Every metric that is listed can be asked for, with every dimension."""
    told = await it.done("GET", "/tsdb/metrics")
    assert [one["seconds"] for one in told["resolutions"]] == list(RESOLUTIONS)
    assert [one["days"] for one in told["resolutions"]] == [2, 14, 400, None]
    names = ",".join(one["name"] for one in told["metrics"])
    for dimension in told["dimensions"]:
        assert (
            await it.admin("GET", f"/tsdb/query?metric={names}&group_by={dimension}&step=60")
        ).status == 200


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "metric"),
        ("metric=,", "metric"),
        ("metric=calls,weather", "metric"),
        ("metric=calls&step=15", "step"),
        ("metric=calls&step=0", "step"),
        ("metric=calls&step=-10", "step"),
        ("metric=calls&step=x", "step"),
        ("metric=calls&start=x", "start"),
        ("metric=calls&end=-1", "end"),
        ("metric=calls&start=2000&end=1000", "end"),
        ("metric=calls&start=1000&end=2000&step=10", "step"),
        ("metric=calls&start=0&step=3600", "step"),
        ("metric=calls&group_by=weather", "group_by"),
        ("metric=calls&group_by=model&limit=51", "limit"),
        ("metric=calls&limit=0", "limit"),
    ],
)
async def test_a_question_that_makes_no_sense_is_a_400(it: House, query: str, param: str) -> None:
    """With what is wrong with it."""
    refused = await it.admin("GET", f"/tsdb/query?{query}")
    assert (refused.status, refused.fault["param"]) == (400, param)


async def test_an_answer_is_bounded(it: House) -> None:
    """In stretches of a curve, and in all its curves together."""
    now = time.time()
    assert (await it.admin("GET", f"/tsdb/query?metric=calls&start={now - 15_000}&step=10")).status == 200
    assert (await it.admin("GET", f"/tsdb/query?metric=calls&start={now - 25_000}&step=10")).status == 400
    wide = f"start={now - 15_000}&step=10&group_by=model&limit=50"
    assert (await it.admin("GET", f"/tsdb/query?metric=calls&{wide}")).status == 200
    refused = await it.admin("GET", f"/tsdb/query?metric=calls,errors&{wide}")
    assert "larger step" in refused.fault["message"]


async def test_what_is_due_can_be_deleted_now(it: House) -> None:
    """Nothing else is."""
    assert await it.done("POST", "/tsdb/prune") == {"deleted": 0}


@pytest.mark.parametrize("days", [{"SERIES_1M_DAYS": "3", "SERIES_1H_DAYS": "2"}, {"SERIES_1D_DAYS": "30"}])
async def test_a_retention_that_makes_no_sense_does_not_start(tmp_path: Path, days: dict[str, Any]) -> None:
    """One line says what must be."""
    with pytest.raises(ConfigError, match="coarser"):
        async with house(tmp_path, settings=days):
            pass


async def test_what_flows_is_every_call_once_between_any_two_columns(it: House, fake: FakeProvider) -> None:
    """By who asked, for which host, who served, which model: calls, tokens and cost are those of the log."""
    await it.provider(fake, "p", "gpt-4o", "gpt-4o-mini")
    for model, program in (("gpt-4o", "a"), ("gpt-4o", "b"), ("gpt-4o-mini", "b"), ("none", "b")):
        await it.chat(model, {"user-agent": f"{program}/1"})
    logs = (await it.done("GET", "/logs"))["logs"]
    told = await it.done("GET", "/tsdb/flow?window=5m")
    assert (told["calls"], told["complete"], told["until"] - told["since"] >= 300) == (4, True, True)
    assert told["places"] == [2, 1, 2, 3]
    flowed = {(one["column"], one["source"], one["target"]): one["calls"] for one in told["streams"]}
    assert flowed == {
        (0, "a/1", ""): 1,
        (0, "b/1", ""): 3,
        (1, "", "p"): 3,
        (1, "", ""): 1,
        (2, "p", "gpt-4o"): 2,
        (2, "p", "gpt-4o-mini"): 1,
        (2, "", "model_not_found"): 1,
    }
    for column in range(3):
        through = [one for one in told["streams"] if one["column"] == column]
        assert sum(one["cost_nanousd"] for one in through) == sum(one["cost_nanousd"] for one in logs) > 0
        tokens = sum(one["input_tokens"] + one["output_tokens"] for one in logs)
        assert sum(one["tokens"] for one in through) == tokens > 0
        assert sum(one["errors"] for one in through) == 1
    (lost,) = [one for one in told["streams"] if one["target"] == "model_not_found"]
    assert lost["p50_latency_ms"] is None
    assert all(one["p50_latency_ms"] > 0 for one in told["streams"] if one["source"] == "p")


async def test_of_many_places_those_with_the_most_calls_are_told_apart(it: House) -> None:
    """The rest flow as one, and are counted; nothing is left out."""
    for number in range(PLACES + 3):
        await it.chat("none", {"user-agent": f"program-{number}/1"})
    await it.chat("none", {"user-agent": "often/1"})
    await it.chat("none", {"user-agent": "often/1"})
    told = await it.done("GET", "/tsdb/flow")
    first = [one for one in told["streams"] if one["column"] == 0]
    assert (told["places"][0], len(first)) == (PLACES + 4, PLACES + 1)
    counts = {one["source"]: one["calls"] for one in first}
    assert (counts[None], counts["often/1"]) == (4, 2)
    assert sum(one["calls"] for one in first) == told["calls"] == PLACES + 5
    refused = await it.admin("GET", "/tsdb/flow?window=1y")
    assert (refused.status, refused.fault["param"]) == (400, "window")
