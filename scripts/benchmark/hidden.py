"""`tokenhub` whose connections come out of no socket that it could see, as those of WireGuard, tun and local capture.

`python -m scripts.benchmark.hidden serve …` is the whole program, with a stream before each connection that has nothing
but what `mitmproxy_rs.Stream` has. So splicing is measured over the same sockets of the kernel as the other lanes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from mitmproxy.proxy.mode_servers import ServerInstance

from tokenhub_core.cli import main

_LEFT: Final = ("write", "write_eof", "close", "is_closing", "drain", "wait_closed", "get_extra_info")


class Hidden:
    """A connection as mitmproxy gets it from its native half; it is its own writer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        for name in _LEFT:
            setattr(self, name, getattr(writer, name))

    async def read(self, size: int) -> bytes:
        """Return what comes next. A read that is given up takes it along, as there."""
        return await asyncio.shield(self._reader.read(size))


@contextmanager
def hiding() -> Iterator[None]:
    """Hide the socket of every connection that mitmproxy accepts meanwhile."""
    real: Any = ServerInstance.handle_stream

    async def handle(
        self: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None = None
    ) -> None:
        assert writer is not None
        hidden = Hidden(reader, writer)
        await real(self, hidden, hidden)

    with mock.patch.object(ServerInstance, "handle_stream", handle):
        yield


if __name__ == "__main__":
    with hiding():
        main()
