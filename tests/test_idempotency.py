"""However often a call with an idempotency key is sent, it is made once: joined, replayed, refused, or made anew."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson
import pytest

from tests.fakes.engine import Bench, Kept, chat, message
from tests.patience import PATIENCE
from tests.test_pipeline import broken
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.clock import SystemClock
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.idempotency import Idempotent, Keeping
from tokenhub_core.ports import Engine, Reply
from tokenhub_core.preparing import Rules
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.idempotency import Marks
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import (
    ANY,
    ApiKey,
    Caller,
    Dialect,
    Headers,
    Json,
    KeyLimits,
    Outcome,
    Snapshot,
    header,
)

A: Final = Dialect.ANTHROPIC_MESSAGES
K: Final = (("idempotency-key", "k"),)
REPLAY: Final = "idempotency-replay"


@dataclass
class Paced:
    """An engine that answers when it is told to, piece by piece."""

    stream: bool = True
    status: int = 200
    broke: bool = False
    asked: list[Snapshot] = field(default_factory=list)
    cancelled: int = 0
    closed: int = 0
    _gates: asyncio.Queue[bytes | Exception | None] = field(default_factory=asyncio.Queue)

    def say(self, *pieces: bytes | Exception | None) -> None:
        """Let it send these; None ends the answer."""
        for piece in pieces:
            self._gates.put_nowait(piece)

    async def exchange(self, snapshot: Snapshot) -> Reply:
        self.asked.append(snapshot)
        headers = (("x-request-id", snapshot.id), ("x-ratelimit-limit-requests", "1"))
        try:
            if self.stream:
                return Reply(self.status, headers, frames=self._frames(), broken=lambda: self.broke)
            body = await self._gates.get()
            assert isinstance(body, bytes)
            return Reply(self.status, headers, body)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _frames(self) -> AsyncGenerator[bytes]:
        try:
            while (piece := await self._gates.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.closed += 1


@dataclass
class Scene:
    """The wrapper in front of an engine, with a real store."""

    database: Database
    writer: Writer
    engine: Engine
    recorder: Kept
    throttle: Throttle = field(default_factory=Throttle)
    clock: SystemClock = field(default_factory=SystemClock)
    more: dict[str, Any] = field(default_factory=dict)
    answers: bool = False
    number: int = 0
    front: Idempotent = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything that is in memory."""
        keeping = Keeping(Marks(self.writer, answers=self.answers), **self.more)
        self.front = Idempotent(
            self.engine,
            keeping,
            recorder=self.recorder,
            dialects=DIALECTS,
            clock=self.clock,
            throttle=self.throttle,
        )

    def snapshot(
        self, body: Json, dialect: Dialect, headers: Headers, caller: Caller | None = None
    ) -> Snapshot:
        self.number += 1
        return Snapshot(
            f"req_{self.number}",
            "POST",
            "/v1/chat/completions",
            headers,
            orjson.dumps(body),
            self.clock.now(),
            self.clock.monotonic(),
            dialect,
            caller=caller or Caller(peer="127.0.0.1"),
        )

    async def begin(
        self,
        body: Json | None = None,
        dialect: Dialect = Dialect.OPENAI_CHAT,
        *,
        headers: Headers = K,
        caller: Caller | None = None,
    ) -> Reply:
        return await self.front.exchange(self.snapshot(body or chat(), dialect, headers, caller))

    async def ask(self, *given: Any, **more: Any) -> tuple[Reply, bytes]:
        reply = await self.begin(*given, **more)
        return reply, await whole(reply)

    def start(self, *given: Any, **more: Any) -> asyncio.Task[tuple[Reply, bytes]]:
        return asyncio.create_task(self.ask(*given, **more))

    async def until(self, check: Any) -> None:
        """Wait for what follows from what is under way."""
        async with asyncio.timeout(PATIENCE):
            while not check():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)


async def whole(reply: Reply) -> bytes:
    if reply.frames is None:
        return reply.body
    return b"".join([frame async for frame in reply.frames])


def said(body: bytes) -> str:
    """Return an error's message."""
    return str(orjson.loads(body)["error"]["message"])


@pytest.fixture
def database() -> Iterator[Database]:
    database = open_database(MEMORY)
    yield database
    database.close()


@asynccontextmanager
async def scene(
    database: Database, engine: Engine, recorder: Kept | None = None, **more: Any
) -> AsyncIterator[Scene]:
    writer = Writer(database)
    writer.start()
    it = Scene(database, writer, engine, recorder or Kept(), **more)
    try:
        yield it
    finally:
        await it.front.close()
        await writer.close()


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


# --- under way ----------------------------------------------------------------------------------------------


async def test_callers_join_a_call_under_way(database: Database) -> None:
    """One call, one answer for all; each has a record of its own, and only the first one's costs."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        tasks = [it.start() for _ in range(5)]
        await it.until(lambda: engine.asked)
        engine.say(b'{"answer": 1}')
        replies = await asyncio.gather(*tasks)
    assert len(engine.asked) == 1
    assert {body for _, body in replies} == {b'{"answer": 1}'}
    assert [header(reply.headers, REPLAY) for reply, _ in replies] == ["", *["true"] * 4]
    assert [header(reply.headers, "x-request-id") for reply, _ in replies] == ["req_1"] * 5
    assert sorted((one.id, one.reason, one.message) for one in it.recorder.records) == [
        (f"req_{number}", "joined", "the answer of req_1") for number in (2, 3, 4, 5)
    ]


async def test_who_joins_a_stream_gets_it_from_its_beginning(database: Database) -> None:
    """And then as it comes, together with the first one."""
    engine = Paced()
    async with scene(database, engine) as it:
        first = await it.begin()
        engine.say(b"a")
        frames = cast("AsyncGenerator[bytes]", first.frames)
        assert await anext(frames) == b"a"
        late = await it.begin()
        joined = cast("AsyncGenerator[bytes]", late.frames)
        assert await anext(joined) == b"a"
        engine.say(b"b")
        assert await anext(frames) == b"b"
        later = await it.begin()
        assert await anext(cast("AsyncGenerator[bytes]", later.frames)) == b"ab"
        assert await anext(joined) == b"b"
        engine.say(b"c")
        assert (await anext(frames), await anext(joined)) == (b"c", b"c")
        engine.say(b"d", None)
        assert (await whole(first), await whole(late), await whole(later)) == (b"d", b"d", b"cd")
        assert (await it.ask())[1] == b"abcd"
    assert len(engine.asked) == 1


async def test_another_body_does_not_join(database: Database) -> None:
    """422 at once; the call goes on."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        reply, _ = await it.ask(chat("other"))
        assert (reply.status, header(reply.headers, "x-tokenhub-original")) == (422, "req_1")
        engine.say(b"{}")
        assert (await task)[0].status == 200


async def test_a_stream_that_is_too_long_is_not_joined_any_more(database: Database) -> None:
    """409 that says so; the first one gets all of it, and later the mark stands for it."""
    engine = Paced()
    async with scene(database, engine, more={"joinable": 4}) as it:
        first = await it.begin()
        engine.say(b"abc", b"def")
        frames = cast("AsyncGenerator[bytes]", first.frames)
        await it.until(lambda: not next(iter(it.front._running.values())).tape.whole)
        assert await anext(frames) == b"abcdef"
        reply, body = await it.ask()
        assert (reply.status, "cannot be joined" in said(body)) == (409, True)
        engine.say(b"g", None)
        assert await whole(first) == b"g"
        again, _ = await it.ask()
        assert again.status == 409
    assert [one.fault for one in it.recorder.records] == ["idempotency_under_way", "idempotency_answered"]


async def test_a_long_stream_waits_for_its_slowest_reader(database: Database) -> None:
    """So that memory is bounded; when that one leaves it goes on."""
    engine = Paced()
    async with scene(database, engine, more={"joinable": 4}) as it:
        first, late = await it.begin(), await it.begin()
        engine.say(*[b"xy"] * 50, None)
        frames = cast("AsyncGenerator[bytes]", first.frames)
        got = b""
        while len(got) < 6:
            got += await anext(frames)
        tape = next(iter(it.front._running.values())).tape
        assert tape._held <= 6
        await cast("AsyncGenerator[bytes]", late.frames).aclose()
        assert got + await whole(first) == b"xy" * 50
    assert [(one.outcome, one.id) for one in it.recorder.records] == [(Outcome.CANCELLED, "req_2")]


@pytest.mark.parametrize(("status", "stream"), [(500, False), (429, False), (400, False), (503, True)])
async def test_who_joined_a_call_that_failed_gets_its_error(
    database: Database, status: int, stream: bool
) -> None:
    """The same one as the first caller, and the next call with the key is made: nobody retries for others."""
    engine = Paced(stream=stream, status=status)
    async with scene(database, engine) as it:
        tasks = [it.start() for _ in range(3)]
        await it.until(lambda: engine.asked)
        engine.say(b"no", *([None] if stream else []))
        assert [(reply.status, body) for reply, body in await asyncio.gather(*tasks)] == [(status, b"no")] * 3
        assert len(engine.asked) == 1
        assert [(one.outcome, one.status) for one in it.recorder.records] == [(Outcome.ERROR, status)] * 2
        engine.status = 200
        engine.say(b"yes", *([None] if stream else []))
        reply, body = await it.ask()
        assert (body, header(reply.headers, REPLAY)) == (b"yes", "")


async def test_who_joined_a_stream_that_breaks_hears_of_it(database: Database) -> None:
    """The error event is everybody's; it is recorded as an error, and not kept."""
    engine = Paced()
    async with scene(database, engine) as it:
        tasks = [it.start() for _ in range(2)]
        await it.until(lambda: engine.asked)
        engine.broke = True
        engine.say(b"a", b"error", None)
        assert [body for _, body in await asyncio.gather(*tasks)] == [b"aerror"] * 2
        assert [one.outcome for one in it.recorder.records] == [Outcome.ERROR]
        engine.broke = False
        engine.say(b"b", None)
        assert (await it.ask())[1] == b"b"


@pytest.mark.parametrize(
    "error", [ValueError("bug"), TokenHubError(Fault(Kind.INTERNAL, Blame.US, "late", cause="late"))]
)
async def test_an_engine_that_fails_in_the_middle_looks_whole_to_nobody(
    database: Database, error: Exception
) -> None:
    """Every reader's frames end in the failure."""
    engine = Paced()
    async with scene(database, engine) as it:
        first, late = await it.begin(), await it.begin()
        engine.say(b"a", error)
        for reply in (first, late):
            with pytest.raises(type(error)):
                await whole(reply)
        engine.say(b"b", None)
        assert (await it.ask())[1] == b"b"


async def test_an_engine_that_fails_at_once_is_an_error_for_all(database: Database) -> None:
    """500 in the caller's dialect, and the key is free."""

    class Failing:
        async def exchange(self, snapshot: Snapshot) -> Reply:
            raise ZeroDivisionError

    async with scene(database, Failing()) as it:
        replies = await asyncio.gather(it.ask(), it.ask())
        assert [reply.status for reply, _ in replies] == [500, 500]
        assert [one.fault for one in it.recorder.records] == ["internal", "internal"]
        assert (await it.ask())[0].status == 500


# --- callers that leave -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_nobody_waits_for_is_not_made_on(database: Database, stream: bool) -> None:
    """Its only caller leaves: it is cancelled as without a key, and the key is free."""
    engine = Paced(stream=stream)
    async with scene(database, engine) as it:
        if stream:
            reply = await it.begin()
            engine.say(b"a")
            frames = cast("AsyncGenerator[bytes]", reply.frames)
            await anext(frames)
            await frames.aclose()
        else:
            task = it.start()
            await it.until(lambda: engine.asked)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await it.until(lambda: engine.cancelled)
        await it.until(lambda: not it.front._running)
        engine.say(b"b", *([None] if stream else []))
        again, body = await it.ask()
        assert (body, header(again.headers, REPLAY), len(engine.asked)) == (b"b", "", 2)


@pytest.mark.parametrize("turns", [1, 2])
async def test_who_leaves_before_the_mark_is_durable_is_recorded(database: Database, turns: int) -> None:
    """Before it is begun or while it is written: the engine never heard of the call, and its key is free again."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        for _ in range(turns):
            await asyncio.sleep(0)  # the call has come; in the next turn the one that makes it begins
        assert it.front._running
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await it.until(lambda: not it.front._running)
        assert [(one.id, one.outcome) for one in it.recorder.records] == [("req_1", Outcome.CANCELLED)]
        assert engine.asked == []
        engine.say(b"b")
        assert (await it.ask())[1] == b"b"


async def test_who_sends_a_call_again_that_is_being_cancelled_does_not_join_it(database: Database) -> None:
    """However long that takes to end: the call is made anew, and only its own end counts."""
    held = asyncio.Event()

    class Slow(Paced):
        async def exchange(self, snapshot: Snapshot) -> Reply:
            try:
                return await super().exchange(snapshot)
            except asyncio.CancelledError:
                await held.wait()
                raise

    engine = Slow(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = it.start()
        await it.until(lambda: len(engine.asked) == 2)
        held.set()
        await it.until(lambda: len(it.front._tasks) == 1)
        engine.say(b"a")
        reply, body = await again
        assert (reply.status, body) == (200, b"a")
        assert (await it.ask())[1] == b"a"
    assert len(engine.asked) == 2


async def test_an_engine_that_will_not_be_cancelled_disturbs_nobody(database: Database) -> None:
    """What it says after its call was given up is nobody's answer."""

    class Stubborn(Paced):
        async def exchange(self, snapshot: Snapshot) -> Reply:
            try:
                return await super().exchange(snapshot)
            except asyncio.CancelledError:
                return Reply(200, (), b"late")

    engine = Stubborn(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = it.start()
        await it.until(lambda: len(engine.asked) == 2)
        engine.say(b"a")
        assert (await again)[1] == (await it.ask())[1] == b"a"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_call_goes_on_as_long_as_anybody_waits(database: Database, stream: bool) -> None:
    """The first caller leaves, who joined gets the answer, and it is kept."""
    engine = Paced(stream=stream)
    async with scene(database, engine) as it:
        if stream:
            first = await it.begin()
            late = it.start()
            await it.until(lambda: next(iter(it.front._running.values())).tape.readers == 2)
            await cast("AsyncGenerator[bytes]", first.frames).aclose()
        else:
            task = it.start()
            await it.until(lambda: engine.asked)
            late = it.start()
            await it.until(lambda: next(iter(it.front._running.values())).tape.readers == 2)
            task.cancel()
        engine.say(b"a", *([None] if stream else []))
        reply, body = await late
        assert (body, header(reply.headers, REPLAY), engine.cancelled) == (b"a", "true", 0)
        assert (await it.ask())[1] == b"a"
    assert len(engine.asked) == 1


async def test_who_joined_and_leaves_takes_nothing_along(database: Database) -> None:
    """He is recorded as one who left; the first one gets all."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        late = it.start()
        await it.until(lambda: next(iter(it.front._running.values())).tape.readers == 2)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        engine.say(b"a")
        assert (await task)[1] == b"a"
    assert [(one.id, one.outcome) for one in it.recorder.records] == [("req_2", Outcome.CANCELLED)]


async def test_frames_that_were_closed_yield_no_more(database: Database) -> None:
    """Twice is as good as once."""
    engine = Paced()
    async with scene(database, engine) as it:
        reply = await it.begin()
        frames = cast("AsyncGenerator[bytes]", reply.frames)
        await frames.aclose()
        await frames.aclose()
        assert [frame async for frame in frames] == []


async def test_at_the_end_what_is_being_made_is_cancelled(database: Database) -> None:
    """An answer that has begun does not look whole, one that has not is an error; nothing is left over."""
    engine = Paced()
    async with scene(database, engine) as it:
        reply = await it.begin()
        engine.say(b"a")
        frames = cast("AsyncGenerator[bytes]", reply.frames)
        assert await anext(frames) == b"a"
        await it.front.close()
        with pytest.raises(ConnectionError):
            await anext(frames)
        silent = Paced(stream=False)
        it.engine = silent
        it.restart()
        task = it.start()
        await it.until(lambda: silent.asked)
        await it.front.close()
        assert (await task)[0].status == 499
        gc.collect()


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


# --- storms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_of_many_at_once_one_is_made(database: Database, stream: bool) -> None:
    """A hundred together, round after round, each with a key of its own: one call each."""
    bench = Bench()
    async with scene(database, bench.engine, bench.recorder) as it:
        for turn in range(5):
            headers = (("idempotency-key", f"turn {turn}"),)
            answers = await asyncio.gather(
                *[it.ask(chat(stream=stream), headers=headers) for _ in range(100)]
            )
            assert len({body for _, body in answers}) == 1
            assert {reply.status for reply, _ in answers} == {200}
            assert sum(not header(reply.headers, REPLAY) for reply, _ in answers) == 1
    assert sum(len(one.attempts) for one in it.recorder.records) == 5
    assert len(it.recorder.records) == 500


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
