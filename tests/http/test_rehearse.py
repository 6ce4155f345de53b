"""Rehearsal over the admin API: real calls, a real log, and another policy."""

from __future__ import annotations

import asyncio

import orjson
import pytest
import pytest_asyncio

from tests.fakes.house import House
from tests.fakes.provider import FakeProvider
from tokenhub_core.http.rehearse import LINES
from tokenhub_core.types import Json

CALLS = 130


@pytest_asyncio.fixture
async def experiment(it: House, fake: FakeProvider) -> House:
    """Two models behind one name, half each: the one fails every other time, the other is dear."""
    await it.provider(fake, "p", "shaky")
    await it.provider(fake, "q", "dear")
    await it.done("PATCH", "/models/dear", {"input_per_1k": 1.0, "output_per_1k": 1.0})
    variants = [{"model_id": "shaky", "weight": 1}, {"model_id": "dear", "weight": 1}]
    await it.done("POST", "/aliases", {"name": "fast", "variants": variants})
    return it


async def calls(it: House, count: int, model: str = "fast") -> None:
    for _ in range(count):
        assert (await it.chat(model)).status == 200


async def test_a_week_of_calls_is_decided_again(experiment: House) -> None:
    """Counts are exact, the estimates are made of what came of the calls, and nothing is called or recorded."""
    await calls(experiment, CALLS)
    before = (await experiment.done("GET", "/logs?limit=1"))["logs"]
    only = [{"name": "fast", "variants": [{"model_id": "dear"}]}]
    told = await experiment.done("POST", "/rehearse", {"aliases": only})
    assert (told["calls"], told["unreadable"], told["observed"], told["complete"]) == (CALLS, 0, CALLS, True)
    mix = {one["model"]: one["rehearsed"] for one in told["mix"]}
    assert mix == {"dear": CALLS, "shaky": 0}
    shares = {one["model"]: one["logged"] for one in told["mix"]}
    assert sum(shares.values()) == CALLS
    assert told["differently"] == shares["shaky"]
    assert told["support"]["overlap"] == 1.0
    assert told["support"]["effective"] == pytest.approx(shares["dear"])
    if told["refusal"] == "":
        cost = told["estimates"]["cost_usd"]
        assert cost["snips"]["value"] == pytest.approx(told["cost_usd"]["rehearsed"], rel=2)
        assert cost["dr"]["value"] > cost["logged"]["value"]
    assert (await experiment.done("GET", "/logs?limit=1"))["logs"] == before
    assert (await experiment.done("GET", "/aliases/fast"))["variants"][0]["weight"] == 1


async def test_the_facts_of_then_and_those_of_today(experiment: House) -> None:
    """A price that has changed since counts today, and not in a rehearsal as logged."""
    await calls(experiment, 3, "*")
    await experiment.done("PATCH", "/models/dear", {"input_per_1k": 0.0, "output_per_1k": 0.0, "weight": 9})
    wish = {"policy": {"mode": "cheap"}}
    today = await experiment.done("POST", "/rehearse", wish)
    then = await experiment.done("POST", "/rehearse", {**wish, "as_logged": True})
    assert {one["model"]: one["rehearsed"] for one in today["mix"]} == {"shaky": 0, "dear": 3}
    assert {one["model"]: one["rehearsed"] for one in then["mix"]} == {"shaky": 3, "dear": 0}
    assert (today["facts"], then["facts"]) == ("today", "as logged")


async def test_exploring_makes_a_log_that_can_speak_of_others(experiment: House) -> None:
    """Propensities come from the recorded draws; without exploring there is no overlap and no number."""
    await calls(experiment, 5, "shaky")
    told = await experiment.done("POST", "/rehearse", {"policy": {"model": "dear"}})
    assert (told["support"]["overlap"], told["estimates"]) == (0.0, {})
    assert any("cannot be said" in line for line in told["said"])
    await experiment.done("PUT", "/routing-config", {"explore": "thompson"})
    await calls(experiment, 5, "*")
    told = await experiment.done("POST", "/rehearse", {"policy": {"model": "dear"}})
    assert told["support"]["overlap"] == pytest.approx(0.5, abs=0.01)
    assert told["changed_overlap"] < 1


async def test_filters_choose_the_calls(experiment: House) -> None:
    """By time, and by who made them."""
    await calls(experiment, 2)
    await experiment.chat("fast", headers={"user-agent": "robot/1.0"})
    robot = (await experiment.done("GET", "/logs?limit=1"))["logs"][0]["program"]
    assert robot.startswith("robot")
    assert (await experiment.done("POST", "/rehearse", {"program": robot}))["calls"] == 1
    assert (await experiment.done("POST", "/rehearse", {"host": "api.openai.com"}))["calls"] == 0
    assert (await experiment.done("POST", "/rehearse", {"since": 0, "until": 1000}))["calls"] == 0
    assert (await experiment.done("POST", "/rehearse", {}))["calls"] == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"policy": {"mode": "best"}}, "best"),
        ({"policy": {"max_budget_usd": -1}}, "max_budget_usd"),
        ({"policy": {"weight": 1}}, "weight"),
        ({"policy": {"model": "nobody"}}, "there is no model 'nobody'"),
        ({"policy": {"provider": "nobody"}}, "there is no provider 'nobody'"),
        ({"since": 5, "until": 5}, "since must be before until"),
        ({"since": -1}, "since"),
        ({"clip": 0.5}, "clip"),
        ({"explore": "wild"}, "wild"),
        ({"explore": "thompson", "as_logged": True}, "today's facts"),
        ({"aliases": [{"name": "x", "variants": [{"model_id": "nobody"}]}]}, "there is no model 'nobody'"),
        (
            {"aliases": [{"name": "x", "variants": [{"model_id": "dear"}]}], "as_logged": True},
            "today's facts",
        ),
    ],
)
async def test_what_cannot_be_rehearsed_is_refused(experiment: House, body: Json, words: str) -> None:
    """With what is wrong, before a call is read."""
    told = await experiment.admin("POST", "/rehearse", body)
    assert told.status == 400
    assert words in told.fault["message"]


async def test_who_wants_lines_is_told_how_far_it_is(experiment: House) -> None:
    """Lines of progress, and the report as the last one."""
    await calls(experiment, 3)
    headers = {**experiment.bearer, "accept": LINES}
    told = await experiment.ask("POST", "/admin/v1/rehearse", {}, headers)
    *progress, last = [orjson.loads(line) for line in told.body.splitlines()]
    assert all(set(line) == {"done", "total"} for line in progress)
    assert last["report"]["calls"] == 3


async def test_rehearsals_wait_for_each_other(experiment: House) -> None:
    """One at a time; both come to their end."""
    await calls(experiment, 3)
    both = [
        experiment.done("POST", "/rehearse", {}),
        experiment.done("POST", "/rehearse", {"as_logged": True}),
    ]
    assert [told["calls"] for told in await asyncio.gather(*both)] == [3, 3]


async def test_a_rehearsal_needs_the_token(it: House) -> None:
    """It shows what programs asked for."""
    assert (await it.ask("POST", "/admin/v1/rehearse", {})).status == 401
