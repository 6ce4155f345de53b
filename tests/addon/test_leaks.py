"""After many connections of every kind nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mitmproxy import ctx
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

from tests.addon.clients import H1, OPENAI, RefusedError, tunnel
from tests.addon.lanes import Serve, served
from tests.addon.scripted import ScriptedEngine, broken, counted, endless, never, streamed, whole
from tests.addon.upstream import standing_in
from tokenhub_core.ports import Reply
from tokenhub_core.types import Snapshot


async def _script(snapshot: Snapshot) -> Reply:
    match snapshot.body:
        case b"stream":
            return streamed(counted(3))
        case b"endless":
            return streamed(endless())
        case b"never":
            return await never()
        case b"broken":
            return streamed(broken(1))
        case b"raise":
            raise RuntimeError("boom")
        case _:
            return whole()


# --- one connection of each kind ---------------------------------------------------------------------------


async def _calls(serve: Serve) -> None:
    async with await H1.tls(serve.proxy) as client:
        for body in (b"", b"stream", b"raise"):
            await client.ask(body=body)
        client.writer.close()


async def _breaks(serve: Serve) -> None:
    async with await H1.tls(serve.proxy) as client:
        await client.ask(body=b"broken")


async def _leaves_a_stream(serve: Serve) -> None:
    async with await H1.tls(serve.proxy) as client:
        await client.send(body=b"endless")
        await client.head()


async def _leaves_while_it_waits(serve: Serve) -> None:
    async with await H1.tls(serve.proxy) as client:
        await client.send(body=b"never")


async def _leaves_an_upload(serve: Serve) -> None:
    async with await H1.tls(serve.proxy) as client:
        await client.begin()
        await client.send_chunk(b"half")


async def _uploads_too_much(serve: Serve) -> None:
    async with await H1.tls(serve.proxy) as client:
        await client.ask(body=b"x" * 100_001)


async def _passes_through(serve: Serve) -> None:
    async with await H1.tls(serve.proxy) as client:
        await client.ask("/v1/files", b"file")


async def _leaves_after_connect(serve: Serve) -> None:
    _, writer = await tunnel(serve.proxy, OPENAI)
    writer.transport.abort()


async def _leaves_a_handshake(serve: Serve) -> None:
    _, writer = await tunnel(serve.proxy, OPENAI)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    await writer.drain()
    writer.transport.abort()


async def _does_not_trust(serve: Serve) -> None:
    _, writer = await tunnel(serve.proxy, OPENAI)
    with contextlib.suppress(ssl.SSLError):
        await writer.start_tls(ssl.create_default_context(), server_hostname=OPENAI)
    writer.transport.abort()


async def _contradicts_itself(serve: Serve) -> None:
    with contextlib.suppress(ssl.SSLError):
        async with await H1.tls(serve.proxy, sni="www.example.org"):
            pass


async def _goes_where_it_may_not(serve: Serve) -> None:
    with pytest.raises(RefusedError):
        await tunnel(serve.proxy, "10.0.0.1")


async def _tunnels(serve: Serve) -> None:
    reader, writer = await tunnel(serve.proxy, "www.example.org")
    writer.write(b"\x00\x01")
    await writer.drain()
    writer.transport.abort()
    del reader


async def _talks_nonsense(serve: Serve) -> None:
    reader, writer = await tunnel(serve.proxy, OPENAI, via="direct")
    async with H1(reader, writer, OPENAI) as client:
        writer.write(b"nonsense\r\n\r\n")
        await client.ends()


async def _speaks_plain(serve: Serve) -> None:
    for host, body in ((OPENAI, b""), (OPENAI, b"stream"), ("www.example.org", b"")):
        async with await H1.plain(serve.proxy, host) as client:
            await client.ask(body=body)


async def _leaves_in_plain(serve: Serve) -> None:
    async with await H1.plain(serve.proxy) as client:
        await client.send(body=b"endless")
        await client.head()


async def _calls_directly(serve: Serve) -> None:
    for body in (b"", b"stream", b"raise"):
        async with await H1.direct(serve.side) as client:
            await client.ask(body=body)


async def _leaves_directly(serve: Serve) -> None:
    async with await H1.direct(serve.side) as client:
        await client.send(body=b"never")


_KINDS: tuple[Callable[[Serve], Awaitable[None]], ...] = (
    _calls, _breaks, _leaves_a_stream, _leaves_while_it_waits, _leaves_an_upload, _uploads_too_much,
    _passes_through, _leaves_after_connect, _leaves_a_handshake, _does_not_trust, _contradicts_itself,
    _goes_where_it_may_not, _tunnels, _talks_nonsense, _speaks_plain, _leaves_in_plain, _calls_directly,
    _leaves_directly,
)  # fmt: skip


# --- what they leave ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Left:
    """What is open at one moment."""

    tasks: int
    files: int
    connections: int
    """With mitmproxy."""
    links: int
    """With the hand-off."""
    exchanges: int
    """With the engine."""
    handlers: int
    """Objects of mitmproxy's that nobody has let go of."""


def _look(serve: Serve, engine: ScriptedEngine) -> _Left:
    gc.collect()
    return _Left(
        tasks=len(asyncio.all_tasks()),
        files=len(os.listdir("/dev/fd")),  # noqa: PTH208 - no path of a file
        connections=serve.connections,
        links=serve.links,
        exchanges=engine.running,
        handlers=sum(
            type(thing) is ProxyConnectionHandler and thing.master is ctx.master for thing in gc.get_objects()
        ),
    )


@pytest.fixture
def _unlogged() -> Iterator[None]:
    """Let pytest keep no log record: one of an error holds its traceback, and that the connection."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_unlogged")
@pytest.mark.parametrize(("lane", "connections"), [("auto", 300), ("inspect", 108)])
async def test_nothing_is_left_of_many_connections(
    data_dir: Path, tmp_path: Path, lane: str, connections: int
) -> None:
    """Tasks, files, connections and exchanges are back to where they were, whatever became of the clients."""
    engine = ScriptedEngine(_script)
    async with (
        standing_in(tmp_path) as upstream,
        served(
            data_dir, engine, lane=lane, upstream=upstream, ssl_insecure=True, tokenhub_max_body=100_000
        ) as serve,
    ):
        for kind in _KINDS:  # what is made once and kept is made now
            await kind(serve)
        before = await _at_rest(serve, engine)
        assert (before.connections, before.links, before.exchanges, before.handlers) == (0, 0, 0, 0)
        for start in range(0, connections, 12):
            batch = (_KINDS[number % len(_KINDS)] for number in range(start, start + 12))
            await asyncio.gather(*(kind(serve) for kind in batch))
        assert await _at_rest(serve, engine, before) == before
        assert len(engine.snapshots) > connections / 2


async def _at_rest(serve: Serve, engine: ScriptedEngine, wanted: _Left | None = None) -> _Left:
    """Return what is open once that is what is wanted, or no longer changes and no client is left."""
    seen = _look(serve, engine)
    for _ in range(100):
        await asyncio.sleep(0.1)
        before, seen = seen, _look(serve, engine)
        if seen == (wanted or before) and not (seen.connections or seen.links or seen.exchanges):
            break
    return seen
