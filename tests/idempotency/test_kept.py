"""However often a call with an idempotency key is sent, it is made once: joined, replayed, refused, or made anew."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.fakes.engine import Bench, chat, message
from tests.idempotency.scenes import REPLAY, A, Paced, said, scene
from tests.test_pipeline import broken
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.clock import SystemClock
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.idempotency import Keeping
from tokenhub_core.preparing import Rules
from tokenhub_core.store.database import Database
from tokenhub_core.types import (
    ANY,
    ApiKey,
    Caller,
    KeyLimits,
    Outcome,
    header,
)

# --- without a key ------------------------------------------------------------------------------------------


async def test_a_call_without_a_key_takes_no_detour(database: Database) -> None:
    """The engine's own reply, no mark, no task."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        engine.say(b"one", b"two")
        assert [(await it.ask(headers=()))[1] for _ in range(2)] == [b"one", b"two"]
        assert it.writer.counts.committed == 0


async def test_a_bad_key_is_refused_and_recorded(database: Database) -> None:
    """400 in the caller's dialect; the engine never hears of it."""
    engine = Paced()
    async with scene(database, engine) as it:
        reply, body = await it.ask(message(), A, headers=(("idempotency-key", "a\x00b"),))
        assert (reply.status, orjson.loads(body)["error"]["type"]) == (400, "invalid_request_error")
        assert (it.recorder.one.fault, engine.asked) == ("idempotency_key", [])


# --- finished -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_finished_call_is_answered_again_and_not_made(database: Database, stream: bool) -> None:
    """Byte for byte, with the first one's decision, marked as a replay, recorded at no cost."""
    bench = Bench()
    async with scene(database, bench.engine, bench.recorder) as it:
        first, body = await it.ask(chat(stream=stream))
        again, copy = await it.ask(chat(stream=stream))
        assert (again.status, copy) == (200, body)
        assert header(first.headers, REPLAY) == ""
        assert header(again.headers, REPLAY) == "true"
        for name in ("x-request-id", "x-tokenhub-decision", "x-tokenhub-model", "content-type"):
            assert header(again.headers, name) == header(first.headers, name) != ""
    made, copied = it.recorder.records
    assert (made.id, made.cost_nanousd > 0, len(made.attempts)) == ("req_1", True, 1)
    assert (copied.id, copied.outcome, copied.status, copied.reason) == ("req_2", Outcome.OK, 200, "replayed")
    assert (copied.cost_nanousd, copied.attempts, copied.message) == (0, (), "the answer of req_1")


async def test_the_same_key_with_another_body_is_refused(database: Database) -> None:
    """422 that names the first call; nothing is made, and SDKs are told not to try again."""
    bench = Bench()
    async with scene(database, bench.engine, bench.recorder) as it:
        await it.ask(chat())
        reply, body = await it.ask(chat("Something else"))
        assert (reply.status, header(reply.headers, "x-tokenhub-original")) == (422, "req_1")
        assert header(reply.headers, "x-should-retry") == "false"
        assert "req_1" in said(body)
    assert [one.fault for one in it.recorder.records] == ["", "idempotency_other_call"]


@pytest.mark.parametrize("fault", ["500", "429:7", "400"])
async def test_an_error_is_not_kept(database: Database, fault: str) -> None:
    """Nothing was made, so the same key, even with another body, makes it."""
    bench = Bench(profiles=broken(openai=fault, anthropic=fault))
    async with scene(database, bench.engine, bench.recorder) as it:
        assert (await it.ask())[0].status >= 400
        it.engine = Bench().engine
        it.restart()
        reply, _ = await it.ask(chat("another"))
        assert (reply.status, header(reply.headers, REPLAY)) == (200, "")


async def test_a_stream_that_broke_is_not_kept(database: Database) -> None:
    """Its caller got an error event, and may have it made anew."""
    bench = Bench(profiles=broken(openai="truncate", anthropic="truncate"))
    async with scene(database, bench.engine, bench.recorder) as it:
        _, body = await it.ask(chat(stream=True))
        assert b'"error"' in body
        reply, _ = await it.ask(chat(stream=True))
        assert header(reply.headers, REPLAY) == ""
    assert len(it.recorder.records) == 2


async def test_two_owners_share_nothing(database: Database) -> None:
    """The same key and body of another one is another call."""
    bench = Bench()
    ann, bob = (
        Caller(peer="127.0.0.1", key=ApiKey(id=name, models=(ANY,), providers=(ANY,)))
        for name in ("ann", "bob")
    )
    async with scene(database, bench.engine, bench.recorder) as it:
        for caller in (ann, bob, None):
            reply, _ = await it.ask(caller=caller)
            assert header(reply.headers, REPLAY) == ""
        assert header((await it.ask(caller=bob))[0].headers, REPLAY) == "true"


async def test_a_key_stands_for_its_call_as_long_as_it_is_set(database: Database) -> None:
    """After that the call is made again."""
    bench, clock = Bench(), SystemClock()
    now = [1000.0]
    clock.now = lambda: now[0]  # type: ignore[method-assign] # a scene's own time
    async with scene(database, bench.engine, bench.recorder, clock=clock, more={"seconds": 60.0}) as it:
        await it.ask()
        now[0] += 59.9
        assert header((await it.ask())[0].headers, REPLAY) == "true"
        now[0] += 0.2
        assert header((await it.ask())[0].headers, REPLAY) == ""


# --- after a restart ----------------------------------------------------------------------------------------


async def test_after_a_restart_an_answered_call_is_not_made_again(database: Database) -> None:
    """409 with the first one's id: its answer is gone, its price was paid."""
    bench = Bench()
    async with scene(database, bench.engine, bench.recorder) as it:
        await it.ask()
        it.restart()
        reply, body = await it.ask()
        assert (reply.status, header(reply.headers, "x-tokenhub-original")) == (409, "req_1")
        assert "was answered" in said(body)
        assert header(reply.headers, "x-should-retry") == "false"
        it.restart()
        assert (await it.ask(chat("other")))[0].status == 422
    assert [one.fault for one in it.recorder.records] == [
        "",
        "idempotency_answered",
        "idempotency_other_call",
    ]


async def test_what_another_process_makes_is_not_made_here(database: Database) -> None:
    """It is told to come again, as long as that may be of use; and in the end gets what there is."""
    engine = Paced(stream=False)
    async with scene(database, engine, answers=True) as it:
        first = it.front
        it.restart()
        second, it.front = it.front, first
        task = it.start()
        await it.until(lambda: engine.asked)
        it.front = second
        reply, body = await it.ask()
        assert (reply.status, header(reply.headers, "retry-after")) == (409, "1")
        assert (header(reply.headers, "x-should-retry"), "another process" in said(body)) == ("", True)
        assert it.recorder.records[-1].fault == "idempotency_elsewhere"
        second._keeping = Keeping(second._keeping.marks, longest=0.0)
        reply, body = await it.ask()
        assert ("not known" in said(body), header(reply.headers, "retry-after")) == (True, "")
        engine.say(b"{}")
        await task
        reply, body = await it.ask()
        assert (reply.status, header(reply.headers, REPLAY), body) == (200, "true", b"{}")
    assert len(engine.asked) == 1


async def test_a_call_that_a_crash_ended_is_not_made_again(database: Database) -> None:
    """It was marked before anybody was asked: what became of it nobody knows."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        it.restart()
        reply, body = await it.ask()
        assert (reply.status, header(reply.headers, "x-tokenhub-original")) == (409, "req_1")
        assert "not known" in said(body)
        engine.say(b"{}")
        await task
    assert len(engine.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_after_a_restart_a_stored_answer_is_given_again(database: Database, stream: bool) -> None:
    """Where the operator has answers stored: byte for byte, and to the same call only."""
    bench = Bench()
    async with scene(database, bench.engine, bench.recorder, answers=True) as it:
        first, body = await it.ask(chat(stream=stream))
        it.restart()
        again, copy = await it.ask(chat(stream=stream))
        assert (copy, header(again.headers, REPLAY)) == (body, "true")
        assert header(again.headers, "x-tokenhub-decision") == header(first.headers, "x-tokenhub-decision")
        it.restart()
        assert (await it.ask(chat("other")))[0].status == 422
    assert [(one.id, one.reason) for one in it.recorder.records[1:2]] == [("req_2", "replayed")]


async def test_an_answer_that_memory_has_no_room_for_is_not_made_again(database: Database) -> None:
    """Its mark is durable: 409."""
    bench = Bench()
    async with scene(database, bench.engine, bench.recorder, more={"cache_bytes": 10}) as it:
        await it.ask()
        assert (await it.ask())[0].status == 409


async def test_a_store_that_fails_makes_no_call(database: Database) -> None:
    """Unmarked it could be made twice."""
    engine = Paced()
    async with scene(database, engine) as it:
        await it.writer.close()
        reply, _ = await it.ask()
        assert (reply.status >= 500, engine.asked) == (True, [])
        assert header(reply.headers, "x-should-retry") == ""


# --- limits -------------------------------------------------------------------------------------------------


def limited(**limits: int) -> Throttle:
    return Throttle(addresses=KeyLimits(**limits))


async def test_replays_and_joins_count_as_requests(database: Database) -> None:
    """Only what is made counts in the engine; what is given again counts here, and is refused here."""
    throttle = limited(requests_per_minute=2)
    bench = Bench(rules=Rules(throttle=throttle))
    async with scene(database, bench.engine, bench.recorder, throttle=throttle) as it:
        first, _ = await it.ask()
        again, _ = await it.ask()
        assert header(first.headers, "x-ratelimit-remaining-requests") == "1"
        assert [v for n, v in again.headers if n == "x-ratelimit-remaining-requests"] == ["0"]
        refused, body = await it.ask()
        assert (refused.status, "2 requests a minute" in said(body)) == (429, True)
        assert header(refused.headers, "retry-after") != ""
        new, _ = await it.ask(headers=(("idempotency-key", "new"),))
        assert new.status == 429
    assert [one.fault for one in it.recorder.records] == ["", "", "address_requests", "address_requests"]


async def test_a_call_over_its_limit_is_not_marked(database: Database) -> None:
    """It costs the store nothing but its record, and leaves the key free."""
    throttle = limited(requests_per_minute=1)
    bench = Bench(rules=Rules(throttle=throttle))
    async with scene(database, bench.engine, bench.recorder, throttle=throttle) as it:
        await it.ask(headers=())
        await it.ask()
        assert it.writer.counts.committed == it.writer.pending == 0


async def test_who_waits_for_anothers_answer_holds_a_place(database: Database) -> None:
    """And gives it back when he has it, when he leaves, and when it fails."""
    throttle = limited(concurrency=1)
    engine = Paced(stream=False)
    async with scene(database, engine, throttle=throttle) as it:
        account = throttle._by_address.of("127.0.0.1", KeyLimits(concurrency=1), 0)
        task = it.start()
        await it.until(lambda: engine.asked)
        account = throttle._by_address.of("127.0.0.1", KeyLimits(concurrency=1), 0)
        late = it.start()
        await it.until(lambda: account.calls == 1)
        assert (await it.ask())[0].status == 429
        engine.say(b"a")
        await asyncio.gather(task, late)
        assert account.calls == 0
        await it.ask()
        await it.ask(chat("other"))
        assert account.calls == 0


async def test_a_duplicate_after_a_restart_counts_as_a_request(database: Database) -> None:
    """The engine, which counts, does not hear of it."""
    throttle = limited(requests_per_minute=3)
    bench = Bench(rules=Rules(throttle=throttle))
    async with scene(database, bench.engine, bench.recorder, throttle=throttle) as it:
        await it.ask()
        statuses = []
        for _ in range(3):
            it.restart()
            statuses.append((await it.ask())[0].status)
        assert statuses == [409, 409, 429]


# --- what cannot be recorded ---------------------------------------------------------------------------------


async def test_a_record_that_is_lost_refuses_the_replay(database: Database) -> None:
    """What cannot be recorded is not acknowledged, here neither."""
    bench = Bench()
    async with scene(database, bench.engine, bench.recorder) as it:
        await it.ask()

        def down() -> None:
            raise TokenHubError(
                Fault(Kind.INTERNAL, Blame.US, "the store is down", cause="store_unavailable")
            )

        it.recorder.before = down
        assert (await it.ask())[0].status == 500


async def test_what_could_not_be_noted_is_told(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The key stays in use, and the operator hears why."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        await it.writer.close()
        engine.say(b"a")
        assert (await task)[1] == b"a"
        assert "its key stays in use" in caplog.text
