"""Limits on callers, met by whole exchanges through the real pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Final, cast

import orjson
import pytest
from msgspec import structs

from tests.fakes.engine import Bench, chat, message
from tests.patience import PATIENCE
from tests.routing.test_recompute import same, stored
from tests.test_pipeline import broken
from tokenhub_core.admission.quotas import SECOND
from tokenhub_core.admission.throttle import Stay, Throttle
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Reply
from tokenhub_core.preparing import Rules
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.types import ANY, ApiKey, Caller, Dialect, Json, KeyLimits, Outcome, header

A: Final = Dialect.ANTHROPIC_MESSAGES
ANN: Final = Caller(peer="203.0.113.9", key=ApiKey(id="ann", models=(ANY,), providers=(ANY,)))


class Scene:
    """An engine whose callers have limits, at a time that stands still."""

    def __init__(self, **limits: int) -> None:
        self.now = 1000.0
        self.throttle = Throttle(KeyLimits(**limits))
        self.bench = Bench(rules=Rules(throttle=self.throttle), now=lambda: self.now)

    @property
    def stay(self) -> Stay:
        found = self.throttle.visit(ANN, (), int(self.now * SECOND))
        assert found is not None
        return found

    @property
    def under_way(self) -> int:
        return self.stay._account.calls

    @property
    def tokens_left(self) -> int:
        left = self.stay.headers(Dialect.OPENAI_CHAT, now=int(self.now * SECOND), at=0)
        return int(header(left, "x-ratelimit-remaining-tokens"))

    async def begin(self, body: Json, dialect: Dialect = Dialect.OPENAI_CHAT) -> Reply:
        snapshot = structs.replace(self.bench.snapshot(body, dialect), caller=ANN)
        return await self.bench.engine.exchange(snapshot)

    async def ask(self, body: Json, dialect: Dialect = Dialect.OPENAI_CHAT) -> tuple[Reply, bytes]:
        reply = await self.begin(body, dialect)
        if reply.frames is None:
            return reply, reply.body
        return reply, b"".join([frame async for frame in reply.frames])


async def test_a_refused_call_is_answered_in_its_dialect_and_recorded() -> None:
    """429 with Retry-After and what is left, nothing asked of anybody, one record that says why."""
    it = Scene(requests_per_minute=1)
    await it.ask(chat())
    reply, body = await it.ask(chat())
    assert reply.status == 429
    assert orjson.loads(body)["error"]["type"] == "rate_limit_error"
    assert header(reply.headers, "retry-after") == "60"
    assert header(reply.headers, "x-ratelimit-remaining-requests") == "0"
    assert header(reply.headers, "x-should-retry") == ""
    record = it.bench.recorder.records[-1]
    assert (record.outcome, record.status, record.fault) == (Outcome.ERROR, 429, "key_requests")
    assert (record.attempts, record.plan, record.caller) == ((), None, ANN)
    other, told = await it.ask(message(), A)
    assert (other.status, orjson.loads(told)["error"]["type"]) == (429, "rate_limit_error")
    assert header(other.headers, "anthropic-ratelimit-requests-remaining") == "0"
    assert header(other.headers, "retry-after") == "60"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_what_is_left_of_our_limits(stream: bool) -> None:
    """In its dialect, of what is limited."""
    it = Scene(requests_per_minute=10)
    reply, _ = await it.ask(chat(stream=stream))
    shown = [field for field in reply.headers if field[0].startswith("x-ratelimit-")]
    assert shown == [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-ratelimit-reset-requests", "6s"),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_reserved_by_the_cap_and_corrected_by_the_usage(stream: bool) -> None:
    """While it lasts the call holds its input and its cap; after it what it really used is gone."""
    it = Scene(tokens_per_minute=100_000)
    reply = await it.begin(chat(stream=stream, max_tokens=50_000))
    if reply.frames is not None:
        assert 49_000 < it.tokens_left < 50_000
        async for _ in reply.frames:
            pass
    usage = it.bench.recorder.one.usage
    assert it.tokens_left == 100_000 - usage.input_tokens - usage.output_tokens
    assert usage.output_tokens > 0


async def test_a_call_that_could_use_more_than_there_is_waits_or_never_fits() -> None:
    """429 where it will fit later, 413 where it never will; both before anybody is asked."""
    it = Scene(tokens_per_minute=1000)
    await it.ask(chat(max_tokens=900))
    used = 1000 - it.tokens_left
    reply, _ = await it.ask(chat(max_tokens=985))
    assert (reply.status, used > 15) == (429, True)
    assert header(reply.headers, "retry-after") != ""
    never, _ = await it.ask(chat(max_tokens=1001))
    assert never.status == 413
    assert [one.fault for one in it.bench.recorder.records] == ["", "key_tokens", "key_tokens_too_many"]
    assert it.under_way == 0
    assert it.tokens_left == 1000 - used


async def test_a_failed_call_gives_back_what_it_did_not_use() -> None:
    """All attempts together count, and those that used nothing count for nothing."""
    it = Scene(tokens_per_minute=10_000, concurrency=1)
    it.bench = Bench(profiles=broken(openai="500", anthropic="529"), rules=Rules(throttle=it.throttle))
    reply, _ = await it.ask(chat(max_tokens=5000))
    assert reply.status >= 500
    assert it.under_way == 0
    assert it.tokens_left == 10_000


async def test_counting_tokens_uses_none() -> None:
    """To have them counted is free."""
    it = Scene(tokens_per_minute=5)
    reply, _ = await it.ask(message("word " * 1000), Dialect.ANTHROPIC_COUNT_TOKENS)
    assert reply.status == 200
    assert it.tokens_left == 5


# --- calls at once: a place is free after every end ---------------------------------------------------------


async def test_a_stream_holds_its_place_to_its_last_frame() -> None:
    """While it runs nobody else comes in; its last frame comes when its place is free."""
    it = Scene(concurrency=1)
    reply = await it.begin(chat(stream=True))
    assert reply.frames is not None
    assert it.under_way == 1
    refused, _ = await it.ask(chat())
    assert (refused.status, header(refused.headers, "retry-after")) == (429, "1")
    places = {frame: it.under_way async for frame in reply.frames}
    first, *_, last = places
    assert (places[first], places[last], last) == (1, 0, b"data: [DONE]\n\n")
    assert (await it.ask(chat()))[0].status == 200


async def test_a_caller_who_leaves_a_stream_frees_his_place() -> None:
    """Before its first frame and in its middle."""
    it = Scene(concurrency=1)
    for read in (0, 1):
        reply = await it.begin(chat(stream=True))
        frames = cast("AsyncGenerator[bytes]", reply.frames)
        for _ in range(read):
            await anext(frames)
        assert it.under_way == 1
        await frames.aclose()
        assert it.under_way == 0
    assert [one.outcome for one in it.bench.recorder.records] == [Outcome.CANCELLED] * 2


async def test_a_caller_who_leaves_before_the_answer_frees_his_place() -> None:
    """A task that is cancelled while the provider is silent."""
    it = Scene(concurrency=1)
    sent = asyncio.Event()
    it.bench = Bench(profiles=broken(openai="hang"), rules=Rules(throttle=it.throttle), patience=Patience())
    admit = it.bench.health.admit

    def watched(*given: Any) -> bool:
        sent.set()
        return admit(*given)

    it.bench.health.admit = watched  # type: ignore[assignment] # tells that an attempt is made
    task = asyncio.create_task(it.begin(chat()))
    async with asyncio.timeout(PATIENCE):
        await sent.wait()
    assert it.under_way == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert it.under_way == 0


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("ok", chat()),
        ("500", chat()),
        ("400", chat()),
        ("truncate", chat(stream=True)),
        ("ok", chat("@@tokenhub mode=chep")),
        ("ok", chat(model="nobody-has-it")),
        ("ok", {"messages": 7}),
    ],
)
async def test_every_end_frees_the_place(fault: str, body: Json) -> None:
    """An answer, a failure, a stream that breaks, a call that is never planned."""
    it = Scene(concurrency=1)
    profiles = {"gpt-4o": Profile(faults=(fault,)), "claude-sonnet-4-5": Profile(faults=(fault,))}
    it.bench = Bench(profiles=profiles, rules=Rules(throttle=it.throttle))
    for _ in range(2):
        await it.ask(body)
    assert it.under_way == 0
    assert "key_concurrency" not in {one.fault for one in it.bench.recorder.records}


async def test_a_store_that_fails_keeps_no_place() -> None:
    """The record could not be written, the caller is told, and the next one can come in."""
    it = Scene(concurrency=1)

    def down() -> None:
        raise TokenHubError(Fault(Kind.INTERNAL, Blame.US, "the store is down", cause="store_unavailable"))

    it.bench.recorder.before = down
    for _ in range(2):
        assert (await it.ask(chat()))[0].status == 500
    await it.ask(chat(stream=True))
    assert it.under_way == 0


# --- the length of an answer --------------------------------------------------------------------------------


async def test_who_asks_for_a_longer_answer_than_his_key_allows_is_refused() -> None:
    """400 that names both numbers; nothing is asked of anybody."""
    it = Scene(max_output_tokens=100)
    reply, body = await it.ask(chat(max_tokens=101))
    assert reply.status == 400
    assert "100 output tokens" in orjson.loads(body)["error"]["message"]
    assert it.bench.recorder.one.fault == "key_output"
    assert (await it.ask(chat(max_tokens=100)))[0].status == 200


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4-5"])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_for_no_length_is_given_what_his_key_allows(model: str, stream: bool) -> None:
    """The cap reaches the provider in every dialect, and the decision can be made again from its record."""
    it = Scene(max_output_tokens=3)
    reply, _ = await it.ask(chat(model=model, stream=stream))
    assert reply.status == 200
    record = it.bench.recorder.one
    assert record.usage.output_tokens == 3
    assert record.stop == "length"
    assert record.plan is not None
    assert record.plan.features is not None
    assert record.plan.features.max_output_tokens == 3
    same(recompute(stored(record.plan)), record.plan)


async def test_the_cap_is_no_higher_than_the_models_own() -> None:
    """A model that writes less than the key allows would refuse the call."""
    it = Scene(max_output_tokens=500)
    models = [replace(model, max_output_tokens=4) for model in it.bench.models]
    it.bench = Bench(models=models, rules=Rules(throttle=it.throttle))
    await it.ask(chat())
    assert it.bench.recorder.one.usage.output_tokens == 4


async def test_vectors_have_no_length() -> None:
    """An embeddings call is sent as it came."""
    it = Scene(max_output_tokens=3)
    reply, _ = await it.ask({"model": "gpt-4o", "input": "hello"}, Dialect.OPENAI_EMBEDDINGS)
    assert reply.status != 400
