"""What is not routed reaches its host as it was sent, and comes back as it was answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from tests.fakes.engine import Bench, Kept
from tests.fakes.listener import listener
from tests.fakes.provider import closed_port
from tests.patience import PATIENCE
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.http.connection import Connection
from tokenhub_core.http.consumer import Door
from tokenhub_core.http.passthrough import Passthrough
from tokenhub_core.recognise import Recognised
from tokenhub_core.types import Dialect, Lane, Outcome, Scope

CONNECTION = Connection("10.0.0.7", "regular", "ann", "api.openai.com", 443, near=True)

type Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Front:
    """The passthrough on a port, in front of one upstream."""

    port: int
    session: aiohttp.ClientSession
    recorder: Kept = field(default_factory=Kept)

    def url(self, path: str) -> URL:
        return URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes and return what comes back until the connection ends, also by a reset."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        got = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while piece := await reader.read(65_536):
                    got += piece
        except ConnectionError:
            pass
        writer.transport.abort()
        return got


@asynccontextmanager
async def on_port(handler: Handler) -> AsyncIterator[int]:
    server = web.Server(handler, handler_cancellation=True, access_log=None, auto_decompress=False)
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def front(
    upstream: int,
    *,
    allowed: bool = True,
    connection: Connection = CONNECTION,
    dialect: Dialect = Dialect.OPENAI_CHAT,
) -> AsyncIterator[Front]:
    """Pass everything on to a port."""
    bench = Bench()
    door = Door(bench.engine, DIALECTS, bench.clock, lambda: bytes(10), 1000)
    async with (
        aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as outgoing,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        passing = Passthrough(
            door,
            bench.recorder,
            outgoing,
            allowed=allowed,
            base_url=lambda _: f"http://127.0.0.1:{upstream}",
        )

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            entry = door.admit(request, dialect, Scope.PASSTHROUGH, connection)
            return await passing(request, connection, Recognised(dialect, "passthrough"), entry)

        async with on_port(handle) as port:
            yield Front(port, session, bench.recorder)


async def settled(it: Front, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(it.recorder.records) < count:  # noqa: ASYNC110 - a recorder tells nobody
            await asyncio.sleep(0.005)


def told(request: web.BaseRequest, body: bytes) -> web.Response:
    """Answer with what arrived."""
    fields = [[key.decode("latin-1"), value.decode("latin-1")] for key, value in request.raw_headers]
    data = {"method": request.method, "path": request.path_qs, "headers": fields, "size": len(body)}
    return web.Response(body=orjson.dumps(data), content_type="application/json")


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    return told(request, await request.read())


# --- what goes out ------------------------------------------------------------------------------------------


async def test_a_request_arrives_as_it_was_sent() -> None:
    """Method, path and query byte for byte, the caller's fields and credential; the host is the one that was meant."""
    path = "/v1/files/a%2Fb%41;x/../c?q=%C3%A9&q=a+b&empty="
    async with on_port(echo) as port, front(port) as it:
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: whatever\r\nAuthorization: Bearer sk-own\r\nX-A: 1\r\nx-a: 2\r\n"
        )
        head += "Connection: close\r\nContent-Length: 3\r\n\r\nabc"
        arrived = orjson.loads((await it.raw(head.encode())).partition(b"\r\n\r\n")[2])
    assert (arrived["method"], arrived["path"], arrived["size"]) == ("PATCH", path, 3)
    fields = [(key.lower(), value) for key, value in arrived["headers"]]
    assert ("host", "api.openai.com") in fields
    assert ("authorization", "Bearer sk-own") in fields
    assert [value for key, value in fields if key == "x-a"] == ["1", "2"]
    assert ("content-length", "3") in fields
    assert not [
        key for key, _ in fields if key in {"user-agent", "accept", "accept-encoding", "content-type"}
    ]


async def test_a_host_keeps_its_port() -> None:
    """Where it is not the usual one."""
    other = Connection("10.0.0.7", "regular", "", "llm.example", 8443, near=True)
    async with (
        on_port(echo) as port,
        front(port, connection=other) as it,
        it.session.get(it.url("/")) as response,
    ):
        fields = dict((await response.json())["headers"])
    assert fields["host"] == "llm.example:8443"


async def test_what_belongs_to_one_connection_stays_there() -> None:
    """In both directions: the hop-by-hop fields and those that any `Connection` line names."""

    async def answering(request: web.BaseRequest) -> web.StreamResponse:
        response = told(request, b"")
        response.headers.add("Connection", "x-hop, keep-alive")
        response.headers.add("X-Hop", "1")
        response.headers.add("Keep-Alive", "timeout=5")
        response.headers.add("Proxy-Authenticate", "Basic")
        response.headers.add("X-End", "1")
        return response

    async with on_port(answering) as port, front(port) as it:
        head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, X-One\r\nConnection: x-two\r\nX-One: 1\r\nX-Two: 2\r\n"
        head += b"X-Three: 3\r\nTE: trailers\r\nProxy-Authorization: Basic c2VjcmV0\r\nHTTP2-Settings: a\r\n"
        head += b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nExpect: 100-continue\r\n\r\n"
        got = await it.raw(head)
    answer, _, body = got.partition(b"\r\n\r\n")
    arrived = {key.lower() for key, _ in orjson.loads(body)["headers"]}
    assert arrived == {"host", "x-three"}
    fields = {line.partition(b":")[0].lower() for line in answer.split(b"\r\n")[1:]}
    assert b"x-end" in fields
    assert not fields & {b"x-hop", b"keep-alive", b"proxy-authenticate"}


@pytest.mark.parametrize("length", [True, False])
async def test_an_upload_streams(length: bool) -> None:
    """The host gets the first piece while the client still has the last one, with a length or without."""
    first = asyncio.Event()

    async def reading(request: web.BaseRequest) -> web.StreamResponse:
        size = len(await request.content.readany())
        first.set()
        return told(request, await request.read() + bytes(size))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        async with asyncio.timeout(PATIENCE):
            await first.wait()
        yield b"y" * 500

    headers = {"content-length": "1500"} if length else {}
    async with (
        on_port(reading) as port,
        front(port) as it,
        it.session.post(it.url("/v1/files"), data=pieces(), headers=headers) as response,
    ):
        arrived = await response.json()
    assert arrived["size"] == 1500
    assert ("content-length" in {key.lower() for key, _ in arrived["headers"]}) is length


# --- what comes back ----------------------------------------------------------------------------------------


async def test_an_answer_streams_untouched() -> None:
    """Status, reason, fields with their repeats, and the very bytes, compressed ones too, as they come."""
    more = asyncio.Event()

    async def streaming(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=207, reason="Odd")
        response.headers.add("Content-Encoding", "gzip")
        response.headers.add("Set-Cookie", "a=1")
        response.headers.add("Set-Cookie", "b=2")
        response.headers.add("X-RateLimit-Remaining", "7")
        await response.prepare(request)
        await response.write(b"\x1f\x8b not really")
        await more.wait()
        await response.write(b" gzip")
        return response

    async with (
        on_port(streaming) as port,
        front(port) as it,
        it.session.get(it.url("/v1/models")) as response,
    ):
        assert (response.status, response.reason) == (207, "Odd")
        assert response.headers.getall("set-cookie") == ["a=1", "b=2"]
        assert response.headers["x-ratelimit-remaining"] == "7"
        async with asyncio.timeout(PATIENCE):
            first = await response.content.readany()
            more.set()
            assert first + await response.content.read() == b"\x1f\x8b not really gzip"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204), ("OPTIONS", 200)])
async def test_an_answer_without_a_body_is_one(method: str, status: int) -> None:
    """And the next request on the connection is answered too."""

    async def bare(request: web.BaseRequest) -> web.StreamResponse:
        length = {"content-length": "1234"} if method == "HEAD" else {}
        return web.Response(status=status, headers={"etag": '"1"', **length})

    async with on_port(bare) as port, front(port) as it:
        for _ in range(2):
            async with it.session.request(method, it.url("/")) as response:
                assert (response.status, await response.read()) == (status, b"")
                assert response.headers["etag"] == '"1"'
                if method == "HEAD":
                    assert response.headers["content-length"] == "1234"


async def test_a_redirect_is_the_clients_to_follow() -> None:
    """A credential is not carried anywhere by us."""

    async def moved(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"location": "https://evil.example/"})

    async with (
        on_port(moved) as port,
        front(port) as it,
        it.session.get(it.url("/"), allow_redirects=False) as response,
    ):
        assert (response.status, response.headers["location"]) == (307, "https://evil.example/")


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", list(DIALECTS))
async def test_a_host_that_cannot_be_reached_is_told_in_the_dialect(dialect: Dialect) -> None:
    """502 in a shape that the SDK reads, recorded as an error of that host."""
    async with front(closed_port(), dialect=dialect) as it, it.session.get(it.url("/v1/models")) as response:
        body = await response.json()
    assert response.status == 502
    assert "api.openai.com cannot be reached" in str(body["error"])
    assert (body.get("type") == "error") is dialect.value.startswith("anthropic")
    record = it.recorder.one
    assert (record.outcome, record.status, record.fault) == (Outcome.ERROR, 502, "origin_unreachable")
    assert record.id == response.headers["x-request-id"]


async def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    """The client's connection is cut, no second head is sent into the body, and the record says who it was."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with listener(half) as port, front(port) as it:
        got = await it.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert got.count(b"HTTP/1.1") == 1
        assert not got.endswith(b"0\r\n\r\n")
        with pytest.raises(aiohttp.ClientError):
            async with it.session.get(it.url("/")) as response:
                await response.read()
    assert [record.fault for record in it.recorder.records] == ["origin_broke_off"] * 2
    assert {record.outcome for record in it.recorder.records} == {Outcome.ERROR}


async def test_a_client_that_leaves_is_not_the_hosts_fault() -> None:
    """Recorded as cancelled, and the host's answer is not read any further."""
    gone = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1000))
                await asyncio.sleep(0)
        finally:
            gone.set()

    async with on_port(endless) as port, front(port) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(2000)
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
    record = it.recorder.one
    assert (record.outcome, record.fault, record.status) == (Outcome.CANCELLED, "", 499)


async def test_nothing_is_passed_on_while_the_origin_is_off() -> None:
    """403, or 426 for a WebSocket, in the dialect; the host hears nothing."""
    async with front(closed_port(), allowed=False) as it:
        for fields, status in (("", 403), ("Upgrade: websocket\r\nConnection: upgrade\r\n", 426)):
            head = f"GET /v1/realtime?model=x HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n"
            got = await it.raw(head.encode())
            assert got.startswith(f"HTTP/1.1 {status} ".encode())
            assert orjson.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "origin_off"
    assert [record.status for record in it.recorder.records] == [403, 426]


# --- what is kept -------------------------------------------------------------------------------------------


async def test_one_record_says_that_it_happened() -> None:
    """Who, what and how long; not one byte of what was said, and no key from the address."""
    async with on_port(echo) as port, front(port) as it:
        headers = {"user-agent": "program/2 (x)", "authorization": "Bearer sk-own"}
        async with it.session.post(
            it.url("/v1/files?api_key=sk-own&a=1"), data=b"text", headers=headers
        ) as response:
            answer = await response.read()
    record = it.recorder.one
    assert (record.outcome, record.status, record.method) == (Outcome.PASSED, 200, "POST")
    assert record.path == "/v1/files?api_key=***&a=1"
    assert record.origin_host == "api.openai.com"
    assert record.timings.total_ms > 0
    assert record.message == f"4 bytes up, {len(answer)} bytes down"
    caller = record.caller
    assert (caller.peer, caller.lane, caller.mode, caller.proxy_user, caller.program) == (
        "10.0.0.7",
        Lane.HANDOFF,
        "regular",
        "ann",
        "program/2",
    )
    assert "sk-own" not in repr(record)
