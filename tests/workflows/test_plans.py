"""Calls that several calls answer come to the same on the durable way: the same answer, steps, record and cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    """Return what two runs have in common: what was learned meanwhile weighs in the candidates."""
    found = comparable(record)
    made = found.composition
    assert made is not None
    steps = tuple(
        structs.replace(one, plan=one.plan and structs.replace(one.plan, candidates=())) for one in made.steps
    )
    return structs.replace(found, composition=structs.replace(made, steps=steps))
