"""What a client of the proxy sees, and what the engine sees of it: the same over every lane."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.addon.conftest import Lanes
from tests.addon.scenes import (
    ANTHROPIC,
    CHAT,
    H1,
    H2,
    KEY,
    MESSAGES,
    OPENAI,
    RefusedError,
    ScriptedEngine,
    Tap,
    Upstream,
    lines,
    streamed,
    tunnel,
    whole,
)
from tests.fakes.certificates import authority, server_context
from tokenhub_core.ports import Reply
from tokenhub_core.types import Dialect, Origin, Snapshot

# --- every way in ------------------------------------------------------------------------------------------


async def test_a_call_through_connect_is_answered_by_the_engine(lane: Lanes) -> None:
    """A call in a CONNECT tunnel reaches the engine whole, and its origin is never contacted."""
    engine = ScriptedEngine()
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        answer = await client.ask(CHAT, b'{"model":"m"}', headers={"Authorization": f"Bearer {KEY}"})
        assert (answer.status, answer.body, answer.complete) == (200, b'{"ok":true}', True)
        assert answer.headers["content-type"] == "application/json"
        (snapshot,) = engine.snapshots
        assert (snapshot.method, snapshot.path, snapshot.body) == ("POST", CHAT, b'{"model":"m"}')
        assert ("authorization", f"Bearer {KEY}") in snapshot.headers
        assert snapshot.origin == Origin("https", OPENAI, 443)
        assert snapshot.dialect is Dialect.OPENAI_CHAT
        assert (snapshot.caller.mode, snapshot.caller.peer) == ("regular", "127.0.0.1")
        assert running.upstream.dials == []


async def test_the_dialect_is_the_hosts(lane: Lanes) -> None:
    """The other public host speaks its own dialect, and the query belongs to the path."""
    engine = ScriptedEngine()
    async with lane(engine) as running, await H1.tls(running.proxy, ANTHROPIC) as client:
        assert (await client.ask(f"{MESSAGES}?beta=true", headers={"X-Api-Key": KEY})).status == 200
        (snapshot,) = engine.snapshots
        assert snapshot.dialect is Dialect.ANTHROPIC_MESSAGES
        assert snapshot.path == f"{MESSAGES}?beta=true"
        assert ("x-api-key", KEY) in snapshot.headers


async def test_one_connection_serves_many_calls(lane: Lanes) -> None:
    """A connection stays open from one call to the next, streamed or not."""

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(_counted(3)) if b"stream" in snapshot.body else whole()

    engine = ScriptedEngine(script)
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        for body in (b"{}", b"stream", b"stream", b"{}"):
            answer = await client.ask(body=body)
            assert answer.complete
            assert answer.body == (lines([b"0", b"1", b"2"]) if body == b"stream" else b'{"ok":true}')
        assert len({snapshot.id for snapshot in engine.snapshots}) == 4


async def test_a_plain_request_to_the_proxy_is_routed(lane: Lanes) -> None:
    """An absolute-form http request is routed too; where it goes on from here, it goes encrypted."""
    engine = ScriptedEngine()
    async with lane(engine) as running, await H1.plain(running.proxy) as client:
        assert (await client.ask()).body == b'{"ok":true}'
        assert (await client.ask()).body == b'{"ok":true}'
        assert engine.snapshots[0].origin == Origin("https", OPENAI, 443)
        assert engine.snapshots[0].path == CHAT
        assert running.upstream.dials == []


@pytest.mark.parametrize(
    ("mode", "via", "host"),
    [
        ("socks5", "socks5", OPENAI),
        # The client has resolved the name itself, as it has behind a transparent proxy.
        ("socks5", "socks5", "203.0.113.7"),
        (f"reverse:https://{OPENAI}", "direct", OPENAI),
    ],
)
async def test_other_modes_lead_to_the_engine(lane: Lanes, mode: str, via: str, host: str) -> None:
    """However a connection for a listed host arrives, its calls are routed and nothing is dialled."""
    engine = ScriptedEngine()
    async with (
        lane(engine, mode=mode) as running,
        await H1.tls(running.proxy, host, via=via, sni=OPENAI) as client,
    ):
        client.host = OPENAI
        assert (await client.ask()).body == b'{"ok":true}'
        (snapshot,) = engine.snapshots
        assert snapshot.origin == Origin("https", OPENAI, 443)
        assert snapshot.caller.mode == mode.partition(":")[0]
        assert running.upstream.dials == []


async def test_an_eager_strategy_contacts_nobody_either(lane: Lanes) -> None:
    """mitmproxy's default of greeting the host first does not apply to listed hosts."""
    engine = ScriptedEngine()
    async with lane(engine, connection_strategy="eager") as running, await H1.tls(running.proxy) as client:
        assert (await client.ask()).status == 200
        assert running.upstream.dials == []


async def test_a_hundred_streams_run_at_once(lane: Lanes) -> None:
    """A hundred HTTP/2 streams of one connection are in the engine at the same time, each with its answer."""
    everyone = asyncio.Event()

    async def script(snapshot: Snapshot) -> Reply:
        if engine.running == 100:
            everyone.set()
        await everyone.wait()
        return streamed(_counted(3, prefix=snapshot.body))

    engine = ScriptedEngine(script)
    async with lane(engine) as running, await H2.tls(running.proxy) as client:
        streams = [client.send(body=b"%d." % number)[1] for number in range(100)]
        for number, stream in enumerate(streams):
            answer = await stream.end()
            assert answer.complete
            assert answer.body == lines(b"%d.%d" % (number, count) for count in range(3))
        assert engine.most_running == 100
        assert running.upstream.dials == []


# --- streaming ---------------------------------------------------------------------------------------------


async def test_the_first_byte_leaves_while_the_engine_is_still_producing(lane: Lanes) -> None:
    """Each frame reaches the client before the next one exists."""
    tap = Tap()
    engine = ScriptedEngine(lambda _: _ready(streamed(tap.frames())))
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        await client.send()
        answer = await client.head()
        assert answer.headers["content-type"] == "text/event-stream"
        for frame in (b"data: 1\n\n", b"data: 2\n\n"):
            await tap.flow(frame)
            assert await client.chunk() == frame
        await tap.close()
        assert await client.chunk() == b""


async def test_frames_of_a_stream_reach_an_http2_client_at_once(lane: Lanes) -> None:
    """HTTP/2 does not hold frames back either."""
    tap = Tap()
    engine = ScriptedEngine(lambda _: _ready(streamed(tap.frames())))
    async with lane(engine) as running, await H2.tls(running.proxy) as client:
        _, stream = client.send()
        await tap.flow(b"one")
        await stream.until(lambda s: s.answer.body == b"one")
        await tap.flow(b"two")
        await stream.until(lambda s: s.answer.body == b"onetwo")
        await tap.close()
        assert (await stream.end()).complete


async def test_frames_that_are_ready_together_travel_together(lane: Lanes) -> None:
    """What the engine has at once does not become one write per frame."""
    engine = ScriptedEngine(lambda _: _ready(streamed(_counted(100))))
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        await client.send()
        await client.head()
        chunks = [chunk async for chunk in _chunks(client)]
        assert b"".join(chunks) == lines(b"%d" % number for number in range(100))
        assert len(chunks) <= 3


@pytest.mark.parametrize("frames", [0, 1])
async def test_a_stream_that_breaks_does_not_look_finished(lane: Lanes, frames: int) -> None:
    """An engine that fails inside a stream ends the HTTP/1 body without its last chunk."""
    engine = ScriptedEngine(lambda _: _ready(streamed(_broken(frames))))
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        await client.send()
        answer = await client.rest(await client.head())
        assert answer.body == b"data: 0\n\n" * frames
        assert not answer.complete


async def test_a_stream_that_breaks_resets_its_http2_stream_only(lane: Lanes) -> None:
    """On HTTP/2 the broken stream is reset and its neighbours go on."""

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(_broken(1)) if snapshot.body == b"bad" else whole()

    async with lane(ScriptedEngine(script)) as running, await H2.tls(running.proxy) as client:
        _, stream = client.send(body=b"bad")
        answer = await stream.end()
        assert stream.reset is not None
        assert not answer.complete
        assert (await client.ask()).complete


# --- clients that leave, and clients that dawdle -----------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_stops_its_call(lane: Lanes, begun: bool) -> None:
    """A closed HTTP/1 connection cancels its exchange within a second, before the first byte or after."""
    engine = ScriptedEngine(lambda _: _ready(streamed(_endless())) if begun else _never())
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        await client.send()
        if begun:
            await client.head()
            await client.chunk()
        await engine.until(lambda e: e.running == 1)
        left = time.monotonic()
        client.abort()
        await engine.until(lambda e: e.cancelled == 1)
        assert time.monotonic() - left < 1


@pytest.mark.parametrize("begun", [False, True])
async def test_a_reset_stream_stops_its_call_and_no_other(lane: Lanes, begun: bool) -> None:
    """RST_STREAM cancels one exchange within a second; the others of the connection go on."""
    tap = Tap()

    async def script(snapshot: Snapshot) -> Reply:
        if snapshot.body == b"stays":
            return streamed(tap.frames())
        return streamed(_endless()) if begun else await _never()

    engine = ScriptedEngine(script)
    async with lane(engine) as running, await H2.tls(running.proxy) as client:
        _, stays = client.send(body=b"stays")
        stream_id, leaves = client.send(body=b"leaves")
        if begun:
            await leaves.until(lambda s: bool(s.answer.body))
        await engine.until(lambda e: e.running == 2)
        left = time.monotonic()
        client.reset(stream_id)
        await engine.until(lambda e: e.cancelled == 1)
        assert time.monotonic() - left < 1
        await tap.flow(b"still here")
        await tap.close()
        answer = await stays.end()
        assert (answer.complete, answer.body) == (True, b"still here")
        assert engine.cancelled == 1


async def test_a_client_that_leaves_during_its_upload_is_no_call(lane: Lanes) -> None:
    """Half a request never reaches the engine."""
    engine = ScriptedEngine()
    async with lane(engine) as running:
        async with await H1.tls(running.proxy) as client:
            await client.send(body=b"half", headers={"Content-Length": "1000"})
        async with await H1.tls(running.proxy) as client:
            assert (await client.ask()).status == 200
        assert len(engine.snapshots) == 1


async def test_a_slow_reader_slows_the_engine_down(lane: Lanes) -> None:
    """A client that does not read stops the engine's generator after a bounded number of bytes."""
    frames = _Flood()
    engine = ScriptedEngine(lambda _: _ready(streamed(frames.frames())))
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined] # it reads as well
        await client.send()
        await frames.stalled()
        assert frames.sent < 8 << 20
        at_rest = frames.sent
        client.writer.transport.resume_reading()  # type: ignore[attr-defined] # it reads as well
        answer = await client.head()
        received = 0
        while received <= at_rest:
            received += len(await client.chunk())
        assert frames.sent > at_rest
        assert answer.status == 200


async def test_a_slow_http2_stream_slows_only_itself_down(lane: Lanes) -> None:
    """A stream whose window is shut stops its generator; others of the connection are served."""
    frames = _Flood()

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(frames.frames()) if snapshot.body == b"flood" else whole()

    async with lane(ScriptedEngine(script)) as running, await H2.tls(running.proxy) as client:
        stream_id, slow = client.send(body=b"flood", slow=True)
        await frames.stalled()
        at_rest = frames.sent
        assert at_rest < 1 << 20
        assert (await client.ask()).complete
        client.open_window(stream_id, 4 << 20)
        await slow.until(lambda s: len(s.answer.body) > at_rest)
        client.reset(stream_id)


# --- request bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "path", "shape"),
    [(OPENAI, CHAT, b'{"error":{'), (ANTHROPIC, MESSAGES, b'{"type":"error"')],
)
async def test_a_body_that_is_too_large_is_a_413_in_the_callers_dialect(
    lane: Lanes, host: str, path: str, shape: bytes
) -> None:
    """A declared size above the cap is refused in the caller's own shape, and the engine hears nothing."""
    engine = ScriptedEngine()
    async with (
        lane(engine, tokenhub_max_body=1000) as running,
        await H1.tls(running.proxy, host) as client,
    ):
        answer = await client.ask(path, b"x" * 1001)
        assert answer.status == 413
        assert answer.body.replace(b" ", b"").startswith(shape)
        assert answer.headers["x-request-id"]
        assert engine.snapshots == []


async def test_a_chunked_body_meets_the_cap_as_it_comes(lane: Lanes) -> None:
    """A body of unknown size is refused once it is too large, not before and not at its end."""
    engine = ScriptedEngine()
    async with lane(engine, tokenhub_max_body=1000) as running, await H1.tls(running.proxy) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {OPENAI}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.writer.write(head.encode() + b"258\r\n" + b"x" * 600 + b"\r\n")
        client.writer.write(b"258\r\n" + b"x" * 600 + b"\r\n")
        assert (await client.answer()).status == 413
        assert engine.snapshots == []


async def test_a_body_at_the_cap_is_taken(lane: Lanes) -> None:
    """The cap itself is allowed, over HTTP/2 as well."""
    engine = ScriptedEngine()
    async with lane(engine, tokenhub_max_body=100_000) as running, await H2.tls(running.proxy) as client:
        assert (await client.ask(body=b"x" * 65_000)).status == 200
        assert (await client.ask(body=b"x" * 65_000, headers={"content-length": "65000"})).status == 200
        assert [len(snapshot.body) for snapshot in engine.snapshots] == [65_000, 65_000]


async def test_an_encoded_body_stays_encoded(lane: Lanes) -> None:
    """The snapshot holds the bytes that came; nobody has inflated them."""
    engine = ScriptedEngine()
    body = gzip.compress(b'{"model":"m"}' * 100, mtime=0)
    async with lane(engine) as running, await H1.tls(running.proxy) as client:
        await client.ask(body=body, headers={"Content-Encoding": "gzip"})
        assert engine.snapshots[0].body == body


# --- faults of ours ----------------------------------------------------------------------------------------


async def test_an_engine_that_raises_is_a_500_in_the_callers_dialect(lane: Lanes) -> None:
    """Whatever the engine does, the caller gets an answer that its SDK understands."""

    async def script(_: Snapshot) -> Reply:
        raise RuntimeError("boom")

    async with lane(ScriptedEngine(script)) as running, await H1.tls(running.proxy, ANTHROPIC) as client:
        answer = await client.ask(MESSAGES)
        assert answer.status == 500
        assert b'"error"' in answer.body
        assert b"boom" not in answer.body
        assert running.upstream.dials == []


# --- everybody else ----------------------------------------------------------------------------------------


async def test_other_hosts_are_untouched(lane: Lanes, tmp_path: Path) -> None:
    """A TLS connection to a host that is not listed is a raw tunnel: the client sees the host's certificate."""
    ca = authority(tmp_path)
    upstream = Upstream()
    await upstream.start(server_context(tmp_path, ca, address="93.184.216.34"))
    try:
        async with lane(ScriptedEngine(), upstream=upstream) as running:
            reader, writer = await tunnel(running.proxy, "www.example.org")
            trust = ssl.create_default_context(cafile=str(ca[2]))
            await writer.start_tls(trust, server_hostname="93.184.216.34")
            client = H1(reader, writer, "www.example.org")
            async with client:
                assert (await client.ask("/")).body == b"upstream"
            assert [port for _, port in upstream.dials] == [443]
    finally:
        await upstream.close()


async def test_plain_requests_to_other_hosts_are_forwarded(lane: Lanes) -> None:
    """A plain request for a host that is not listed arrives there as it was sent."""
    async with lane(ScriptedEngine()) as running, await H1.plain(running.proxy, "www.example.org") as client:
        for _ in range(2):
            assert (await client.ask("/a?b=c", b"body")).body == b"upstream"
        assert len(running.upstream.dials) == 1
        assert running.upstream.requests[0].startswith(b"POST /a?b=c HTTP/1.1\r\nHost: www.example.org\r\n")
        assert running.upstream.requests[0].endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "169.254.169.254", "metadata.example",
        "0.0.0.0", "100.64.0.1", "224.0.0.1",
    ],
)  # fmt: skip
async def test_addresses_that_are_not_public_are_refused(lane: Lanes, host: str) -> None:
    """Nobody reaches loopback, private, link-local or metadata addresses through the proxy."""
    async with lane(ScriptedEngine()) as running:
        async with await H1.plain(running.proxy, host, port=8000) as client:
            assert (await client.ask("/")).status == 403
        with pytest.raises(RefusedError) as refused:
            await tunnel(running.proxy, host, 8000)
        assert refused.value.status == 403
        assert running.upstream.dials == []


async def test_a_name_that_changes_its_mind_gets_no_byte(lane: Lanes) -> None:
    """A name that is public when it is checked and private when it is dialled is cut before the first byte."""
    async with lane(ScriptedEngine()) as running:
        running.upstream.at_second_look["rebind.example"] = "10.0.0.1"
        async with await H1.plain(running.proxy, "rebind.example") as client:
            assert (await client.ask("/")).status == 502
        assert running.upstream.requests == []


async def test_the_proxy_does_not_reach_itself(lane: Lanes) -> None:
    """The proxy's own port is refused even where loopback is allowed."""
    async with lane(ScriptedEngine(), tokenhub_allow_private=["127.0.0.0/8"]) as running:
        async with await H1.plain(running.proxy, "127.0.0.1", port=running.proxy.port) as client:
            assert (await client.ask("/")).status == 403
        async with await H1.plain(running.proxy, "127.0.0.1", port=1) as client:
            assert (await client.ask("/")).body == b"upstream"
        assert running.upstream.dials == [("127.0.0.1", 1)]


async def test_what_is_not_routed_passes_through(lane: Lanes, tmp_path: Path) -> None:
    """Other requests to a listed host reach it with the caller's own credential, and not the engine."""
    upstream, engine = Upstream(), ScriptedEngine()
    await upstream.start(server_context(tmp_path, authority(tmp_path)))
    try:
        async with (
            lane(engine, upstream=upstream, ssl_insecure=True) as running,
            await H1.tls(running.proxy) as client,
        ):
            answer = await client.ask("/v1/files", b"file", headers={"Authorization": f"Bearer {KEY}"})
            assert answer.body == b"upstream"
            assert (await client.ask()).body == b'{"ok":true}'
            assert (await client.ask("/v1/files", b"again")).body == b"upstream"
        assert [request.split()[1] for request in upstream.requests] == [b"/v1/files", b"/v1/files"]
        assert f"Authorization: Bearer {KEY}".encode() in upstream.requests[0]
        assert len(engine.snapshots) == 1
        assert upstream.dials == [(OPENAI, 443)]
    finally:
        await upstream.close()


# --- frames ------------------------------------------------------------------------------------------------


async def _ready(reply: Reply) -> Reply:
    return reply


async def _never() -> Reply:
    await asyncio.Event().wait()
    raise AssertionError


async def _counted(count: int, prefix: bytes = b"") -> AsyncIterator[bytes]:
    for number in range(count):
        yield lines([prefix + b"%d" % number])


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b"data: more\n\n"
        await asyncio.sleep(0.01)


async def _broken(frames: int) -> AsyncIterator[bytes]:
    for _ in range(frames):
        yield b"data: 0\n\n"
        await asyncio.sleep(0)
    raise RuntimeError("broken")


async def _chunks(client: H1) -> AsyncIterator[bytes]:
    while chunk := await client.chunk():
        yield chunk


class _Flood:
    """More than anybody wants to read, and how much of it was taken."""

    def __init__(self) -> None:
        self.sent = 0

    async def frames(self) -> AsyncIterator[bytes]:
        while self.sent < 256 << 20:
            self.sent += 4096
            yield b"x" * 4096
            await asyncio.sleep(0)

    async def stalled(self) -> None:
        """Wait until the generator is no longer pulled."""
        before = -1
        async with asyncio.timeout(20):
            while before != self.sent or not self.sent:
                before = self.sent
                await asyncio.sleep(0.2)
