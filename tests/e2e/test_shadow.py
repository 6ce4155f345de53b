"""A host in shadow, then routed, then off, while `tokenhub serve` runs: one program that notices nothing.

The host is a site on loopback with a certificate of its own, which the server is told to trust.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
from aiohttp import web

from tests.addon.clients import CHAT, H1, Proxy, timely, tunnel
from tests.e2e.conftest import LANES
from tests.e2e.serving import Serve, serving
from tests.fakes.certificates import authority, server_context
from tests.fakes.engine import chat
from tests.fakes.provider import FakeProvider
from tokenhub_core.routing.savings import LEAST
from tokenhub_core.types import Json

ANSWER = orjson.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "theirs"}}
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
    }
)


@asynccontextmanager
async def _host(context: ssl.SSLContext, asked: list[bytes]) -> AsyncIterator[int]:
    """Serve the host that the program means; return its port."""

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(await request.read())
        return web.Response(body=ANSWER, content_type="application/json")

    runner = web.ServerRunner(web.Server(site, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class _Program:
    """Makes calls to the host through the proxy, and looks at the certificate that it gets."""

    def __init__(self, serve: Serve, port: int, ca: Path) -> None:
        proxy = urlsplit(serve.info.proxy_url)
        assert proxy.hostname
        assert proxy.port
        self._proxy = Proxy(proxy.hostname, proxy.port, serve.info.ca_file)
        self._port = port
        # It would take either certificate; whose it was is what the scene asks.
        self._trust = ssl.create_default_context(cafile=str(ca))
        self._trust.load_verify_locations(cafile=serve.info.ca_file)
        self._trust.check_hostname = False

    async def call(self, body: Json, times: int = 1) -> tuple[bytes, str]:
        """Return the last answer, and who signed the certificate."""
        reader, writer = await tunnel(self._proxy, "localhost", self._port)
        await timely(writer.start_tls(self._trust, server_hostname="localhost"))
        issuer = dict(pair for names in writer.get_extra_info("peercert")["issuer"] for pair in names)
        data = b""
        async with H1(reader, writer, f"localhost:{self._port}") as client:
            for _ in range(times):
                answer = await client.ask(CHAT, orjson.dumps(body))
                assert answer.status == 200, answer
                data = answer.body
        return data, issuer["commonName"]


@pytest.mark.parametrize("lane", LANES)
async def test_from_shadow_to_routing_to_off(tmp_path: Path, lane: str) -> None:
    """In shadow the host answers and a report comes about; routed we answer; off, its own certificate is seen."""
    ca = authority(tmp_path)
    asked: list[bytes] = []
    settings = {
        "TOKENHUB_EXTRA_HOSTS": "localhost=openai_chat",
        "TOKENHUB_HOST_MODES": "localhost=shadow",
        "TOKENHUB_ALLOW_PRIVATE": "localhost",
        "TOKENHUB_CA_FILE": str(ca[2]),
    }
    call = chat("@@tokenhub mode=cheap\nHi")
    async with (
        _host(server_context(tmp_path, ca, names=["localhost"]), asked) as port,
        serving(tmp_path / "serve", "--lane", lane, settings=settings) as serve,
        FakeProvider() as fake,
    ):
        provider = await serve.register(fake, "mini", input_per_1k=0.0001, output_per_1k=0.0004)
        program = _Program(serve, port, ca[2])

        answer, issuer = await program.call(call, times=LEAST)
        assert (answer, len(asked), len(fake.requests)) == (ANSWER, LEAST, 0)
        assert orjson.loads(asked[0]) == call
        assert issuer != "ca"
        async with asyncio.timeout(30):
            # Nobody waits for the record of what has passed.
            while len(await serve.records()) < LEAST:  # noqa: ASYNC110 - the log is another process's
                await asyncio.sleep(0.05)
        report = await serve.admin("GET", "/shadow/report?host=localhost")
        assert (report["compared"], report["models"][0]["provider"]) == (LEAST, provider.id)
        paid, would = LEAST * (1000 * 2.5 + 100 * 10) / 1e6, LEAST * (1000 * 0.1 + 100 * 0.4) / 1e6
        assert (report["cost"]["paid"], report["cost"]["would"]) == pytest.approx((paid, would))
        assert report["cost"]["saved_each"]["low"] is not None

        await serve.admin("PUT", "/modes", {"host": "localhost", "mode": "route"})
        answer, issuer = await program.call(call)
        assert (answer != ANSWER, len(asked), len(fake.requests)) == (True, LEAST, 1)

        await serve.admin("PUT", "/modes", {"host": "localhost", "mode": "off"})
        answer, issuer = await program.call(call)
        assert (answer, len(asked), issuer) == (ANSWER, LEAST + 1, "ca")
        async with serve.session.get(f"{serve.info.side_url}/metrics") as response:
            metrics = await response.text()
        assert 'tokenhub_unopened_connections_total{host="localhost"} 1.0' in metrics
        assert f'tokenhub_shadow_calls_total{{decision="move"}} {LEAST}.0' in metrics
        assert len(await serve.records()) == LEAST + 1
