"""WebSockets that pass through: the two ends talk to each other, and we carry their bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType, web
from aiohttp.http import StreamWriter

from tests.fakes.listener import listener
from tests.fakes.provider import closed_port
from tests.http.test_passthrough import front, on_port, settled
from tests.patience import PATIENCE
from tokenhub_core.http import websockets
from tokenhub_core.types import Outcome


async def talking(request: web.BaseRequest) -> web.StreamResponse:
    """Echo; `bye N` closes with that code, `drop` without one."""
    if request.path == "/refused":
        return web.Response(status=401, text="no")
    socket = web.WebSocketResponse(protocols=("realtime",), max_msg_size=0)
    await socket.prepare(request)
    await socket.send_str(request.headers.get("authorization", ""))
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.data.startswith("bye"):
            await socket.close(code=int(message.data.removeprefix("bye ")))
        elif message.data == "drop":
            assert request.transport is not None
            request.transport.abort()
        else:
            await socket.send_str(message.data)
    return socket


async def test_a_websocket_is_passed_both_ways() -> None:
    """Text and bytes, large ones too, with the subprotocol that was agreed on and the caller's credential."""
    async with on_port(talking) as port, front(port) as it:
        headers = {"authorization": "Bearer sk-own"}
        async with it.session.ws_connect(it.url("/v1/realtime"), protocols=("other", "realtime"), headers=headers,
                                         max_msg_size=0) as socket:  # fmt: skip
            assert socket.protocol == "realtime"
            assert await socket.receive_str() == "Bearer sk-own"
            await socket.send_str("héllo")
            assert await socket.receive_str() == "héllo"
            large = bytes(5 << 20)
            await socket.send_bytes(large)
            assert await socket.receive_bytes() == large
    assert (it.recorder.one.outcome, it.recorder.one.status) == (Outcome.PASSED, 101)


@pytest.mark.parametrize(("said", "code"), [("bye 4001", 4001), ("bye 1001", 1001), ("drop", 1006)])
async def test_a_websocket_ends_as_the_host_ended_it(said: str, code: int) -> None:
    """With its code; where the host just went away, without one."""
    async with on_port(talking) as port, front(port) as it, it.session.ws_connect(it.url("/")) as socket:
        await socket.receive_str()
        await socket.send_str(said)
        async with asyncio.timeout(PATIENCE):
            assert (await socket.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED}
        assert socket.close_code == code


@pytest.mark.parametrize(("code", "heard"), [(4002, 4002), (None, 1006)])
async def test_a_host_hears_how_the_client_ended(code: int | None, heard: int) -> None:
    """Its code; and that a client has vanished it hears at once."""
    ended: asyncio.Queue[int | None] = asyncio.Queue()

    async def hearing(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            await socket.receive()
        finally:
            ended.put_nowait(socket.close_code)
        return socket

    async with on_port(hearing) as port, front(port) as it:
        socket = await it.session.ws_connect(it.url("/"))
        if code is None:
            transport = socket.get_extra_info("socket")
            transport.shutdown(2)
        else:
            await socket.close(code=code)
        async with asyncio.timeout(PATIENCE):
            # A handler that is cancelled has heard of no code at all.
            assert (await ended.get() or 1006) == heard
        await settled(it, 1)
    assert (it.recorder.one.outcome, it.recorder.one.status) == (Outcome.PASSED, 101)


_HANDSHAKE = (
    b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer sk-own\r\n\r\n"
)


async def test_the_two_ends_shake_hands_with_each_other() -> None:
    """Key, version and extensions go through as they are, and every byte after them in both directions."""
    heard = bytearray()
    noise = bytes(range(256)) * 4000

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readuntil(b"\r\n\r\n"))
        # The first frame in the same segment as the head.
        writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Own: 1\r\n"
                     b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst")  # fmt: skip
        heard.extend(await reader.readexactly(len(noise)))
        writer.write(noise)
        await writer.drain()
        writer.close()

    async with listener(host) as port, front(port) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        async with asyncio.timeout(PATIENCE):
            writer.write(_HANDSHAKE)
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(5) == b"first"
            writer.write(noise)
            assert await reader.read(-1) == noise
        writer.close()
        await settled(it, 1)
    assert head.startswith(b"HTTP/1.1 101 Switching\r\n")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    asked = bytes(heard[: -len(noise)]).lower()
    assert asked.startswith(b"get /v1/realtime?model=m http/1.1\r\n")
    for line in (b"sec-websocket-key: dghlihnhbxbszsbub25jzq==", b"sec-websocket-extensions: permessage-deflate",
                 b"authorization: bearer sk-own", b"upgrade: websocket", b"connection: upgrade"):  # fmt: skip
        assert asked.count(b"\r\n" + line + b"\r\n") == 1
    assert heard.endswith(noise)
    record = it.recorder.one
    assert record.message == f"{len(noise)} bytes up, {len(noise) + 5} bytes down"


@pytest.mark.parametrize("side", ["client", "host"])
async def test_who_does_not_read_holds_the_other_up(side: str) -> None:
    """Memory is bounded: a side that is not read from stops being taken from, and goes on when it is."""
    go = asyncio.Event()
    wrote = 0
    total = 64 << 20

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal wrote
        while wrote < total:
            writer.write(bytes(65_536))
            await writer.drain()
            wrote += 65_536

    async def swallow(reader: asyncio.StreamReader) -> None:
        await go.wait()
        await reader.readexactly(total)

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await (flood(writer) if side == "host" else swallow(reader))
        writer.close()

    async with listener(host) as port, front(port) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(_HANDSHAKE)
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            busy = asyncio.create_task(flood(writer) if side == "client" else swallow(reader))
            before = -1
            while before != wrote or not wrote:
                before = wrote
                await asyncio.sleep(0.1)
            # What two sockets, two transports and we may hold; far from everything.
            assert 0 < wrote < total // 2
            go.set()
            await busy
        writer.transport.abort()


async def test_what_was_said_before_the_end_arrives() -> None:
    """A client that speaks and leaves at once was still heard."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        heard.put_nowait(await reader.read(-1))

    async with listener(host) as port, front(port) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(_HANDSHAKE)
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"last words" * 1000)
            writer.close()
            assert await heard.get() == b"last words" * 1000
        await settled(it, 1)
    assert it.recorder.one.message == "10000 bytes up, 0 bytes down"


class _Slow(StreamWriter):
    """Writes one piece and then waits: for a peer that takes no more."""

    ready = asyncio.Event()

    async def write(self, chunk: Any, *, drain: bool = True, LIMIT: int = 0x10000) -> None:  # noqa: N803 - aiohttp's name
        await super().write(chunk, drain=drain, LIMIT=LIMIT)
        await self.ready.wait()


async def test_what_waits_for_a_slow_host_is_not_lost_with_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client has gone, the host has not taken everything yet: it gets it all the same."""
    monkeypatch.setattr(_Slow, "ready", asyncio.Event())
    monkeypatch.setattr(websockets, "StreamWriter", _Slow)
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        heard.put_nowait(await reader.readexactly(3))
        heard.put_nowait(await reader.read(-1))

    async with listener(host) as port, front(port) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(_HANDSHAKE)
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"one")
            assert await heard.get() == b"one"
            writer.write(b"two")
            writer.close()
            assert await heard.get() == b"two"
        await settled(it, 1)
    assert it.recorder.one.message == "6 bytes up, 0 bytes down"


async def test_what_waits_for_a_slow_client_is_not_lost_with_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That nothing can be said to the host any more does not end what it had said."""
    ready = asyncio.Event()
    monkeypatch.setattr(_Slow, "ready", ready)
    monkeypatch.setattr(websockets, "StreamWriter", _Slow)
    parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        writer.write(await parts.get())
        writer.write(await parts.get())
        writer.close()

    async with listener(host) as port, front(port) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(_HANDSHAKE)
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            parts.put_nowait(b"one")
            assert await reader.readexactly(3) == b"one"
            parts.put_nowait(b"two")
            await asyncio.sleep(0.05)
            writer.write(b"to nobody")
            await asyncio.sleep(0.05)
            ready.set()
            assert await reader.read(-1) == b"two"
        writer.close()
        await settled(it, 1)


async def test_a_refused_websocket_is_refused_in_the_hosts_words() -> None:
    """Status, fields and body, also a body that ends with its connection; and the next request is answered."""

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Nope\r\nX-Why: plan\r\n\r\nnot in your plan")
        await writer.drain()
        writer.close()

    async with on_port(talking) as port, front(port) as it:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await it.session.ws_connect(it.url("/refused"))
        assert refused.value.status == 401
    assert (it.recorder.one.outcome, it.recorder.one.status) == (Outcome.PASSED, 401)
    async with listener(until_closed) as port, front(port) as it:
        got = await it.raw(_HANDSHAKE + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 403 Nope\r\nX-Why: plan\r\n")
        assert got.count(b"not in your plan") == 2


async def test_a_host_that_switches_unasked_is_not_followed() -> None:
    """A 101 to a request that did not want one is an error of the host."""

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await reader.read()

    async with listener(host) as port, front(port) as it, it.session.get(it.url("/v1/models")) as response:
        assert response.status == 502
    assert it.recorder.one.fault == "bad_upgrade"


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_call_over_a_websocket_is_sent_back_to_http(allowed: bool) -> None:
    """426 in the dialect, at once, whether or not the host may be reached: its clients then call over HTTP."""
    async with front(closed_port(), allowed=allowed) as it:
        for path in ("/v1/responses", "/v1/chat/completions", "/v1//chat/completions/?x=1"):
            got = await it.raw(
                _HANDSHAKE.replace(b"/v1/realtime?model=m", path.encode()).replace(b"keep-alive", b"close")
            )
            head, _, body = got.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 426 ")
            assert b"\r\nupgrade: http/1.1" in head.lower()
            error = orjson.loads(body)["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "websocket_not_routed")
    assert [(record.outcome, record.status) for record in it.recorder.records] == [(Outcome.ERROR, 426)] * 3
