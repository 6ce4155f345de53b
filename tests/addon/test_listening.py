"""How everything that `serve` has open comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.addon.clients import H1
from tests.addon.lanes import Serve, served
from tests.addon.scripted import ScriptedEngine, endless, never, ready, streamed
from tests.patience import PATIENCE


@contextlib.asynccontextmanager
async def _by_every_door(serve: Serve) -> AsyncIterator[list[H1]]:
    """Connect to the hand-off lane, to the inspect lane behind it, and to the side server."""
    async with (
        await H1.tls(serve.proxy) as taken,
        await H1.plain(serve.proxy) as plain,
        await H1.direct(serve.side) as direct,
    ):
        yield [taken, plain, direct]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stop_without_a_drain_ends_at_once(data_dir: Path, begun: bool) -> None:
    """With no time to drain, calls that would never end are cut, whichever way they came."""
    engine = ScriptedEngine(lambda _: ready(streamed(endless())) if begun else never())
    stopping = contextlib.AsyncExitStack()
    serve = await stopping.enter_async_context(served(data_dir, engine, drain=0))
    async with _by_every_door(serve) as clients:
        for client in clients:
            await client.send()
        await engine.until(lambda e: e.running == 3)
        async with asyncio.timeout(PATIENCE):
            await stopping.aclose()
        assert (engine.running, engine.cancelled) == (0, 3)


async def test_a_stop_lets_calls_end(data_dir: Path) -> None:
    """Streams that end in time reach their clients to the last chunk, and nothing is waited for after that."""
    leaving = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        yield b"first"
        await leaving.wait()
        await asyncio.sleep(0.2)
        yield b"last"

    engine = ScriptedEngine(lambda _: ready(streamed(frames())))
    stopping = contextlib.AsyncExitStack()
    serve = await stopping.enter_async_context(served(data_dir, engine, drain=10 * PATIENCE))
    async with _by_every_door(serve) as clients:
        for client in clients:
            await client.send()
        answers = [await client.head() for client in clients]
        stop = asyncio.create_task(stopping.aclose())
        await asyncio.sleep(0.1)
        leaving.set()
        for client, answer in zip(clients, answers, strict=True):
            assert (await client.rest(answer)).complete
            assert answer.body == b"firstlast"
        async with asyncio.timeout(PATIENCE):
            await stop
        assert engine.cancelled == 0
