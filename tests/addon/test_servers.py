"""What mitmproxy leaves open is closed."""

from __future__ import annotations

import asyncio
from typing import cast

from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import ConnectionIO

from tests.patience import PATIENCE
from tokenhub_addon.servers import Servers


class _Handler:
    """As much of a handler as is looked at when its client is gone."""

    def __init__(self, *transports: ConnectionIO) -> None:
        self.transports = dict(enumerate(transports))


async def test_a_socket_that_its_handler_left_open_is_closed() -> None:
    """Also where the handler ends with an error; one that was never connected is passed over."""
    ended = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        handler = _Handler(ConnectionIO(), ConnectionIO(writer=writer))
        servers = Servers()  # type: ignore[no-untyped-call] # mitmproxy's
        try:
            with servers.register_connection("one", cast("ProxyConnectionHandler", handler)):
                assert list(servers.connections) == ["one"]
                raise ConnectionError("cancelled in the middle of its work")
        except ConnectionError:
            pass
        assert not servers.connections
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
            await writer.wait_closed()
