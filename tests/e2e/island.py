"""A network of its own, in which the public hosts are ours: run by `test_island.py` through `unshare -rnm`.

`python -m tests.e2e.island FOLDER PYTEST-ARGUMENTS…` makes the fresh network namespace that it is started in an
island: loopback alone, a resolver of ours that writes down every name that anybody asks for and leads all of them
here, and this machine's resolver configuration replaced, for these processes only, by one that knows no other. Then
it runs pytest. A packet for anywhere else has no route.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, override

ADDRESSES: Final[Mapping[str, str]] = {
    "api.openai.com": "192.0.2.10",
    "api.anthropic.com": "192.0.2.11",
}
"""Where the public hosts are, on the island. Nobody has these addresses (RFC 5737)."""

ELSEWHERE: Final = "192.0.2.99"
"""Where every other name leads."""

_FILES: Final = {
    "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
}


def settle(folder: Path) -> None:
    """Make this namespace the island."""
    for target, content in _FILES.items():
        source = folder / Path(target).name
        source.write_text(content)
        subprocess.run(["mount", "--bind", str(source), target], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in (*ADDRESSES.values(), ELSEWHERE):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)


@dataclass
class Resolver(asyncio.DatagramProtocol):
    """The island's DNS server; `asked` has every name that it was asked for."""

    asked: list[str] = field(default_factory=list)
    _transport: asyncio.DatagramTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, end = _question(data)
        self.asked.append(name)
        kind = data[end : end + 2]
        answers = b""
        if kind == b"\0\1":  # an address of the fourth version; there are no others here
            address = bytes(map(int, ADDRESSES.get(name, ELSEWHERE).split(".")))
            answers = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + address
        head = data[:2] + b"\x81\x80\0\1" + (b"\0\1" if answers else b"\0\0") + b"\0\0\0\0"
        assert self._transport is not None
        self._transport.sendto(head + data[12 : end + 4] + answers, addr)


def _question(data: bytes) -> tuple[str, int]:
    """Return the name that is asked for, and where it ends (RFC 1035, 4.1.2)."""
    labels, at = [], 12
    while size := data[at]:
        labels.append(data[at + 1 : at + 1 + size].decode())
        at += size + 1
    return ".".join(labels).lower(), at + 1


@asynccontextmanager
async def resolving() -> AsyncIterator[Resolver]:
    """Run the resolver for as long as the block lasts."""
    loop = asyncio.get_running_loop()
    transport, resolver = await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.1", 53))
    try:
        yield resolver
    finally:
        transport.close()


if __name__ == "__main__":
    settle(Path(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[2:]])
