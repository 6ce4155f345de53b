"""What a committed stream asks of the transport: fewer, larger pieces, and a word in silences."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.fakes.listener import listener
from tests.patience import PATIENCE
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.transport import HttpTransport

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMITS = Timeouts(connect=PATIENCE, ttft=PATIENCE, stall=PATIENCE)
LONG = 10 * PATIENCE
"""Seconds; what waits for so long is not waited for."""


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    # What a test waits for is not that an idle connection grows old.
    async with HttpTransport(keepalive=10 * PATIENCE) as http:
        yield http


class Sender:
    """A provider that sends what a scene tells it, when it does."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(HEAD)
                self.writer = writer

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


async def next_of(chunks: AsyncIterator[bytes]) -> bytes:
    return await asyncio.wait_for(anext(chunks), PATIENCE)


async def begun(
    transport: HttpTransport,
    sender: Sender,
    port: int,
    *,
    gather: float,
    tick: float = LONG,
    limits: Timeouts = LIMITS,
) -> tuple[UpstreamResponse, AsyncIterator[bytes]]:
    """Return an answer whose first piece has been taken, eased."""
    request = UpstreamRequest("GET", f"http://127.0.0.1:{port}/", (), b"")
    response = await transport.send(request, limits)
    chunks = response.chunks()
    sender.send(piece(b"first"))
    assert await next_of(chunks) == b"first"
    response.ease(gather=gather, tick=tick)
    return response, chunks


async def test_pieces_that_come_close_together_are_handed_over_as_one(transport: HttpTransport) -> None:
    """The reader is woken once for all that came within the time."""
    sender = Sender()
    async with listener(sender) as port:
        response, chunks = await begun(transport, sender, port, gather=1.0)
        waiting = asyncio.create_task(next_of(chunks))
        for word in (b"a", b"b", b"c"):
            await asyncio.sleep(0.01)
            sender.send(piece(word))
        assert await waiting == b"abc"
        await response.close()


async def test_a_piece_after_a_pause_does_not_wait(transport: HttpTransport) -> None:
    """The time counts from the last piece: what comes later is handed over at once.

    A busy machine may hold up any piece, but not each of many.
    """
    sender, gather, took = Sender(), 0.1, list[float]()
    async with listener(sender) as port:
        response, chunks = await begun(transport, sender, port, gather=gather)
        for _ in range(20):
            waiting = asyncio.create_task(next_of(chunks))
            await asyncio.sleep(gather * 1.5)
            sent = time.monotonic()
            sender.send(piece(b"late"))
            assert await waiting == b"late"
            took.append(time.monotonic() - sent)
            if took[-1] < gather:
                break
        await response.close()
    assert min(took) < gather


async def test_the_end_of_an_answer_does_not_wait(transport: HttpTransport) -> None:
    """With the last chunk there is nothing left to gather."""
    sender = Sender()
    async with listener(sender) as port:
        _, chunks = await begun(transport, sender, port, gather=LONG)
        waiting = asyncio.create_task(next_of(chunks))
        await asyncio.sleep(0.01)
        sender.send(piece(b"last") + b"0\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert await waiting == b"last"
            assert [chunk async for chunk in chunks] == []


async def test_silence_is_told_until_it_is_a_stall(transport: HttpTransport) -> None:
    """An empty piece after every tick; the limit goes on counting from the last byte."""
    sender = Sender()
    async with listener(sender) as port:
        limits = Timeouts(connect=PATIENCE, ttft=PATIENCE, stall=0.6)
        _, chunks = await begun(transport, sender, port, gather=0.001, tick=0.02, limits=limits)
        told: list[bytes] = []

        async def listen() -> None:
            async for chunk in chunks:
                told.append(chunk)  # noqa: PERF401 - what came before the fault is wanted

        with pytest.raises(TokenHubError) as raised:
            await listen()
        assert raised.value.fault.cause == "stall_timeout"
        assert set(told) == {b""}
        assert 1 <= len(told) <= 30


@pytest.mark.parametrize("gather", [0.001, 0.0])
async def test_a_piece_that_comes_in_parts_is_no_silence(transport: HttpTransport, gather: float) -> None:
    """Many servers write a chunk's size, its data and its end one by one: no empty piece is told between them."""
    sender = Sender()
    async with listener(sender) as port:
        response, chunks = await begun(transport, sender, port, gather=gather)
        for word in (b"hello", b"again"):
            waiting = asyncio.create_task(next_of(chunks))
            for part in (b"5", b"\r\n", word):
                await asyncio.sleep(0.01)
                sender.send(part)
            assert await waiting == word
            sender.send(b"\r\n")
        await response.close()


async def test_who_was_woken_is_not_woken_again_for_what_he_took(transport: HttpTransport) -> None:
    """What comes in the turn of the loop in which a reader was woken goes along, and leaves no empty piece behind."""
    sender = Sender()
    async with listener(sender) as port:
        response, chunks = await begun(transport, sender, port, gather=0.05)
        (wire,) = (one._wire for one in transport._open)
        assert wire is not None
        waiting = asyncio.create_task(next_of(chunks))
        await asyncio.sleep(0.1)
        for word in (b"a", b"b"):
            data = piece(word)
            wire.get_buffer(0)[: len(data)] = data
            wire.buffer_updated(len(data))
        assert await waiting == b"ab"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(chunks), 0.2)
        await response.close()


async def test_the_next_answer_on_the_connection_is_not_eased(transport: HttpTransport) -> None:
    """Easing is one answer's: the next one's first piece is handed over at once."""
    sender = Sender()
    async with listener(sender) as port:
        _, chunks = await begun(transport, sender, port, gather=LONG)
        sender.send(b"0\r\n\r\n")
        assert [chunk async for chunk in chunks] == []
        async with asyncio.timeout(PATIENCE):
            response, _ = await begun(transport, sender, port, gather=0.001)
        await response.close()
