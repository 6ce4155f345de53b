"""Resumed streams: what breaks behind its first word is gone on with by a model that goes on from there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import orjson
import pytest

from tests.fakes.engine import Bench, chat, message
from tests.fakes.provider import FakeProvider
from tests.faults.world import Got
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.types import Dialect, Json, Model, Outcome, Prices, Provider, ProviderType, Usage

ON: Final = {"resume": True}
PATIENT: Final = Patience(ttft=20, stall=20, whole=20)
BREAKS: Final = ("truncate", "reset", "no-terminal", "content-error")
SPEAKERS: Final = {
    ProviderType.ANTHROPIC: "prefill",
    ProviderType.GEMINI: "prefill",
    ProviderType.OPENAI_COMPATIBLE: "prefill_prefix",
}
"""Who goes on, and what has to be done for that."""
ASKED: Final = "tell me more " * 20
M: Final = "m"


@asynccontextmanager
async def scene(
    *faults: str,
    types: tuple[ProviderType, ...] = (),
    quirks: tuple[str, ...] | None = None,
    room: int = 128_000,
    **how: Any,
) -> AsyncIterator[tuple[Bench, list[FakeProvider]]]:
    """An engine on real sockets, and a provider for each fault, by the order of the plan; `ok` is none."""
    kinds = types or (ProviderType.OPENAI_COMPATIBLE,) * len(faults)
    fakes = [FakeProvider() for _ in faults]
    for fake, fault in zip(fakes, faults, strict=True):
        fake.script("*", [fault])
    names = "pqr"[: len(fakes)]
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(HttpTransport())
        for fake in fakes:
            await stack.enter_async_context(fake)
        bench = Bench(
            models=[
                Model(
                    M,
                    name,
                    prices=Prices(1000 * (place + 1), 2000 * (place + 1)),
                    max_context_tokens=room,
                    quirks=frozenset(quirks if quirks is not None else (SPEAKERS[kind],)),
                )
                for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
            ],
            providers=[
                Provider(name, kind, (fake.url,), _SPOKEN[kind])
                for name, kind, fake in zip(names, kinds, fakes, strict=True)
            ],
            transport=transport,
            **{"defaults": ON, "patience": PATIENT, **how},
        )
        yield bench, fakes
        await bench.executor.close()


_SPOKEN: Final = {
    ProviderType.ANTHROPIC: Dialect.ANTHROPIC_MESSAGES,
    ProviderType.GEMINI: Dialect.GEMINI,
    ProviderType.OPENAI_COMPATIBLE: Dialect.OPENAI_CHAT,
}


def call(**more: Any) -> Json:
    return chat(ASKED, model=M, stream=True, **more)


async def whole(text: str = ASKED) -> str:
    """Return the words of the answer that nothing breaks."""
    async with scene("ok") as (bench, _):
        _, body = await bench.ask(chat(text, model=M, stream=True))
    return words(body)


def words(body: bytes, dialect: str = "openai") -> str:
    return got(body, dialect).words


def got(body: bytes, dialect: str = "openai") -> Got:
    return Got(dialect, True, 200, (("content-type", "text/event-stream"),), body, 0.0)


@pytest.mark.parametrize("fault", BREAKS)
async def test_a_stream_that_breaks_is_gone_on_with_where_it_broke(fault: str) -> None:
    """The caller reads one answer with one beginning and one end, each word once; both attempts are on record."""
    expected = await whole()
    async with scene(fault, "ok") as (bench, fakes):
        _, body = await bench.ask(call())

    got(body).whole(expected)
    assert body.count(b'"role":"assistant"') == 1, "two beginnings"
    assert (
        len({orjson.loads(line[6:])["id"] for line in body.splitlines() if line.startswith(b"data: {")}) == 1
    )
    record = bench.recorder.one
    assert (record.outcome, record.provider, record.identical) == (Outcome.OK, "q", False)
    first, second = record.attempts
    assert (first.cause != "", second.cause, second.change) == (True, "", "resumed")
    assert (first.n, second.n) == (1, 2)
    assert [len(fake.requests) for fake in fakes] == [1, 1]
    asked, said = fakes[1].requests[0].json["messages"]
    assert (asked["content"], said["role"], said["prefix"]) == (ASKED, "assistant", True)
    assert expected.startswith(said["content"])


@pytest.mark.parametrize("first", SPEAKERS)
@pytest.mark.parametrize("second", SPEAKERS)
@pytest.mark.parametrize("asks", [Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES])
async def test_whoever_speaks_what_goes_on_with_whom(
    first: ProviderType, second: ProviderType, asks: Dialect
) -> None:
    """The beginning may have come in one dialect and the rest in another: the caller reads one answer in its own."""
    expected = await whole()
    body: Json = (
        {**message(ASKED, model=M), "max_tokens": 900} if asks is Dialect.ANTHROPIC_MESSAGES else call()
    )
    async with scene("truncate", "ok", types=(first, second)) as (bench, _):
        _, read = await bench.ask({**body, "stream": True}, asks)

    caller = got(read, "anthropic" if asks is Dialect.ANTHROPIC_MESSAGES else "openai")
    caller.whole(expected)
    if asks is Dialect.ANTHROPIC_MESSAGES:
        kinds = [event["type"] for event in caller.events]
        assert [kinds.count(kind) for kind in ("message_start", "content_block_start", "message_stop")] == [
            1,
            1,
            1,
        ]


async def test_an_answer_may_break_more_than_once() -> None:
    """Three parts, three attempts: still one answer, with the usage of all of it."""
    expected = await whole()
    async with scene("truncate", "content-error", "ok") as (bench, fakes):
        _, body = await bench.ask(call(stream_options={"include_usage": True}))

    got(body).whole(expected)
    record = bench.recorder.one
    assert [attempt.change for attempt in record.attempts] == ["", "resumed", "resumed"]
    assert [attempt.n for attempt in record.attempts] == [1, 2, 3]
    parts = [attempt.usage for attempt in record.attempts]
    assert record.usage == parts[0].plus(parts[1]).plus(parts[2])
    assert record.cost_nanousd == sum(attempt.cost_nanousd for attempt in record.attempts)
    assert record.usage_estimated, "two of them were cut off before they could count"
    (told,) = [event["usage"] for event in got(body).events if event.get("usage")]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (
        record.usage.input_tokens,
        record.usage.output_tokens,
    )
    said = [fake.requests[0].json["messages"][-1] for fake in fakes[1:]]
    assert said[1]["content"].startswith(said[0]["content"])
    assert len(said[1]["content"]) > len(said[0]["content"])


async def test_what_goes_on_is_bounded_by_what_the_caller_asked_for() -> None:
    """The cap on the whole answer holds for the rest of it, less what was said."""
    async with scene("truncate", "ok") as (bench, fakes):
        await bench.ask(call(max_tokens=100))
    said = fakes[1].requests[0].json["messages"][-1]["content"]
    left = fakes[1].requests[0].json["max_tokens"]
    assert left == 100 - -(-len(said.encode()) // 4)
    assert bench.recorder.one.outcome is Outcome.OK


async def test_blanks_at_the_seam_are_neither_lost_nor_doubled() -> None:
    """Who goes on is not shown the blank that was said last; where it says it again nobody reads it twice."""
    expected = await whole()
    async with scene("truncate", "ok", types=(ProviderType.ANTHROPIC,) * 2) as (bench, fakes):
        _, body = await bench.ask(call())
    begun = fakes[1].requests[0].json["messages"][-1]["content"]
    text = begun if isinstance(begun, str) else begun[0]["text"]
    assert text == text.rstrip(), "Anthropic refuses a last message that ends in blanks"
    assert expected[len(text)] == " ", "the scene is one of a seam with a blank"
    assert words(body) == expected


async def test_what_the_caller_has_begun_itself_stays_before_what_was_said() -> None:
    """A call that ends in the assistant's words has one such message still, with both."""
    asked = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "You asked:"}]
    body: Json = {"model": M, "max_tokens": 900, "messages": asked, "stream": True}
    async with scene("truncate", "ok", types=(ProviderType.ANTHROPIC,) * 2) as (bench, fakes):
        _, read = await bench.ask(body, Dialect.ANTHROPIC_MESSAGES)
    got(read, "anthropic").whole((await whole()).removeprefix("You asked:"))
    *_, last = fakes[1].requests[0].json["messages"]
    first, second = last["content"]
    assert (last["role"], first["text"]) == ("assistant", "You asked:")
    assert (await whole()).startswith("You asked:" + second["text"])


async def test_who_has_no_room_or_costs_too_much_is_not_asked_to_go_on() -> None:
    """The answer so far has to fit, and what the call may cost is counted with what it has cost."""
    async with scene("truncate", "ok", room=140) as (bench, fakes):
        _, body = await bench.ask(call())
        assert (got(body).said != "", fakes[1].requests) == (True, [])
    async with scene("truncate", "ok", defaults={**ON, "max_budget_usd": 0.0021}) as (bench, fakes):
        _, body = await bench.ask(call(max_tokens=900))
        assert (got(body).said != "", fakes[1].requests) == (True, [])


async def test_without_leave_a_break_is_told_and_nobody_else_is_asked() -> None:
    """As ever: an error event, and no ending."""
    async with scene("truncate", "ok", defaults={}) as (bench, fakes):
        _, body = await bench.ask(call())
    got(body).broken(await whole())
    assert fakes[1].requests == []


async def test_a_model_that_does_not_go_on_is_not_asked_to() -> None:
    """Without its quirk a model would begin a second answer in the middle of the first."""
    async with scene("truncate", "ok", quirks=()) as (bench, fakes):
        _, body = await bench.ask(call())
    assert b'"error"' in body
    assert fakes[1].requests == []
    assert bench.recorder.one.outcome is Outcome.ERROR


@pytest.mark.parametrize("kind", SPEAKERS)
async def test_a_stream_that_could_be_gone_on_with_passes_as_it_came(kind: ProviderType) -> None:
    """Whoever would go on only listens: each byte is the provider's own, with leave and without."""
    body: Json = {**message(ASKED, model=M), "stream": True}
    asks = Dialect.ANTHROPIC_MESSAGES
    if kind is not ProviderType.ANTHROPIC:
        body, asks = call(stream_options={"include_usage": True}), Dialect.OPENAI_CHAT
    read = []
    for how in ({}, ON):
        async with scene("ok", types=(kind,), defaults=how) as (bench, _):
            read.append((await bench.ask(body, asks))[1])
        assert bench.recorder.one.identical is (_SPOKEN[kind] is asks)
    assert read[0] == read[1] or _SPOKEN[kind] is not asks


async def test_the_one_that_broke_goes_on_itself_where_there_is_nobody_else() -> None:
    """Its next answer may hold."""
    expected = await whole()
    async with scene("truncate") as (bench, (fake,)):
        fake.script("*", ["truncate", "ok"])
        _, body = await bench.ask(call())
    got(body).whole(expected)
    assert len(fake.requests) == 2


async def test_a_rest_that_cannot_be_had_leaves_the_first_fault() -> None:
    """Everybody else fails before a word: the caller hears why its answer broke off, and pays for what was said."""
    async with scene("truncate", "status:500") as (bench, fakes):
        fakes[0].script("*", ["truncate", "status:500"])
        _, body = await bench.ask(call())
    got(body).broken(await whole())
    record = bench.recorder.one
    assert (record.outcome, record.fault) == (Outcome.ERROR, "truncated")
    assert [attempt.change for attempt in record.attempts][:2] == ["", "resumed"]
    assert record.usage == record.attempts[0].usage, "nothing is counted twice"
    assert len(record.attempts) <= 5


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": True},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
    ],
    ids=["logprobs", "n", "json"],
)
async def test_what_is_measured_or_held_to_a_form_is_not_gone_on_with(more: Json) -> None:
    """Token by token, several at once, or as JSON: the seam would show."""
    async with scene("truncate", "ok") as (bench, fakes):
        _, body = await bench.ask(call(**more))
    assert b'"error"' in body
    assert fakes[1].requests == []


async def test_a_tool_call_that_was_begun_is_not_gone_on_with() -> None:
    """Half of its arguments are out."""
    tools = [
        {
            "type": "function",
            "function": {
                "name": "look_up",
                "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            },
        }
    ]
    async with scene("truncate", "ok") as (bench, fakes):
        _, body = await bench.ask(chat("look_up please", model=M, stream=True, tools=tools))
    assert b'"error"' in body
    assert fakes[1].requests == []


async def test_a_caller_who_leaves_while_somebody_is_looked_for_ends_that_too() -> None:
    """Nothing goes on behind its back: the second provider is let go of, and one record says that the caller left."""
    async with scene("truncate", "hang") as (bench, fakes):
        reply = await bench.engine.exchange(bench.snapshot(call()))
        frames: Any = reply.frames

        async def read() -> None:
            async for _ in frames:
                pass

        reading = asyncio.create_task(read())
        await fakes[1].until(requests=1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await frames.aclose()
        await fakes[1].until(closed=1)
    record = bench.recorder.one
    assert record.outcome is Outcome.CANCELLED
    assert [attempt.change for attempt in record.attempts] == ["", "resumed"]
    assert bench.ledger.reserved_nanousd == 0


async def test_a_caller_hears_that_somebody_is_looked_for() -> None:
    """Signs of life come while the next model is waited for, as they do while one is silent."""
    often = Patience(ttft=20, stall=20, whole=20, tick=0.02)
    async with scene("truncate", "ok", patience=often) as (bench, fakes):
        fakes[1].profile = Profile(ttft=0.3)
        _, body = await bench.ask(call())
    assert sum(line.startswith(b":") for line in body.splitlines()) > 3
    got(body).whole(await whole())


async def test_a_prompt_may_ask_for_it_and_not_lift_it() -> None:
    """`resume=on` is leave enough; where the operator has it on, `off` is denied."""
    async with scene("truncate", "ok", defaults={}) as (bench, _):
        asked = chat("@@tokenhub resume=on\n" + ASKED, model=M, stream=True)
        assert (await bench.ask(asked))[1].endswith(b"[DONE]\n\n")
    async with scene("truncate", "ok") as (bench, _):
        reply, body = await bench.ask(chat("@@tokenhub resume=off\n" + ASKED, model=M, stream=True))
        assert body.endswith(b"[DONE]\n\n")
        assert dict(reply.headers)["x-tokenhub-directive"] == "denied; resume"


async def test_an_answer_that_always_breaks_is_gone_on_with_until_its_attempts_are_used_up() -> None:
    """The cap on attempts is the call's, whatever they are for; then the caller hears that it broke off."""
    async with scene("truncate", "truncate") as (bench, _):
        _, body = await bench.ask(call())
    assert got(body).said
    assert not got(body).ended
    assert (await whole()).startswith(words(body))
    assert [attempt.change for attempt in bench.recorder.one.attempts] == ["", *["resumed"] * 4]


def test_a_sum_of_usages_is_one_of_each_count() -> None:
    """What two parts used is added up, field by field."""
    assert Usage(1, 2, 3, 4, 5).plus(Usage(10, 20, 30, 40, 50)) == Usage(11, 22, 33, 44, 55)
