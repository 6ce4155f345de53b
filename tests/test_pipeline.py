"""Whole exchanges through the real pipeline, answered by the simulator."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import orjson
import pytest
import zstandard
from anthropic.types import Message
from openai.types.chat import ChatCompletion

from tests.fakes.engine import Bench, chat, message
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.preparing import Rules
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Dialect, Headers, Mode, Origin, Outcome, header

A = Dialect.ANTHROPIC_MESSAGES
ORIGIN = Origin("https", "api.openai.com", 443)


def told(headers: Headers) -> dict[str, str]:
    return {key.removeprefix("x-tokenhub-"): value for key, value in headers if key.startswith("x-tokenhub-")}


def broken(**faults: str) -> dict[str, Profile]:
    names = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5"}
    return {names[name]: Profile(faults=tuple(fault.split())) for name, fault in faults.items()}


async def test_the_named_model_answers_and_one_record_remains() -> None:
    """A plain call: the model that was asked for, told in headers, recorded once with its cost."""
    bench = Bench()
    reply, body = await bench.ask(chat())
    answer = ChatCompletion.model_validate_json(body)
    assert (reply.status, answer.model) == (200, "gpt-4o")
    assert told(reply.headers) == {
        "decision": "req_1",
        "model": "gpt-4o",
        "provider": "sim-openai",
        "reason": "routed-hint-exact",
        "attempts": "1",
        "simulated": "true",
    }
    record = bench.recorder.one
    assert answer.usage is not None
    cost = answer.usage.prompt_tokens * 2500 + answer.usage.completion_tokens * 10_000
    assert (record.outcome, record.cost_nanousd, record.identical) == (Outcome.OK, cost, True)
    assert (bench.ledger.spent_nanousd, bench.ledger.reserved_nanousd) == (cost, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_dialect_passes_the_providers_own_bytes(stream: bool) -> None:
    """OpenAI in, OpenAI out: the reply is what the provider sent, byte for byte."""
    bench = Bench()
    asked = chat(stream=stream) | ({"stream_options": {"include_usage": True}} if stream else {})
    _, first = await bench.ask(asked)
    assert bench.recorder.one.identical
    if stream:
        assert first.endswith(b"data: [DONE]\n\n")
        assert b'"usage":{' in first.replace(b" ", b"")


async def test_the_usage_chunk_that_only_we_asked_for_is_not_shown() -> None:
    """Streams are metered exactly; a caller who did not ask for usage does not see it."""
    bench = Bench()
    _, body = await bench.ask(chat(stream=True))
    assert b'"prompt_tokens"' not in body
    assert bench.recorder.one.usage.output_tokens > 0
    assert not bench.recorder.one.usage_estimated


@pytest.mark.parametrize("stream", [False, True])
async def test_an_openai_caller_is_answered_by_an_anthropic_model(stream: bool) -> None:
    """Cross-dialect: the answer comes in the caller's dialect whatever the provider speaks."""
    bench = Bench()
    reply, body = await bench.ask(chat(model="claude-sonnet-4-5", stream=stream, seed=7))
    assert told(reply.headers)["provider"] == "sim-anthropic"
    record = bench.recorder.one
    assert "seed" in record.losses
    assert not record.identical
    if stream:
        assert body.endswith(b"data: [DONE]\n\n")
    else:
        assert told(reply.headers)["loss"] == "seed"
        ChatCompletion.model_validate_json(body)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_anthropic_caller_is_answered_by_an_openai_model(stream: bool) -> None:
    """The other way round."""
    bench = Bench()
    reply, body = await bench.ask(message(model="gpt-4o", stream=stream), A)
    assert told(reply.headers)["provider"] == "sim-openai"
    if stream:
        assert body.startswith(b"event: message_start")
        assert b"event: message_stop" in body
    else:
        Message.model_validate_json(body)


@pytest.mark.parametrize(
    "fault", ["500", "429:7", "disconnect", "lifecycle-error:503", "lifecycle-hang", "hang", "bad-json"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_content_is_invisible(fault: str, stream: bool) -> None:
    """Whatever the first provider does before its first content, the caller sees one clean answer."""
    if not stream and fault.startswith("lifecycle"):
        fault = "error-body:503"
    bench = Bench(profiles=broken(openai=fault), patience=Patience(ttft=0.2, stall=0.2, whole=0.2))
    reply, body = await bench.ask(chat(stream=stream))
    assert reply.status == 200
    assert told(reply.headers)["provider"] == "sim-anthropic"
    assert b"error" not in body
    record = bench.recorder.one
    assert [attempt.provider for attempt in record.attempts] == ["sim-openai", "sim-anthropic"]
    assert record.attempts[0].cause
    assert (record.outcome, record.reason) == (Outcome.OK, "failover")
    assert bench.ledger.reserved_nanousd == 0


@pytest.mark.parametrize("fault", ["reset", "truncate", "no-terminal", "content-error:500", "stall"])
@pytest.mark.parametrize("dialect", [Dialect.OPENAI_CHAT, A])
async def test_a_failure_after_content_ends_in_an_error_event(fault: str, dialect: Dialect) -> None:
    """Once the caller has seen content, no second provider mixes in, and the end never looks clean."""
    bench = Bench(
        profiles=broken(openai=fault, anthropic=fault), patience=Patience(ttft=1, stall=0.2, whole=1)
    )
    asked = message(stream=True) if dialect is A else chat(stream=True)
    _, body = await bench.ask(asked, dialect)
    assert b"[DONE]" not in body
    assert b"message_stop" not in body
    assert b'"error"' in body.rstrip().splitlines()[-1]
    record = bench.recorder.one
    assert record.outcome is Outcome.ERROR
    assert len(record.attempts) == 1
    assert record.usage.output_tokens > 0
    assert record.cost_nanousd > 0


async def test_when_all_fail_the_caller_gets_its_own_dialects_error() -> None:
    """Every provider down: one error, in the caller's shape, with the cause told."""
    bench = Bench(profiles=broken(openai="500", anthropic="529"))
    reply, body = await bench.ask(chat())
    assert reply.status >= 500
    assert set(orjson.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert header(reply.headers, "x-should-retry") == "false"
    other, anthropic = await bench.ask(message(), A)
    assert orjson.loads(anthropic)["type"] == "error"
    assert header(other.headers, "request-id")


async def test_a_clients_mistake_is_not_replayed_on_another_model() -> None:
    """A 400 is the caller's affair: one attempt, health untouched."""
    bench = Bench(profiles=broken(openai="400"))
    reply, _ = await bench.ask(chat())
    assert reply.status == 400
    assert len(bench.recorder.one.attempts) == 1
    assert bench.health.standing("sim-openai", bench.clock.monotonic()).available


async def test_a_directive_frees_the_model_and_never_reaches_it() -> None:
    """`mode=cheap` lets the router choose; the words themselves are gone."""
    bench = Bench()
    reply, body = await bench.ask(chat("@@tokenhub mode=high_confidence\nWhat is up?"))
    assert told(reply.headers)["directive"] == "honoured"
    assert told(reply.headers)["model"] == "claude-sonnet-4-5"
    assert b"tokenhub mode" not in body
    record = bench.recorder.one
    assert record.plan is not None
    assert record.plan.policy.mode is Mode.HIGH_CONFIDENCE
    assert record.plan.policy.why["mode"] == "directive"


async def test_a_malformed_directive_is_a_400_that_names_the_place() -> None:
    """Nothing is sent, nothing is billed, and the message says what to mend."""
    bench = Bench()
    reply, body = await bench.ask(message("Hi\n@@tokenhub mode=chep"), A)
    assert reply.status == 400
    assert "messages[0].content, line 2, column 17" in orjson.loads(body)["error"]["message"]
    assert told(reply.headers)["directive"] == "invalid"
    assert bench.recorder.one.attempts == ()


async def test_a_policy_may_ignore_malformed_directives() -> None:
    """Nothing of them is honoured, and they stay where they are; the caller is told."""
    bench = Bench(rules=Rules(directives=lambda: "ignore"))
    reply, _ = await bench.ask(chat("Hi\n@@tokenhub mode=chep"))
    assert (reply.status, told(reply.headers)["directive"]) == (200, "invalid")


async def test_a_budget_is_hard() -> None:
    """No model is cheap enough: 402, and nothing is tried."""
    bench = Bench()
    reply, body = await bench.ask(chat("@@tokenhub budget=0.000001\nHello"))
    assert reply.status == 402
    assert "budget" in orjson.loads(body)["error"]["message"]
    assert bench.recorder.one.attempts == ()


async def test_an_unknown_model_is_404_in_the_callers_dialect() -> None:
    """Neither registered nor answerable by an origin."""
    reply, body = await Bench().ask(chat(model="nonsense"))
    assert (reply.status, orjson.loads(body)["error"]["code"]) == (404, "model_not_found")
    other, error = await Bench().ask(message(model="nonsense"), A)
    assert (other.status, orjson.loads(error)["error"]["type"]) == (404, "not_found_error")


async def test_an_origin_is_no_candidate_where_the_operator_says_so() -> None:
    """With the origin off, an intercepted call for an unknown model is refused, not sent."""
    bench = Bench(rules=Rules(origin=False))
    reply, _ = await bench.ask(chat(model="nonsense"), origin=ORIGIN)
    assert reply.status == 404


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_an_encoded_body_is_read(encoding: str) -> None:
    """SDKs that compress their requests are understood."""
    raw = orjson.dumps(chat())
    packed = gzip.compress(raw) if encoding == "gzip" else zstandard.ZstdCompressor().compress(raw)
    reply, _ = await Bench().ask(packed, headers=(("content-encoding", encoding),))
    assert reply.status == 200


async def test_a_small_body_cannot_become_a_large_one() -> None:
    """A bomb is refused with 413, and nothing of it is kept."""
    bomb = gzip.compress(b"[" * 50_000_000)
    reply, _ = await Bench(rules=Rules(max_body_bytes=1 << 20)).ask(
        bomb, headers=(("content-encoding", "gzip"),)
    )
    assert reply.status == 413


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model":1}', b'{"model":"gpt-4o","messages":[]}', b"\xff"]
)
async def test_bad_input_is_a_clear_400_and_costs_nothing(body: bytes) -> None:
    """A body that is no call is refused before anything is planned, and recorded as refused."""
    bench = Bench()
    reply, _ = await bench.ask(body)
    assert reply.status == 400
    assert (bench.recorder.one.outcome, bench.ledger.spent_nanousd) == (Outcome.ERROR, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_record_is_durable_before_the_last_byte_leaves(stream: bool) -> None:
    """When the reply ends, its record is already there; what was sent before it has no terminal event."""
    bench = Bench()
    seen = b""
    at_commit: list[bytes] = []
    bench.recorder.before = lambda: at_commit.append(seen)
    reply = await bench.engine.exchange(bench.snapshot(chat(stream=stream)))
    if reply.frames is not None:
        async for frame in reply.frames:
            seen += frame
        assert b"[DONE]" not in at_commit[0]
        assert seen.endswith(b"[DONE]\n\n")
    assert len(at_commit) == 1


async def test_a_store_that_fails_ends_the_stream_in_an_error() -> None:
    """What cannot be recorded is not acknowledged."""
    bench = Bench()

    def down() -> None:
        raise TokenHubError(Fault(Kind.INTERNAL, Blame.US, "the store is down", cause="store_unavailable"))

    bench.recorder.before = down
    _, body = await bench.ask(chat(stream=True))
    assert b"[DONE]" not in body
    assert b"the store is down" in body


async def test_a_store_that_fails_once_still_gets_the_record_of_the_failure() -> None:
    """The stream ends in an error, and that is what is recorded."""
    bench = Bench()
    failures = [Fault(Kind.INTERNAL, Blame.US, "the store is down", cause="store_unavailable")]

    def once() -> None:
        if failures:
            raise TokenHubError(failures.pop())

    bench.recorder.before = once
    await bench.ask(chat(stream=True))
    assert (bench.recorder.one.outcome, bench.recorder.one.fault) == (Outcome.ERROR, "store_unavailable")


async def test_a_caller_that_leaves_ends_the_attempt_and_is_recorded_once() -> None:
    """Closing the frames early cancels; what was seen is settled as an estimate, health stays."""
    bench = Bench()
    reply = await bench.engine.exchange(bench.snapshot(chat("tell me more " * 20, stream=True)))
    assert reply.frames is not None
    frames: Any = reply.frames
    await anext(frames)
    await frames.aclose()
    record = bench.recorder.one
    assert (record.outcome, record.status, record.usage_estimated) == (Outcome.CANCELLED, 499, True)
    assert bench.ledger.reserved_nanousd == 0
    assert bench.health.standing("sim-openai", bench.clock.monotonic()).error_rate == 0


async def test_a_caller_that_leaves_before_the_first_byte_stops_everything() -> None:
    """Cancelling the exchange while a provider hangs starts no further attempt."""
    bench = Bench(profiles=broken(openai="hang"))
    task = asyncio.create_task(bench.engine.exchange(bench.snapshot(chat())))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    record = bench.recorder.one
    assert (record.outcome, len(record.attempts)) == (Outcome.CANCELLED, 1)
    assert bench.ledger.reserved_nanousd == 0


async def test_a_bug_in_the_middle_of_a_stream_is_an_error_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a clean-looking end nor a record that blames the caller."""
    bench = Bench()

    def bug(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("tokenhub_core.dispatch.gate.Gate.tail", bug)
    _, body = await bench.ask(chat(stream=True))
    assert b"[DONE]" not in body
    assert b'"code":"internal"' in body
    monkeypatch.setattr("tokenhub_core.dispatch.streaming.Stream.frames", bug)
    await bench.ask(chat(stream=True))
    assert (bench.recorder.records[-1].outcome, bench.recorder.records[-1].fault) == (
        Outcome.ERROR,
        "internal",
    )


async def test_an_error_of_ours_is_a_500_in_the_callers_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is never a bare traceback or a dropped connection."""
    bench = Bench()

    async def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tokenhub_core.dispatch.executor.Executor.run", bug)
    reply, body = await bench.ask(chat())
    assert (reply.status, orjson.loads(body)["error"]["code"]) == (500, "internal")
    assert bench.recorder.one.fault == "internal"
