"""A call comes to the same on the durable way as on the direct one: the same answer, the same one record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.fakes.engine import PAIR, Bench, chat, message
from tests.workflows.house import durably
from tests.workflows.server import Temporal
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.preparing import Rules
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import ANY, ApiKey, Caller, Dialect, Model, Outcome, Record, Timings

A = Dialect.ANTHROPIC_MESSAGES
CREATED = re.compile(rb'"created":[0-9]+')
KEY = ApiKey("key_1", "team", models=(ANY,), providers=(ANY,), project="blue")
QUICK = Patience(ttft=0.2, stall=0.2, whole=0.2)


def failing(*faults: str, anthropic: Sequence[str] = ()) -> Mapping[str, Profile]:
    """Let the first model's calls fail in turn, and the second one's."""
    found = {"gpt-4o": Profile(faults=faults)} if faults else {}
    return found | ({"claude-sonnet-4-5": Profile(faults=tuple(anthropic))} if anthropic else {})


@dataclass(frozen=True)
class Scene:
    """One call, and the engine that it is made with."""

    name: str
    body: Mapping[str, Any] = field(default_factory=chat)
    dialect: Dialect = Dialect.OPENAI_CHAT
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    models: Sequence[Model] = PAIR
    patience: Patience = Patience(ttft=2, stall=2, whole=5)
    rules: Callable[[], Rules] = Rules
    caller: Caller = Caller(peer="127.0.0.1")
    outcome: Outcome = Outcome.OK
    attempts: int = 1

    def bench(self) -> Bench:
        return Bench(
            profiles=self.profiles,
            models=self.models,
            patience=self.patience,
            rules=self.rules(),
            defaults={"durable": True},
        )


SCENES = (
    Scene("plain"),
    Scene("plain stream", chat(stream=True)),
    Scene("another dialect", chat(model="claude-sonnet-4-5", seed=7)),
    Scene("another dialect's stream", chat(model="claude-sonnet-4-5", seed=7, stream=True)),
    Scene("messages", message(model="gpt-4o"), A),
    Scene("messages, streamed", message(model="gpt-4o", stream=True), A),
    Scene("a key's call", caller=Caller(peer="10.0.0.9", key=KEY)),
    Scene("a directive", chat("@@tokenhub mode=cheap tags=nightly\nHello")),
    Scene(
        "a directive that is malformed",
        chat("@@tokenhub mode=nope\nHello"),
        outcome=Outcome.ERROR,
        attempts=0,
    ),
    Scene("failover", profiles=failing("500"), attempts=2),
    Scene("failover of a stream", chat(stream=True), profiles=failing("lifecycle-error:503"), attempts=2),
    Scene("failover after a timeout", profiles=failing("hang"), patience=QUICK, attempts=2),
    Scene("failover from a rate limit", profiles=failing("429:7"), attempts=2),
    Scene("a retry", profiles=failing("500", "ok", anthropic=["500", "500"]), attempts=3),
    Scene(
        "everybody fails",
        profiles=failing("500", anthropic=["500"]),
        outcome=Outcome.ERROR,
        attempts=5,
    ),
    Scene("what the caller got wrong", profiles=failing("400"), outcome=Outcome.ERROR),
    Scene("a bad answer", profiles=failing("bad-json"), attempts=2),
    Scene(
        "a stream that breaks",
        chat(stream=True),
        profiles=failing("truncate"),
        patience=QUICK,
        outcome=Outcome.ERROR,
    ),
    Scene(
        "a stream that ends in an error",
        message(stream=True),
        A,
        profiles=failing(anthropic=["content-error:500"]),
        patience=QUICK,
        outcome=Outcome.ERROR,
    ),
    Scene(
        "no attempt is left",
        profiles=failing("500"),
        rules=lambda: Rules(max_attempts=1),
        outcome=Outcome.ERROR,
    ),
)


def comparable(record: Record) -> Record:
    """Return the record without what is another one in every run: moments, and how long things took."""
    attempts = tuple(
        structs.replace(
            one,
            started_ms=0.0,
            ended_ms=0.0,
            first_byte_ms=one.first_byte_ms and 0.0,
            head_ms=None,
            silence_ms=None,
        )
        for one in record.attempts
    )
    timings = Timings(ttft_ms=None if record.timings.ttft_ms is None else 0.0)
    return structs.replace(record, at=0.0, timings=timings, attempts=attempts)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_the_durable_way_comes_to_the_same(scene: Scene, temporal: Temporal, tmp_path: Path) -> None:
    """Every scene gives the same answer and the same record, and costs the same, on either way."""
    bench, direct = scene.bench(), scene.bench()
    async with durably(temporal, tmp_path, bench) as house:
        reply, body = await bench.ask(dict(scene.body), scene.dialect, caller=scene.caller)
        assert house.durable.fallbacks == 0
    direct.prefix = bench.prefix
    expected, expected_body = await direct.ask(dict(scene.body), scene.dialect, caller=scene.caller)

    assert reply.status == expected.status
    assert CREATED.sub(b"", body) == CREATED.sub(b"", expected_body)
    # Where a stream is here as a whole, its head can tell what was lost in it.
    assert [one for one in reply.headers if one[0] != "x-tokenhub-loss" or one in expected.headers] == [
        *expected.headers
    ]
    record = bench.recorder.one
    assert (record.outcome, len(record.attempts)) == (scene.outcome, scene.attempts)
    assert comparable(record) == comparable(direct.recorder.one)
    assert bench.ledger.spent_nanousd == direct.ledger.spent_nanousd
    assert bench.ledger.reserved_nanousd == 0


@pytest.mark.parametrize(("limit", "status"), [(2_000_000, 402), (20_000_000, 200)])
async def test_a_budget_holds_on_either_way(
    limit: int, status: int, temporal: Temporal, tmp_path: Path
) -> None:
    """A hard budget of the key refuses the same attempt, with the same words, and is charged the same."""
    body, caller = chat(max_tokens=500), Caller(peer="10.0.0.9", key=KEY)
    budget = Budget("b", "key:key_1", Period.TOTAL, Unit.USD, limit)
    bench, direct = Bench(defaults={"durable": True}), Bench(defaults={"durable": True})
    for one in (bench, direct):
        one.ledger.install(budget, UTC, at=0)
    async with durably(temporal, tmp_path, bench):
        reply, told = await bench.ask(body, caller=caller)
    direct.prefix = bench.prefix
    expected, expected_told = await direct.ask(body, caller=caller)

    assert reply.status == expected.status == status
    assert CREATED.sub(b"", told) == CREATED.sub(b"", expected_told)
    assert comparable(bench.recorder.one) == comparable(direct.recorder.one)
    assert bench.ledger.standings(1) == direct.ledger.standings(1)
