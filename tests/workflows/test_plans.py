"""Calls that several calls answer come to the same on the durable way: the same answer, steps, record and cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec import structs

from tests.fakes.engine import Bench, chat, message
from tests.orchestration.talking import Heard, Talking, bench
from tests.workflows.house import durably
from tests.workflows.server import Temporal
from tests.workflows.test_parity import CREATED, comparable
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.orchestration import plancall
from tokenhub_core.ports import Reply
from tokenhub_core.types import Dialect, Json, Outcome, Record
from tokenhub_core.workflows.following import Waits

SCHEMA = '{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}'
VOTE = "@@tokenhub mode=vote\nHow much is it?"
ADVERSARIAL = "@@tokenhub mode=adversarial iterations=1\nHow much is it?"
REFINE = "@@tokenhub mode=refine iterations=1\nHow much is it?"
A = Dialect.ANTHROPIC_MESSAGES


def judging(one: Heard) -> bool:
    return "Which one is best?" in one.texts[-1]


def differ(one: Heard) -> str:
    """Say something that nobody else says; as a judge, prefer the second answer."""
    return '{"best": 2}' if judging(one) else f"{one.model} says"


def numbers(one: Heard) -> str:
    """Answer what fits, but for one model."""
    return differ(one) if judging(one) else '{"m": 1}' if one.model == "a" else f'{{"n": {ord(one.model)}}}'


@dataclass(frozen=True)
class Scene:
    """One call, what its models say, and how many steps it takes."""

    name: str
    body: Mapping[str, Any]
    steps: int
    says: Callable[[Heard], str | Json | int | asyncio.Event] = differ
    dialect: Dialect = Dialect.OPENAI_CHAT
    path: str = ""
    outcome: Outcome = Outcome.OK
    wishes: Mapping[str, Any] = field(default_factory=dict)

    def bench(self) -> tuple[Bench, Talking]:
        patience = Patience(ttft=60, stall=60, whole=60)
        return bench(self.says, defaults={**self.wishes, "durable": True}, patience=patience)

    async def ask(self, one: Bench) -> tuple[Reply, bytes]:
        snapshot = one.snapshot(dict(self.body), self.dialect)
        if self.path:
            snapshot = structs.replace(snapshot, path=self.path)
        reply = await one.engine.exchange(snapshot)
        if reply.frames is None:
            return reply, reply.body
        return reply, b"".join([frame async for frame in reply.frames])


def plan(orchestration: Json, **more: Any) -> Json:
    return {
        "request": {"messages": [{"role": "user", "content": "How?"}], **more},
        "orchestration": orchestration,
    }


SCENES = (
    Scene("vote", chat(VOTE, model="a"), 4),
    Scene("vote, streamed", chat(VOTE, model="a", stream=True), 4),
    Scene("adversarial", chat(ADVERSARIAL, model="a"), 3),
    Scene("refine", chat(REFINE, model="a"), 2),
    Scene("another dialect", message(REFINE, model="a"), 2, dialect=A),
    Scene("one voter fails", chat(VOTE, model="a"), 4, lambda one: 400 if one.model == "c" else differ(one)),
    Scene("all fail", chat(VOTE, model="a"), 3, lambda one: 400, outcome=Outcome.ERROR),
    Scene("failover in a step", chat(REFINE, model="a"), 2, lambda one: 500 if one.model == "a" else "b"),
    Scene("a budget", chat(ADVERSARIAL, model="a"), 3, wishes={"max_budget_usd": 0.2}),
    Scene("a schema", chat(f"@@tokenhub mode=vote output_schema={SCHEMA}\nHow?", model="*"), 4, numbers),
    Scene(
        "shaped", chat(REFINE, model="a"), 2, lambda one: "<think>hm</think>Yes", wishes={"strip_think": True}
    ),
    Scene("/v1/plan", plan({"mode": "adversarial"}), 3, path=plancall.PATH),
    Scene(
        "/v1/plan, streamed", plan({"mode": "refine", "iterations": 1}, stream=True), 2, path=plancall.PATH
    ),
    Scene("/v1/plan, planning", plan({"mode": "planning"}), 1, path=plancall.PATH),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_a_plan_comes_to_the_same(scene: Scene, temporal: Temporal, tmp_path: Path) -> None:
    """Answer, steps, decisions, attempts and the exact sum of the costs are those of the direct way."""
    durable, talking = scene.bench()
    direct, _ = scene.bench()
    async with durably(temporal, tmp_path, durable) as house:
        reply, body = await scene.ask(durable)
        assert house.durable.fallbacks == 0
        left = await house.rows.begins(durable.prefix)
    direct.prefix = durable.prefix
    expected, expected_body = await scene.ask(direct)

    assert reply.status == expected.status
    assert sorted(CREATED.sub(b"", body).splitlines()) == sorted(CREATED.sub(b"", expected_body).splitlines())
    told = [one for one in reply.headers if one[0] != "x-tokenhub-loss" or one in expected.headers]
    assert {*expected.headers} <= {*told}
    record, same = durable.recorder.one, direct.recorder.one
    assert record.composition is not None
    assert (record.outcome, len(record.composition.steps)) == (scene.outcome, scene.steps)
    assert steady(record) == steady(same)
    assert record.cost_nanousd == talking.billed == durable.ledger.spent_nanousd
    assert durable.ledger.reserved_nanousd == 0
    assert left == []


def steady(record: Record) -> Record:
    """Return what two runs have in common: voters answer in any order, and are billed by it."""
    found = comparable(record)
    made = found.composition
    assert made is not None
    steps = tuple(
        structs.replace(one, cost_nanousd=0, plan=one.plan and structs.replace(one.plan, candidates=()))
        for one in made.steps
    )
    lines = tuple(structs.replace(one, usage=type(one.usage)(), cost_nanousd=0) for one in found.attempts)
    return structs.replace(found, composition=structs.replace(made, steps=steps), attempts=lines)


async def test_voters_that_are_not_needed_are_stopped(temporal: Temporal, tmp_path: Path) -> None:
    """Two agree: the third is ended, is no caller's leaving, and nobody is asked to judge."""
    waiting = asyncio.Event()
    one, talking = bench(
        lambda heard: waiting if heard.model == "c" else "Four.",
        defaults={"durable": True},
        patience=Patience(ttft=60, stall=60, whole=60),
    )
    async with durably(temporal, tmp_path, one) as house:
        reply, _ = await house.ask(chat(VOTE, model="a"))
        assert house.durable.fallbacks == 0

    record = one.recorder.one
    assert record.composition is not None
    assert (reply.status, record.composition.decided) == (200, "agreement")
    assert {line.model: line.cause for line in record.attempts} == {"a": "", "b": "", "c": "step_stopped"}
    assert (len(talking.heard), talking.cancelled) == (3, 1)
    assert one.ledger.reserved_nanousd == 0


async def test_who_leaves_a_plan_ends_every_step(temporal: Temporal, tmp_path: Path) -> None:
    """Both voters that are under way are cancelled upstream; the one record has them and the one that answered."""
    waiting = asyncio.Event()
    one, talking = bench(
        lambda heard: "Four." if heard.model == "a" else waiting,
        defaults={"durable": True},
        patience=Patience(ttft=60, stall=60, whole=60),
    )
    async with durably(temporal, tmp_path, one) as house:
        asking = asyncio.create_task(house.ask(chat(VOTE, model="a")))
        await waiting.wait()
        while len(talking.heard) < 3:  # noqa: ASYNC110 - the third one tells nobody
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await house.durable.close()

    record = one.recorder.one
    assert (record.outcome, talking.cancelled) == (Outcome.CANCELLED, 2)
    assert sorted(line.cause for line in record.attempts) == ["", "client_cancelled", "client_cancelled"]
    assert record.cost_nanousd == sum(line.cost_nanousd for line in record.attempts)


async def test_a_plan_that_no_worker_begins_is_made_directly_and_once(
    temporal: Temporal, tmp_path: Path
) -> None:
    """It is claimed before it is made here; the worker that comes at last finds nothing to do."""
    one, talking = bench(differ, defaults={"durable": True})
    waits = Waits(start=30, begin=0.2, look=0.05)
    async with durably(temporal, tmp_path, one, worker=False, waits=waits) as house:
        reply, _ = await house.ask(chat(REFINE, model="a"))
        assert (reply.status, house.durable.fallbacks) == (200, 1)
        client = house.durable.client
        assert client is not None
        async with house.durable.worker(client):
            await house.durable.close()

    assert (len(talking.heard), len(one.recorder.records)) == (2, 1)


async def test_a_plan_whose_workflow_somebody_ended_is_told_so(temporal: Temporal, tmp_path: Path) -> None:
    """Its steps are cancelled; what they cost is in the record that is made at the front door."""
    waiting = asyncio.Event()
    one, _ = bench(
        lambda heard: waiting if heard.texts[-1] != "How much is it?" else "Four.",
        defaults={"durable": True},
        patience=Patience(ttft=60, stall=60, whole=60),
    )
    waits = Waits(start=30, begin=60, look=0.05)
    async with durably(temporal, tmp_path, one, waits=waits) as house:
        asking = asyncio.create_task(house.ask(chat(REFINE, model="a")))
        await waiting.wait()
        client = house.durable.client
        assert client is not None
        await client.get_workflow_handle(f"plan-{one.prefix}1").terminate()
        reply, body = await asking

    record = one.recorder.one
    assert (reply.status, record.fault) == (500, "workflow_ended"), orjson.loads(body)
    assert [line.cause for line in record.attempts] == ["", "client_cancelled"]
