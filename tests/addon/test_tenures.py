"""A key that ends takes along what it has opened: raw tunnels and conversations, in every lane and mode."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from tests.addon.clients import CHAT, H1, KEY, OPENAI, basic, tunnel
from tests.addon.handing_off import hello
from tests.addon.lanes import Lanes
from tests.addon.passed import Passing, records
from tests.addon.scripted import ScriptedEngine
from tests.fakes.keys import OTHER, SECRET, Book
from tests.patience import PATIENCE
from tokenhub_core.types import Outcome

OWN = {"Authorization": f"Bearer {KEY}"}
ELSEWHERE = "www.example.org"


async def _end(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE):
        while await reader.read(65_536):
            pass


@pytest.mark.parametrize("via", ["connect", "socks5"])
async def test_a_raw_tunnel_ends_with_its_key(proxied: Lanes, via: str) -> None:
    """Not one that somebody else has opened; and nothing is remembered of either."""
    book, mode = Book(), "socks5" if via == "socks5" else "regular"
    async with proxied(ScriptedEngine(), book=book, mode=mode) as running:
        reader, writer = await tunnel(running.proxy, ELSEWHERE, via=via, auth=f"x:{SECRET}")
        others, other = await tunnel(running.proxy, ELSEWHERE, via=via, auth=f"x:{OTHER}")
        for one in (writer, other):
            one.write(hello(ELSEWHERE))
        tenures = running.keeper.tenures
        async with asyncio.timeout(PATIENCE):
            while len(tenures) < 2:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        tenures.look(0)
        assert len(tenures) == 2
        del book.keys[SECRET]
        tenures.look(0)
        await _end(reader)
        assert len(tenures) == 1
        assert not others.at_eof()
        writer.close()
        other.close()
        async with asyncio.timeout(PATIENCE):
            while len(tenures):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("shown", ["proxy", "request"])
async def test_a_conversation_ends_with_its_key(passing: Passing, shown: str) -> None:
    """Whichever of the two places the key was shown in; both ends hear of it, and the record says why."""
    over, book = asyncio.Event(), Book()

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("welcome")
        try:
            await socket.receive()
        finally:
            over.set()
        return socket

    async with passing(site=site, book=book) as running:
        proxy = f"http://{running.proxy.host}:{running.proxy.port}"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"https://{OPENAI}/v1/realtime",
                proxy=proxy,
                proxy_headers={"Proxy-Authorization": basic(f"x:{SECRET if shown == 'proxy' else OTHER}")},
                headers={**OWN, **({"x-api-key": SECRET} if shown == "request" else {})},
                ssl=running.proxy.trust("http/1.1"),
            ) as socket,
            asyncio.timeout(PATIENCE),
        ):
            assert await socket.receive_str() == "welcome"
            running.keeper.tenures.look(0)
            del book.keys[SECRET]
            running.keeper.tenures.look(0)
            assert (await socket.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
            await over.wait()
        (record,) = await records(running)
        assert (record.outcome, record.status, record.fault) == (Outcome.PASSED, 101, "key_ended")
        assert len(running.keeper.tenures) == 0


async def test_an_answer_under_way_is_not_cut(passing: Passing) -> None:
    """What was asked for by a key that was right may end; the next request on the connection is refused."""
    go_on, book = asyncio.Event(), Book()

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b" last")
        return response

    async with (
        passing(site=site, book=book) as running,
        await H1.tls(running.proxy, auth=f"x:{SECRET}") as client,
    ):
        await client.send("/v1/files", b"", method="GET", headers=OWN)
        head = await client.head()
        del book.keys[SECRET]
        running.keeper.tenures.look(0)
        go_on.set()
        assert (await client.rest(head)).body == b"first last"
        assert (await client.ask(CHAT, headers=OWN)).status == 401
