"""Every way to the engine: what a client sees, and what the engine sees of it, the same over every lane.

A scene takes `lane` where the direct API has a part in it, `proxied` where it is about the proxy. Where the lanes
differ by design, the scene says so and asserts the difference.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest
from mitmproxy import ctx

from tests.addon.clients import ANTHROPIC, CHAT, H1, H2, KEY, MESSAGES, OPENAI, basic
from tests.addon.lanes import Lanes
from tests.addon.scripted import ScriptedEngine, counted, lines, streamed, whole
from tokenhub_core.ports import Reply
from tokenhub_core.types import Caller, Dialect, Lane, Origin, Snapshot

# --- calls -------------------------------------------------------------------------------------------------


async def test_a_call_reaches_the_engine_whole(lane: Lanes) -> None:
    """What was sent is what the engine gets, and the host that a call was meant for is never contacted."""
    engine = ScriptedEngine()
    async with lane(engine) as running, await running.client() as client:
        answer = await client.ask(CHAT, b'{"model":"m"}', headers={"Authorization": f"Bearer {KEY}"})
        assert (answer.status, answer.body, answer.complete) == (200, b'{"ok":true}', True)
        assert answer.headers["content-type"] == "application/json"
        (snapshot,) = engine.snapshots
        assert (snapshot.method, snapshot.path, snapshot.body) == ("POST", CHAT, b'{"model":"m"}')
        assert ("authorization", f"Bearer {KEY}") in snapshot.headers
        assert snapshot.dialect is Dialect.OPENAI_CHAT
        # A direct call was meant for us.
        assert snapshot.origin == (None if running.lane is Lane.DIRECT else Origin("https", OPENAI, 443))
        assert running.upstream.dials == []


async def test_the_dialect_is_the_hosts(lane: Lanes) -> None:
    """The other public host, or path, speaks its own dialect, and the query belongs to the path."""
    engine = ScriptedEngine()
    async with lane(engine) as running, await running.client(ANTHROPIC) as client:
        assert (await client.ask(f"{MESSAGES}?beta=true", headers={"X-Api-Key": KEY})).status == 200
        (snapshot,) = engine.snapshots
        assert snapshot.dialect is Dialect.ANTHROPIC_MESSAGES
        assert snapshot.path == f"{MESSAGES}?beta=true"
        assert ("x-api-key", KEY) in snapshot.headers


async def test_one_connection_serves_many_calls(lane: Lanes) -> None:
    """A connection stays open from one call to the next, streamed or not."""

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(counted(3)) if b"stream" in snapshot.body else whole()

    engine = ScriptedEngine(script)
    async with lane(engine) as running, await running.client() as client:
        for body in (b"{}", b"stream", b"stream", b"{}"):
            answer = await client.ask(body=body)
            assert answer.complete
            assert answer.body == (lines([b"0", b"1", b"2"]) if body == b"stream" else b'{"ok":true}')
        assert len({snapshot.id for snapshot in engine.snapshots}) == 4


async def test_a_hundred_calls_run_at_once(lane: Lanes) -> None:
    """A hundred calls of one client are in the engine at the same time, each gets its answer."""
    everyone = asyncio.Event()

    async def script(snapshot: Snapshot) -> Reply:
        if engine.running == 100:
            everyone.set()
        await everyone.wait()
        return streamed(counted(3, prefix=snapshot.body))

    engine = ScriptedEngine(script)
    async with lane(engine) as running, running.modern() as client:
        calls = await asyncio.gather(*(client.send(body=b"%d." % number) for number in range(100)))
        for number, call in enumerate(calls):
            answer = await call.end()
            assert answer.complete
            assert answer.body == lines(b"%d.%d" % (number, count) for count in range(3))
        assert engine.most_running == 100
        assert running.upstream.dials == []


# --- ways in -----------------------------------------------------------------------------------------------


async def test_a_plain_request_to_the_proxy_is_routed(proxied: Lanes) -> None:
    """An absolute-form http request is routed too; where it goes on from here, it goes encrypted.

    It has no TLS that could be handed off: the inspect lane answers it in `serve` as well.
    """
    engine = ScriptedEngine()
    async with proxied(engine) as running, await H1.plain(running.proxy) as client:
        assert (await client.ask()).body == b'{"ok":true}'
        assert (await client.ask()).body == b'{"ok":true}'
        assert engine.snapshots[0].origin == Origin("https", OPENAI, 443)
        assert engine.snapshots[0].path == CHAT
        assert engine.snapshots[0].caller.lane is Lane.INSPECT
        assert running.upstream.dials == []


@pytest.mark.parametrize(
    ("mode", "via", "host"),
    [
        ("socks5", "socks5", OPENAI),
        # The client has resolved the name itself, as it has behind a transparent proxy.
        ("socks5", "socks5", "203.0.113.7"),
        (f"reverse:https://{OPENAI}", "direct", OPENAI),
        ("upstream:http://127.0.0.1:9", "connect", OPENAI),
    ],
)
async def test_other_modes_lead_to_the_engine(proxied: Lanes, mode: str, via: str, host: str) -> None:
    """However a connection for a listed host arrives, its calls are routed and nothing is dialled."""
    engine = ScriptedEngine()
    async with (
        proxied(engine, mode=mode) as running,
        await H1.tls(running.proxy, host, via=via, sni=OPENAI) as client,
    ):
        client.host = OPENAI
        assert (await client.ask()).body == b'{"ok":true}'
        (snapshot,) = engine.snapshots
        assert snapshot.origin == Origin("https", OPENAI, 443)
        assert snapshot.caller.mode == mode.partition(":")[0]
        assert running.upstream.dials == []


async def test_an_eager_strategy_contacts_nobody_either(proxied: Lanes) -> None:
    """mitmproxy's default of greeting the host first does not apply to listed hosts."""
    engine = ScriptedEngine()
    async with proxied(engine, connection_strategy="eager") as running:
        # The addon turns it off where it starts with it; `serve` never does, so there it was turned on later.
        assert (ctx.options.connection_strategy == "eager") is (running.lane is Lane.HANDOFF)
        async with await H1.tls(running.proxy) as client:
            assert (await client.ask()).status == 200
        assert running.upstream.dials == []


async def test_a_client_speaks_what_the_lane_speaks(lane: Lanes) -> None:
    """Of HTTP/2 and HTTP/1.1 a client gets HTTP/2 where mitmproxy reads it, and is steered to HTTP/1.1 elsewhere."""
    async with lane(ScriptedEngine()) as running, running.modern() as client:
        assert client.protocol == running.protocol
        assert (await client.ask()).status == 200


async def test_a_client_of_http2_alone_is_served_by_the_inspect_lane(proxied: Lanes) -> None:
    """The hand-off lane, which speaks HTTP/1.1 only, leaves one that offers nothing else to the other."""
    engine = ScriptedEngine()
    async with proxied(engine) as running, await H2.tls(running.proxy) as client:
        assert (await client.ask()).status == 200
    assert engine.snapshots[0].caller.lane is Lane.INSPECT


@pytest.mark.parametrize(("target", "sni"), [(OPENAI, "www.example.org"), ("www.example.org", OPENAI)])
async def test_names_that_contradict_each_other_reach_nobody(proxied: Lanes, target: str, sni: str) -> None:
    """A tunnel to one host with TLS for another, one of them listed, never leads out.

    The inspect lane opens it, since its user wants to see it, and the engine answers; the hand-off lane refuses it
    with an alert, since nobody could say whose certificate to show.
    """
    engine = ScriptedEngine()
    async with proxied(engine) as running:
        if running.lane is Lane.INSPECT:
            async with await H1.tls(running.proxy, target, sni=sni) as client:
                client.host = OPENAI
                assert (await client.ask()).body == b'{"ok":true}'
        else:
            with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
                await H1.tls(running.proxy, target, sni=sni)
        assert len(engine.snapshots) == (running.lane is Lane.INSPECT)
        assert running.upstream.dials == []


async def test_a_listed_host_that_does_not_resolve_is_routed(proxied: Lanes) -> None:
    """The engine answers for a host that has no address: nobody looks it up. What is not routed gets a 502.

    In the inspect lane that one is mitmproxy's own page.
    """
    engine = ScriptedEngine()
    async with proxied(engine, tokenhub_extra_hosts=["nowhere.example=openai_chat"]) as running:
        async with await H1.tls(running.proxy, "nowhere.example") as client:
            assert (await client.ask()).body == b'{"ok":true}'
            answer = await client.ask("/v1/models")
            assert answer.status == 502
            assert answer.headers["content-type"].startswith(
                "text/html" if running.lane is Lane.INSPECT else "application/json"
            )
        assert len(engine.snapshots) == 1
        assert running.upstream.dials == []


# --- who asks ----------------------------------------------------------------------------------------------

_PROGRAM = {"User-Agent": "OpenAI/Python 2.50.0"}


async def test_the_engine_hears_who_asks(lane: Lanes) -> None:
    """Address, lane, mode, proxy user and program of a caller are in the snapshot; its password is nowhere."""
    engine = ScriptedEngine()
    async with (
        lane(engine, proxyauth="ann:open-sesame") as running,
        await running.client(source="127.0.0.7", auth="ann:open-sesame") as client,
    ):
        assert (await client.ask(headers=_PROGRAM)).status == 200
        (snapshot,) = engine.snapshots
        if running.lane is Lane.DIRECT:
            assert snapshot.caller == Caller("127.0.0.7", Lane.DIRECT, program="OpenAI/Python")
        else:
            assert snapshot.caller == Caller("127.0.0.7", running.lane, "regular", "ann", "OpenAI/Python")
        assert "sesame" not in str(snapshot)


async def test_the_engine_hears_who_asks_through_socks(proxied: Lanes) -> None:
    """SOCKS has credentials of its own, and names its mode."""
    engine = ScriptedEngine()
    async with (
        proxied(engine, mode="socks5", proxyauth="ann:open-sesame") as running,
        await H1.tls(running.proxy, via="socks5", auth="ann:open-sesame", source="127.0.0.8") as client,
    ):
        assert (await client.ask(headers=_PROGRAM)).status == 200
        assert engine.snapshots[0].caller == Caller(
            "127.0.0.8", running.lane, "socks5", "ann", "OpenAI/Python"
        )


async def test_the_engine_hears_who_asks_in_plain(proxied: Lanes) -> None:
    """A plain request brings its proxy credentials along; they go no further. `serve` inspects it as well."""
    engine = ScriptedEngine()
    async with (
        proxied(engine, proxyauth="ann:open-sesame") as running,
        await H1.plain(running.proxy, source="127.0.0.9") as client,
    ):
        assert (await client.ask(headers=_PROGRAM)).status == 407
        shown = {**_PROGRAM, "Proxy-Authorization": basic("ann:open-sesame")}
        assert (await client.ask(headers=shown)).status == 200
        (snapshot,) = engine.snapshots
        assert snapshot.caller == Caller("127.0.0.9", Lane.INSPECT, "regular", "ann", "OpenAI/Python")
        assert "proxy-authorization" not in dict(snapshot.headers)
