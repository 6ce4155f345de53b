"""What is not routed, in both lanes of the proxy: it passes, and one record says so.

The scenes are the same for both; where a lane differs on purpose, the scene says how.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from mitmproxy import http

from tests.addon.clients import CHAT, H1, H2, KEY, OPENAI, tunnel
from tests.addon.inspection import Clock, inspecting, make_addon
from tests.addon.lanes import served
from tests.addon.passed import KEYED, Host, Passing, ends, records, running_with
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream
from tests.fakes.certificates import authority, demanding, server_context
from tests.fakes.engine import Kept
from tests.fakes.watching import rules, watcher
from tests.patience import PATIENCE
from tokenhub_addon.addon import TokenHub
from tokenhub_addon.host import AddonOptions, Running
from tokenhub_core.admission.limits import Call
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import KeyLimits, Lane, Outcome, Provider, ProviderType, Usage

# --- the record --------------------------------------------------------------------------------------------


async def test_who_has_no_money_left_is_not_let_by(passing: Passing) -> None:
    """What cannot be reserved for is refused at the door, in its dialect; what a mode leaves alone passes."""
    asked: list[str] = []
    poor = Fault(Kind.BUDGET, Blame.CLIENT, "nothing is left", cause="budget_exhausted")

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({})

    left_alone = watcher(*rules(observe="api.anthropic.com"))
    async with passing(site=site, watching=replace(left_alone, admit=lambda caller, at: poor)) as running:
        async with await H1.tls(running.proxy) as client:
            await client.send("/v1/audio/odd", b"{}", headers=KEYED)
            refused = await client.answer()
        assert (refused.status, orjson.loads(refused.body)["error"]["code"]) == (402, "budget_exhausted")
        assert "upgrade" not in dict(refused.headers)
        async with await H1.tls(running.proxy, host="api.anthropic.com") as client:
            await client.send("/v1/files", b"{}", headers=KEYED)
            assert (await client.answer()).status == 200
        told = await records(running, 2)
    assert asked == ["/v1/files"]
    assert [ends(one) for one in told] == [
        (Outcome.ERROR, 402, "budget_exhausted"),
        (Outcome.PASSED, 200, ""),
    ]


async def test_limits_are_learned_from_what_passes(passing: Passing) -> None:
    """By the caller's key at that host, for the model that was asked for, and of nobody else."""

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        told = {"limit": "100", "remaining": "0", "reset": "60s"}
        return web.json_response(
            {}, headers={f"x-ratelimit-{part}-requests": value for part, value in told.items()}
        )

    async with passing(site=site) as running, await H1.tls(running.proxy) as client:
        await client.send("/v1/audio/odd", b'{"model":"m","input":"x"}', headers=KEYED)
        await client.answer()
        await records(running)
        keyring = running.keyring
    origin = Provider(f"origin:{OPENAI}", ProviderType.ORIGIN, (), cred_store="caller")
    now = Clock().monotonic() if running.lane is Lane.INSPECT else time.monotonic()

    def wait(key: str, model: str) -> float:
        caller = keyring.caller(origin, (("authorization", f"Bearer {key}"),))
        return keyring.room(origin, Call(model), now=now, at=0.0, caller=caller).wait

    assert wait(KEY, "m") > 0
    assert (wait("sk-other", "m"), wait(KEY, "other")) == (0, 0)


async def test_a_host_that_wants_a_certificate_of_its_client_is_told_of(
    passing: Passing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody in between can show the client's own one, so that such a host has to be left unopened."""
    ca = authority(tmp_path, "theirs")
    with demanding(server_context(tmp_path, ca), ca) as port:
        async with passing() as running, await H1.tls(running.proxy) as client:
            monkeypatch.setattr(running.upstream, "port", lambda wanted: port)
            await client.send("/v1/audio/odd", b"{}", headers=KEYED)
            answer = await client.answer()
            (record,) = await records(running)

    assert (answer.status, record.outcome) == (502, Outcome.ERROR)
    if (
        running.lane is Lane.HANDOFF
    ):  # in the other one mitmproxy itself asks, and answers with a page of its own
        assert f"`tokenhub mode set {OPENAI} off`" in orjson.loads(answer.body)["error"]["message"]


async def test_one_record_says_what_passed(passing: Passing) -> None:
    """Who, what, how much and how it ended; usage and model where the host tells them; no key."""

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        await request.read()
        return web.json_response({"model": "text-embedding-3-small", "usage": {"prompt_tokens": 8}})

    async with passing(site=site) as running, await H1.tls(running.proxy) as client:
        asked = b'{"model":"embed","input":"x"}'
        await client.send(f"/v1/audio/odd?key={KEY}&a=1", asked, headers=KEYED)
        answer = await client.answer()
        (record,) = await records(running)
    assert ends(record) == (Outcome.PASSED, 200, "")
    assert (record.method, record.path, record.origin_host) == ("POST", "/v1/audio/odd?key=***&a=1", OPENAI)
    assert record.message == f"{len(asked)} bytes up, {len(answer.body)} bytes down"
    assert (record.requested_model, record.model) == ("embed", "text-embedding-3-small")
    assert (record.usage, record.usage_estimated) == (Usage(8), False)
    assert (record.caller.peer, record.caller.lane, record.caller.program) == (
        "127.0.0.1",
        running.lane,
        "program/2",
    )
    assert record.id.startswith("req_")
    assert KEY not in repr(record)


async def test_callers_of_what_passes_are_limited(passing: Passing) -> None:
    """One request over the limit is refused, never reaches the host, and is recorded; an end frees the place."""
    asked: list[str] = []

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=b"x")

    limits = Throttle(addresses=KeyLimits(requests_per_minute=2, concurrency=1))
    async with passing(site=site, throttle=limits) as running, await H1.tls(running.proxy) as client:
        for count in (1, 2):
            assert (await client.ask("/v1/files")).status == 200
            await records(running, count)
        answer = await client.ask("/v1/files")
        kept = await records(running, 3)
    assert answer.status == 429
    assert b"2 requests a minute" in answer.body
    assert ends(kept[2]) == (Outcome.ERROR, 429, "address_requests")
    assert asked == ["/v1/files"] * 2


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PUT", "GET"])
async def test_every_method_passes_and_is_recorded(passing: Passing, method: str) -> None:
    """With or without a body, one record for each on one connection."""

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=request.method.encode(), status=202)

    async with passing(site=site) as running, await H1.tls(running.proxy) as client:
        for count in (1, 2):
            await client.send("/v1/files/f", b"", method=method)
            answer = await client.head()
            assert answer.status == 202
            if method != "HEAD":
                assert (await client.rest(answer)).body == method.encode()
            await records(running, count)
    kept = running.recorder.records
    assert [(record.method, record.status) for record in kept] == [(method, 202)] * 2


async def test_large_bodies_pass_unchanged(passing: Passing) -> None:
    """The hash of what was sent is the hash of what came, both ways."""
    data = hashlib.shake_128(b"x").digest(6 << 20)
    arrived = hashlib.sha256()

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        async for piece in request.content.iter_any():
            arrived.update(piece)
        return web.Response(body=data, headers={"content-encoding": "br", "content-type": "application/json"})

    async with passing(site=site) as running, await H1.tls(running.proxy) as client:
        await client.send("/v1/files", data)
        answer = await client.answer()
        (record,) = await records(running)
    assert arrived.digest() == hashlib.sha256(data).digest()
    assert answer.body == data
    assert record.message == f"{len(data)} bytes up, {len(data)} bytes down"


# --- what goes wrong ---------------------------------------------------------------------------------------


async def test_a_host_that_says_nothing_is_recorded(passing: Passing) -> None:
    """It closes instead of answering: an error of that host, for client and record."""

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with passing(raw) as running, await H1.tls(running.proxy) as client:
        assert (await client.ask("/v1/files")).status == 502
        (record,) = await records(running)
    assert ends(record) == (Outcome.ERROR, 502, "origin_unreachable")


async def test_an_answer_that_breaks_off_is_recorded(passing: Passing) -> None:
    """It does not look whole to the client, and the record says who it was."""

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await writer.drain()

    async with passing(raw) as running, await H1.tls(running.proxy) as client:
        answer = await client.ask("/v1/files")
        assert (answer.status, answer.complete) == (200, False)
        (record,) = await records(running)
    assert ends(record) == (Outcome.ERROR, 502, "origin_broke_off")


@pytest.mark.parametrize("moment", ["upload", "waiting", "download"])
async def test_a_client_that_leaves_is_recorded(passing: Passing, moment: str) -> None:
    """Cancelled, whenever it leaves; not an error of the host."""
    come = asyncio.Event()

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if moment == "download":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        come.set()
        await reader.read(-1)

    async with passing(raw) as running:
        async with await H1.tls(running.proxy) as client:
            if moment == "upload":
                await client.begin("/v1/files")
                await client.send_chunk(b"part")
            else:
                await client.send("/v1/files", b"")
            async with asyncio.timeout(PATIENCE):
                await come.wait()
            if moment == "download":
                await client.head()
        (record,) = await records(running)
    assert ends(record) == (Outcome.CANCELLED, 499, "")


async def test_what_may_not_pass_is_recorded(passing: Passing) -> None:
    """403 while the origin is off, with the answer's own id."""
    async with passing(tokenhub_origin=False) as running, await H1.tls(running.proxy) as client:
        answer = await client.ask("/v1/files", b"file")
        assert answer.status == 403
        (record,) = await records(running)
        assert running.upstream.dials == []
    assert ends(record) == (Outcome.ERROR, 403, "origin_off")
    assert record.id == answer.headers["x-request-id"]


# --- odd moments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nno!", b"Transfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n"]
)
async def test_an_early_answer_arrives_whole(passing: Passing, framing: bytes) -> None:
    """A host may refuse an upload that is still under way; its answer is complete before the upload is."""

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\n" + framing)
        await reader.read(-1)

    async with passing(raw) as running, await H1.tls(running.proxy) as client:
        await client.begin("/v1/files")
        await client.send_chunk(b"x" * 1000)
        answer = await client.answer()
        assert (answer.status, answer.body, answer.complete) == (413, b"no!", True)
        (record,) = await records(running)
    assert ends(record) == (Outcome.PASSED, 413, "")


async def test_a_client_that_goes_on_after_an_early_answer_is_not_cut(passing: Passing) -> None:
    """It may send the rest, which is for nobody, and ask again on the same connection."""

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"no", status=413)

    async with passing(site=site) as running, await H1.tls(running.proxy) as client:
        await client.begin("/v1/files")
        await client.send_chunk(b"x" * 1000)
        assert (await client.answer()).status == 413
        await client.send_chunk(b"x" * 1000)
        await client.send_chunk(b"")
        assert (await client.ask()).status == 200
        (record,) = await records(running)
    assert ends(record) == (Outcome.PASSED, 413, "")


async def test_trailers_do_no_harm(passing: Passing) -> None:
    """Of a request and of an answer; the connection is understood afterwards."""

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"0\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n"
            )

    async with passing(raw) as running, await H1.tls(running.proxy) as client:
        for path in ("/v1/files", CHAT, "/v1/files"):
            await client.begin(path, headers={"Trailer": "X-Sum"})
            client.writer.write(b"2\r\n{}\r\n0\r\nX-Sum: 2\r\n\r\n")
            answer = await client.head()
            assert answer.status == 200
            assert await client.chunk() == b"body" if path != CHAT else (await client.rest(answer)).complete
            if path != CHAT:
                # The end of the answer, with its trailer or without.
                while await client.reader.readuntil(b"\r\n") != b"\r\n":
                    pass
        await records(running, 2)


async def test_a_client_that_waits_for_leave_to_upload_gets_it(passing: Passing) -> None:
    """Expect: 100-continue of what passes through."""

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        assert "expect" not in request.headers
        return web.Response(body=await request.read())

    async with passing(site=site) as running, await H1.tls(running.proxy) as client:
        await client.send("/v1/files", b"", headers={"Expect": "100-continue", "Content-Length": "4"})
        assert (await client.head()).status == 100
        client.writer.write(b"file")
        assert (await client.answer()).body == b"file"


# --- the inspect lane alone --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _inspecting(confdir: Path, recorder: Kept, **how: Any) -> AsyncIterator[Any]:
    upstream, engine = Upstream(), ScriptedEngine()
    await upstream.start()
    try:
        ours = make_addon(engine, upstream, make=running_with(engine, recorder))
        async with inspecting(confdir, engine, addon=ours, upstream=upstream, **how) as lane:
            yield lane
    finally:
        await upstream.close()


async def test_a_call_that_is_too_large_is_recorded(confdir: Path) -> None:
    """The engine never hears of it, so the lane itself leaves the record."""
    recorder = Kept()
    async with _inspecting(confdir, recorder, tokenhub_max_body=10) as lane:
        async with await H1.tls(lane.proxy) as client:
            answer = await client.ask(body=b"x" * 11)
            assert answer.status == 413
        async with await H2.tls(lane.proxy) as modern:
            assert (await modern.ask(body=b"x" * 11)).status == 413
            assert (await modern.ask(body=b"x" * 10)).status == 200
    first, second = recorder.records
    assert ends(first) == ends(second) == (Outcome.ERROR, 413, "body_too_large")
    assert first.id == answer.headers["x-request-id"]


async def test_a_hook_that_refuses_is_recorded(confdir: Path) -> None:
    """A failure of ours in a hook is answered and recorded once, and nothing goes out."""
    recorder = Kept()
    async with _inspecting(confdir, recorder) as lane:
        lane.addon._lane.accept = None
        async with await H1.tls(lane.proxy) as client:
            answer = await client.ask(headers=KEYED)
            assert answer.status == 500
        assert lane.upstream.dials == []
        assert KEY not in str(lane.flow.get_state())
    assert ends(recorder.one) == (Outcome.ERROR, 500, "hook_failed")
    assert recorder.one.id == answer.headers["x-request-id"]


async def test_a_flow_whose_end_was_missed_is_recorded_with_its_client(confdir: Path, tmp_path: Path) -> None:
    """Where our own hook at its end failed, the client's leaving ends it."""

    class Broken(TokenHub):
        def response(self, flow: http.HTTPFlow) -> None:
            raise RuntimeError("broken")

    host, recorder, engine = Host(), Kept(), ScriptedEngine()
    await host.start(server_context(tmp_path, authority(tmp_path)))
    ours = make_addon(engine, host, kind=Broken, make=running_with(engine, recorder))
    async with inspecting(confdir, engine, addon=ours, upstream=host, ssl_insecure=True) as lane:
        async with await H1.tls(lane.proxy) as client:
            await client.send("/v1/files", b"file")
            assert await client.ends()
        await lane.until(lambda: ours.remembered() == 0)
    await host.close()
    assert recorder.one.path == "/v1/files"


async def test_what_others_answer_and_what_is_given_up_is_no_record(confdir: Path) -> None:
    """An upload that breaks off was no call yet; another addon's answer to a call is that addon's."""

    class First:
        def request(self, flow: http.HTTPFlow) -> None:
            flow.response = http.Response.make(418, b"teapot")

    recorder = Kept()
    async with _inspecting(confdir, recorder, after=[First()]) as lane:
        async with await H1.tls(lane.proxy) as client:
            assert (await client.ask()).status == 418
        async with await H1.tls(lane.proxy) as client:
            await client.send(headers={"Content-Length": "100"})
        await lane.until(lambda: not lane.call("proxyserver.active_connections"))
        assert lane.addon.remembered() == 0
    assert recorder.records == []


async def test_a_call_from_before_the_engine_runs_waits_for_it(confdir: Path) -> None:
    """Nobody can tell who may come in before; then it is refused, and recorded."""
    recorder, ready, engine = Kept(), asyncio.Event(), ScriptedEngine()

    @contextlib.asynccontextmanager
    async def slowly(_: AddonOptions) -> AsyncIterator[Running]:
        await ready.wait()
        yield Running(engine, recorder)

    upstream = Upstream()
    await upstream.start()
    ours = make_addon(engine, upstream, make=slowly)
    async with (
        inspecting(confdir, engine, addon=ours, upstream=upstream, tokenhub_origin=False) as lane,
        await H1.plain(lane.proxy) as client,
    ):
        asked = asyncio.create_task(client.ask("/v1/files"))
        await asyncio.sleep(0)
        assert recorder.records == []
        ready.set()
        assert (await asked).status == 403
        await lane.until(lambda: len(recorder.records) == 1)
    await upstream.close()


async def test_serve_records_what_passes_in_its_inspect_lane(data_dir: Path, tmp_path: Path) -> None:
    """The recorder of the engine that `serve` runs gets them."""
    host = Host()
    await host.start(server_context(tmp_path, authority(tmp_path)))
    async with served(data_dir, ScriptedEngine(), lane="inspect", upstream=host, ssl_insecure=True) as serve:
        async with await H1.tls(serve.proxy) as client:
            assert (await client.ask("/v1/files", b"file")).body == b"upstream"
        (record,) = serve.recorder.records
    await host.close()
    assert (record.caller.lane, ends(record)) == (Lane.INSPECT, (Outcome.PASSED, 200, ""))


async def test_nobody_is_recorded_who_is_no_llm_host(passing: Passing) -> None:
    """A refused tunnel to another host is none of our records."""
    async with passing() as running:
        reader, writer = await tunnel(running.proxy, "www.example.org")
        writer.transport.abort()
        del reader
        assert running.recorder.records == []
