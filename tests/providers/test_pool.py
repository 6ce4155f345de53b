"""Connections between exchanges and around them: kept, refused, shared, and closed in time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from tests.fakes.listener import listener
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.addresses import Guard
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.providers.pool import Pool, Site
from tokenhub_core.providers.transport import HttpTransport, tls_context

QUICK = Timeouts(connect=PATIENCE, ttft=PATIENCE, stall=PATIENCE)
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    # What a test waits for is not that an idle connection grows old.
    async with HttpTransport(keepalive=10 * PATIENCE, guard=Guard(["127.0.0.0/8"])) as http:
        yield http


class Server:
    """Answers each request with the next of its `answers`, and keeps what came on which connection."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[tuple[int, bytes]] = []
        self.connections = 0
        self.lost = asyncio.Semaphore(0)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        try:
            while True:
                self.heads.append((number, await reader.readuntil(b"\r\n\r\n")))
                if not self.answers:
                    return
                writer.write(self.answers.pop(0))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.lost.release()


def get(port: int, host: str = "127.0.0.1", method: str = "GET") -> UpstreamRequest:
    return UpstreamRequest(method, f"http://{host}:{port}/v1/models", (), b"")


async def body(transport: HttpTransport, request: UpstreamRequest, timeouts: Timeouts = QUICK) -> bytes:
    response = await transport.send(request, timeouts)
    try:
        return await response.read(1 << 20)
    finally:
        await response.close()


async def gone(server: Server) -> None:
    async with asyncio.timeout(PATIENCE):
        await server.lost.acquire()


async def test_the_last_used_connection_goes_first(transport: HttpTransport) -> None:
    """Those that are not needed any more are left to grow old."""
    server = Server(*[WHOLE] * 6)
    async with listener(server) as port:
        await asyncio.gather(*(body(transport, get(port)) for _ in range(3)))
        for _ in range(3):
            await body(transport, get(port))
    assert server.connections == 3
    assert len({number for number, _ in server.heads[3:]}) == 1


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    """The provider does not have to be the one who lets go."""
    server = Server(WHOLE)
    async with listener(server) as port, HttpTransport(keepalive=0.05) as transport:
        await body(transport, get(port))
        await gone(server)


async def test_a_connection_that_is_used_again_does_not_count_as_idle() -> None:
    """The idle limit ends where the next exchange begins."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for wait in (0.0, 0.3):
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(wait)
            writer.write(WHOLE)

    async with listener(slow) as port, HttpTransport(keepalive=0.1) as transport:
        for _ in range(2):
            assert await body(transport, get(port), Timeouts(ttft=None, stall=None)) == b"ok"


async def test_more_than_was_asked_for_is_never_the_next_answer(transport: HttpTransport) -> None:
    """An answer that nobody asked for would be given to the wrong caller."""
    forged = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
    server = Server(WHOLE + forged, WHOLE)
    async with listener(server) as port:
        for _ in range(2):
            assert await body(transport, get(port)) == b"ok"
    assert server.connections == 2


async def test_bytes_on_an_idle_connection_close_it(transport: HttpTransport) -> None:
    """The same, where they come later."""
    more = asyncio.Event()
    closed = asyncio.Event()

    async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)
        await more.wait()
        writer.write(b"HTTP/1.1 408 Late\r\ncontent-length: 0\r\n\r\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        closed.set()

    async with listener(chatty) as port:
        await body(transport, get(port))
        more.set()
        async with asyncio.timeout(PATIENCE):
            await closed.wait()


async def test_a_whole_answer_that_nobody_read_leaves_its_connection_usable(
    transport: HttpTransport,
) -> None:
    """What has arrived to its end needs no more of the socket."""
    server = Server(WHOLE, WHOLE)
    async with listener(server) as port:
        for _ in range(2):
            response = await transport.send(get(port), QUICK)
            await response.close()
    assert server.connections == 1


async def test_a_closing_answer_closes_its_connection(transport: HttpTransport) -> None:
    """`Connection: close` is believed."""
    server = Server(WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), WHOLE)
    async with listener(server) as port:
        await body(transport, get(port))
        await gone(server)
        await body(transport, get(port))
    assert server.connections == 2


@pytest.mark.parametrize(("method", "sent"), [("GET", 3), ("POST", 2)])
async def test_only_what_may_be_done_twice_is_sent_again_on_a_new_connection(
    transport: HttpTransport, method: str, sent: int
) -> None:
    """A kept connection that closes on the next request: a completion may have been paid for, a list was not."""
    seen = 0

    async def curt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await reader.readuntil(b"\r\n\r\n")
        seen += 1
        writer.write(WHOLE)
        await reader.readuntil(b"\r\n\r\n")
        seen += 1

    async with listener(curt) as port:
        await body(transport, get(port, method=method))
        if method == "GET":
            assert await body(transport, get(port)) == b"ok"
        else:
            with pytest.raises(TokenHubError) as raised:
                await body(transport, get(port, method=method))
            assert (raised.value.fault.kind, raised.value.fault.cause) == (Kind.TRANSIENT, "disconnected")
    assert seen == sent


async def test_a_new_connection_that_closes_is_never_tried_again(transport: HttpTransport) -> None:
    """Only a kept connection can have been closed before the request."""
    server = Server()
    async with listener(server) as port:
        with pytest.raises(TokenHubError) as raised:
            await body(transport, get(port))
    assert raised.value.fault.cause == "disconnected"
    assert server.connections == 1


async def test_a_reader_that_does_not_read_holds_the_provider_back(transport: HttpTransport) -> None:
    """What waits unread is bounded; all of it arrives once it is read."""
    size, sent = 50_000_000, 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        block = b"x" * 100_000
        while sent < size:
            writer.write(block)
            await writer.drain()
            sent += len(block)
        await reader.read()

    async with listener(flood) as port:
        response = await transport.send(get(port), QUICK)
        await asyncio.sleep(0.2)
        assert sent < 20_000_000  # the kernel's buffers are most of it
        assert sum([len(piece) async for piece in response.chunks()]) == size
        await response.close()


async def test_an_answer_before_its_request_was_all_sent_ends_the_connection(
    transport: HttpTransport,
) -> None:
    """The next request must not stand behind the rest of a refused upload."""
    server = Server(WHOLE, WHOLE)
    closed = asyncio.Event()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        writer.write(WHOLE)
        await closed.wait()

    async with listener(hasty) as port:
        upload = UpstreamRequest("POST", f"http://127.0.0.1:{port}/", (), b"x" * 30_000_000)
        for _ in range(2):
            assert await body(transport, upload) == b"ok"
        closed.set()
    assert server.connections == 2


async def test_closing_the_transport_does_not_make_a_broken_answer_whole(provider_until_end: int) -> None:
    """Where the connection's end is the body's end, our own close must not pass for it."""
    transport = HttpTransport()
    await transport.start()
    response = await transport.send(get(provider_until_end), QUICK)

    async def rest() -> bytes:
        return b"".join([piece async for piece in response.chunks()])

    reading = asyncio.create_task(rest())
    await asyncio.sleep(0.05)
    await transport.close()
    with pytest.raises(TokenHubError) as raised:
        await reading
    assert raised.value.fault.kind is Kind.TRUNCATED


async def test_a_wire_that_is_aborted_has_failed_even_where_its_end_would_do(provider_until_end: int) -> None:
    """It is not the provider who ended the body."""
    pool = Pool(tls_context(), idle=1, keepalive=1.0)
    wire = await pool.connect(Site(tls=False, host="127.0.0.1", port=provider_until_end))
    wire.ask("GET", b"GET / HTTP/1.1\r\n\r\n")
    await wire.head(1.0)
    wire.abort()
    await wire.closed
    assert not wire.done
    assert wire.failure is not None
    await pool.close()


@pytest.fixture
async def provider_until_end() -> AsyncIterator[int]:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        await reader.read()

    async with listener(endless) as port:
        yield port


@pytest.mark.parametrize(
    "url",
    ["http://[bad/", "ftp://host/", "http:///v1", "http://a b/", "http://ho\nst/", "http://u:p@host/", "x"],
)
async def test_a_url_that_leads_nowhere_is_our_own_fault(transport: HttpTransport, url: str) -> None:
    """Nothing is connected to on a guess."""
    with pytest.raises(TokenHubError) as raised:
        await body(transport, UpstreamRequest("GET", url, (), b""))
    fault = raised.value.fault
    assert (fault.kind, fault.blame, fault.cause) == (Kind.INTERNAL, Blame.US, "bad_request")


# --- names -------------------------------------------------------------------------------------------------


class Names:
    """Stands in for the system's resolver and counts its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        await asyncio.sleep(0)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in self.addresses
        ]


async def test_a_name_is_asked_for_once_by_all_who_need_it(
    monkeypatch: pytest.MonkeyPatch, transport: HttpTransport
) -> None:
    """At the same time and for a moment after."""
    names = Names(monkeypatch, "127.0.0.1")
    server = Server(*[WHOLE] * 5)
    async with listener(server) as port:
        await asyncio.gather(*(body(transport, get(port, "provider.test")) for _ in range(5)))
    assert (names.asked, server.connections) == (1, 5)
    assert server.heads[0][1].split(b"\r\n")[1] == b"Host: provider.test:%d" % port


async def test_an_address_that_fails_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, transport: HttpTransport
) -> None:
    """Refused and forbidden addresses do not hide a good one."""
    Names(monkeypatch, "169.254.169.254", "127.0.0.2", "127.0.0.1")
    async with listener(Server(WHOLE)) as port:
        assert await body(transport, get(port, "provider.test")) == b"ok"


async def test_an_address_that_is_silent_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch, transport: HttpTransport
) -> None:
    """After a quarter of a second both are tried, and the silent one is given up."""
    Names(monkeypatch, "127.0.0.2", "127.0.0.1")
    loop = asyncio.get_running_loop()
    connect, tried = loop.sock_connect, []

    async def silent(sock: socket.socket, address: Any) -> None:
        tried.append((address[0], sock))
        if address[0] == "127.0.0.2":
            await asyncio.sleep(60)
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", silent)
    async with listener(Server(WHOLE)) as port:
        assert await body(transport, get(port, "provider.test")) == b"ok"
    assert [address for address, _ in tried] == ["127.0.0.2", "127.0.0.1"]
    assert tried[0][1].fileno() == -1


@pytest.mark.parametrize(
    ("addresses", "cause"),
    [
        (("169.254.169.254", "0.0.0.0"), "address_denied"),
        (("127.0.0.2", "169.254.169.254"), "connect_refused"),
        ((), "dns"),
    ],
)
async def test_where_no_address_answers_the_first_ones_fault_is_told(
    monkeypatch: pytest.MonkeyPatch, transport: HttpTransport, addresses: tuple[str, ...], cause: str
) -> None:
    """What a name resolves to is checked whatever the name was."""
    Names(monkeypatch, *addresses)
    async with listener(Server(WHOLE)) as port:
        with pytest.raises(TokenHubError) as raised:
            await body(transport, get(port, "provider.test"))
    assert raised.value.fault.cause == cause


async def test_one_who_leaves_does_not_take_the_name_from_the_others(
    monkeypatch: pytest.MonkeyPatch, transport: HttpTransport
) -> None:
    """Those who wait for the same name are not cancelled with the first."""
    Names(monkeypatch, "127.0.0.1")
    async with FakeProvider() as provider:
        first, second = (asyncio.create_task(body(transport, get(provider.port, "p.test"))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert b"list" in await second
        with pytest.raises(asyncio.CancelledError):
            await first


# --- limits ------------------------------------------------------------------------------------------------


async def test_what_arrives_in_the_turn_in_which_the_limit_passes_is_in_time(
    transport: HttpTransport,
) -> None:
    """A busy loop of our own must not look like a slow provider."""

    async def prompt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE[:-2])
        await asyncio.sleep(0.02)
        writer.write(b"o")
        time.sleep(0.15)  # noqa: ASYNC251 - blocks the loop on purpose
        await asyncio.sleep(0.02)
        writer.write(b"k")
        await reader.read()

    async with listener(prompt) as port:
        assert await body(transport, get(port), Timeouts(ttft=0.1, stall=0.1)) == b"ok"


async def test_a_limit_that_is_shorter_than_the_one_before_is_kept(transport: HttpTransport) -> None:
    """The one timer of a connection may be armed for much later."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE[:-1])
        await reader.read()

    async with listener(half) as port:
        await body(transport, get(port), Timeouts(ttft=10 * PATIENCE, stall=10 * PATIENCE))
        with pytest.raises(TokenHubError) as raised:
            async with asyncio.timeout(PATIENCE):
                await body(transport, get(port), Timeouts(ttft=10 * PATIENCE, stall=0.05))
    assert raised.value.fault.cause == "stall_timeout"
