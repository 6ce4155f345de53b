"""Aliases in whole exchanges: which model answers, who it stays with, and what is told of it."""

from __future__ import annotations

import pytest
from msgspec import structs
from openai.types.chat import ChatCompletion

from tests.fakes.engine import Bench, chat, message
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import (
    ANY,
    Alias,
    ApiKey,
    Caller,
    Dialect,
    Json,
    Origin,
    Snapshot,
    Sticky,
    Strategy,
    Target,
    header,
)

BOTH = (Target("gpt-4o"), Target("claude-sonnet-4-5"))
A = Dialect.ANTHROPIC_MESSAGES


async def served(bench: Bench, body: Json, dialect: Dialect = Dialect.OPENAI_CHAT) -> str:
    reply, _ = await bench.ask(body, dialect)
    assert reply.status == 200
    return header(reply.headers, "x-tokenhub-model")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_alias_is_answered_by_its_target(stream: bool) -> None:
    """The reply names the alias, its body the model that answered; the record keeps what was asked for."""
    bench = Bench(aliases=[Alias("fast", (Target("gpt-4o"),))])
    reply, body = await bench.ask(chat(model="fast", stream=stream))
    told = {name: header(reply.headers, f"x-tokenhub-{name}") for name in ("alias", "model", "reason")}
    assert told == {"alias": "fast", "model": "gpt-4o", "reason": "routed-hint-exact"}
    if not stream:
        assert ChatCompletion.model_validate_json(body).model == "gpt-4o"
    record = bench.recorder.one
    assert (record.requested_model, record.alias, record.variant, record.model) == (
        "fast",
        "fast",
        "gpt-4o",
        "gpt-4o",
    )
    assert record.plan is not None
    assert record.plan.policy.why["model"] == "request, alias fast"


async def test_an_alias_in_a_directive_is_one_too() -> None:
    """Whatever model the program's own configuration names."""
    bench = Bench(aliases=[Alias("other", (Target("claude-sonnet-4-5"),))])
    assert await served(bench, chat("@@tokenhub model=other\nHello")) == "claude-sonnet-4-5"
    assert bench.recorder.one.alias == "other"


async def test_turns_are_taken_by_calls() -> None:
    """One after the other, in either dialect."""
    bench = Bench(aliases=[Alias("x", BOTH, Strategy.ROUND_ROBIN)])
    models = [await served(bench, chat(model="x")) for _ in range(3)]
    models.append(await served(bench, message(model="x"), A))
    assert models == ["gpt-4o", "claude-sonnet-4-5"] * 2


async def test_a_conversation_stays_where_it_began() -> None:
    """Over its turns, with directives in them or without; others go elsewhere."""
    bench = Bench(aliases=[Alias("x", BOTH, sticky=Sticky.CONVERSATION)])
    seen = set()
    for n in range(12):
        first = {"role": "user", "content": f"@@tokenhub tags=a\nStory {n}"}
        turn = [{"role": "assistant", "content": "Once"}, {"role": "user", "content": "More"}]
        models = {
            await served(bench, {"model": "x", "messages": messages})
            for messages in (
                [first],
                [first, *turn],
                [{"role": "system", "content": "s"}, first, *turn, *turn],
            )
        }
        assert len(models) == 1
        seen |= models
    assert seen == {"gpt-4o", "claude-sonnet-4-5"}


async def test_a_caller_stays_with_one_model() -> None:
    """By its key, else by the name it gave the proxy, else by its address."""
    bench = Bench(aliases=[Alias("x", BOTH, sticky=Sticky.KEY)])
    seen = set()
    for n in range(12):
        caller = Caller(peer=f"10.0.0.{n}", proxy_user="")
        models = set()
        for _ in range(3):
            reply = await bench.engine.exchange(_with(bench, caller))
            models.add(header(reply.headers, "x-tokenhub-model"))
        assert len(models) == 1
        named = [_with(bench, Caller(peer=f"10.0.0.{m}", proxy_user=f"user {n}")) for m in range(3)]
        assert (
            len({header((await bench.engine.exchange(one)).headers, "x-tokenhub-model") for one in named})
            == 1
        )
        key = ApiKey(f"k{n}", models=(ANY,), providers=(ANY,))
        keyed = [_with(bench, Caller(peer=f"10.0.0.{m}", key=key)) for m in range(3)]
        models = {header((await bench.engine.exchange(one)).headers, "x-tokenhub-model") for one in keyed}
        assert len(models) == 1
        seen |= models
    assert seen == {"gpt-4o", "claude-sonnet-4-5"}


async def test_a_target_that_fails_is_stood_in_for() -> None:
    """As if it had been named; the record still says which variant it was."""
    bench = Bench(aliases=[Alias("x", (Target("gpt-4o"),))], profiles={"gpt-4o": Profile(faults=("500",))})
    assert await served(bench, chat(model="x")) == "claude-sonnet-4-5"
    record = bench.recorder.one
    assert (record.alias, record.variant, record.reason) == ("x", "gpt-4o", "failover")


async def test_a_pool_is_a_hard_limit() -> None:
    """Nothing outside it stands in, however it fails; within it the scores decide."""
    pool = Alias("smart", (Target("claude-*"),), Strategy.POOL)
    bench = Bench(aliases=[pool])
    assert await served(bench, chat(model="smart")) == "claude-sonnet-4-5"
    assert bench.recorder.one.variant == ""
    down = Bench(aliases=[pool], profiles={"claude-sonnet-4-5": Profile(faults=("500",) * 9)})
    reply, _ = await down.ask(chat(model="smart"))
    assert reply.status >= 500
    assert {attempt.model for attempt in down.recorder.one.attempts} == {"claude-sonnet-4-5"}


@pytest.mark.parametrize("asked", ["", "*", "auto", "tokenhub/auto"])
async def test_the_star_is_for_those_who_leave_the_choice(asked: str) -> None:
    """By any of the names that say so, and by a directive that frees a named model; a name alone is kept."""
    bench = Bench(aliases=[Alias("*", (Target("gpt-*"),), Strategy.POOL)])
    assert await served(bench, chat(model=asked)) == "gpt-4o"
    freed = chat("@@tokenhub mode=high_confidence\nHello", model="claude-sonnet-4-5")
    assert await served(bench, freed) == "gpt-4o"
    assert await served(bench, chat(model="claude-sonnet-4-5")) == "claude-sonnet-4-5"


async def test_the_origin_is_asked_for_the_model_that_is_meant() -> None:
    """It never hears the alias; a pool does not go there at all."""
    aliases = [Alias("gpt-9", (Target("gpt-4o"),)), Alias("any", (Target("*"),), Strategy.POOL)]
    bench = Bench(aliases=aliases)
    origin = Origin("https", "api.openai.com", 443)
    for name in ("gpt-9", "any"):
        await bench.ask(chat(model=name), origin=origin)
    plans = [record.plan for record in bench.recorder.records]
    there = [
        [one.model.id for one in plan.candidates if one.provider.id.startswith("origin:")]
        for plan in plans
        if plan
    ]
    assert there == [["gpt-4o"], []]


async def test_an_alias_without_a_target_is_told_as_such() -> None:
    """In the caller's dialect, recorded, and not as an unknown model."""
    bench = Bench(aliases=[Alias("x", (Target("gone"),))])
    reply, body = await bench.ask(message(model="x"), A)
    assert reply.status == 503
    assert b"gone is not registered" in body
    record = bench.recorder.one
    assert (record.fault, record.requested_model, record.alias) == ("alias_empty", "x", "")


def _with(bench: Bench, caller: Caller) -> Snapshot:
    return structs.replace(bench.snapshot(chat(model="x")), caller=caller)
