"""How processes tell each other what they have seen: workers through their supervisor, machines through Redis.

Nobody waits for it, nothing is kept of it, and what is told may be lost: whoever listens must be able to do without,
and whoever tells says again what still holds. Where both ways are there a message takes both, and whoever gets it twice
leaves one out. Of one process messages mostly come in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from tokenhub_core.siblings import Siblings

_TOPIC: Final = "relay"
_WAITING: Final = 256
"""Messages that wait for Redis; the oldest make room."""
_REMEMBERED: Final = 1024
"""Messages that are known again."""

_log: Final = logging.getLogger(__name__)


class Message(msgspec.Struct, frozen=True, array_like=True):
    """What one process tells all others."""

    process: str
    number: int
    topic: str
    body: bytes


type Hear = Callable[[str, bytes], None]
"""Hears the process that tells, and what."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Message).decode


class Wire(Protocol):
    """The way to other machines."""

    async def send(self, data: bytes) -> bool:
        """Send to all who listen, soon; False where nobody can tell whether it came through. Never raises."""
        ...

    async def receive(self, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with all that is sent, one's own included, for ever."""
        ...


class Relay:
    """One process's part. Belongs to one event loop."""

    def __init__(self, process: str, siblings: Siblings, wire: Wire | None = None) -> None:
        self._process = process
        self._siblings = siblings
        self._wire = wire
        self._last = 0
        self._hearing: dict[str, Hear] = {}
        self._known: dict[tuple[str, int], None] = {}
        self._waiting: deque[bytes] = deque(maxlen=_WAITING)
        self._awake = asyncio.Event()
        siblings.answering(_TOPIC, self._told)

    @property
    def process(self) -> str:
        """Return the name of this process."""
        return self._process

    def hearing(self, topic: str, hear: Hear) -> None:
        """Let `hear` be called with what others tell under a topic."""
        self._hearing[topic] = hear

    def tell(self, topic: str, body: bytes) -> None:
        """Tell all others, and wait for nobody."""
        self._last += 1
        data = _encode(Message(self._process, self._last, topic, body))
        self._siblings.post(_TOPIC, data)
        if self._wire is not None:
            self._waiting.append(data)
            self._awake.set()

    async def keep(self) -> None:
        """Send and receive for as long as the service runs."""
        if self._wire is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wire.receive(self._heard), name="relay: receive")
            group.create_task(self._send(self._wire), name="relay: send")

    async def _send(self, wire: Wire) -> None:
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._waiting:
                await wire.send(self._waiting.popleft())

    async def _told(self, body: bytes) -> bytes:
        self._heard(body)
        return b""

    def _heard(self, data: bytes) -> None:
        try:
            message = _decode(data)
        except msgspec.MsgspecError:
            return  # of another version
        if message.process == self._process or (key := (message.process, message.number)) in self._known:
            return
        self._known[key] = None
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        hear = self._hearing.get(message.topic)
        if hear is None:
            return
        try:
            hear(message.process, message.body)
        except Exception:  # noqa: BLE001 - what another process says must not end this one
            _log.exception("what another process told could not be used: %s", message.topic)
