"""An engine that does what a test says, and the frames that it can be told to produce."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final

from tests.addon.clients import PATIENCE
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
        except asyncio.CancelledError:
            self._left()
            raise
        if reply.frames is None:
            self.running -= 1
            return reply
        return Reply(reply.status, reply.headers, b"", self._watched(reply.frames), reply.summary)

    async def _watched(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        ended = False
        try:
            async for frame in frames:
                yield frame
            ended = True
        finally:
            if ended:
                self.running -= 1
            else:
                self._left()

    def _left(self) -> None:
        self.running -= 1
        self.cancelled += 1
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
            await _timely(self._queue.put(frame))

    async def close(self) -> None:
        """End the stream well."""
        await _timely(self._queue.put(None))

    async def break_off(self, error: Exception) -> None:
        """End the stream with an error."""
        await _timely(self._queue.put(error))

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
