"""HTTP/3: mitmproxy opens a UDP port beside the TCP one in some modes; for listed hosts nobody is served there.

Neither lane speaks it (the hand-off needs TCP, and mitmproxy's HTTP/3 loses parallel streams), so a client has to
learn at once that it should come back over TCP.
"""

from __future__ import annotations

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration

from tests.addon.clients import H1, OPENAI, timely
from tests.addon.lanes import Lanes
from tests.addon.scripted import ScriptedEngine


async def _shake(port: int, cafile: str, host: str = OPENAI) -> None:
    """Shake hands over QUIC; raises ConnectionError where that is refused."""
    configuration = QuicConfiguration(alpn_protocols=["h3"], server_name=host, cafile=cafile)
    async with connect(
        "127.0.0.1", port, configuration=configuration, create_protocol=QuicConnectionProtocol
    ):
        pass


@pytest.mark.parametrize("scheme", ["https", "http3"])
async def test_http3_to_a_listed_host_is_refused_at_once(proxied: Lanes, scheme: str) -> None:
    """A QUIC handshake is turned down before its client would give it up after a minute, and TCP serves it."""
    engine = ScriptedEngine()
    async with proxied(engine, mode=f"reverse:{scheme}://{OPENAI}") as running:
        with pytest.raises(ConnectionError):
            await timely(_shake(running.proxy.port, running.proxy.cafile))
        assert engine.snapshots == []
        if scheme == "https":
            async with await H1.tls(running.proxy, via="direct") as client:
                assert (await client.ask()).status == 200
        assert running.upstream.dials == []


async def test_a_client_that_names_a_listed_host_is_refused_as_well(proxied: Lanes) -> None:
    """Where the target is an address, as behind a transparent proxy, the name in the handshake decides."""
    engine = ScriptedEngine()
    async with proxied(engine, mode="reverse:https://203.0.113.7") as running:
        with pytest.raises(ConnectionError):
            await _shake(running.proxy.port, running.proxy.cafile)
        assert running.upstream.dials == []
