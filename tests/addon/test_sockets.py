"""Listening sockets that several workers share: whoever leaves, a caller is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pytest

from tests.patience import PATIENCE
from tokenhub_addon.sockets import Group, Tended

NAME: Final = "side server"


@contextmanager
def listening() -> Iterator[tuple[int, Group]]:
    """Open a listening socket, the supervisor's; yield its port and the group of it."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1], Group(NAME, ((one.fileno(),),))


async def worker(group: Group, says: bytes) -> tuple[Tended, asyncio.Server]:
    """Let a worker accept from the group's sockets; it says this to whoever is there."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    kept = [tuple(socket.dup(one) for one in slot) for slot in group.slots]
    tended = Tended(0, [Group(group.name, tuple(kept))])
    (server,) = await tended.own(NAME, partial(_serving, serve))
    return tended, server


async def _serving(serve: Any, one: socket.socket) -> asyncio.Server:
    return await asyncio.start_server(serve, sock=one)


async def ask(port: int) -> bytes:
    """Return all that a server says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


async def test_who_comes_after_a_worker_left_waits_for_the_next_one() -> None:
    """A worker that leaves accepts no more from its own sockets either; no connection that waits in them is lost."""
    with listening() as (port, group):
        older, server = await worker(group, b"older")
        assert await ask(port) == b"older"
        await older.leave()
        assert not server.is_serving()

        waits = asyncio.create_task(ask(port))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waits), 0.1)
        newer, _ = await worker(group, b"newer")
        assert await waits == b"newer"
        await newer.leave()


async def test_who_was_accepted_when_a_worker_leaves_is_served() -> None:
    """Between the accepting of a connection and its transport a turn of the loop goes by; none is dropped in it."""
    with listening() as (port, group):
        for turns in range(5):
            older, _ = await worker(group, b"older")
            with socket.create_connection(("127.0.0.1", port)) as client:
                for _ in range(turns):
                    await asyncio.sleep(0)
                await older.leave()
                newer, _ = await worker(group, b"newer")
                async with asyncio.timeout(PATIENCE):
                    said = await asyncio.to_thread(client.recv, 99)
            assert said in {b"older", b"newer"}, turns
            await newer.leave()
