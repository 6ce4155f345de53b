"""How the workers of one server talk: each has one end of a socket pair, and the supervisor has the other ends.

Nobody else can come near that: there is no path and no port. A frame is four bytes of length and a message. What one
worker asks all others get; their answers come back together, those that are there in time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from tokenhub_core.admission.pool import Claim, Grant

WITHIN: Final = 1.0
"""Seconds that an answer is waited for."""
BEAT: Final = 1.0
"""Seconds between two signs that the loop comes round."""
_SOON: Final = 0.05
"""Seconds that the supervisor itself may take while a call waits."""
_LENGTH: Final = 4
_MOST: Final = 64 << 20

_log: Final = logging.getLogger(__name__)

type Answer = Callable[[bytes], Awaitable[bytes]]


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One message.

    `orders`   to a worker, the first one: what it is to do
    `ready`    from a worker: it serves
    `beat`     from a worker, every second: its loop comes round
    `tend`     to a worker: the slots that have nobody of their own
    `ask`      from a worker: to all others; `seconds` is how long it waits
    `asked`    to a worker: answer with the same id
    `answer`   from a worker
    `answers`  to a worker: what the others say, or what it has drawn
    `draw`     from a worker: a claim on the supervisor's pool
    `nonce`    from a worker: a value for the supervisor's nonces
    `reloaded` from a worker: the variables of the environment file that those who start are to have
    """

    kind: str
    id: int = 0
    topic: str = ""
    body: bytes = b""
    parts: tuple[bytes, ...] = ()
    seconds: float = 0.0


class Put(msgspec.Struct, frozen=True, array_like=True):
    """A value for a nonce, for so many milliseconds."""

    name: str
    value: bytes
    lasts: int
    replace: bool


_decode: Final = msgspec.msgpack.Decoder(Frame).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def packed(frame: Frame) -> bytes:
    """Return a frame as it is sent."""
    data = _encode(frame)
    return len(data).to_bytes(_LENGTH) + data


async def received(reader: asyncio.StreamReader) -> Frame | None:
    """Return the next frame, None where the other end is gone."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH))
        if length > _MOST:
            return None
        return _decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
        return None


def first(end: socket.socket) -> Frame:
    """Wait for the first frame and return it; not a byte behind it is read. Raises `ConnectionError`."""
    length = int.from_bytes(_exactly(end, _LENGTH))
    return _decode(_exactly(end, min(length, _MOST)))


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = end.recv(size - len(data))
        if not piece:
            raise ConnectionError("nobody is at the other end")
        data += piece
    return data


class Siblings:
    """One worker's end; where there are no others everything is answered by nobody, at once."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._answers: dict[str, Answer] = {}
        self._waiting: dict[int, asyncio.Future[tuple[bytes, ...]]] = {}
        self._busy: set[asyncio.Task[None]] = set()
        self._last = 0
        self._tending: Callable[[frozenset[int]], Awaitable[None]] | None = None
        self.lost = asyncio.Event()
        """Set when the supervisor is gone."""

    @property
    def joined(self) -> bool:
        """Tell whether there may be others."""
        return self._writer is not None

    async def join(self, end: socket.socket) -> None:
        """Begin to talk over our end of the pair."""
        end.setblocking(False)
        reader, self._writer = await asyncio.open_unix_connection(sock=end)
        self._reading = asyncio.create_task(self._read(reader), name="siblings")

    async def leave(self) -> None:
        """Talk no more."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        tasks = [*self._busy, *filter(None, [self._reading, self._beating])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ready(self) -> None:
        """Tell the supervisor that this worker serves, and from then on that its loop comes round."""
        self._send(Frame("ready"))
        if self._writer is not None and self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="siblings: beat")

    def reloaded(self, variables: bytes) -> None:
        """Tell the supervisor what workers that start are to have of the environment file."""
        self._send(Frame("reloaded", body=variables))

    def tending(self, tend: Callable[[frozenset[int]], Awaitable[None]]) -> None:
        """Let `tend` hear which slots have nobody of their own."""
        self._tending = tend

    def answering(self, topic: str, answer: Answer) -> None:
        """Answer what others ask under a topic. Whoever does not know a topic says nothing of it."""
        self._answers[topic] = answer

    async def ask(self, topic: str, body: bytes = b"", *, within: float = WITHIN) -> tuple[bytes, ...]:
        """Ask all others, and return what they say in time; empty answers are left out."""
        return tuple(filter(None, await self.everybody(topic, body, within=within)))

    async def everybody(self, topic: str, body: bytes = b"", *, within: float = WITHIN) -> tuple[bytes, ...]:
        """Ask all others that serve, and return an answer for each: an empty one of who does not give it in time."""
        if self._writer is None:
            return ()
        self._last += 1
        future: asyncio.Future[tuple[bytes, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = future
        number = self._last
        self._send(Frame("ask", number, topic, body, seconds=within))
        try:
            # The supervisor answers in time; a little more, because it is another process.
            return await asyncio.wait_for(future, within + WITHIN)
        except TimeoutError:
            return (b"",)
        finally:
            self._waiting.pop(number, None)

    async def draw(self, claim: Claim) -> Grant | None:
        """Draw from the supervisor's pool. Implements `drawing.Pool`."""
        told = await self._supervisor("draw", _encode(claim))
        return None if told is None else msgspec.msgpack.decode(told, type=Grant)

    async def nonce(self, name: str, value: bytes, seconds: float, *, replace: bool) -> bytes | None:
        """Put a value at the supervisor's nonces. Implements `vetting.Nonces`."""
        put = Put(name, value, round(seconds * 1000), replace)
        try:
            async with asyncio.timeout(_SOON):
                return await self._supervisor("nonce", _encode(put))
        except TimeoutError:
            return None

    async def _supervisor(self, kind: str, body: bytes) -> bytes | None:
        if self._writer is None:
            return None
        self._last += 1
        number = self._last
        future: asyncio.Future[tuple[bytes, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._send(Frame(kind, number, body=body))
        try:
            return (await future)[0]
        finally:
            self._waiting.pop(number, None)

    def post(self, topic: str, body: bytes = b"") -> None:
        """Tell all others, and wait for nobody."""
        if self._writer is not None:
            self._send(Frame("ask", 0, topic, body, seconds=WITHIN))

    def _send(self, frame: Frame) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(packed(frame))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._send(Frame("beat"))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while (frame := await received(reader)) is not None:
            if frame.kind == "answers":
                future = self._waiting.get(frame.id)
                if future is not None and not future.done():
                    future.set_result(frame.parts)
            elif frame.kind == "tend" and self._tending is not None:
                await self._tending(frozenset(frame.body))
            elif frame.kind == "asked":
                # Many at a time: one that waits for the store must not hold up the others.
                task = asyncio.create_task(self._answer(frame), name=f"answer {frame.topic}")
                self._busy.add(task)
                task.add_done_callback(self._busy.discard)
        self.lost.set()

    async def _answer(self, frame: Frame) -> None:
        answer, body = self._answers.get(frame.topic), b""
        try:
            if answer is not None:
                body = await answer(frame.body)
        except Exception:  # noqa: BLE001 - what one worker asks must not end another
            _log.exception("a question of another worker failed: %s", frame.topic)
        self._send(Frame("answer", frame.id, body=body))
