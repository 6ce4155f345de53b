"""What leaves the proxy and what does not, over both of its lanes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.addon.clients import CHAT, H1, KEY, OPENAI, RefusedError, tunnel
from tests.addon.lanes import Front, Lanes
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import ANSWER, standing_in
from tests.patience import PATIENCE
from tokenhub_core.types import Lane, Outcome

_LOOPBACK: dict[str, Any] = {"tokenhub_allow_private": ["127.0.0.0/8", "0.0.0.0", "localhost"]}

# --- everybody else ----------------------------------------------------------------------------------------


async def test_other_hosts_are_untouched(proxied: Lanes, tmp_path: Path) -> None:
    """A TLS connection to a host that is not listed is a raw tunnel: the client sees the host's certificate."""
    async with (
        standing_in(tmp_path, address="93.184.216.34") as upstream,
        proxied(ScriptedEngine(), upstream=upstream) as running,
    ):
        reader, writer = await tunnel(running.proxy, "www.example.org")
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        await writer.start_tls(trust, server_hostname="93.184.216.34")
        async with H1(reader, writer, "www.example.org") as client:
            assert (await client.ask("/")).body == b"upstream"
        assert [port for _, port in upstream.dials] == [443]


async def test_plain_requests_to_other_hosts_are_forwarded(proxied: Lanes) -> None:
    """A plain request for a host that is not listed arrives there as it was sent."""
    async with (
        proxied(ScriptedEngine()) as running,
        await H1.plain(running.proxy, "www.example.org") as client,
    ):
        for _ in range(2):
            assert (await client.ask("/a?b=c", b"body")).body == b"upstream"
        assert len(running.upstream.dials) == 1
        assert running.upstream.requests[0].startswith(b"POST /a?b=c HTTP/1.1\r\nHost: www.example.org\r\n")
        assert running.upstream.requests[0].endswith(b"\r\n\r\nbody")


# --- nobody's business -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "169.254.169.254", "metadata.example",
        "0.0.0.0", "100.64.0.1", "224.0.0.1",
    ],
)  # fmt: skip
async def test_addresses_that_are_not_public_are_refused(proxied: Lanes, host: str) -> None:
    """Nobody reaches loopback, private, link-local or metadata addresses through the proxy."""
    async with proxied(ScriptedEngine()) as running:
        async with await H1.plain(running.proxy, host, port=8000) as client:
            assert (await client.ask("/")).status == 403
        with pytest.raises(RefusedError) as refused:
            await tunnel(running.proxy, host, 8000)
        assert refused.value.status == 403
        assert running.upstream.dials == []


async def test_a_name_that_changes_its_mind_gets_no_byte(proxied: Lanes) -> None:
    """A name that is public when it is checked, and private a moment later, leads where it was seen to lead."""
    async with proxied(ScriptedEngine()) as running:
        running.upstream.at_second_look["rebind.example"] = "10.0.0.1"
        async with await H1.plain(running.proxy, "rebind.example") as client:
            assert (await client.ask("/")).status == 200
        assert running.upstream.dials == [("rebind.example", 80)]
        assert running.upstream.by_name == []


async def test_a_connection_that_leads_elsewhere_gets_no_byte(proxied: Lanes) -> None:
    """The second line: whatever a connection says it leads to is looked at before the first byte."""
    async with proxied(ScriptedEngine()) as running:
        running.upstream.at_second_look["93.184.216.34"] = "10.0.0.1"
        async with await H1.plain(running.proxy, "rebind.example") as client:
            assert (await client.ask("/")).status == 502
        assert running.upstream.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "0.0.0.0"])
async def test_our_own_ports_are_refused(proxied: Lanes, host: str) -> None:
    """Neither the proxy nor the side server is reached through the proxy, not even where loopback is allowed."""
    async with proxied(ScriptedEngine(), **_LOOPBACK) as running:
        assert len(running.own_ports) == 2
        for port in running.own_ports:
            async with await H1.plain(running.proxy, host, port=port) as client:
                assert (await client.ask("/healthz")).status == 403
            with pytest.raises(RefusedError) as refused:
                await tunnel(running.proxy, host, port)
            assert refused.value.status == 403
        assert running.upstream.dials == []
        async with await H1.plain(running.proxy, host, port=1) as client:
            assert (await client.ask("/")).body == b"upstream"


async def test_our_own_ports_are_refused_to_socks_clients(proxied: Lanes) -> None:
    """SOCKS has no answer that comes late enough: what is sent gets it, and nothing was dialled."""
    async with proxied(ScriptedEngine(), mode="socks5", **_LOOPBACK) as running:
        for port in running.own_ports:
            reader, writer = await tunnel(running.proxy, "127.0.0.1", port, via="socks5")
            async with H1(reader, writer, f"127.0.0.1:{port}") as client:
                assert (await client.ask("/healthz")).status == 403
            reader, writer = await tunnel(running.proxy, "127.0.0.1", port, via="socks5")
            async with H1(reader, writer, "") as client:
                writer.write(b"\x00\x01 nothing of HTTP")
                assert await client.ends()
        assert running.upstream.dials == []


# --- what is not routed ------------------------------------------------------------------------------------

_KEYED = {"Authorization": f"Bearer {KEY}", "User-Agent": "OpenAI/Python 2.50.0"}


@contextlib.asynccontextmanager
async def _passing(
    lane: Lanes, folder: Path, engine: ScriptedEngine, answer: bytes = ANSWER, **options: Any
) -> AsyncIterator[Front]:
    """Start a lane whose listed hosts have a stand-in that speaks TLS."""
    async with (
        standing_in(folder, answer=answer) as upstream,
        lane(engine, upstream=upstream, ssl_insecure=True, **options) as running,
    ):
        yield running


async def test_what_is_not_routed_passes_through(proxied: Lanes, tmp_path: Path) -> None:
    """Other requests to a listed host reach it with the caller's own credential, and not the engine.

    The hand-off lane keeps a record of each; in the inspect lane the flow is what remains of it.
    """
    engine = ScriptedEngine()
    async with (
        _passing(proxied, tmp_path, engine) as running,
        await H1.tls(running.proxy) as client,
    ):
        await client.send("/v1/models?limit=2", b"", method="GET", headers=_KEYED)
        assert (await client.answer()).body == b"upstream"
        assert (await client.ask()).body == b'{"ok":true}'
        assert (await client.ask("/v1/files", b"file")).body == b"upstream"
        listed, filed = running.upstream.requests
        assert listed.startswith(b"GET /v1/models?limit=2 HTTP/1.1\r\n")
        assert f"authorization: Bearer {KEY}".lower().encode() in listed.lower()
        assert b"\r\nhost: api.openai.com\r\n" in listed.lower()
        assert filed.endswith(b"\r\n\r\nfile")
        assert KEY.encode() not in filed
        assert len(engine.snapshots) == 1
        assert running.upstream.dials == [(OPENAI, 443)]
        if running.lane is Lane.HANDOFF:
            record, _ = running.recorder.records
            assert (record.outcome, record.status, record.method) == (Outcome.PASSED, 200, "GET")
            assert (record.path, record.origin_host) == ("/v1/models?limit=2", OPENAI)
            assert (record.caller.peer, record.caller.lane) == ("127.0.0.1", Lane.HANDOFF)
            assert KEY not in str(running.recorder.records)


async def test_what_came_in_plain_goes_on_encrypted(proxied: Lanes, tmp_path: Path) -> None:
    """A client may speak plain http with the proxy; the host that it meant gets its credential over TLS only."""
    async with (
        _passing(proxied, tmp_path, ScriptedEngine()) as running,
        await H1.plain(running.proxy) as client,
    ):
        assert (await client.ask("/v1/files", b"file", headers=_KEYED)).body == b"upstream"
        assert running.upstream.dials == [(OPENAI, 443)]
        assert b"\r\nHost: api.openai.com\r\n" in running.upstream.requests[0]


async def test_an_upload_that_is_not_routed_is_streamed(proxied: Lanes, tmp_path: Path) -> None:
    """What has been sent of a file has arrived before the rest of it is sent; our cap is for calls."""
    piece = b"x" * 40_000
    async with (
        _passing(proxied, tmp_path, ScriptedEngine(), tokenhub_max_body=1000) as running,
        await H1.tls(running.proxy) as client,
    ):
        await client.begin("/v1/files", headers=_KEYED)
        for sent in range(1, 4):
            await client.send_chunk(piece)
            await _until(running, sent * len(piece))
        await client.send_chunk(b"")
        assert (await client.answer()).body == b"upstream"
        assert running.upstream.requests[0].endswith(piece * 3)


async def _until(running: Front, uploaded: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while running.upstream.uploaded < uploaded:  # noqa: ASYNC110 - the stand-in has no event
            await asyncio.sleep(0.005)


async def test_a_host_does_not_show_a_way_around_us(proxied: Lanes, tmp_path: Path) -> None:
    """An `Alt-Svc` that offers HTTP/3 does not reach the client: it would be a way past the proxy."""
    answer = ANSWER.replace(b"Content", b'Alt-Svc: h3=":443"; ma=86400\r\nX-Kept: 1\r\nContent')
    async with (
        _passing(proxied, tmp_path, ScriptedEngine(), answer) as running,
        await H1.tls(running.proxy) as client,
    ):
        headers = (await client.ask("/v1/models")).headers
        assert headers["x-kept"] == "1"
        assert "alt-svc" not in headers


@pytest.mark.parametrize("option", [{"tokenhub_simulate": True}, {"tokenhub_origin": False}])
async def test_what_is_not_routed_stays_here_where_hosts_are_off_limits(
    proxied: Lanes, tmp_path: Path, option: dict[str, Any]
) -> None:
    """While answers are simulated, or the origin is switched off, nothing at all reaches a listed host.

    An upload is refused before it has come: nobody keeps it.
    """
    async with _passing(proxied, tmp_path, ScriptedEngine(), **option) as running:
        for connect in (H1.tls, H1.plain):
            async with await connect(running.proxy) as client:
                answer = await client.ask("/v1/files", b"file" * 100_000, headers=_KEYED)
                assert answer.status == 403
                assert b"origin_off" in answer.body
                assert (await client.ask()).status == 200
            async with await connect(running.proxy) as client:
                await client.begin("/v1/files")
                await client.send_chunk(b"not the end of it")
                assert (await client.answer()).status == 403
        assert running.upstream.dials == []


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions/", "//v1/chat/completions", "/v1/./chat/completions", "/v1/chat/%63ompletions"],
)
async def test_another_spelling_is_no_way_around_the_engine(proxied: Lanes, path: str) -> None:
    """A routed path is routed however it is written."""
    engine = ScriptedEngine()
    async with proxied(engine) as running, await H1.tls(running.proxy) as client:
        assert (await client.ask(path)).body == b'{"ok":true}'
        assert engine.snapshots[0].path != CHAT
        assert running.upstream.dials == []
