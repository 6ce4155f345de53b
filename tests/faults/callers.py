"""F32 to F39: what clients do while they are answered."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

from mitmproxy import certs
from msgspec import structs

from tests.addon.lanes import inspected
from tests.addon.scripted import ScriptedEngine, whole
from tests.e2e.serving import until
from tests.faults import off
from tests.faults.case import Case, Lab
from tests.faults.refusals import untouched
from tests.faults.sizes import resident
from tests.faults.world import CALM, LANES, Turn, World
from tests.patience import PATIENCE
from tokenhub_core.dispatch import attempt, streaming
from tokenhub_core.dispatch.gate import _Verbatim
from tokenhub_core.dispatch.job import Drain
from tokenhub_core.pipeline import Pipeline
from tokenhub_core.ports import Reply
from tokenhub_core.providers import pool
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Json, Lane, Snapshot

_SLOW: Final = Profile(tokens_per_second=40)
_COUNTS: Final = re.compile(rb'"(?:completion_tokens|output_tokens|candidatesTokenCount)":\s*(\d+)')
"""What a provider says of the length of its answer; the last one counts."""
_LET_GO: Final = 2.0
"""Seconds within which the provider's connection must be closed: one, and one for a busy machine."""


async def _leaves(turn: Turn) -> None:
    """The client goes away behind the first words."""
    turn.slot.first.profile = turn.slot.spare.profile = _SLOW
    try:
        async with turn.open() as response:
            name = response.headers["x-request-id"]
            await response.content.readany()
        await _let_go(turn)
    finally:
        turn.slot.first.profile = turn.slot.spare.profile = Profile()
    record = await turn.world.record(name)
    assert (record["outcome"], record["status"], record["error_class"]) == (
        "cancelled",
        499,
        "client_cancelled",
    )
    assert record["usage_estimated"]
    assert record["cost_nanousd"] > 0
    untouched(turn)


async def _let_go(turn: Turn) -> None:
    peer = turn.first.connections[turn.first.requests[0].connection]
    await until(lambda: peer.closed, within=_LET_GO)


async def _leaves_early(turn: Turn) -> None:
    """The client goes away before anything has come: at the first attempt, or during a failover."""
    turn.meets(*(("hang",) if turn.number % 2 else ("500", "hang")))
    before = {row["id"] for row in (await turn.world.admin("GET", "/logs?limit=50"))["logs"]}
    task = asyncio.create_task(turn.call())
    wanted = 1 if turn.number % 2 else 2
    await until(lambda: turn.asked >= wanted)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    last = turn.first if wanted == 1 else turn.spare
    peer = last.connections[last.requests[-1].connection]
    await until(lambda: peer.closed, within=_LET_GO)
    async with asyncio.timeout(PATIENCE):
        while True:
            rows = (await turn.world.admin("GET", "/logs?limit=50"))["logs"]
            mine = [
                row for row in rows if row["id"] not in before and row.get("requested_model") == turn.model
            ]
            if mine or [row for row in rows if row["id"] not in before and turn.model in str(row)]:
                break
            await asyncio.sleep(0.02)
    assert turn.asked == wanted, "somebody else was asked for a caller who had left"


def _shielded(exchange: Any) -> Any:
    async def kept(self: Pipeline, snapshot: Any) -> Any:
        return await asyncio.shield(asyncio.ensure_future(exchange(self, snapshot)))

    return kept


@contextmanager
def _deaf(lab: Lab) -> Iterator[None]:
    """Calls go on when their clients have left, streams and all."""
    del lab
    kept: list[Any] = []

    async def stays(self: Any) -> None:
        kept.append(self)

    with (
        mock.patch.object(Pipeline, "exchange", _shielded(Pipeline.exchange)),
        mock.patch.object(streaming.Stream, "close", stays),
    ):
        yield
    for one in kept:
        one._tried._response.drop()


async def _billed_after(lab: Lab, n: int) -> None:
    """Providers that bill on: answers are read to their end, and no further than the caps say."""
    it = await lab.world()
    names = [name for slot in it.slots for name in slot.providers()]
    try:
        for name in names:
            await it.admin("PATCH", f"/providers/{name}", {"on_disconnect": "drain"})
        await lab.turns(n, _read_on, stream=True)
        short = structs.replace(CALM, drain=Drain(seconds=0.2))
        await lab.turns(2, _given_up, patience=short, stream=True)
        few = structs.replace(CALM, drain=Drain(most=0))
        await lab.turns(1, _given_up, patience=few, stream=True)
    finally:
        for name in names:
            await it.admin("PATCH", f"/providers/{name}", {"on_disconnect": "cancel"})


async def _left(turn: Turn) -> Json:
    """Leave behind the first words of a slow answer, and return the record."""
    turn.slot.first.profile = turn.slot.spare.profile = Profile(tokens_per_second=60)
    try:
        async with turn.open() as response:
            name = response.headers["x-request-id"]
            await response.content.readany()
        return await turn.world.record(name)
    finally:
        turn.slot.first.profile = turn.slot.spare.profile = Profile()


async def _read_on(turn: Turn) -> None:
    """What is recorded is what the provider counted, and its connection serves again."""
    record = await _left(turn)
    assert (record["outcome"], record["error_class"]) == ("cancelled", "client_cancelled")
    assert not record["usage_estimated"], record
    body = b"".join(data for _, data in turn.first.played[-1][1].frames)
    assert record["output_tokens"] == int(_COUNTS.findall(body)[-1]), record
    peer = turn.first.connections[turn.first.requests[-1].connection]
    assert peer.closed is None, "its connection was cut"
    untouched(turn)


async def _given_up(turn: Turn) -> None:
    """At a cap the provider is let go of, and the bill says that it is an estimate."""
    record = await _left(turn)
    assert record["error_class"] == "client_cancelled"
    assert record["usage_estimated"]
    assert record["cost_nanousd"] > 0
    await _let_go(turn)
    untouched(turn)


async def _slow_readers(lab: Lab, n: int) -> None:
    """Clients that read nothing hold their providers up, and hold little here."""
    it = await lab.world()
    size = 40_000
    before = resident()
    async with AsyncExitStack() as stack:
        turns = []
        for number in range(n):
            turn = it.turn(
                number, lane=LANES[number % 2], caller="openai", speaks="openai", spare_speaks="openai"
            )
            turn = replace(turn, stream=True)
            turn.meets(f"flood:{size}")
            turns.append(turn)
            await _deafly(stack, it, turn)
        await asyncio.sleep(1.5)
        sent = [peer.sent for turn in turns for peer in turn.slot.first.connections if peer.closed is None]
        got = await it.turn(n, stream=False).call()
        assert got.status == 200
        lab.told |= {"readers": n, "most_sent_mb": round(max(sent) / 2**20, 2)}
        lab.told["rss_growth_mb"] = round((resident() - before) / 2**20, 1)
        assert max(sent) < 12 * 2**20, "nobody held the provider up"


async def _deafly(stack: AsyncExitStack, it: World, turn: Turn) -> None:
    """Send a call over a socket with a small window, and do not read."""
    host, _, port = it.doors.side_url.rpartition("/")[2].rpartition(":")
    sock = socket.socket()
    stack.callback(sock.close)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    _, options = replace(turn, lane=Lane.DIRECT).request()
    body = options["data"]
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    await asyncio.get_running_loop().sock_sendall(sock, head + body)


async def _idle(lab: Lab, n: int) -> None:
    """Many connections that say nothing, and somebody who wants something."""
    it = await lab.world()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resident()
    host, _, port = it.doors.proxy_url.rpartition("/")[2].rpartition(":")
    many = 1500
    if lab.given.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    sockets: list[socket.socket] = []
    try:
        with suppress(OSError):
            for at in range(many):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex((host, int(port)))
                sockets.append(sock)
                if at % 50 == 0:
                    await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(sockets) == many, f"only {len(sockets)} could be opened"
        for number in range(n):
            got = await it.turn(number).call()
            assert got.status == 200, got
        lab.told |= {"connections": many, "rss_growth_mb": round((resident() - before) / 2**20, 1)}
        assert resident() - before < 250 * 2**20
    finally:
        for sock in sockets:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await asyncio.sleep(0.3)


@contextmanager
def _few_files(lab: Lab) -> Iterator[None]:
    lab.given["files"] = True
    try:
        yield
    finally:
        del lab.given["files"]


async def _many_streams(lab: Lab, n: int) -> None:
    """Many streams at once, each of them whole: no word lost, doubled or in another's answer."""
    it = await lab.world()
    turns = [it.turn(number, stream=True, speaks="openai", spare_speaks="openai") for number in range(n)]
    # Turns share a slot here, so each asks for something of its own and is held to that.
    gots = await asyncio.gather(*(turn.call(text=f"stream number {turn.number}") for turn in turns))
    for turn, got in zip(turns, gots, strict=True):
        assert (got.status, got.said, got.ended) == (200, "", True), got
        assert got.words.startswith(f'You asked: "stream number {turn.number}".'), got.words[:80]
        assert got.words.count("You asked") == 1
        assert got.words.endswith("."), got.words[-40:]
        sentences = got.words.split(". ")
        assert len(set(sentences)) == len(sentences)
    lab.told["streams"] = n


def _losing(self: _Verbatim, event: Any, deltas: Any) -> bytes:
    """Lose every word that has an a in it."""
    return b"" if b'"content":"a' in event.raw else bytes(event.raw)


async def _multiplexed(lab: Lab, n: int) -> None:
    """A hundred streams of one HTTP/2 connection are in the engine at the same time."""
    await lab.close()
    for _ in range(n):
        await _at_once(lab.room(), lab.given.get("at_once", 1000))
    lab.told["streams"] = 100


async def _at_once(room: Path, most: int) -> None:
    """Answer nobody before a hundred calls are there; at most so many are let in."""
    everyone, few = asyncio.Event(), asyncio.Semaphore(most)

    async def script(_: Snapshot) -> Reply:
        async with few:
            if engine.running >= 100 and not few.locked():
                everyone.set()
            async with asyncio.timeout(5):
                await everyone.wait()
        return whole()

    engine = ScriptedEngine(script)
    certs.CertStore.from_store(room, "mitmproxy", 2048)
    async with inspected(room, engine) as front, front.modern() as client:
        assert client.protocol == "h2"
        calls = [await client.send(body=b"{}") for _ in range(100)]
        answers = [await call.end() for call in calls]
    assert [one.status for one in answers] == [200] * 100


@contextmanager
def _five_at_once(lab: Lab) -> Iterator[None]:
    """What mitmproxy lets through to one address."""
    lab.given["at_once"] = 5
    try:
        yield
    finally:
        del lab.given["at_once"]


async def _slowly_asked(it: World, n: int) -> None:
    """Heads and bodies that never come to their end hold a connection, and nobody else."""
    host, _, port = it.doors.side_url.rpartition("/")[2].rpartition(":")
    beginnings = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n{",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
    )
    writers = []
    for number in range(100):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(beginnings[number % 3])
        writers.append((reader, writer))
    try:
        for number in range(n):
            got = await it.turn(number).call()
            assert got.status == 200
        for what, some in (("bodies", writers[1::3]), ("heads", writers[0::3])):
            ends = await asyncio.gather(*(_ends(reader) for reader, _ in some))
            assert all(ends), f"{ends.count(False)} of {len(ends)} half {what} are still waited for"
    finally:
        for _, writer in writers:
            writer.transport.abort()


_LINGERING: Final = 10.0
"""Seconds for which aiohttp reads what is left of a request that was answered before its end."""


async def _ends(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(_LINGERING + 4):
            await reader.read()
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def _impatiently(lab: Lab, n: int) -> None:
    """The real limits are a minute and more; the scene has its own."""
    silence, idle = lab.given.get("limits", (1.0, 1.0))
    with (
        mock.patch("tokenhub_core.http.consumer.SILENCE", silence),
        mock.patch("tokenhub_addon.listening.KEEPALIVE", idle),
    ):
        async with lab.alone(slots=1) as it:
            await _slowly_asked(it, n)


@contextmanager
def _endless_patience(lab: Lab) -> Iterator[None]:
    lab.given["limits"] = (1e6, 1e6)
    try:
        yield
    finally:
        del lab.given["limits"]


CASES: Final = (
    Case(
        "F32",
        "the client leaves in the middle of a stream",
        "the provider is let go of at once, what was said is paid, and nobody's health is touched",
        "leaving ends the exchange and its attempt",
        "calls go on when their clients have left",
        lambda lab, n: lab.turns(n, _leaves, stream=True),
        _deaf,
        red=1,
    ),
    Case(
        "F33",
        "the client leaves before the first byte, or during a failover",
        "the attempt ends, no other one is begun, one record remains",
        "leaving ends the exchange and its attempt",
        "calls go on when their clients have left",
        lambda lab, n: lab.turns(n, _leaves_early),
        _deaf,
        red=1,
    ),
    Case(
        "F34",
        "a provider bills answers to their end although the client has left",
        "its policy says whether it is let go of or read to its end, capped in number and time",
        "a policy of each provider",
        "every provider is let go of",
        _billed_after,
        off.patched(attempt.Attempting, "drain", off.returning(False)),
        red=1,
    ),
    Case(
        "F35",
        "clients that do not read",
        "their providers are held up; what they have sent stays bounded, and others are answered",
        "nothing is read from a provider before it can be passed on",
        "the transport reads on without a bound",
        _slow_readers,
        lambda lab: mock.patch.multiple(pool, _HIGH=1 << 40, _LOW=1 << 39),
        n=18,
        red=2,
    ),
    Case(
        "F36",
        "fifteen hundred connections that say nothing",
        "calls are answered, and memory stays within 250 MB",
        "the limit of open files is raised at start",
        "the usual limit of 1,024",
        _idle,
        _few_files,
        red=1,
    ),
    Case(
        "F37",
        "two hundred streams at once",
        "each is whole: no word lost, doubled, or in another's answer",
        "bytes pass as they came",
        "some pieces are lost",
        _many_streams,
        off.patched(_Verbatim, "write", _losing),
        n=200,
        red=12,
    ),
    Case(
        "F38",
        "a hundred streams on one HTTP/2 connection",
        "all of them are under way at the same time",
        "calls are answered inside the proxy, without a connection from it to us",
        "five at a time, as many as the proxy has connections to one address",
        _multiplexed,
        _five_at_once,
        lanes=(Lane.INSPECT,),
        n=3,
        red=1,
    ),
    Case(
        "F39",
        "heads and bodies of requests that never come to their end",
        "others are answered, and both are given up",
        "a limit to how long a request may pause",
        "no limit",
        _impatiently,
        _endless_patience,
        red=1,
    ),
)
