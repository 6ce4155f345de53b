"""Attempts: whatever a provider sends, money, health and the record stay right."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.fakes.engine import OPENAI, PAIR, Bench, chat, message
from tests.fakes.transport import Scripted, ScriptedTransport, completion, json, stream
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.types import Dialect, Model, Need, Origin, Outcome, Prices, Usage, header

A = Dialect.ANTHROPIC_MESSAGES
ORIGIN = Origin("https", "api.openai.com", 443)
TEXT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hello there"}}]}\n\n'
STOP = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def bench(*answers: Scripted | Exception, **more: Any) -> tuple[Bench, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return Bench(transport=transport, **more), transport


async def test_an_answer_that_breaks_our_reader_is_the_providers_failure() -> None:
    """It fails over like any other, the response is closed, and no money stays set aside."""
    odd = Scripted(b'{"type":"message","content":[{"type":"tool_result","tool_use_id":"x","content":[7]}]}')
    one, _ = bench(odd, json(completion()))
    reply, _ = await one.ask(message(), A)
    assert reply.status == 200
    assert odd.closed == 1
    assert one.ledger.reserved_nanousd == 0


async def test_a_bug_in_an_attempt_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The next candidate is asked; what was set aside is released, and the attempt has its line."""
    one, _ = bench(ZeroDivisionError(), json({"type": "error"}, 500))
    reply, _ = await one.ask(chat())
    assert reply.status == 500 or reply.status >= 502
    record = one.recorder.one
    assert record.attempts[0].cause == "internal"
    assert one.ledger.reserved_nanousd == 0
    assert "ZeroDivisionError" in caplog.text


async def test_an_odd_tool_type_cannot_keep_a_provider_out() -> None:
    """A request that no dialect would send is answered or refused, and is never an error of ours."""
    odd = message(tools=[{"type": "", "name": "f"}], model="gpt-4o")
    one, _ = bench(json(completion()))
    reply, _ = await one.ask(odd, A)
    assert reply.status in {200, 400}


async def test_a_reply_that_is_closed_before_its_first_frame_is_ended_and_recorded() -> None:
    """The caller may leave between the commit and the first byte."""
    response = stream(TEXT, STOP, DONE)
    one, _ = bench(response)
    reply = await one.engine.exchange(one.snapshot(chat(stream=True)))
    frames: Any = reply.frames
    await frames.aclose()
    assert response.closed == 1
    assert one.recorder.one.outcome is Outcome.CANCELLED
    assert one.ledger.reserved_nanousd == 0


async def test_names_that_others_chose_cannot_write_headers() -> None:
    """Line breaks in a provider's field names or in a model's name never reach a header's value."""
    body = completion() | {"evil\r\nset-cookie: stolen=1": 1}
    one, _ = bench(json(body))
    reply, _ = await one.ask(message(model="gpt-4o"), A)
    assert "set-cookie: stolen" in header(reply.headers, "x-tokenhub-loss")
    long = "m\r\nx: y" + "z" * 100_000
    other, _ = bench(json(completion()))
    named, _ = await other.ask(chat(model=long), origin=ORIGIN)
    for name, value in (*reply.headers, *named.headers):
        assert value.isprintable(), name
        assert len(value) <= 1000
    assert len(other.recorder.one.model) <= 200


async def test_a_name_that_only_its_origin_could_know_is_not_served_by_another_model() -> None:
    """The origin's own 404 is the answer."""
    unknown = {
        "error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}
    }
    one, transport = bench(json(unknown, 404), json(completion()))
    reply, body = await one.ask(chat(model="gpt-4oo"), origin=ORIGIN)
    assert reply.status == 404
    assert orjson.loads(body)["error"]["message"] == "no such model"
    assert len(transport.sent) == 1


async def test_a_budget_keeps_out_models_of_unknown_price() -> None:
    """What nobody can price is within no budget."""
    unpriced = replace(PAIR[0], prices=Prices(), pricing_source=UNKNOWN_PRICE)
    one, transport = bench(json(completion()), models=[unpriced])
    reply, _ = await one.ask(chat("@@tokenhub budget=100\nHi"))
    assert (reply.status, transport.sent) == (402, [])


async def test_parts_that_we_cannot_read_pass_through_in_their_own_dialect() -> None:
    """Audio deltas are content to the caller; they are streamed as they come, and commit the answer."""
    audio = (
        b'data: {"id":"c","choices":[{"index":0,"delta":{"audio":{"data":"' + b"A" * 200_000 + b'"}}}]}\n\n'
    )
    events = [audio] * 6 + [STOP, DONE]
    one, transport = bench(stream(*events))
    reply, body = await one.ask(chat(stream=True))
    assert (reply.status, body) == (200, b"".join(events))
    assert len(transport.sent) == 1


async def test_a_connection_is_read_on_to_its_end_after_the_last_event() -> None:
    """The terminal event came before HTTP's own end: the rest is read apart, so that the connection can serve again."""
    response = stream(TEXT, STOP, DONE, b": bye\n\n")
    one, _ = bench(response)
    await one.ask(chat(stream=True))
    await one.executor.close()
    assert response.read_to_end
    assert response.closed == 1


async def test_a_probe_is_over_when_its_answer_begins() -> None:
    """A long stream does not keep a recovered provider out."""
    one, _ = bench(stream(TEXT, STOP, DONE))
    down = Fault(Kind.TRANSIENT, Blame.PROVIDER, "x")
    now = one.clock.monotonic()
    for _ in range(5):
        one.health.failed("sim-openai", down, now - 31)
    assert one.health.standing("sim-openai", now).probing
    reply = await one.engine.exchange(one.snapshot(chat(stream=True)))
    standing = one.health.standing("sim-openai", one.clock.monotonic())
    assert (standing.available, standing.probing) == (True, False)
    frames: Any = reply.frames
    await frames.aclose()


async def test_usage_that_nobody_told_is_estimated_from_what_was_produced() -> None:
    """Whole and streamed alike, rounded up, and flagged."""
    whole, _ = bench(json(completion("ok")))
    await whole.ask(chat())
    live, _ = bench(stream(TEXT.replace(b"Hello there", b"ok"), STOP, DONE))
    await live.ask(chat(stream=True))
    for one in (whole, live):
        assert one.recorder.one.usage.output_tokens == 1
        assert one.recorder.one.usage_estimated


async def test_an_attempt_that_told_its_usage_before_it_failed_is_paid_for() -> None:
    """Money follows what the provider counted, content or not."""
    told = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":50000,"completion_tokens":0}}\n\n'
    error = b'data: {"error":{"message":"overloaded","code":503}}\n\n'
    one, _ = bench(
        stream(told, error), stream(TEXT, STOP, DONE), models=[PAIR[0], replace(PAIR[0], id="other")]
    )
    await one.ask(chat(stream=True))
    first = one.recorder.one.attempts[0]
    assert (first.usage, first.cost_nanousd) == (Usage(50_000, 0), 50_000 * 2500)


async def test_a_call_that_was_cancelled_in_flight_is_estimated() -> None:
    """Its provider may have read the prompt: the input estimate stands for it, flagged."""

    class Slow(ScriptedTransport):
        async def send(self, request: Any, timeouts: Any) -> Scripted:
            await asyncio.sleep(60)
            return await super().send(request, timeouts)

    one = Bench(transport=Slow(json(completion())))
    task = asyncio.create_task(one.engine.exchange(one.snapshot(chat("x" * 4000))))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    record = one.recorder.one
    assert record.attempts[0].usage.input_tokens >= 1000
    assert record.usage_estimated
    assert record.cost_nanousd == one.ledger.spent_nanousd > 0


async def test_a_long_error_page_keeps_its_status() -> None:
    """Only its beginning is read; a 503 of two megabytes is a 503."""
    one, _ = bench(Scripted([b"<html>" * 1000] * 400, status=503, kind="text/html"), models=[PAIR[0]])
    await one.ask(chat())
    assert one.recorder.one.attempts[0].cause == "http_503"


@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
async def test_a_media_type_is_read_in_any_case(kind: str) -> None:
    """RFC 9110, 8.3.1."""
    one, _ = bench(stream(TEXT, STOP, DONE, kind=kind))
    assert (await one.ask(chat(stream=True)))[0].status == 200


async def test_a_last_event_without_its_blank_line_is_the_last_event() -> None:
    """SDKs accept it; so do we, and the caller gets it whole."""
    one, _ = bench(stream(TEXT, STOP, b"data: [DONE]\n"))
    _, body = await one.ask(chat(stream=True))
    assert body.rstrip().endswith(b"data: [DONE]")
    assert one.recorder.one.outcome is Outcome.OK


@pytest.mark.parametrize(
    ("call", "dialect", "sign"),
    [
        (chat, Dialect.OPENAI_CHAT, b": keep-alive\n\n"),
        (message, A, b'event: ping\ndata: {"type": "ping"}\n\n'),
    ],
)
async def test_a_caller_hears_that_a_silent_provider_is_still_asked(
    call: Any, dialect: Dialect, sign: bytes
) -> None:
    """The transport tells of silence by an empty piece; the caller gets what its dialect's readers skip."""
    one, transport = bench(stream(TEXT, b"", STOP, DONE), models=PAIR[:1])
    reply, body = await one.ask(call(stream=True, model=PAIR[0].id), dialect)
    assert reply.status == 200
    assert sign in body
    assert transport.answers[0].eased == (one.patience.gather, one.patience.tick)  # type: ignore[union-attr] # no exception
    assert not one.recorder.one.identical


async def test_pings_without_content_are_a_stall_in_the_end() -> None:
    """A provider that only says that it lives is given up: the stream breaks with an error, never with an end."""
    times = iter([0.0] * 12 + [1000.0] * 90)
    pings = [b": OPENROUTER PROCESSING\n\n"] * 20
    one, _ = bench(stream(TEXT, *pings, STOP, DONE), now=lambda: next(times))
    reply, body = await one.ask(chat(stream=True))
    assert reply.status == 200
    assert b"no more content" in body
    assert b"[DONE]" not in body
    assert one.recorder.one.fault == "stall_timeout"


async def test_a_schema_is_only_sent_to_models_that_take_one() -> None:
    """`output_schema` is a need like any other."""
    lacking = Model("gpt-4o", OPENAI.id, lacks=frozenset({Need.JSON_SCHEMA}))
    one, transport = bench(json(completion()), models=[lacking])
    reply, _ = await one.ask(chat('@@tokenhub output_schema={"type":"object"}\nHi'))
    assert (reply.status, transport.sent) == (400, [])
