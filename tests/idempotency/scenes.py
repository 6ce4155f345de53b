"""Idempotency keys in front of an engine: the wrapper, a real store, and an engine that answers when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tests.fakes.engine import Kept, chat
from tests.patience import PATIENCE
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.clock import SystemClock
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.idempotency import Idempotent, Keeping
from tokenhub_core.ports import Engine, Reply
from tokenhub_core.store.database import Database
from tokenhub_core.store.idempotency import Marks
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import (
    Caller,
    Dialect,
    Headers,
    Json,
    Snapshot,
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
