"""Every front door asks who the client is: the same scenes over the side server and both lanes of the proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from mitmproxy import http

from tests.addon.clients import (
    ANTHROPIC,
    CHAT,
    H1,
    KEY,
    MESSAGES,
    OPENAI,
    Answer,
    RefusedError,
    basic,
    tunnel,
)
from tests.addon.handing_off import hello
from tests.addon.inspection import inspecting, make_addon
from tests.addon.lanes import Front, Lanes, served
from tests.addon.passed import Passing, records
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream
from tests.fakes.keys import ANN, EXPIRED, OTHER, SECRET, WRONG, Book, limited
from tokenhub_addon.addon import TokenHub
from tokenhub_core.admission.foreign import Foreign, Use
from tokenhub_core.errors import ConfigError, Kind, client_fault
from tokenhub_core.types import Lane, Scope

SHUT: dict[str, Any] = {"tokenhub_anonymous": False}
OWN = {"Authorization": f"Bearer {KEY}"}
GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"


async def connect(running: Front, host: str = OPENAI, *, auth: str = "") -> H1:
    """Connect for calls, with a key in the proxy's URL where there is a proxy."""
    return await running.client(host, auth=auth)


def fault(answer: Answer) -> dict[str, Any]:
    """Return what an error says, whichever dialect it is told in."""
    told: dict[str, Any] = orjson.loads(answer.body)["error"]
    return told


# --- who comes in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        {"Authorization": f"Bearer {SECRET}"},
        {"x-api-key": SECRET},
        {"X-Goog-Api-Key": SECRET},
        {"api-key": SECRET},
        {"x-api-key": SECRET, "Authorization": f"Bearer {KEY}"},
    ],
)
async def test_a_key_in_the_request_says_who_calls_and_stays_at_the_door(
    lane: Lanes, shown: Mapping[str, str]
) -> None:
    """Over every door, in every place: the engine hears whose key it is, and gets everything but the key."""
    engine = ScriptedEngine()
    async with (
        lane(engine, book=Book(), **SHUT) as running,
        await connect(running, auth=f"x:{OTHER}") as client,
    ):
        assert (await client.ask(headers=shown)).status == 200
        (snapshot,) = engine.snapshots
        assert snapshot.caller.key == ANN
        assert snapshot.caller.proxy_user == ("" if running.lane is Lane.DIRECT else "k-bob")
        assert not any("tokenhub_" in value for _, value in snapshot.headers)
        own = [value for name, value in snapshot.headers if name == "authorization"]
        assert own == ([f"Bearer {KEY}"] if KEY in str(shown) else [])


async def test_a_key_in_geminis_query_is_one(lane: Lanes) -> None:
    """Its SDKs put it there; the rest of the query goes on."""
    engine, host = ScriptedEngine(), "generativelanguage.googleapis.com"
    async with (
        lane(engine, book=Book(), **SHUT) as running,
        await connect(running, host, auth=f"x:{OTHER}") as client,
    ):
        assert (await client.ask(f"{GEMINI}?alt=sse&key={SECRET}")).status == 200
        (snapshot,) = engine.snapshots
        assert (snapshot.caller.key, snapshot.path) == (ANN, f"{GEMINI}?alt=sse")


@pytest.mark.parametrize("auth", [f"x:{SECRET}", f"{SECRET}:", f"{SECRET}:x"])
@pytest.mark.parametrize("via", ["connect", "socks5"])
async def test_the_proxys_url_says_who_calls(proxied: Lanes, auth: str, via: str) -> None:
    """An app that cannot change its key has an identity all the same, and keeps its own key for its host."""
    engine = ScriptedEngine()
    mode = "socks5" if via == "socks5" else "regular"
    if via == "socks5" and auth.endswith(":"):
        auth += "x"  # RFC 1929 has no empty password
    async with (
        proxied(engine, book=Book(), mode=mode, **SHUT) as running,
        await H1.tls(running.proxy, via=via, auth=auth) as client,
    ):
        for _ in range(2):
            assert (await client.ask(headers=OWN)).status == 200
        for snapshot in engine.snapshots:
            assert (snapshot.caller.key, snapshot.caller.proxy_user) == (ANN, "ann")
            assert ("authorization", f"Bearer {KEY}") in snapshot.headers


async def test_an_absolute_request_shows_the_proxys_key_each_time(proxied: Lanes) -> None:
    """A plain request has no CONNECT: the key comes with it, and without it the proxy asks."""
    engine = ScriptedEngine()
    async with proxied(engine, book=Book(), **SHUT) as running, await H1.plain(running.proxy) as client:
        answer = await client.ask(headers=OWN)
        assert (answer.status, answer.headers["proxy-authenticate"]) == (407, 'Basic realm="tokenhub"')
        shown = {**OWN, "Proxy-Authorization": basic(f"x:{SECRET}")}
        assert (await client.ask(headers=shown)).status == 200
        assert (await client.ask(headers=OWN)).status == 407
        (snapshot,) = engine.snapshots
        assert (snapshot.caller.key, snapshot.caller.proxy_user) == (ANN, "ann")
        assert running.upstream.dials == []


# --- who does not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "shape"),
    [
        (CHAT, {}, "invalid_request_error"),
        (MESSAGES, {"anthropic-version": "2023-06-01"}, "authentication_error"),
        (GEMINI, {}, 401),
        ("/v1/models", {}, "invalid_request_error"),
    ],
)
async def test_the_side_server_asks_in_the_callers_dialect(
    data_dir: Path, path: str, headers: dict[str, str], shape: object
) -> None:
    """A 401 that the caller's SDK knows, with the field that RFC 9110 wants."""
    async with (
        served(data_dir, ScriptedEngine(), book=Book(), **SHUT) as serve,
        await H1.direct(serve.side) as client,
    ):
        await client.send(path, method="GET" if path == "/v1/models" else "POST", headers=headers)
        answer = await client.rest(await client.head())
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="tokenhub"'
        assert shape in {fault(answer).get("type"), fault(answer).get("code")}


@pytest.mark.parametrize("host", [OPENAI, "www.example.org"])
@pytest.mark.parametrize("auth", ["", f"x:{WRONG}", f"x:{EXPIRED}", "ann:sesame", f"{SECRET}:{OTHER}"])
async def test_a_connect_without_a_right_key_is_asked_for_one(proxied: Lanes, host: str, auth: str) -> None:
    """407 with a challenge, for listed hosts as for others, and not a packet upstream."""
    engine = ScriptedEngine()
    async with proxied(engine, book=Book(), **SHUT) as running:
        reader, writer = await tunnel(running.proxy, host, via="direct")
        head = f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n"
        head += f"Proxy-Authorization: {basic(auth)}\r\n" if auth else ""
        writer.write(head.encode() + b"\r\n")
        client = H1(reader, writer, host)
        answer = await client.rest(await client.head())
        assert (answer.status, answer.headers["proxy-authenticate"]) == (407, 'Basic realm="tokenhub"')
        assert b"tokenhub_" not in answer.body
        writer.close()
        assert (running.upstream.dials, engine.snapshots) == ([], [])


@pytest.mark.parametrize("host", [OPENAI, "www.example.org"])
async def test_a_socks_client_without_a_right_key_is_refused(proxied: Lanes, host: str) -> None:
    """Without credentials no method will do (0xFF), with wrong ones the sub-negotiation fails (RFC 1928, 1929)."""
    async with proxied(ScriptedEngine(), book=Book(), mode="socks5", **SHUT) as running:
        reader, writer = await tunnel(running.proxy, host, via="direct")
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\xff"
        writer.close()
        for auth in (f"x:{WRONG}", "ann:sesame", f"x:{EXPIRED}"):
            with pytest.raises(RefusedError) as caught:
                await tunnel(running.proxy, host, via="socks5", auth=auth)
            assert caught.value.status == 1
        assert running.upstream.dials == []


async def test_a_socks_client_that_says_it_in_pieces_is_heard(proxied: Lanes) -> None:
    """Bytes come one by one as well."""
    async with proxied(ScriptedEngine(), book=Book(), mode="socks5", **SHUT) as running:
        reader, writer = await tunnel(running.proxy, OPENAI, via="direct")
        secret = SECRET.encode()
        for byte in b"\x05\x02\x00\x02" + b"\x01\x01x" + bytes([len(secret)]) + secret:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert await reader.readexactly(4) == b"\x05\x02\x01\x00"
        writer.close()


@pytest.mark.parametrize("mode", ["regular", "socks5"])
async def test_a_tunnel_to_another_host_needs_the_key_and_gets_through_with_it(
    proxied: Lanes, mode: str
) -> None:
    """What we do not read is for our clients all the same."""
    via = "socks5" if mode == "socks5" else "connect"
    async with proxied(ScriptedEngine(), book=Book(), mode=mode, **SHUT) as running:
        _, writer = await tunnel(running.proxy, "www.example.org", via=via, auth=f"x:{SECRET}")
        writer.write(hello("www.example.org"))
        async with asyncio.timeout(10):
            while not running.upstream.dials:  # noqa: ASYNC110 - a stand-in tells nobody
                await asyncio.sleep(0.01)
        writer.close()
        assert running.upstream.dials == [("www.example.org", 443)]


async def test_credentials_for_another_proxy_end_here_as_well(proxied: Lanes) -> None:
    """They are for one hop, whether they say anything to us or not."""
    async with (
        proxied(ScriptedEngine()) as running,
        await H1.plain(running.proxy, "www.example.org") as client,
    ):
        shown = {"Proxy-Authorization": basic("ann:sesame")}
        assert (await client.ask("/", headers=shown)).status == 200
        (request,) = running.upstream.requests
        assert b"roxy-" not in request


async def test_plain_http_to_another_host_needs_the_key_and_does_not_take_it_along(proxied: Lanes) -> None:
    """A proxy for everybody is one for abuse; and its password is for nobody behind it."""
    async with (
        proxied(ScriptedEngine(), book=Book(), **SHUT) as running,
        await H1.plain(running.proxy, "www.example.org") as client,
    ):
        assert (await client.ask("/")).status == 407
        assert running.upstream.dials == []
        shown = {"Proxy-Authorization": basic(f"x:{SECRET}"), "X-Api-Key": SECRET}
        assert (await client.ask("/", headers=shown)).status == 200
        (request,) = running.upstream.requests
        assert b"tokenhub_" not in request
        assert b"roxy-" not in request


@pytest.mark.parametrize("shown", [{"x-api-key": WRONG}, {"x-api-key": EXPIRED}, {"cookie": f"a={SECRET}"}])
async def test_a_wrong_key_makes_nobody_anonymous(lane: Lanes, shown: dict[str, str]) -> None:
    """Not even where anonymous callers are welcome; and a refused body is not waited for."""
    engine = ScriptedEngine()
    async with lane(engine, book=Book()) as running, await running.client() as client:
        assert (await client.ask(headers=shown)).status == 401
    async with lane(engine, book=Book()) as running, await running.client() as client:
        assert (await client.ask()).status == 200
    assert [one.caller.key for one in engine.snapshots] == [None]


async def test_a_key_that_is_revoked_is_refused_on_its_open_connection(proxied: Lanes) -> None:
    """The key of a CONNECT is looked up for every request: it need not outlive the connection."""
    engine, book = ScriptedEngine(), Book()
    async with (
        proxied(engine, book=book, **SHUT) as running,
        await H1.tls(running.proxy, ANTHROPIC, auth=f"x:{SECRET}") as client,
    ):
        assert (await client.ask(MESSAGES)).status == 200
        del book.keys[SECRET]
        answer = await client.ask(MESSAGES)
        assert (answer.status, fault(answer)["type"]) == (401, "authentication_error")
        assert len(engine.snapshots) == 1


@pytest.mark.parametrize("breaks", [RuntimeError("boom"), client_fault("no", kind=Kind.INTERNAL)])
async def test_a_book_that_is_out_of_order_lets_nobody_in(lane: Lanes, breaks: Exception) -> None:
    """503, whatever the error: of a request with a key, of a CONNECT, of SOCKS."""
    engine, book = ScriptedEngine(), Book()
    book.breaks = breaks
    async with lane(engine, book=book) as running:
        async with await running.client() as client:
            assert (await client.ask(headers={"x-api-key": SECRET})).status == 503
        if running.lane is not Lane.DIRECT:
            with pytest.raises(RefusedError) as caught:
                await tunnel(running.proxy, OPENAI, auth=f"x:{SECRET}")
            assert caught.value.status == 503
    assert engine.snapshots == []


async def test_a_failing_hook_lets_no_socks_client_in(confdir: Path) -> None:
    """The one hook that only a SOCKS listener has fails closed like all others."""

    def boom(self: TokenHub, *args: object) -> None:
        raise RuntimeError("boom")

    kind = types.new_class("Broken", (TokenHub,), {}, lambda space: space.update(socks5_auth=boom))
    upstream = Upstream()
    await upstream.start()
    ours = make_addon(ScriptedEngine(), upstream, kind=kind)
    async with inspecting(confdir, ScriptedEngine(), addon=ours, upstream=upstream, mode="socks5") as it:
        with pytest.raises(RefusedError):
            await tunnel(it.proxy, OPENAI, via="socks5", auth=f"x:{SECRET}")
    assert (ours.failures["socks5_auth"], upstream.dials) == (1, [])
    await upstream.close()


# --- what a key is good for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "scope"), [(CHAT, Scope.CHAT), ("/v1/embeddings", Scope.EMBEDDINGS), (MESSAGES, Scope.CHAT)]
)
async def test_a_scope_that_is_missing_is_a_403(lane: Lanes, path: str, scope: Scope) -> None:
    """In the caller's dialect; with every scope but this one, and with this one alone."""
    key = limited(scopes=frozenset(Scope) - {scope})
    host = ANTHROPIC if path == MESSAGES else OPENAI
    engine, book, shown = ScriptedEngine(), Book(**{SECRET: key}), {"x-api-key": SECRET}
    async with lane(engine, book=book) as running, await running.client(host) as client:
        answer = await client.ask(path, headers=shown)
        assert answer.status == 403
        assert "not good for" in fault(answer)["message"]
    book.keys[SECRET] = limited(scopes=frozenset({scope}))
    async with lane(engine, book=book) as running, await running.client(host) as client:
        assert (await client.ask(path, headers=shown)).status == 200
    assert len(engine.snapshots) == 1


async def test_a_host_that_is_not_on_the_keys_list_is_a_403(proxied: Lanes) -> None:
    """The host that a call was meant for, whatever serves it."""
    engine = ScriptedEngine()
    book = Book(**{SECRET: limited(hosts=("*.anthropic.com",))})
    async with proxied(engine, book=book) as running:
        for host, path, status in ((OPENAI, CHAT, 403), (ANTHROPIC, MESSAGES, 200)):
            async with await H1.tls(running.proxy, host, auth=f"x:{SECRET}") as client:
                assert (await client.ask(path)).status == status
    assert len(engine.snapshots) == 1


async def test_who_is_refused_at_the_door_leaves_a_record(proxied: Lanes) -> None:
    """Who it was, what for and why not, of calls and of what would pass; of keys nothing."""
    book = Book(**{SECRET: limited(hosts=("*.anthropic.com",))})
    async with proxied(ScriptedEngine(), book=book) as running:
        for headers in ({"x-api-key": WRONG}, {"x-api-key": SECRET}):
            for path in (CHAT, f"/v1/files?key={WRONG}" if WRONG in str(headers) else "/v1/files"):
                async with await H1.tls(running.proxy) as client:
                    assert (await client.ask(path, headers=headers)).status in {401, 403}
        told = await records(running, 4)
        assert [(one.status, one.fault) for one in told] == [
            (401, "key_unknown"),
            (401, "key_in_query"),
            (403, "host_not_allowed"),
            (403, "host_not_allowed"),
        ]
        assert {(one.origin_host, one.caller.peer) for one in told} == {(OPENAI, "127.0.0.1")}
        assert [one.path for one in told[::2]] == [CHAT, CHAT]
        assert "tokenhub_" not in str(told)
        assert len({one.id for one in told}) == 4


async def test_what_passes_through_goes_with_the_callers_own_key(passing: Passing) -> None:
    """Ours stays; theirs arrives; with ours alone there is nothing to show; and the record says whose it was."""
    async with passing(book=Book()) as running:
        async with await H1.tls(running.proxy, auth=f"x:{SECRET}") as client:
            assert (await client.ask("/v1/files", headers=OWN)).status == 200
            answer = await client.ask("/v1/files", headers={"x-api-key": SECRET})
            assert (answer.status, fault(answer)["code"]) == (403, "no_credential")
        (request,) = running.upstream.requests
        assert KEY.encode() in request
        assert b"tokenhub_" not in request
        assert [one.caller.key for one in await records(running, 2)] == [ANN, ANN]


@pytest.mark.parametrize(
    "key", [limited(scopes=frozenset({Scope.CHAT})), limited(providers=("openai",)), limited(hosts=())]
)
async def test_what_passes_through_is_within_the_keys_limits(passing: Passing, key: Any) -> None:
    """Its scope, the host as a provider, and the host."""
    async with (
        passing(book=Book(**{SECRET: key})) as running,
        await H1.tls(running.proxy, auth=f"x:{SECRET}") as client,
    ):
        assert (await client.ask("/v1/files", headers=OWN)).status == 403
        assert running.upstream.dials == []


async def test_a_websocket_shows_its_key_as_a_subprotocol(passing: Passing) -> None:
    """OpenAI's browser clients do; ours is taken off the list, and theirs goes on."""
    shake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    offered = f"realtime, openai-insecure-api-key.{SECRET}, openai-insecure-api-key.{KEY}"
    async with passing(book=Book()) as running, await H1.tls(running.proxy) as client:
        await client.send(
            "/v1/realtime", b"", method="GET", headers={**shake, "Sec-WebSocket-Protocol": offered}
        )
        await client.head()
        (request,) = running.upstream.requests
        assert f"realtime, openai-insecure-api-key.{KEY}\r\n".encode() in request
        assert b"tokenhub_" not in request


# --- what clients bring ------------------------------------------------------------------------------------

STRAY = f"sk-ant-api03-{'s' * 40}"
"""Anthropic's by its looks."""


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
async def test_somebody_elses_key_does_not_leave_for_a_host(passing: Passing, path: str) -> None:
    """Routed or passed through: it is refused at the door, and the host hears nothing."""
    async with passing() as running, await H1.tls(running.proxy) as client:
        answer = await client.ask(path, headers={"Authorization": f"Bearer {STRAY}"})
        assert (answer.status, fault(answer)["code"]) == (403, "credential_leak")
        assert STRAY.encode() not in answer.body
        assert running.upstream.dials == []


async def test_what_a_client_brings_is_dropped_or_refused_by_rule(proxied: Lanes) -> None:
    """The engine never sees it, and what is not routed has nothing to show its host."""
    engine = ScriptedEngine()
    rules = Foreign({OPENAI: Use.REPLACE, ANTHROPIC: Use.REFUSE})
    async with proxied(engine, book=Book(), foreign=rules) as running:
        async with await H1.tls(running.proxy) as client:
            assert (await client.ask(headers=OWN)).status == 200
            assert (await client.ask("/v1/files", headers=OWN)).status == 403
        async with await H1.tls(running.proxy, ANTHROPIC) as client:
            assert (await client.ask(MESSAGES, headers=OWN)).status == 403
        async with await H1.tls(running.proxy, ANTHROPIC) as client:
            assert (await client.ask(MESSAGES, headers={**OWN, "x-api-key": SECRET})).status == 200
        assert running.upstream.dials == []
    assert [one.caller.key for one in engine.snapshots] == [None, ANN]
    assert not any(KEY in str(one.headers) for one in engine.snapshots)


# --- the canary --------------------------------------------------------------------------------------------


async def test_a_key_is_in_no_flow_no_record_and_no_log_line(
    lane: Lanes, caplog: pytest.LogCaptureFixture
) -> None:
    """Right and wrong ones, in every place, in calls that are served, refused, and broken off."""
    caplog.set_level(logging.DEBUG)
    engine = ScriptedEngine()
    async with lane(engine, book=Book()) as running:
        proxied_ = running.lane is not Lane.DIRECT
        for secret in (SECRET, WRONG, EXPIRED):
            shown: list[dict[str, str]] = [
                {"x-api-key": secret},
                {"Authorization": basic(f"x:{secret}")},
                {"Cookie": f"k={secret}"},
                {"Proxy-Authorization": basic(f"x:{secret}")},
            ]
            for headers in shown:
                async with await running.client() as client:
                    await client.ask(headers=headers)
            async with await running.client() as client:
                await client.ask(f"{CHAT}?key={secret}")
            if proxied_:
                with contextlib.suppress(RefusedError):
                    async with await H1.tls(running.proxy, auth=f"x:{secret}") as client:
                        await client.ask()
                for headers in shown:
                    async with await H1.plain(running.proxy, "www.example.org") as client:
                        await client.ask(headers=headers)
        held = [str(flow.get_state()) for flow in running.flows if isinstance(flow, http.HTTPFlow)]
        seen = [*held, *map(repr, running.recorder.records), caplog.text, *map(repr, engine.snapshots)]
        seen += [str((one.headers, one.path)) for one in engine.snapshots]
        seen += [request.decode("latin-1") for request in running.upstream.requests]
    if running.lane is Lane.INSPECT:
        assert len(held) > 15
    for secret in (SECRET, WRONG, EXPIRED):
        for spelled in (secret, base64.b64encode(f"x:{secret}".encode()).decode()):
            assert not [text for text in seen if spelled in text]


async def test_a_socks_password_is_in_no_log_line(proxied: Lanes, caplog: pytest.LogCaptureFixture) -> None:
    """mitmproxy logs what it could not read: there a client that leaves early, or says more than was asked."""
    caplog.set_level(logging.DEBUG)
    secret = SECRET.encode()
    login = b"\x01\x01x" + bytes([len(secret)]) + secret
    async with proxied(ScriptedEngine(), book=Book(), mode="socks5") as running:
        for said in (b"\x05\x01\x02" + login[:-1], b"\x05\x01\x00" + login, login):
            reader, writer = await tunnel(running.proxy, OPENAI, via="direct")
            writer.write(said)
            writer.write_eof()
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
    assert SECRET not in caplog.text


# --- beyond this machine -----------------------------------------------------------------------------------


def _address() -> str:
    """Return an address of this machine that is not its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no network")
        found: str = probe.getsockname()[0]
        return found


async def test_who_comes_from_elsewhere_is_never_anonymous(confdir: Path) -> None:
    """A listener that others can reach asks them, though this machine may come as it is."""
    here = _address()
    upstream = Upstream()
    await upstream.start()
    async with inspecting(confdir, ScriptedEngine(), mode=f"regular@{here}:0", upstream=upstream) as it:
        with pytest.raises(RefusedError) as caught:
            await tunnel(it.proxy, OPENAI)
        assert caught.value.status == 407
        async with await H1.plain(it.proxy, "www.example.org") as client:
            assert (await client.ask()).status == 407
    assert upstream.dials == []
    await upstream.close()


async def test_a_server_that_others_can_reach_starts_only_where_it_asks(data_dir: Path) -> None:
    """Otherwise one line says what to set; then both of its doors ask."""
    here = _address()
    binds: list[dict[str, Any]] = [{"host": here}, {"mode": f"regular@{here}:0"}, {"host": "0.0.0.0"}]
    for bind in binds:
        with pytest.raises(ConfigError, match="set TOKENHUB_ANONYMOUS=off") as caught:
            await served(data_dir, ScriptedEngine(), **bind).__aenter__()
        assert "\n" not in str(caught.value)
    async with served(data_dir, ScriptedEngine(), host=here, book=Book(), **SHUT) as serve:
        assert serve.proxy.host == here
        async with await H1.direct(serve.side) as client:
            assert (await client.ask()).status == 401
            assert (await client.ask(headers={"x-api-key": SECRET})).status == 200
            await client.send("/metrics", b"", method="GET")
            assert (await client.head()).status == 401
        with pytest.raises(RefusedError):
            await tunnel(serve.proxy, OPENAI)
        async with await H1.tls(serve.proxy, auth=f"x:{SECRET}") as client:
            assert (await client.ask()).status == 200
