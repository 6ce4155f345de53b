"""The hand-off lane, seen by clients on real sockets: what is taken, what is refused, what is left alone."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import options
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.test import tflow

from scripts.benchmark.hidden import hiding
from tests.addon.handing_off import (
    CONNECT,
    HOST,
    HOSTS,
    Scene,
    Stage,
    ended,
    hello,
    leave,
    opened,
    post,
    shake,
    socks,
    until,
)
from tests.patience import PATIENCE
from tokenhub_addon.handoff import _unread
from tokenhub_core.ca import CertificateAuthority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path_factory.mktemp("ca") / "ca", HOSTS, now=time.time)


@pytest.fixture(params=["socket", "stream"])
def spliced(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Every scene twice: with connections out of sockets, and out of streams that hide theirs."""
    if request.param == "socket":
        yield False
        return
    with hiding():
        yield True


@pytest.fixture
def stage(authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch, spliced: bool) -> Stage:
    """Open a scene; names do not resolve here, and every lookup is noted."""
    names: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
        names.append(host)
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)

    def start(*modes: str, **how: Any) -> AbstractAsyncContextManager[Scene]:
        return opened(*modes, names=names, **{"vouched": authority, "spliced": spliced, **how})

    return start


# --- what is taken -----------------------------------------------------------------------------------------


async def test_a_call_to_a_recognised_host_is_answered_here(stage: Stage) -> None:
    """A client that trusts our CA talks to our server; the host's name is never looked up."""
    async with stage() as scene:
        streams = await scene.secure()
        answer = await post(streams)

        assert answer == {"who": ["regular", "", HOST, 443], "peer": "127.0.0.1", "said": "hello"}
        assert scene.untouched()
        assert scene.handoff.handed_off == 1
        leave(streams)


async def test_a_connection_serves_one_request_after_another(stage: Stage) -> None:
    """Keep-alive works, and mitmproxy is out of it after the hand-off."""
    async with stage() as scene:
        streams = await scene.secure()
        for n in range(5):
            assert (await post(streams, body=f"call {n}"))["said"] == f"call {n}"
            gc.collect()  # what mitmproxy has let go of must not take the connection with it

        assert (scene.handoff.handed_off, scene.handoff.open_connections) == (1, 1)
        assert scene.proxy.connections == scene.spliced
        leave(streams)


async def test_a_stream_arrives_in_chunks(stage: Stage) -> None:
    """A server-sent event stream passes as our server frames it."""
    async with stage() as scene:
        reader, writer = await scene.secure()
        writer.write(f"GET /stream HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = await reader.readuntil(b"0\r\n\r\n")

        assert b"transfer-encoding: chunked" in answer.lower()
        assert answer.count(b"data: ") == 3
        leave((reader, writer))


async def test_a_hundred_connections_at_once(stage: Stage) -> None:
    """Parallel connections do not get in each other's way."""
    async with stage() as scene:

        async def call(n: int) -> Any:
            streams = await scene.secure()
            said = (await post(streams, body=str(n)))["said"]
            leave(streams)
            return said

        assert await asyncio.gather(*map(call, range(100))) == [str(n) for n in range(100)]
        assert scene.handoff.handed_off == 100


async def test_http_2_clients_are_steered_to_http_1(stage: Stage) -> None:
    """Of h2 and http/1.1 we choose http/1.1."""
    async with stage() as scene:
        trust = scene.trust
        trust.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await scene.tunnel()
        await writer.start_tls(trust, server_hostname=HOST)

        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert await post((reader, writer))
        leave((reader, writer))


async def test_a_client_that_speaks_nothing_but_http_2_is_left_to_the_other_lane(stage: Stage) -> None:
    """gRPC offers no http/1.1: a handshake with us could only fail."""
    async with stage() as scene:
        trust = scene.trust
        trust.set_alpn_protocols(["h2"])
        _, writer = await scene.tunnel()
        greeting = asyncio.create_task(writer.start_tls(trust, server_hostname=HOST))
        await until(lambda: scene.rest.connects == [HOST])
        greeting.cancel()
        await asyncio.gather(greeting, return_exceptions=True)
        assert scene.handoff.handed_off == 0
        writer.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_comes_back_to_its_tls_session(stage: Stage, version: ssl.TLSVersion) -> None:
    """A second connection of a client that keeps its ticket (RFC 8446, 2.2; RFC 5077) needs no certificate."""
    async with stage() as scene:
        trust = scene.trust
        trust.minimum_version = trust.maximum_version = version
        address = scene.proxy.listen_addrs()[0]

        def call(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            with socket.create_connection(address, PATIENCE) as raw:
                raw.sendall(CONNECT)
                assert raw.recv(4096).startswith(b"HTTP/1.1 200")
                with trust.wrap_socket(raw, server_hostname=HOST, session=session) as secure:
                    secure.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                    assert secure.recv(4096).startswith(b"HTTP/1.1 200")
                    return secure.session, secure.session_reused

        session, first = await asyncio.to_thread(call, None)
        _, second = await asyncio.to_thread(call, session)

        assert (first, second) == (False, True)
        assert scene.handoff.handed_off == 2


@pytest.mark.parametrize("cuts", [(1,), (2,), (3,), (200,), (1, 2, 3, 4)])
async def test_a_client_hello_may_come_in_pieces(stage: Stage, cuts: tuple[int, ...]) -> None:
    """However the ClientHello is cut into segments, the connection is taken once it is whole."""
    async with stage() as scene:
        streams = await scene.tunnel()
        await shake(streams, scene.trust, cuts, until(lambda: scene.handoff.asked[-1:] == [cuts[0]]))

        assert scene.handoff.handed_off == 1
        assert scene.untouched()
        leave(streams)


async def test_a_client_hello_may_follow_connect_at_once(stage: Stage) -> None:
    """A client that does not wait for the proxy's answer is served as well."""
    async with stage() as scene:
        reader, writer = await scene.dial()
        writer.write(CONNECT + hello(HOST))
        answer = await reader.readuntil(b"\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 200")
        assert (await reader.readexactly(1)) == b"\x16"  # the ServerHello
        assert scene.handoff.handed_off == 1
        leave((reader, writer))


async def test_no_byte_is_lost_between_mitmproxy_and_us() -> None:
    """What the client sent is handed on in order: what the hook saw, what came meanwhile, what is unread."""
    context = Context(tflow.tclient_conn(), options.Options())
    nextlayer = NextLayer(context)
    client, server = context.client, context.server
    nextlayer.events = [events.Start(), events.DataReceived(client, b"a"), events.DataReceived(server, b"-")]
    nextlayer._paused_event_queue.extend(
        (
            events.DataReceived(client, b"b"),
            events.DataReceived(server, b"-"),
            events.ConnectionClosed(server),
        )
    )
    reader = asyncio.StreamReader()
    reader.feed_data(b"c")
    reader.feed_eof()

    assert _unread(nextlayer, reader) == b"abc"
    assert await reader.read() == b""


@pytest.mark.parametrize("address", [HOST, "192.0.2.1"])
async def test_socks_clients_are_served_by_name_or_by_address(stage: Stage, address: str) -> None:
    """A SOCKS client may leave the name to us, or resolve it itself: then the ClientHello names the host."""
    async with stage("socks5") as scene:
        reader, writer = await scene.dial()
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(socks(address))
        assert (await reader.readexactly(10))[:2] == b"\x05\x00"
        await writer.start_tls(scene.trust, server_hostname=HOST)

        assert (await post((reader, writer)))["who"] == ["socks5", "", HOST, 443]
        assert scene.untouched()
        leave((reader, writer))


@pytest.mark.parametrize("name", [HOST, "localhost"])
async def test_a_reverse_proxy_serves_its_target(stage: Stage, name: str) -> None:
    """In reverse mode the target is ours to choose, whatever the client calls us."""
    async with stage(f"reverse:https://{HOST}") as scene:
        trust = scene.trust
        trust.check_hostname = name == HOST
        reader, writer = await scene.dial()
        await writer.start_tls(trust, server_hostname=name)

        assert (await post((reader, writer)))["who"] == ["reverse", "", HOST, 443]
        assert scene.untouched()
        leave((reader, writer))


async def test_an_upstream_proxy_is_not_asked(stage: Stage) -> None:
    """In upstream mode a recognised host is answered here, and the upstream proxy hears nothing."""
    async with stage("upstream:http://127.0.0.1:9") as scene:
        streams = await scene.secure()

        assert (await post(streams))["who"] == ["upstream", "", HOST, 443]
        assert scene.rest.connects == []
        leave(streams)


# --- proxy credentials -------------------------------------------------------------------------------------


async def test_without_proxy_credentials_there_is_no_tunnel(stage: Stage) -> None:
    """Where the proxy asks for credentials, CONNECT without them gets 407 and nothing is taken."""
    async with stage(proxy_auth="ann:sesame") as scene:
        reader, writer = await scene.dial()
        writer.write(CONNECT)

        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 407")
        assert scene.handoff.handed_off == 0
        leave((reader, writer))


async def test_the_proxy_user_travels_beside_the_connection(stage: Stage) -> None:
    """Who authenticated to the proxy is told to our server, without the password."""
    async with stage(proxy_auth="ann:sesame") as scene:
        shown = CONNECT[:-2] + b"Proxy-Authorization: Basic YW5uOnNlc2FtZQ==\r\n\r\n"
        streams = await scene.secure(shown)

        assert (await post(streams))["who"] == ["regular", "ann", HOST, 443]
        leave(streams)


async def test_modes_without_connect_do_not_slip_past_proxy_credentials(stage: Stage) -> None:
    """In reverse mode credentials come with each request: such connections stay with mitmproxy."""
    async with stage(f"reverse:https://{HOST}", proxy_auth="ann:sesame") as scene:
        reader, writer = await scene.dial()
        writer.write(hello(HOST))
        await until(lambda: len(scene.rest.connects) == 1)

        assert scene.handoff.handed_off == 0
        leave((reader, writer))


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "name"),
    [(HOST, "www.example.com"), (HOST, "api.anthropic.com"), ("www.example.com", HOST)],
)
async def test_names_that_contradict_each_other_are_refused(stage: Stage, target: str, name: str) -> None:
    """A ClientHello for another name than the tunnel's is answered with an alert; nobody is contacted."""
    async with stage() as scene:
        reader, writer = await scene.tunnel(f"CONNECT {target}:443 HTTP/1.1\r\n\r\n".encode())
        writer.write(hello(name))

        assert await ended(reader) == bytes((21, 3, 3, 0, 2, 2, 112))
        assert (scene.handoff.refused, scene.handoff.handed_off) == (1, 0)
        assert scene.names == ["127.0.0.1"] * len(scene.names)
        assert scene.rest.connects == []
        await until(lambda: scene.proxy.connections == 0)
        leave((reader, writer))


async def test_an_endless_client_hello_is_refused(stage: Stage) -> None:
    """A ClientHello that claims to be longer than any real one does not fill our memory."""
    async with stage() as scene:
        reader, writer = await scene.tunnel()
        record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(0x4000 - 4)
        writer.write(record + b"".join([b"\x16\x03\x01\x40\x00" + bytes(0x4000)] * 8))

        await ended(reader)
        assert scene.handoff.refused == 1
        leave((reader, writer))


def explode(host: str) -> bool:
    raise RuntimeError(host)


async def test_an_exception_in_the_hook_closes_the_connection(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """When our own code fails, the client is cut off; the host is not contacted in our stead."""
    async with stage(is_llm_host=explode) as scene:
        reader, writer = await scene.tunnel()
        writer.write(hello(HOST))

        assert await ended(reader) == bytes((21, 3, 3, 0, 2, 2, 80))
        assert (scene.handoff.failed, scene.handoff.handed_off) == (1, 0)
        assert scene.untouched()
        await until(lambda: scene.proxy.connections == 0)
        leave((reader, writer))
    assert "hand-off failed" in caplog.text


async def test_an_exception_during_the_hand_off_closes_the_connection(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it fails half way, with the transport already ours: only what mitmproxy kept can be told why."""
    async with stage() as scene:

        def broken(*_: object) -> None:
            raise RuntimeError

        monkeypatch.setattr("tokenhub_addon.links.Link.adopt", broken)
        reader, writer = await scene.tunnel()
        writer.write(hello(HOST))

        assert await ended(reader) == (bytes((21, 3, 3, 0, 2, 2, 80)) if scene.spliced else b"")
        assert (scene.handoff.failed, scene.handoff.open_connections) == (1, 0)
        assert scene.untouched()
        await until(lambda: scene.proxy.connections == 0)
        leave((reader, writer))


async def test_a_host_that_we_cannot_vouch_for_is_closed(stage: Stage, tmp_path: Path) -> None:
    """A host that is recognised but missing from the CA's list is an error of ours, and closed as one."""
    other = CertificateAuthority.open(tmp_path / "ca", ["api.mistral.ai"], now=time.time)
    async with stage(vouched=other) as scene:
        reader, writer = await scene.tunnel()
        writer.write(hello(HOST))

        await ended(reader)
        assert scene.handoff.failed == 1
        assert scene.untouched()
        leave((reader, writer))


async def test_a_client_that_does_not_trust_us_is_counted(stage: Stage) -> None:
    """A handshake that the client breaks off is told apart from a served connection."""
    async with stage() as scene:
        reader, writer = await scene.tunnel()
        with pytest.raises(ssl.SSLCertVerificationError):
            await writer.start_tls(ssl.create_default_context(), server_hostname=HOST)
        await until(lambda: scene.handoff.open_connections == 0)

        assert (scene.handoff.handed_off, scene.handoff.untrusted) == (1, 1)
        leave((reader, writer))


# --- what is left alone ------------------------------------------------------------------------------------


async def test_other_hosts_are_tunnelled_unopened(stage: Stage, tmp_path: Path) -> None:
    """A client of another host sees that host's own certificate, and our CA is not involved."""
    theirs = CertificateAuthority.open(tmp_path / "theirs", ["plain.test"], now=time.time)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"it is me")
        await writer.drain()
        writer.close()

    far = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=theirs.server_context("plain.test"))
    port = far.sockets[0].getsockname()[1]
    async with stage() as scene, far:
        reader, writer = await scene.tunnel(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        await writer.start_tls(
            ssl.create_default_context(cafile=theirs.certificate_file), server_hostname="plain.test"
        )

        assert await reader.read(8) == b"it is me"
        assert scene.handoff.handed_off == 0
        leave((reader, writer))


async def test_plain_http_stays_with_mitmproxy(stage: Stage) -> None:
    """An absolute-form request is not TLS, so it is not ours."""
    async with stage() as scene:
        reader, writer = await scene.dial()
        writer.write(f"GET http://{HOST}/v1/models HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())

        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 502")
        assert scene.rest.connects == [HOST]
        assert scene.handoff.handed_off == 0
        leave((reader, writer))


async def test_tls_inside_tls_with_the_proxy_stays_with_mitmproxy(stage: Stage) -> None:
    """A client that speaks TLS with the proxy itself has no transport that we could take."""
    async with stage() as scene:
        loose = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE
        reader, writer = await scene.dial()
        await writer.start_tls(loose)
        writer.write(CONNECT)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(hello(HOST))
        await until(lambda: scene.rest.connects == [HOST])

        assert scene.handoff.handed_off == 0
        leave((reader, writer))


# --- while it lasts, and after -----------------------------------------------------------------------------


async def test_a_client_that_leaves_cancels_its_handler(stage: Stage) -> None:
    """The handler of a client that is gone is cancelled."""
    async with stage() as scene:
        reader, writer = await scene.secure()
        writer.write(f"GET /hang HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await scene.answers.entered.wait()
        leave((reader, writer))

        async with asyncio.timeout(PATIENCE):
            await scene.answers.cancelled.wait()


async def test_a_connection_is_idle_when_our_server_says_so(stage: Stage) -> None:
    """mitmproxy would end it after a while without a byte, however long an answer takes."""
    async with stage(tcp_timeout=1) as scene:
        streams = await scene.secure()
        assert await post(streams)
        await asyncio.sleep(2.5)

        assert await post(streams)
        leave(streams)


async def test_a_slow_reader_slows_the_writer_down(stage: Stage) -> None:
    """What a client does not read is not piled up: the handler waits, and goes on when it reads."""
    async with stage() as scene:
        reader, writer = await scene.secure()
        writer.write(f"GET /flood HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        before = -1
        while scene.answers.sent != before or not before:
            before = scene.answers.sent
            await asyncio.sleep(0.2)
        assert 0 < before < 12 * 1024 * 1024

        answer = await reader.readuntil(b"\r\n\r\n")
        received = len(answer)
        while received < 16 * 1024 * 1024:
            received += len(await reader.read(1 << 20))
        assert scene.answers.sent == 16 * 1024 * 1024
        leave((reader, writer))


async def test_nothing_is_left_after_two_hundred_connections(stage: Stage) -> None:
    """Tasks, handlers and connections are gone when their clients are."""
    async with stage() as scene:
        await asyncio.sleep(0)
        before = len(asyncio.all_tasks())
        for n in range(200):
            streams = await scene.secure()
            await post(streams)
            if n % 2:
                leave(streams)
            else:
                streams[1].close()
                await streams[1].wait_closed()
        await until(lambda: scene.handoff.open_connections == 0 and not scene.server.connections)
        await until(lambda: len(asyncio.all_tasks()) == before)
        gc.collect()

        assert scene.proxy.connections == 0
        assert scene.handoff.handed_off == 200
