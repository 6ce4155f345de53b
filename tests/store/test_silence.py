"""A server that says nothing is given up: whoever waits is told, nothing of it is done behind their back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from tests.patience import PATIENCE
from tokenhub_core.errors import TokenHubError
from tokenhub_core.health.breaker import State
from tokenhub_core.store import schema
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.silence import Silence
from tokenhub_core.store.writer import Writer

_PUT = "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"


def _put(key: str) -> Insert:
    return Insert(_PUT, (key, ""))


class _Stuck:
    """Work that adds a row and then waits, as for a server."""

    def __init__(self, key: str = "stuck") -> None:
        self.reached, self.over = threading.Event(), threading.Event()
        self._key = key

    def __call__(self, connection: Connection) -> None:
        connection.execute(insert(schema.SETTINGS).values(key=self._key, value=""))
        self.reached.set()
        self.over.wait(PATIENCE)


@asynccontextmanager
async def _opened(ask: Callable[[], None]) -> AsyncIterator[tuple[Database, Writer]]:
    """Run a writer that is looked after; a transaction is doubted soon, and given up soon after."""
    database = open_database(MEMORY)
    writer = Writer(database)
    writer.start()
    silence = asyncio.create_task(Silence(writer, ask, doubt=0.02, patience=0.05).keep())
    try:
        yield database, writer
    finally:
        silence.cancel()
        await asyncio.gather(silence, return_exceptions=True)
        await writer.close()
        database.close()


def _keys(connection: Connection) -> set[str]:
    return set(connection.execute(select(schema.SETTINGS.c.key)).scalars())


def _well(writer: Writer) -> bool:
    """Tell whether it takes work and has none left."""
    return writer.able and not writer.pending


async def test_whoever_waits_for_a_silent_server_is_told_and_nothing_of_it_is_done() -> None:
    """Those under way, those behind them, and those who come; what nobody waits for is kept until it is back."""
    mute, stuck = threading.Event(), _Stuck()

    def says_nothing() -> None:
        mute.wait(PATIENCE)

    try:
        async with _opened(says_nothing) as (database, writer):
            waiting: list[asyncio.Task[Any]] = [asyncio.create_task(writer.commit(stuck))]
            await asyncio.to_thread(stuck.reached.wait, PATIENCE)
            waiting += [asyncio.create_task(writer.insert(_put(str(n)))) for n in range(3)]
            await asyncio.sleep(0)
            assert writer.post(_put("posted"))
            async with asyncio.timeout(PATIENCE):
                told = await asyncio.gather(*waiting, return_exceptions=True)
            assert [one.fault.cause for one in told if isinstance(one, TokenHubError)] == ["store_lost"] * 4

            # The transaction is still stuck: nobody else waits for it, and nobody asks the server.
            assert not _well(writer)
            for refused in (writer.insert(_put("late")), writer.commit(stuck)):
                with pytest.raises(TokenHubError) as caught:
                    await refused
                assert caught.value.fault.cause == "store_lost"
            with pytest.raises(TokenHubError), database.reading():
                pass
            assert (writer.counts.committed, writer.counts.failed, writer.counts.lost) == (0, 6, 0)

            stuck.over.set()
            mute.set()
            async with asyncio.timeout(PATIENCE):
                while not _well(writer):  # noqa: ASYNC110 -- it becomes so in another thread
                    await asyncio.sleep(0.02)
            assert await writer.commit(_keys) == {"posted"}
            assert await writer.insert(_put("after"))
    finally:
        stuck.over.set()
        mute.set()


async def test_a_server_that_answers_is_waited_for() -> None:
    """It is slow, or waits for a lock: a refusal is an answer, too."""
    asked, stuck = threading.Semaphore(0), _Stuck()

    def refuses() -> None:
        asked.release()
        raise ConnectionRefusedError

    try:
        async with _opened(refuses) as (_, writer):
            waiting = asyncio.create_task(writer.commit(stuck))
            for _ in range(2):  # whoever asks again has not given up
                await asyncio.to_thread(asked.acquire, timeout=PATIENCE)
            assert writer.breaker.state(0.0) is State.CLOSED
            stuck.over.set()
            await waiting
            assert await writer.commit(_keys) == {"stuck"}
    finally:
        stuck.over.set()


async def test_a_transaction_that_has_ended_is_not_given_up() -> None:
    """Whoever gives up says which one he means."""
    database = open_database(MEMORY)
    writer = Writer(database)
    writer.start()
    stuck = _Stuck()
    waiting = asyncio.create_task(writer.commit(stuck))
    await asyncio.to_thread(stuck.reached.wait, PATIENCE)
    begun = writer.begun
    stuck.over.set()
    await waiting
    await writer.commit(_keys)

    assert not writer.give_up(begun)
    assert writer.able
    await writer.close()
    database.close()
