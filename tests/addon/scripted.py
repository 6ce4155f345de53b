"""An engine that does what a test says, and the frames that it can be told to produce."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final

from tests.addon.clients import timely
from tests.patience import PATIENCE
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import Fault
from tokenhub_core.ports import Reply, Summary
from tokenhub_core.types import Dialect, Snapshot

type Script = Callable[[Snapshot], Awaitable[Reply]]


class ScriptedEngine:
    """An engine that replies as its script says, and remembers what it was asked and how it ended."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or _agree
        self.snapshots: list[Snapshot] = []
        self.running = 0
        self.most_running = 0
        self.cancelled = 0
        self.changed = asyncio.Event()

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one call."""
        self.snapshots.append(snapshot)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.changed.set()
        try:
            reply = await self.script(snapshot)
        except BaseException as error:
            self._ended(cancelled=isinstance(error, asyncio.CancelledError))
            raise
        if reply.frames is None:
            self._ended()
            return reply
        return Reply(reply.status, reply.headers, b"", self._watched(reply.frames), reply.summary)

    async def _watched(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for frame in frames:
                yield frame
        except BaseException as error:
            self._ended(cancelled=not isinstance(error, Exception))
            raise
        self._ended()

    def _ended(self, *, cancelled: bool = False) -> None:
        self.running -= 1
        self.cancelled += cancelled
        self.changed.set()

    async def until(self, condition: Callable[[ScriptedEngine], bool]) -> None:
        """Wait for something to become true of the engine."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


SUMMARY: Final = Summary("req_scene", "gpt-4o-mini", "openai", "routed-weight-7", 2)


def whole(body: bytes = b'{"ok":true}', *, status: int = 200, summary: Summary | None = SUMMARY) -> Reply:
    """Return a reply that is not streamed."""
    return Reply(status, (("content-type", "application/json"),), body, summary=summary)


def streamed(frames: AsyncIterator[bytes], *, summary: Summary | None = SUMMARY) -> Reply:
    """Return a reply that is streamed."""
    return Reply(200, (("content-type", "text/event-stream"),), frames=frames, summary=summary)


async def _agree(snapshot: Snapshot) -> Reply:
    return whole()


class Tap:
    """Frames that a test lets out one by one: `await tap.flow(frame)` returns once it was taken."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(1)
        self.taken = 0

    async def flow(self, *frames: bytes) -> None:
        """Let frames out."""
        for frame in frames:
            await timely(self._queue.put(frame))

    async def close(self) -> None:
        """End the stream well."""
        await timely(self._queue.put(None))

    async def break_off(self, error: Exception) -> None:
        """End the stream with an error."""
        await timely(self._queue.put(error))

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield what was let out."""
        while (item := await self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            self.taken += 1
            yield item


def errors(dialect: Dialect | None, fault: Fault, request_id: str) -> ErrorReply:
    """Tell a fault in its caller's dialect; in OpenAI's where there is none."""
    return DIALECTS[dialect or Dialect.OPENAI_CHAT].error(fault, request_id=request_id)


def lines(items: Iterable[bytes]) -> bytes:
    """Return server-sent events."""
    return b"".join(b"data: " + item + b"\n\n" for item in items)


# --- replies -----------------------------------------------------------------------------------------------


async def ready(reply: Reply) -> Reply:
    """Reply at once."""
    return reply


async def never() -> Reply:
    """Reply when the world ends."""
    await asyncio.Event().wait()
    raise AssertionError


async def counted(count: int, prefix: bytes = b"") -> AsyncIterator[bytes]:
    """Produce this many events, all ready at once."""
    for number in range(count):
        yield lines([prefix + b"%d" % number])


async def endless() -> AsyncIterator[bytes]:
    """Produce an event now and then, for ever."""
    while True:
        yield b"data: more\n\n"
        await asyncio.sleep(0.01)


async def broken(frames: int) -> AsyncIterator[bytes]:
    """Fail after this many events."""
    for _ in range(frames):
        yield b"data: 0\n\n"
        await asyncio.sleep(0)
    raise RuntimeError("broken")


class Flood:
    """More than anybody wants to read, and how much of it was taken."""

    def __init__(self) -> None:
        self.sent = 0

    async def frames(self) -> AsyncIterator[bytes]:
        """Produce it."""
        while self.sent < 256 << 20:
            self.sent += 4096
            yield b"x" * 4096
            await asyncio.sleep(0)

    async def stalled(self) -> None:
        """Wait until nobody pulls any more."""
        before = -1
        async with asyncio.timeout(PATIENCE):
            while before != self.sent or not self.sent:
                before = self.sent
                await asyncio.sleep(0.2)
