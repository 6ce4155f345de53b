"""What is only true of the inspect lane: its calls are flows, and mitmproxy's user can do with them as usual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy import io as dumps

from tests.addon.clients import CHAT, H1, H2, KEY, OPENAI
from tests.addon.inspection import Inspection, inspecting
from tests.addon.scripted import ScriptedEngine, Tap, counted, lines, never, ready, streamed, whole
from tests.addon.upstream import Upstream
from tests.fakes.certificates import authority, server_context
from tokenhub_addon.flows import REDACTED, describe
from tokenhub_core.ports import Reply, Summary
from tokenhub_core.types import Snapshot

_SECRETS = {
    "Authorization": f"Bearer {KEY}",
    "X-Api-Key": KEY,
    "api-key": KEY,
    "x-goog-api-key": KEY,
    "Proxy-Authorization": f"Basic {KEY}",
}


# --- what the user sees ------------------------------------------------------------------------------------


async def test_a_flow_tells_its_decision(confdir: Path) -> None:
    """Comment and metadata say who served and why; the URL is the one that was asked for."""
    async with inspecting(confdir, ScriptedEngine()) as lane, await H1.tls(lane.proxy) as client:
        await client.ask()
        flow = lane.flow
        assert flow.request.pretty_url == f"https://{OPENAI}{CHAT}"
        assert flow.comment == "gpt-4o-mini @ openai · routed-weight-7 · 2 attempts"
        assert flow.marked == ":repeat:"
        assert flow.metadata["tokenhub"] == {
            "request_id": "req_scene",
            "model": "gpt-4o-mini",
            "provider": "openai",
            "reason": "routed-weight-7",
            "attempts": 2,
            "fault": "",
        }
        assert flow.response is not None
        assert flow.response.content == b'{"ok":true}'
        told = lane.call("tokenhub.explain", [flow])
        assert told == f"POST {OPENAI}{CHAT}: gpt-4o-mini @ openai · routed-weight-7 · 2 attempts"


def test_a_decision_disconnects_out_what_it_does_not_know() -> None:
    """A call that nobody served is described by its fault alone."""
    assert describe(Summary("r", fault="no_candidate")) == "no_candidate"
    assert describe(Summary("r", "m", "p", attempts=1)) == "m @ p · 1 attempt"


async def test_a_failed_call_is_marked(confdir: Path) -> None:
    """A fault shows in the flow list without opening the flow."""
    engine = ScriptedEngine(lambda _: ready(whole(status=503, summary=Summary("r", fault="no_candidate"))))
    async with inspecting(confdir, engine) as lane, await H1.tls(lane.proxy) as client:
        assert (await client.ask()).status == 503
        assert (lane.flow.marked, lane.flow.comment) == (":warning:", "no_candidate")


async def test_a_streamed_answer_can_be_read_afterwards(confdir: Path) -> None:
    """The flow holds what was streamed, as long as it is not too much."""
    sizes = {b"small": 3, b"large": 300}

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(_sized(sizes[snapshot.body], 4096))

    async with inspecting(confdir, ScriptedEngine(script)) as lane, await H1.tls(lane.proxy) as client:
        assert len((await client.ask(body=b"small")).body) == 3 * 4096
        assert lane.flow.response is not None
        assert lane.flow.response.raw_content == b"x" * 3 * 4096
        assert len((await client.ask(body=b"large")).body) == 300 * 4096
        assert lane.flow.response.raw_content is None


async def test_no_credential_stands_in_a_flow(confdir: Path, tmp_path: Path) -> None:
    """The engine gets the caller's credentials, the flow list and the saved file do not."""
    engine = ScriptedEngine()
    saved = tmp_path / "flows"
    async with (
        inspecting(confdir, engine, save_stream_file=str(saved)) as lane,
        await H1.tls(lane.proxy) as client,
    ):
        await client.ask(headers=_SECRETS)
        assert KEY not in str(lane.flow.get_state())
        kept = dict(engine.snapshots[0].headers)
        assert kept["authorization"] == f"Bearer {KEY}"
        assert kept["x-api-key"] == kept["api-key"] == kept["x-goog-api-key"] == KEY
        assert "proxy-authorization" not in kept
    assert KEY.encode() not in saved.read_bytes()
    with saved.open("rb") as file:
        (flow,) = dumps.FlowReader(file).stream()
    assert flow.metadata["tokenhub"]["model"] == "gpt-4o-mini"


async def test_a_call_that_failed_leaves_no_credential_either(confdir: Path) -> None:
    """An upload that breaks off has been seen by the hooks too."""
    async with inspecting(confdir, ScriptedEngine()) as lane:
        async with await H1.tls(lane.proxy) as client:
            await client.send(headers={**_SECRETS, "Content-Length": "100"})
        await lane.until(lambda: len(lane.view) == 1 and lane.flow.error is not None)
        assert KEY not in str(lane.flow.get_state())


async def test_the_proxys_own_password_is_not_kept(confdir: Path) -> None:
    """The user of the proxy is told to the engine; the password stays nowhere."""
    engine = ScriptedEngine()
    async with (
        inspecting(confdir, engine, proxyauth="user:hunter2-password") as lane,
        await H1.tls(lane.proxy, auth="user:hunter2-password") as client,
    ):
        assert (await client.ask()).status == 200
        assert engine.snapshots[0].caller.proxy_user == "user"
        assert "hunter2" not in str(lane.flow.get_state())


async def test_what_passes_through_leaves_no_credential_in_its_flow(confdir: Path, tmp_path: Path) -> None:
    """A request that is forwarded carries its credential on the wire and not in its flow; it is streamed."""
    upstream = Upstream()
    await upstream.start(server_context(tmp_path, authority(tmp_path)))
    try:
        async with (
            inspecting(confdir, ScriptedEngine(), upstream=upstream, ssl_insecure=True) as lane,
            await H1.tls(lane.proxy) as client,
        ):
            answer = await client.ask("/v1/files", b"file", headers=_SECRETS)
            assert answer.body == b"upstream"
            assert KEY not in str(lane.flow.get_state())
            assert lane.flow.request.raw_content is None
            assert lane.call("tokenhub.explain", [lane.flow]) == f"POST {OPENAI}/v1/files: not routed"
        assert upstream.requests[0].count(KEY.encode()) == 4
        assert b"Proxy-Authorization" not in upstream.requests[0]
    finally:
        await upstream.close()


# --- what the user does ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["command", "web"])
async def test_a_kill_ends_the_call_at_once(confdir: Path, by: str) -> None:
    """Killing a flow in flight cancels its exchange and cuts its client, from the console and from the web."""
    tap = Tap()
    engine = ScriptedEngine(lambda _: ready(streamed(tap.frames())))
    async with inspecting(confdir, engine) as lane, await H1.tls(lane.proxy) as client:
        await client.send()
        answer = await client.head()
        await tap.flow(b"one")
        assert await client.chunk() == b"one"
        _kill(lane, by)
        assert not (await client.rest(answer)).complete
        await engine.until(lambda e: e.cancelled == 1)


async def test_a_kill_resets_its_http2_stream_only(confdir: Path) -> None:
    """The other streams of a connection survive the killing of one."""

    async def script(snapshot: Snapshot) -> Reply:
        return whole() if snapshot.body == b"well" else await never()

    engine = ScriptedEngine(script)
    async with inspecting(confdir, engine) as lane, await H2.tls(lane.proxy) as client:
        _, stream = client.send(body=b"doomed")
        await engine.until(lambda e: e.running == 1)
        _kill(lane, "command")
        await stream.until(lambda s: s.reset is not None)
        assert engine.cancelled == 1
        assert (await client.ask(body=b"well")).complete


async def test_an_intercepted_call_waits_for_its_resume(confdir: Path) -> None:
    """The exchange starts when the flow is resumed, with the body that the user has left there."""
    engine = ScriptedEngine()
    async with inspecting(confdir, engine, intercept="~q") as lane, await H1.tls(lane.proxy) as client:
        await client.send(body=b'{"model":"before"}', headers={"Authorization": f"Bearer {KEY}"})
        await lane.until(lambda: len(lane.view) == 1 and lane.flow.intercepted)
        assert engine.snapshots == []
        lane.flow.request.content = b'{"model":"after"}'
        lane.flow.request.headers["x-mine"] = "1"
        lane.flow.resume()  # type: ignore[no-untyped-call] # mitmproxy's
        assert (await client.answer()).status == 200
        (snapshot,) = engine.snapshots
        assert snapshot.body == b'{"model":"after"}'
        assert ("x-mine", "1") in snapshot.headers
        assert ("authorization", f"Bearer {KEY}") in snapshot.headers


async def test_a_credential_that_the_user_has_changed_stays_changed(confdir: Path) -> None:
    """What was redacted comes back; what was typed over it does not."""
    engine = ScriptedEngine()
    async with inspecting(confdir, engine, intercept="~q") as lane, await H1.tls(lane.proxy) as client:
        await client.send(headers={"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY})
        await lane.until(lambda: len(lane.view) == 1 and lane.flow.intercepted)
        lane.flow.request.headers["authorization"] = "Bearer other"
        lane.flow.resume()  # type: ignore[no-untyped-call] # mitmproxy's
        await client.answer()
        kept = dict(engine.snapshots[0].headers)
        assert (kept["authorization"], kept["x-api-key"]) == ("Bearer other", KEY)


@pytest.mark.parametrize("by", ["command", "web"])
async def test_a_call_that_is_killed_while_it_is_held_back_never_starts(confdir: Path, by: str) -> None:
    """Killing an intercepted flow closes its client; the engine hears nothing."""
    engine = ScriptedEngine()
    async with inspecting(confdir, engine, intercept="~q") as lane, await H1.tls(lane.proxy) as client:
        await client.send()
        await lane.until(lambda: len(lane.view) == 1 and lane.flow.intercepted)
        _kill(lane, by)
        assert await client.at_end()
        assert engine.snapshots == []


async def test_a_held_back_response_does_not_pile_up(confdir: Path) -> None:
    """A hook that takes its time at a response's head stops the generator, as a slow client does."""
    gate = asyncio.Event()

    class Slow:
        async def responseheaders(self, flow: http.HTTPFlow) -> None:
            await gate.wait()

    pulled: list[int] = []
    engine = ScriptedEngine(lambda _: ready(streamed(_sized(1000, 4096, pulled))))
    async with (
        inspecting(confdir, engine, before=[Slow()]) as lane,
        await H1.tls(lane.proxy) as client,
    ):
        await client.send()
        await engine.until(lambda e: e.running == 1)
        before = -1
        while before != len(pulled) or not pulled:
            before = len(pulled)
            await asyncio.sleep(0.1)
        assert len(pulled) < 100
        gate.set()
        assert len((await client.answer()).body) == 1000 * 4096


async def test_frames_that_are_ready_together_travel_together(confdir: Path) -> None:
    """What the engine has at once does not become one walk through mitmproxy's layers per frame."""
    engine = ScriptedEngine(lambda _: ready(streamed(counted(100))))
    async with inspecting(confdir, engine) as lane, await H1.tls(lane.proxy) as client:
        await client.send()
        await client.head()
        chunks = []
        while chunk := await client.chunk():
            chunks.append(chunk)
        assert b"".join(chunks) == lines(b"%d" % number for number in range(100))
        assert len(chunks) <= 3


# --- settings that would break the lane if they could ------------------------------------------------------


@pytest.mark.parametrize(
    "hostile",
    [
        {"stream_large_bodies": "10"},
        {"body_size_limit": "10"},
        {"stream_large_bodies": "10", "store_streamed_bodies": True},
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_mitmproxys_own_body_limits_do_not_apply(
    confdir: Path, hostile: dict[str, Any], chunked: bool
) -> None:
    """Bodies of routed calls are collected whole, and answers are not cut, whatever mitmproxy's limits say."""
    engine = ScriptedEngine(lambda _: ready(whole(b"y" * 1000)))
    async with inspecting(confdir, engine, **hostile) as lane, await H1.tls(lane.proxy) as client:
        if chunked:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: {OPENAI}\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.writer.write(
                head.encode() + b"14\r\n" + b"x" * 20 + b"\r\n" + b"14\r\n" + b"x" * 20 + b"\r\n"
            )
            client.writer.write(b"0\r\n\r\n")
        else:
            await client.send(body=b"x" * 40)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"y" * 1000)
        assert engine.snapshots[0].body == b"x" * 40


async def test_an_addon_that_streams_requests_does_not_get_its_way(confdir: Path) -> None:
    """A script of the user that switches streaming on leaves the cap in force and the body whole."""

    class Streamer:
        def requestheaders(self, flow: http.HTTPFlow) -> None:
            flow.request.stream = True

    engine = ScriptedEngine()
    async with (
        inspecting(confdir, engine, after=[Streamer()], tokenhub_max_body=100) as lane,
        await H1.tls(lane.proxy) as client,
    ):
        assert (await client.ask(body=b"x" * 100)).status == 200
        assert (await client.ask(body=b"x" * 101)).status == 413
        assert [snapshot.body for snapshot in engine.snapshots] == [b"x" * 100]


async def test_another_addons_answer_stands(confdir: Path) -> None:
    """Who answers first has answered: the engine is not asked."""

    class First:
        def requestheaders(self, flow: http.HTTPFlow) -> None:
            flow.response = http.Response.make(418, b"teapot")

    engine = ScriptedEngine()
    async with (
        inspecting(confdir, engine, before=[First()]) as lane,
        await H1.tls(lane.proxy) as client,
    ):
        assert (await client.ask(headers=_SECRETS)).status == 418
        assert engine.snapshots == []
        assert KEY not in str(lane.flow.get_state())


# --- replay ------------------------------------------------------------------------------------------------


async def test_a_replay_is_answered_by_the_engine(confdir: Path) -> None:
    """Neither the host nor anybody else is dialled; the flow keeps its URL, and gets the answer and the decision."""
    engine = ScriptedEngine()
    async with inspecting(confdir, engine) as lane:
        async with await H1.tls(lane.proxy) as client:
            await client.ask(body=b'{"model":"m"}', headers={"Authorization": f"Bearer {KEY}"})
        flow = lane.flow
        lane.call("replay.client", [flow])
        await lane.until(lambda: len(engine.snapshots) == 2 and flow.response is not None)
        assert lane.upstream.dials == []
        again = engine.snapshots[1]
        assert (again.method, again.path, again.body) == ("POST", CHAT, b'{"model":"m"}')
        assert "authorization" not in dict(again.headers)
        assert REDACTED not in str(again.headers)
        assert flow.response is not None
        assert flow.response.status_code == 200
        assert flow.request.pretty_url == f"https://{OPENAI}{CHAT}"
        assert flow.comment
        await lane.until(lambda: lane.addon.remembered() == 0)


async def test_a_streamed_replay_comes_in_one_piece(confdir: Path) -> None:
    """The flow holds every byte of the stream."""

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(_sized(3, 10)) if snapshot.id != "req_1" else whole()

    engine = ScriptedEngine(script)
    async with inspecting(confdir, engine) as lane:
        async with await H1.tls(lane.proxy) as client:
            await client.ask(body=b"{}")
        flow = lane.flow
        lane.call("replay.client", [flow])
        await lane.until(lambda: flow.response is not None and len(flow.response.raw_content or b"") == 30)


async def test_what_is_no_call_is_not_replayed(confdir: Path) -> None:
    """Only calls that are routed can be; the refusal says so, and the host hears nothing."""
    async with inspecting(confdir, ScriptedEngine()) as lane:
        async with await H1.tls(lane.proxy) as client:
            await client.ask(body=b"{}")
        flow = lane.flow
        flow.request.path = "/v1/files"
        lane.call("replay.client", [flow])
        await lane.until(lambda: flow.response is not None and flow.response.status_code == 400)
        assert "only routed calls can be replayed" in (flow.response.text or "" if flow.response else "")
        assert lane.upstream.dials == []


async def test_a_replay_that_is_killed_ends(confdir: Path) -> None:
    """The engine hears that nobody waits any more, and the next replay is made."""
    hold = asyncio.Event()

    async def script(snapshot: Snapshot) -> Reply:
        if snapshot.id == "req_2":
            await hold.wait()
        return whole()

    engine = ScriptedEngine(script)
    async with inspecting(confdir, engine) as lane:
        async with await H1.tls(lane.proxy) as client:
            await client.ask(body=b"{}")
        flow = lane.flow
        lane.call("replay.client", [flow])
        await engine.until(lambda it: len(it.snapshots) == 2)
        flow.kill()  # type: ignore[no-untyped-call] # mitmproxy's
        lane.view.update([flow])
        await engine.until(lambda it: it.cancelled == 1)
        await lane.until(lambda: lane.call("replay.client.count") == 0)
        lane.call("replay.client", [flow])
        await lane.until(lambda: flow.response is not None)
        await lane.until(lambda: lane.addon.remembered() == 0)


# --- tidiness ----------------------------------------------------------------------------------------------


async def test_nothing_is_remembered_of_a_call_that_has_ended(confdir: Path) -> None:
    """Tickets, tasks, stand-ins and permissions go with the calls that they were for."""

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(_sized(3, 10)) if snapshot.body == b"stream" else whole()

    async with inspecting(confdir, ScriptedEngine(script)) as lane:
        async with await H2.tls(lane.proxy) as client:
            for body in (b"stream", b"whole") * 5:
                assert (await client.ask(body=body)).complete
        async with await H1.tls(lane.proxy) as left:
            await left.send(headers={"Content-Length": "100"})
        await lane.until(lambda: not lane.call("proxyserver.active_connections"))
        await lane.until(lambda: lane.addon.remembered() == 0)


def _kill(lane: Inspection, by: str) -> None:
    if by == "command":
        lane.call("flow.kill", [lane.flow])
    else:
        lane.flow.kill()  # type: ignore[no-untyped-call] # mitmproxy's
        lane.view.update([lane.flow])


async def _sized(count: int, size: int, pulled: list[int] | None = None) -> AsyncIterator[bytes]:
    for number in range(count):
        if pulled is not None:
            pulled.append(number)
        yield b"x" * size
