"""A server that runs follows what is intercepted: hosts that are added and removed, and a new root, in both lanes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from tests.addon.clients import CHAT, H1, Proxy
from tests.addon.upstream import Upstream
from tests.fakes.certificates import authority, server_context
from tests.patience import PATIENCE
from tokenhub_addon.listening import Served, serving
from tokenhub_core import interception
from tokenhub_core.config import Settings

HOST = "llm.example"
CALL = orjson.dumps({"model": "*", "messages": [{"role": "user", "content": "Hello"}]})


@asynccontextmanager
async def simulating(data: Path, lane: str) -> AsyncIterator[tuple[Served, Upstream]]:
    """Open what `serve --demo` opens; whatever it would dial leads nowhere."""
    upstream = Upstream()
    await upstream.start(server_context(data, authority(data), address="127.0.0.1"))
    settings = Settings(
        data_dir=data,
        port=0,
        admin_port=0,
        lane=lane,
        simulate=True,
        shutdown_drain_secs=0.1,
        credentials_file=str(data / "none"),
    )
    loop = asyncio.get_running_loop()
    with (
        mock.patch("asyncio.open_connection", upstream.dial),
        mock.patch.object(loop, "getaddrinfo", upstream.look_up),
        mock.patch.object(interception, "POLL", 0.02),
    ):
        async with serving(settings, {}) as served:
            yield served, upstream
    await upstream.close()


async def _admin(served: Served, method: str, path: str, body: object = None) -> None:
    headers = {"authorization": f"Bearer {served.app.admin_token.reveal()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, f"{served.side_url}/admin/v1/ca{path}", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def _answered(served: Served, host: str, trust: Path) -> int:
    """Make one call to a host over a connection of its own; 0 where it is not we who answer for it."""
    where = urlsplit(served.proxy_url)
    assert where.hostname
    assert where.port
    try:
        async with await H1.tls(Proxy(where.hostname, where.port, str(trust), "regular"), host) as client:
            return (await client.ask(CHAT, CALL)).status
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return 0


async def _becomes(served: Served, host: str, trust: Path, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await _answered(served, host, trust) != status:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("lane", ["auto", "inspect"])
async def test_a_running_server_follows_hosts_and_root(tmp_path: Path, lane: str) -> None:
    """The added host is answered for without a restart; then with a new root, and no more with the old one."""
    async with simulating(tmp_path, lane) as (served, upstream):
        ca, old = served.ca_file, tmp_path / "old.pem"
        assert await _answered(served, HOST, ca) == 0
        assert upstream.dials == [(HOST, 443)]
        await _admin(served, "POST", "/hosts", {"host": HOST, "dialect": "openai_chat"})
        await _becomes(served, HOST, ca, 200)
        old.write_bytes(ca.read_bytes())
        await _admin(served, "POST", "/rotate")
        for host in (HOST, "api.openai.com"):
            await _becomes(served, host, ca, 200)
            assert await _answered(served, host, old) == 0
        await _admin(served, "DELETE", f"/hosts/{HOST}")
        await _becomes(served, HOST, ca, 0)
        assert {host for host, _ in upstream.dials} == {HOST}
