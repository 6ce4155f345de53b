"""`tokenhub serve` as its operator sees it: how it starts, what it refuses, how it leaves."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.calling import LAST_WORDS, doors
from tests.e2e.conftest import LANES
from tests.e2e.programs import needs_curl, run
from tests.e2e.serving import Exit, Serve, measured, serving, start, stored, until
from tests.fakes.provider import FakeProvider
from tokenhub_core.launch.serveinfo import read_serve_info
from tokenhub_core.providers.simulator import Profile

pytestmark = pytest.mark.asyncio(loop_scope="session")

each_lane = pytest.mark.parametrize("lane", LANES)


async def refused(folder: Path, *options: str, **settings: str) -> Exit:
    """Start one that cannot start."""
    async with aiohttp.ClientSession() as session:
        ended = await start(folder, *options, settings=settings, session=session)
    assert isinstance(ended, Exit), "it has started"
    return ended


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
async def test_a_taken_port_is_one_line_and_exit_code_2(tmp_path: Path, option: str) -> None:
    """Whichever of the two: the line names the address and the reason, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await refused(tmp_path, option, str(port))

    assert ended.code == 2
    assert ended.output == f"tokenhub: cannot listen on 127.0.0.1:{port}: address already in use\n"
    assert read_serve_info(tmp_path / "data") is None


async def test_an_address_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    """As long as callers come without keys; the line says what to set."""
    ended = await refused(tmp_path, "--host", "0.0.0.0")
    assert (ended.code, ended.output.count("\n")) == (2, 1)
    assert ended.output.startswith(
        "tokenhub: --host 0.0.0.0 can be reached from the network: set TOKENHUB_ANONYMOUS=off"
    )


async def test_a_setting_that_makes_no_sense_is_one_line(tmp_path: Path) -> None:
    """The variable, its value, and what it must be."""
    ended = await refused(tmp_path, TOKENHUB_MAX_ATTEMPTS="many")
    assert ended.code == 2
    assert ended.output == "tokenhub: TOKENHUB_MAX_ATTEMPTS='many': must be a number\n"


@needs_curl
async def test_what_it_tells_to_try_works(tmp_path: Path) -> None:
    """Cold, then warm; the printed command with curl is answered; while nobody serves, none says so."""
    async with serving(tmp_path, "--simulate") as serve:
        measured(f"cold start: ready after {serve.ready_after:.2f} s")
        async with serve.session.get(f"{serve.info.side_url}/readyz") as response:
            assert (response.status, (await response.json())["status"]) == (200, "ready")
    assert read_serve_info(serve.data) is None

    async with serving(tmp_path, "--simulate") as serve:
        measured(f"warm start: ready after {serve.ready_after:.2f} s")
        ran = await run(serve, "sh", "-c", await until(partial(_to_paste, serve)))
        assert json.loads(ran.out)["choices"], ran
        programs = [row["program"].partition("/")[0] for row in await serve.records()]
        assert programs == ["curl", "tokenhub-demo", "tokenhub-demo"]


def _to_paste(serve: Serve) -> str:
    """Return the printed line with curl, of this start and not of an earlier one."""
    last = serve.output.rpartition(serve.info.side_url)[2]
    return next((line for line in last.splitlines() if "curl -s" in line), "").strip()


async def test_a_demo_shows_one_decision_and_leaves(tmp_path: Path) -> None:
    """`--simulate --demo` goes through the whole path and ends with 0."""
    async with serving(tmp_path, "--simulate", "--demo") as serve:
        assert await serve.process.wait() == 0
        assert "sim-openai" in serve.output
        assert "with curl" not in serve.output


# --- leaving ------------------------------------------------------------------------------------------------


@each_lane
async def test_asked_to_leave_it_lets_streams_end(tmp_path: Path, lane: str) -> None:
    """SIGTERM in the middle of streams: clients of both doors read them to the end, and the exit code is 0."""
    slow = Profile(tokens_per_second=40)
    async with serving(tmp_path, "--lane", lane) as serve, FakeProvider(profile=slow) as fake:
        await serve.register(fake, "m")
        side, proxy = doors(serve.info)
        async with (
            side.call(serve.session, "openai", "m", stream=True) as one,
            proxy.call(serve.session, "openai", "m", stream=True) as two,
        ):
            serve.process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            bodies = await asyncio.gather(one.read(), two.read())
            assert all(peer.wrote and peer.wrote > asked for peer in fake.connections)
        assert await serve.process.wait() == 0

    assert all(body.endswith(LAST_WORDS["openai"]) for body in bodies)
    records = stored(serve.data)
    assert [records[way.headers["x-request-id"]]["outcome"] for way in (one, two)] == ["ok", "ok"]


@each_lane
async def test_a_stream_that_outlasts_the_drain_is_told_and_recorded(tmp_path: Path, lane: str) -> None:
    """After the drain's seconds both read an error event and no ending; the records say why, and what it cost."""
    settings = {"TOKENHUB_SHUTDOWN_DRAIN_SECS": "0.4"}
    slow = Profile(tokens_per_second=20)
    async with (
        serving(tmp_path, "--lane", lane, settings=settings) as serve,
        FakeProvider(profile=slow) as fake,
    ):
        await serve.register(fake, "m")
        side, proxy = doors(serve.info)
        async with (
            side.call(serve.session, "openai", "m", stream=True) as one,
            proxy.call(serve.session, "openai", "m", stream=True) as two,
        ):
            serve.process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            bodies = await asyncio.gather(one.read(), two.read())
        assert await serve.process.wait() == 0
        assert time.monotonic() - asked > 0.3

    for body in bodies:
        assert b"TokenHub is stopping" in body
        assert not body.endswith(LAST_WORDS["openai"])
    records = stored(serve.data)
    for way in (one, two):
        record = records[way.headers["x-request-id"]]
        assert (record["outcome"], record["error_class"]) == ("error", "shutting_down")
        assert record["cost_nanousd"] > 0


async def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    """A second server in the same place is refused in one line; the first one is not disturbed."""
    async with serving(tmp_path) as first:
        ended = await refused(tmp_path)
        assert ended.code == 2
        assert f"tokenhub: another TokenHub is serving from {first.data}\n" in ended.output
        assert (await first.admin("GET", "/info"))["tokenhub"] == "admin"
        assert read_serve_info(first.data) == first.info


@each_lane
async def test_asked_twice_it_cuts_calls_short_and_records_them(tmp_path: Path, lane: str) -> None:
    """A second signal ends the drain, not the records; the exit code is 0."""
    slow = Profile(tokens_per_second=5)
    async with serving(tmp_path, "--lane", lane) as serve, FakeProvider(profile=slow) as fake:
        await serve.register(fake, "m")
        side, proxy = doors(serve.info)
        async with (
            side.call(serve.session, "openai", "m", stream=True) as one,
            proxy.call(serve.session, "openai", "m", stream=True) as two,
        ):
            serve.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            serve.process.send_signal(signal.SIGTERM)
            assert await serve.process.wait() == 0

    records = stored(serve.data)
    ended = [records[way.headers["x-request-id"]]["error_class"] for way in (one, two)]
    assert ended == ["shutting_down"] * 2


async def test_a_line_that_cannot_be_read_is_not_written_to_the_log(tmp_path: Path) -> None:
    """A malformed header may be a credential; both doors refuse it without quoting it."""
    canary = "sk-canary-in-a-broken-line"
    async with serving(tmp_path) as serve:
        host, _, port = serve.info.side_url.rpartition("/")[2].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nX-Api-Key : {canary}\r\n\r\n".encode())
        assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
        assert canary not in serve.output
