"""Sixty addresses that nobody may reach through us, by every way that connects: not one connection is made."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock

import aiohttp
import pytest

from tests.addon.clients import H1, RefusedError, timely, tunnel
from tests.addon.lanes import Front, Lanes
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream
from tokenhub_core.addresses import Guard, is_public, parsed
from tokenhub_core.errors import TokenHubError
from tokenhub_core.http.resolver import GuardedResolver
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.providers.transport import HttpTransport

VECTORS: Final[list[dict[str, Any]]] = json.loads(Path(__file__).with_name("addresses.json").read_text())
HOSTS: Final = [vector["host"] for vector in VECTORS]

_PUBLIC: Final = "93.184.216.34"


class Trap(Upstream):
    """A resolver that knows the vectors, in front of a listener that every dial would lead to."""

    def __init__(self) -> None:
        super().__init__()
        self._known = {vector["host"].lower().rstrip("."): vector for vector in VECTORS}
        self._looked: set[str] = set()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        vector = self._known.get(host.lower().rstrip("."), {})
        if vector.get("later") and host in self._looked:
            return [vector["later"]]
        self._looked.add(host)
        if "leads" in vector:
            leads: list[str] = vector["leads"]
            return leads
        try:
            # What the C library makes of it: decimal, octal, hexadecimal and short forms are addresses.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            return [_PUBLIC]
        return [str(info[4][0]) for info in found]

    async def dial(
        self, host: str, port: int, **how: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = (await self.resolve(host, port))[0]
        self.dials.append((address, port))
        reader, writer = await _connect("127.0.0.1", self.port(port))
        writer.transport._extra["peername"] = (address, port)  # type: ignore[attr-defined] # the trap's lie
        return reader, writer

    def caught(self) -> list[tuple[str, int]]:
        """Return the connections that were made to what is not public."""
        return [dial for dial in self.dials if not is_public(parsed(dial[0]))]


_connect = asyncio.open_connection
"""Bound here: the lanes replace the name."""


async def _absolute(front: Front, host: str) -> bool:
    shown = f"[{host}]" if ":" in host else host
    async with await H1.plain(front.proxy, shown, port=8000) as client:
        return (await client.ask("/latest/meta-data")).status == 200


async def _connected(front: Front, host: str) -> bool:
    shown = f"[{host}]" if ":" in host else host
    reader, writer = await tunnel(front.proxy, shown, 8000)
    async with H1(reader, writer, shown) as client:
        return (await client.ask("/")).status == 200


async def _socks(front: Front, host: str) -> bool:
    reader, writer = await tunnel(front.proxy, host, 8000, via="socks5")
    async with H1(reader, writer, host) as client:
        writer.write(b"\x00\x01 nothing of HTTP\r\n\r\n")
        return await timely(client.reader.read(1)) != b""


async def _got_through(way: Any, front: Front, host: str) -> bool:
    """Tell whether a request to a host was answered by it."""
    with suppress(RefusedError, EOFError, OSError):
        return bool(await way(front, host))
    return False


@pytest.mark.parametrize(
    ("way", "mode"),
    [(_absolute, "regular"), (_connected, "regular"), (_socks, "socks5")],
    ids=["absolute", "CONNECT", "SOCKS"],
)
async def test_the_proxy_connects_to_none_of_them(proxied: Lanes, way: Any, mode: str) -> None:
    """A name that leads elsewhere at a second look leads where it was seen to lead, and that is public."""
    trap = Trap()
    await trap.start()
    try:
        async with proxied(ScriptedEngine(), upstream=trap, mode=mode) as front:
            answered = await asyncio.gather(*(_got_through(way, front, host) for host in HOSTS))
            served = [vector["host"] for vector, told in zip(VECTORS, answered, strict=True) if told]
            assert [host for host in served if not host.startswith("rebind")] == []
            assert trap.caught() == []
            assert len(trap.dials) <= sum("later" in vector for vector in VECTORS)
    finally:
        await trap.close()


@pytest.mark.parametrize("way", [_absolute, _connected], ids=["absolute", "CONNECT"])
async def test_the_trap_catches_where_nothing_guards(proxied: Lanes, way: Any) -> None:
    """The control: with everything allowed, the same requests arrive."""
    trap = Trap()
    await trap.start()
    try:
        allowed = ["0.0.0.0/0", "::/0"]
        async with proxied(ScriptedEngine(), upstream=trap, tokenhub_allow_private=allowed) as front:
            await asyncio.gather(*(_got_through(way, front, host) for host in HOSTS))
            assert len(trap.caught()) > 40
    finally:
        await trap.close()


# --- providers, and what passes through --------------------------------------------------------------------


@contextmanager
def _trapped(trap: Trap) -> Iterator[list[str]]:
    """Have every name resolved by the trap; yield the addresses that sockets were connected to."""
    loop, reached = asyncio.get_running_loop(), []

    async def connect(sock: socket.socket, address: Any) -> None:
        reached.append(str(address[0]))
        raise ConnectionRefusedError

    with (
        mock.patch.object(loop, "getaddrinfo", trap.look_up),
        mock.patch.object(loop, "sock_connect", connect),
    ):
        yield reached


NAMES: Final = [
    vector["host"] for vector in VECTORS if "leads" in vector and "localhost" not in vector["host"].lower()
]


async def test_a_provider_whose_name_leads_there_is_not_connected_to() -> None:
    """Whatever an administrator registered by name: what it resolves to decides, at the moment of connecting."""
    async with HttpTransport() as transport:
        for host in NAMES:
            with _trapped(Trap()) as reached:
                for _ in range(2):
                    with pytest.raises(TokenHubError):
                        await transport.send(
                            UpstreamRequest("GET", f"https://{host}/v1", (), b""), Timeouts()
                        )
            assert [address for address in reached if not is_public(parsed(address))] == []


async def test_what_passes_through_is_not_connected_to_either() -> None:
    """aiohttp is given the permitted addresses of a name and no other."""
    for host in NAMES:
        with mock.patch.object(asyncio.get_running_loop(), "getaddrinfo", Trap().look_up), suppress(OSError):
            found = await GuardedResolver(Guard()).resolve(host, 443)
            assert all(is_public(parsed(one["host"])) for one in found)


async def test_a_host_without_a_permitted_address_cannot_be_reached() -> None:
    """The client that passes things through gets an error that it knows."""
    connector = aiohttp.TCPConnector(resolver=GuardedResolver(Guard()))
    with mock.patch.object(asyncio.get_running_loop(), "getaddrinfo", Trap().look_up):
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("https://intern.example/")


async def test_what_a_name_leads_to_is_told_as_numbers_or_not_at_all() -> None:
    """So that nobody looks it up again; where none is left the reason is one that systems have."""
    asked = Trap()
    with (
        mock.patch.object(asyncio.get_running_loop(), "getaddrinfo", asked.look_up),
        pytest.raises(OSError, match="leads to no address that is allowed") as caught,
    ):
        await GuardedResolver(Guard()).resolve("intern.example", 443)
    assert caught.value.errno == errno.EACCES
    (found, *_) = await GuardedResolver(Guard(allowed=("127.0.0.1",))).resolve("127.0.0.1", 443)
    assert found["flags"] == socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    assert (found["host"], found["port"]) == ("127.0.0.1", 443)


# --- the guard itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.5", "fd12::1", "100.64.0.1"])
def test_a_private_address_that_was_registered_is_reached_for_that_provider_only(base: str) -> None:
    """Ollama and vLLM go on working; that one provider is there opens nothing to another."""
    guard = Guard()
    assert guard.permits(base, base, 11434)
    assert not guard.permits("api.example.com", base, 11434)


@pytest.mark.parametrize(
    ("address", "reached"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False), ("1.1.1.1", True)],
)
@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "ollama.localhost"])
def test_localhost_is_this_machine(name: str, address: str, reached: bool) -> None:
    """A name for loopback leads to loopback and to no private address."""
    assert Guard().permits(name, address, 80) is reached


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "0.0.0.0",
        "224.0.0.1", "ff02::1", "255.255.255.255",
    ],
)  # fmt: skip
def test_nothing_opens_metadata_services(address: str) -> None:
    """Neither a list nor a registration, in whatever form the address comes."""
    assert not Guard(["0.0.0.0/0", "::/0", "name"]).permits("name", address, 80)
    assert not Guard().permits(address, address, 80)


@pytest.mark.parametrize(
    ("listed", "reached"), [("10.0.0.0/8", True), ("vllm.corp", True), ("10.0.0.8", False)]
)
def test_names_that_lead_to_private_addresses_are_listed(listed: str, reached: bool) -> None:
    """By name, address or network."""
    assert Guard([listed]).permits("VLLM.corp.", "10.0.0.7", 80) is reached


def test_a_provider_is_never_ourselves() -> None:
    """A call that came back to us would go round for ever."""
    guard = Guard(["127.0.0.0/8"], own_ports={8080})
    assert not guard.permits("127.0.0.1", "127.0.0.1", 8080)
    assert not guard.permits("localhost", "::1", 8080)
    assert guard.permits("127.0.0.1", "127.0.0.1", 8081)
    assert guard.permits("10.0.0.7", "10.0.0.7", 8080)


def test_the_corpus_is_what_it_says() -> None:
    """Sixty hosts, each another one."""
    assert len(set(HOSTS)) == len(HOSTS) == 60
