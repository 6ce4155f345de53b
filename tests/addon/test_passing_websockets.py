"""WebSockets to listed hosts: they pass and are recorded; calls over them are sent back to HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.addon.clients import CHAT, H1, KEY, OPENAI
from tests.addon.inspection import inspecting, make_addon
from tests.addon.lanes import Front
from tests.addon.passed import KEYED, Host, Passing, ends, records, running_with
from tests.addon.scripted import ScriptedEngine
from tests.fakes.certificates import authority, server_context
from tests.fakes.engine import Kept
from tests.patience import PATIENCE
from tokenhub_core.types import Lane, Outcome


async def talking(request: web.BaseRequest) -> web.StreamResponse:
    """Echo; `bye` closes with 4001."""
    if request.path == "/v1/refused":
        return web.Response(status=401, text="no")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    socket = web.WebSocketResponse(protocols=("realtime",), max_msg_size=0)
    await socket.prepare(request)
    await socket.send_str("welcome")
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.data == "bye":
            await socket.close(code=4001)
        else:
            await socket.send_str(message.data)
    return socket


@contextlib.asynccontextmanager
async def _talk(
    running: Front, path: str, *, compress: int = 0
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"wss://{OPENAI}{path}",
            proxy=f"http://{running.proxy.host}:{running.proxy.port}",
            ssl=running.proxy.trust(),
            headers=KEYED,
            protocols=("realtime",),
            max_msg_size=0,
            compress=compress,
            timeout=aiohttp.ClientWSTimeout(ws_close=5),
        ) as socket,
        asyncio.timeout(PATIENCE),
    ):
        yield socket


@pytest.mark.parametrize("compress", [0, 15])
async def test_a_websocket_passes_and_is_recorded(passing: Passing, compress: int) -> None:
    """Realtime conversations go both ways, compressed or not, and end with the host's own code."""
    async with passing(site=talking) as running:
        async with _talk(running, "/v1/realtime?model=gpt-realtime", compress=compress) as socket:
            assert socket.protocol == "realtime"
            assert (socket.compress > 0) is (compress > 0)
            assert await socket.receive_str() == "welcome"
            await socket.send_str("héllo")
            assert await socket.receive_str() == "héllo"
            large = hashlib.shake_128(b"y").digest(2 << 20)
            await socket.send_bytes(large)
            assert await socket.receive_bytes() == large
            assert running.recorder.records == []
            await socket.send_str("bye")
            assert (await socket.receive()).type is WSMsgType.CLOSE
            assert socket.close_code == 4001
        (record,) = await records(running)
    assert ends(record) == (Outcome.PASSED, 101, "")
    assert record.path == "/v1/realtime?model=gpt-realtime"
    up = int(record.message.split()[0])
    assert up >= (2 << 20)


async def test_a_websocket_that_is_dropped_is_recorded(passing: Passing) -> None:
    """A client that vanishes has ended its conversation; the host hears of it."""
    gone = asyncio.Event()

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await talking(request)
        finally:
            gone.set()

    async with passing(site=site) as running:
        async with _talk(running, "/v1/realtime") as socket:
            await socket.receive_str()
            transport = socket.get_extra_info("socket")
            assert transport is not None
            transport.shutdown(2)
            await gone.wait()
        (record,) = await records(running)
    assert ends(record) == (Outcome.PASSED, 101, "")


async def test_a_websocket_that_the_host_refuses_is_refused(passing: Passing) -> None:
    """With the host's own words."""
    async with passing(site=talking) as running:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with _talk(running, "/v1/refused"):
                pass
        assert refused.value.status == 401
        (record,) = await records(running)
    assert ends(record) == (Outcome.PASSED, 401, "")


@pytest.mark.parametrize("origin", [True, False])
async def test_calls_over_a_websocket_are_sent_back_to_http(passing: Passing, origin: bool) -> None:
    """426 at once, nobody is asked; the same connection then carries the call."""
    async with (
        passing(site=talking, tokenhub_origin=origin) as running,
        await H1.tls(running.proxy) as client,
    ):
        await client.send(CHAT, b"", method="GET", headers={**KEYED, "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"})  # fmt: skip
        answer = await client.answer()
        assert answer.status == 426
        assert b"websocket_not_routed" in answer.body
        assert answer.headers["upgrade"] == "HTTP/1.1"
        assert (await client.ask()).status == 200
        (record,) = await records(running)
        assert running.upstream.dials == []
    assert ends(record) == (Outcome.ERROR, 426, "websocket_not_routed")


async def test_a_flow_keeps_the_last_of_a_long_conversation(confdir: Path, tmp_path: Path) -> None:
    """mitmproxy would keep every message for ever; the record still counts them all."""
    host, recorder, engine = Host(site=talking), Kept(), ScriptedEngine()
    await host.start(server_context(tmp_path, authority(tmp_path)))
    ours = make_addon(engine, host, make=running_with(engine, recorder))
    async with inspecting(confdir, engine, addon=ours, upstream=host, ssl_insecure=True) as lane:
        running = Front(Lane.INSPECT, lane.proxy, host, recorder=recorder)
        async with _talk(running, "/v1/realtime") as socket:
            await socket.receive_str()
            for _ in range(40):
                await socket.send_bytes(bytes(100_000))
                await socket.receive_bytes()
            kept = lane.flow.websocket
            assert kept is not None
            assert 0 < sum(len(message.content) for message in kept.messages) <= 1 << 20
        (record,) = await records(running)
    await host.close()
    assert record.message == "4000000 bytes up, 4000007 bytes down"


async def test_a_key_among_the_subprotocols_stands_in_no_flow(confdir: Path, tmp_path: Path) -> None:
    """The host gets it, and the flow does not keep it."""
    host = Host()
    await host.start(server_context(tmp_path, authority(tmp_path)))
    protocols = f"realtime, openai-insecure-api-key.{KEY}"
    async with (
        inspecting(confdir, ScriptedEngine(), upstream=host, ssl_insecure=True) as lane,
        await H1.tls(lane.proxy) as client,
    ):
        await client.send("/v1/realtime", b"", method="GET", headers={"Sec-WebSocket-Protocol": protocols})
        assert (await client.answer()).status == 200
        assert KEY not in str(lane.flow.get_state())
    assert protocols.encode() in host.requests[0]
    await host.close()
