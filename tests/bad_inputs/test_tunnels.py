"""Tunnels, TLS and HTTP/2 as nobody's client speaks them: B28 to B30, in the lanes of the proxy.

The sixty addresses of the SSRF corpus are tests/trust; here is the refusal that a CONNECT gets, and that the proxy goes
on. HTTP/2 is spoken by the inspect lane alone: the hand-off lane steers its clients to HTTP/1.1, so what is shown of
it is that a flood never begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from pathlib import Path
from typing import Final

import pytest

from tests.addon import lanes
from tests.addon.clients import CHAT, H1, OPENAI, RefusedError, timely, tunnel
from tests.addon.handing_off import hello
from tests.addon.lanes import Front, Lanes
from tests.addon.scripted import ScriptedEngine
from tests.patience import PATIENCE
from tests.trust.test_address_corpus import Trap
from tokenhub_core.types import Lane


async def _goes_on(running: Front) -> None:
    """A client of the same proxy that does nothing wrong is served."""
    async with await H1.tls(running.proxy) as client:
        assert (await client.ask()).status == 200


PLACES: Final = [
    *("169.254.169.254:80", "169.254.169.254:443", "127.0.0.1:22", "localhost:80", "[::1]:443", "0.0.0.0:80"),
    *(
        "10.0.0.1:443",
        "metadata.google.internal:80",
        "2130706433:80",
        "0x7f000001:80",
        "[::ffff:127.0.0.1]:80",
    ),
]


async def test_b28_no_tunnel_leads_to_what_is_not_public(
    proxied: Lanes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks for one gets no connection to it, neither by CONNECT nor when the first bytes are sent."""
    trap = Trap()
    await trap.start()
    try:
        async with proxied(ScriptedEngine(), upstream=trap) as running:
            for place in PLACES:
                await _nothing_comes_of(running, place)
                assert trap.dials == [], place
            await _goes_on(running)
    finally:
        await trap.close()
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []


async def test_b28_no_tunnel_leads_to_ourselves(proxied: Lanes) -> None:
    """Neither to the proxy's port nor to the side server's, by address or by name."""
    trap = Trap()
    await trap.start()
    try:
        async with proxied(ScriptedEngine(), upstream=trap) as running:
            for port in running.own_ports:
                for host in ("127.0.0.1", "localhost", "[::1]"):
                    await _nothing_comes_of(running, f"{host}:{port}")
            assert trap.dials == []
            await _goes_on(running)
    finally:
        await trap.close()


TARGETS: Final = [
    *(
        "",
        "api.openai.com",
        "api.openai.com:",
        "api.openai.com:0",
        "api.openai.com:99999",
        ":443",
        "a b:443",
        "@:443",
    )
]


async def test_b28_a_target_that_is_none_is_refused(proxied: Lanes) -> None:
    """A CONNECT names a host and a port (RFC 9112, 3.2.3)."""
    async with proxied(ScriptedEngine()) as running:
        for target in TARGETS:
            async with await H1.plain(running.proxy) as client:
                client.writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {OPENAI}\r\n\r\n".encode())
                with contextlib.suppress(ConnectionError):
                    told = await timely(client.reader.read(65_536))
                    assert not told.startswith(b"HTTP/1.1 2"), (target, told)
            assert running.upstream.dials == [], target
        await _goes_on(running)


async def _nothing_comes_of(running: Front, target: str) -> None:
    """Ask for a tunnel, and for a page through it if there is one; no page comes."""
    reader, writer = await tunnel(running.proxy, OPENAI, via="direct")
    async with H1(reader, writer, OPENAI):
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        told = await timely(reader.read(65_536))
        if told.startswith(b"HTTP/1.1 200"):
            writer.write(f"GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                told = await timely(reader.read(65_536))
        assert not told.startswith(b"HTTP/1.1 200"), (target, told)


# --- TLS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["www.example.org", "api.anthropic.com", "localhost"])
async def test_b29_another_name_than_the_tunnels_leads_nowhere_else(proxied: Lanes, name: str) -> None:
    """The hand-off lane refuses the ClientHello; in the inspect lane it is the tunnel's host that is called."""
    engine = ScriptedEngine()
    async with proxied(engine) as running:
        with contextlib.suppress(ssl.SSLError, ConnectionError, EOFError, RefusedError):
            async with await H1.tls(running.proxy, sni=name) as client:
                await client.ask(headers={"Host": OPENAI})
        assert running.lane is Lane.INSPECT or engine.snapshots == []
        assert {one.origin.host for one in engine.snapshots if one.origin} <= {OPENAI}
        assert running.upstream.dials == []
        await _goes_on(running)


async def test_b29_no_name_is_the_tunnels_or_none(proxied: Lanes) -> None:
    """A client that names nobody is taken for one of the host that its tunnel leads to, or refused; never another's."""
    engine = ScriptedEngine()
    async with proxied(engine) as running:
        reader, writer = await tunnel(running.proxy, OPENAI)
        trust = running.proxy.trust()
        trust.check_hostname = False
        with contextlib.suppress(ssl.SSLError, ConnectionError, EOFError):
            await timely(writer.start_tls(trust))
            async with H1(reader, writer, OPENAI) as client:
                assert (await client.ask()).status == 200
        assert {one.origin.host for one in engine.snapshots if one.origin} <= {OPENAI}
        writer.transport.abort()
        await _goes_on(running)


def _named(name: bytes) -> bytes:
    """Return a ClientHello whose server name is as long as it likes."""
    entry = b"\x00" + struct.pack("!H", len(name)) + name
    names = struct.pack("!H", len(entry)) + entry
    extension = struct.pack("!HH", 0, len(names)) + names
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += struct.pack("!H", len(extension)) + extension
    shake = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + struct.pack("!H", len(shake)) + shake


HELLOS: Final = {
    "a name of 10 kB": _named(b"a" * 10_240),
    "a name with a NUL": _named(b"api.openai.com\x00.example.org"),
    "a name that is no text": _named(b"\xff\xfe"),
    "an empty name": _named(b""),
    "half a hello": hello(OPENAI)[:100],
    "a hello that says it is longer": hello(OPENAI)[:5] + b"\x01\xff\xff\xff" + hello(OPENAI)[9:],
    "another protocol": b"SSH-2.0-OpenSSH_9.0\r\n",
    "nothing but zeros": bytes(1_000),
}


async def test_b29_a_hello_that_is_none_is_refused(proxied: Lanes, caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends, nobody is dialled, and the next client is served."""
    engine = ScriptedEngine()
    async with proxied(engine) as running:
        for row, data in HELLOS.items():
            reader, writer = await tunnel(running.proxy, OPENAI)
            writer.write(data)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                told = await timely(reader.read())
                assert not told.startswith(b"HTTP/1.1 2"), row
            async with H1(reader, writer, OPENAI):
                pass
            assert engine.snapshots == [], row
        assert running.upstream.dials == []
        await _goes_on(running)
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []


# --- HTTP/2 --------------------------------------------------------------------------------------------------


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


_SETTINGS, _HEADERS, _CONTINUATION, _PING, _RESET = 4, 1, 9, 6, 3
_REQUEST: Final = (
    b"\x83\x87\x04" + bytes([len(CHAT)]) + CHAT.encode() + b"\x01" + bytes([len(OPENAI)]) + OPENAI.encode()
)
"""POST, https, the path and the authority of a call, in HPACK (RFC 7541)."""
_INDEXED: Final = b"\x40\x01a" + b"\x7f\xa1\x1e" + b"b" * 4_000
"""A field of 4,000 bytes that goes into the table: each \xbe after it is the whole field once more."""

FLOODS: Final = {
    "rapid reset": b"".join(
        _frame(_HEADERS, 4, 2 * n + 1, _REQUEST) + _frame(_RESET, 0, 2 * n + 1, b"\0\0\0\x08")
        for n in range(2_000)
    ),
    "settings": _frame(_SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff") * 20_000,
    "pings": _frame(_PING, 0, 0, b"12345678") * 20_000,
    "continuations": _frame(_HEADERS, 0, 1, _REQUEST) + _frame(_CONTINUATION, 0, 1, b"") * 20_000,
    "large continuations": _frame(_HEADERS, 0, 1, _REQUEST)
    + _frame(_CONTINUATION, 0, 1, b"\x40\x01a\x01b" * 3_000) * 100,
    "a table of one field, used often": _frame(_HEADERS, 5, 1, _REQUEST + _INDEXED + b"\xbe" * 10_000),
    "a frame that is too large": _frame(_HEADERS, 5, 1, bytes(1 << 20)),
    "a stream of the server's": _frame(_HEADERS, 5, 2, _REQUEST),
    "fields that stand nowhere": _frame(_HEADERS, 5, 1, b"\xff\xff\xff\xff\x0f"),
}


# A connection that is reset in the middle of a flood mitmproxy leaves to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("row", FLOODS)
async def test_b30_a_flood_in_http_2_ends_its_connection_or_nothing(
    confdir: Path, row: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No call of it is left running, nobody is dialled, and another client is served while it lasts and after it."""
    engine = ScriptedEngine()
    async with lanes.inspected(confdir, engine) as running:
        reader, writer = await tunnel(running.proxy, OPENAI)
        await timely(writer.start_tls(running.proxy.trust("h2"), server_hostname=OPENAI))
        async with H1(reader, writer, OPENAI):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0) + FLOODS[row])
            await _goes_on(running)
        async with asyncio.timeout(PATIENCE):
            while engine.running:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        assert running.upstream.dials == []
        await _goes_on(running)
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []


async def test_b30_the_hand_off_lane_speaks_no_http_2(data_dir: Path) -> None:
    """Who offers both gets HTTP/1.1, so there is no flood of frames to be had."""
    async with lanes.handed_off(data_dir, ScriptedEngine()) as running:
        _, writer = await tunnel(running.proxy, OPENAI)
        await timely(writer.start_tls(running.proxy.trust("h2", "http/1.1"), server_hostname=OPENAI))
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.transport.abort()
        await _goes_on(running)
