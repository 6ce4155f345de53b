"""What becomes of the store when its PostgreSQL is slow, stopped, killed, restarted or full of others."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from tests.fakes import postgres
from tests.patience import PATIENCE
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.store import schema
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.silence import Silence
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Caller, Outcome, Record

_PUT = "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"


@pytest.fixture(scope="module")
def own() -> Iterator[postgres.Server]:
    """A server that may be ill-treated; every test leaves it running."""
    if reason := postgres.missing():
        pytest.skip(reason)
    server = postgres.Server.made()
    server.start()
    yield server
    server.remove()


@asynccontextmanager
async def opened(server: postgres.Server, *, patience: float = 1.0) -> AsyncIterator[tuple[Database, Writer]]:
    database = open_database(server.dsn(), busy_ms=round(patience * 1000))
    with database.writing() as connection:
        connection.execute(schema.SETTINGS.delete())
        connection.execute(schema.REQUEST_LOGS.delete())
    writer = Writer(database)
    writer.start()
    try:
        yield database, writer
    finally:
        await writer.close()
        database.close()


def put(key: str) -> Insert:
    return Insert(_PUT, (key, ""))


def add(connection: Connection, key: str) -> None:
    connection.execute(insert(schema.SETTINGS).values(key=key, value=""))


def keys(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(connection.execute(select(schema.SETTINGS.c.key)).scalars())


def causes(results: list[Any]) -> set[str]:
    return {one.fault.cause if isinstance(one, TokenHubError) else repr(one) for one in results}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 -- it becomes so in another thread
            await asyncio.sleep(0.02)


async def test_a_server_that_restarts_between_two_records_costs_none(own: postgres.Server) -> None:
    """The connection that rested meanwhile is dead; whoever comes first does not hear of it, nor does a reader."""
    async with opened(own, patience=10) as (database, writer):
        await writer.insert(put("before"))
        own.stop(signal.SIGQUIT)
        own.start()
        assert await writer.insert(put("after"))
        await writer.commit(partial(add, key="work"))
        assert keys(database) == {"before", "after", "work"}
        assert (writer.counts.failed, writer.able) == (0, True)


async def test_who_comes_while_it_restarts_waits_for_it(own: postgres.Server) -> None:
    """For as long as a change may wait; nothing is lost and nothing is there twice."""
    async with opened(own, patience=60) as (database, writer):
        await writer.insert(put("before"))
        await asyncio.to_thread(own.stop, signal.SIGKILL)
        tasks = [asyncio.create_task(writer.insert(put(str(n)))) for n in range(20)]
        work = asyncio.create_task(writer.commit(partial(add, key="work")))
        await asyncio.sleep(0)
        await asyncio.to_thread(own.start)
        assert await asyncio.gather(*tasks) == [True] * 20
        await work
        assert keys(database) == {"before", "work", *map(str, range(20))}


async def test_a_server_that_stays_away_is_told_and_found_again(own: postgres.Server) -> None:
    """Typed, after as long as a change may wait; when it is back nobody has to be restarted, or to try first."""
    async with opened(own) as (database, writer):
        recorder = StoreRecorder(database, writer)
        assert await recorder.ready()
        own.stop(signal.SIGQUIT)
        try:
            async with asyncio.timeout(PATIENCE):
                tasks = [writer.insert(put("a")), writer.commit(partial(add, key="b"))]
                results = await asyncio.gather(*tasks, return_exceptions=True)
            assert causes(results) == {"store_lost"}
            assert not writer.able
            assert not await recorder.ready()
            with pytest.raises(TokenHubError) as caught:
                keys(database)
            assert caught.value.fault.cause == "store_lost"
        finally:
            own.start()
        await until(lambda: writer.able)
        assert await recorder.ready()
        assert keys(database) == set()
        assert await writer.insert(put("a"))


async def test_who_comes_while_a_server_is_looked_for_does_not_wait_until_it_is_back(
    own: postgres.Server,
) -> None:
    """A record behind one that waits for it already: both are told when nobody waits any longer."""
    async with opened(own) as (database, writer):
        own.stop(signal.SIGKILL)
        try:
            async with asyncio.timeout(PATIENCE):
                first = asyncio.create_task(writer.insert(put("first")))
                await until(lambda: writer.begun > 0)
                late = [writer.insert(put("late")), writer.commit(partial(add, key="later"))]
                results = await asyncio.gather(first, *late, return_exceptions=True)
            assert causes(results) == {"store_lost"}
            assert writer.pending == 0
        finally:
            own.start()
        await until(lambda: writer.able)
        assert keys(database) == set()


async def test_a_stopped_server_holds_nobody(own: postgres.Server) -> None:
    """Its sockets stay open and silent: waits end on this side, however many wait, and all goes on when it does."""
    async with opened(own) as (database, writer):
        recorder = StoreRecorder(database, writer)
        await writer.insert(put("before"))
        with database.reading() as connection:
            connection.execute(select(1))
        own.pause()
        try:
            tasks = [asyncio.create_task(writer.insert(put(str(n)))) for n in range(1500)]
            async with asyncio.timeout(PATIENCE):
                ready = await recorder.ready()
                await until(lambda: not writer.able)
                results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            own.resume()
        assert not ready
        assert causes(results) == {"store_lost"}
        assert writer.counts.failed == 1500
        await until(lambda: writer.able)
        assert await writer.insert(put("after"))
        assert {"before", "after"} <= keys(database)


async def test_a_stopped_server_is_found_out_while_a_change_may_still_wait(own: postgres.Server) -> None:
    """By a connection of its own, which nobody answers: nobody waits for the ten minutes that he may."""
    async with opened(own, patience=600) as (database, writer):
        assert database.ask is not None
        database.ask()
        silence = asyncio.create_task(Silence(writer, database.ask).keep())
        try:
            await writer.insert(put("before"))
            own.pause()
            try:
                async with asyncio.timeout(PATIENCE):
                    tasks = [writer.insert(put("a")), writer.commit(partial(add, key="b"))]
                    assert causes(await asyncio.gather(*tasks, return_exceptions=True)) == {"store_lost"}
                    with pytest.raises(TokenHubError, match="cannot be reached"):
                        await writer.insert(put("late"))
            finally:
                own.resume()
            await until(lambda: writer.able)
            assert await writer.insert(put("after"))
            assert keys(database) == {"before", "after"}
        finally:
            silence.cancel()
            await asyncio.gather(silence, return_exceptions=True)


async def test_a_lock_that_is_never_free_is_told(own: postgres.Server) -> None:
    """Another process changes things and goes to sleep over it: the server ends its transaction, and we go on."""
    async with opened(own) as (database, writer):
        held, over = threading.Event(), threading.Event()

        def sleeper() -> None:
            other = open_database(own.dsn(), busy_ms=60_000)
            with other.writer_connection() as connection, connection.begin():
                held.set()
                over.wait(PATIENCE)
            other.close()

        thread = threading.Thread(target=sleeper)
        thread.start()
        await asyncio.to_thread(held.wait, PATIENCE)
        with pytest.raises(TokenHubError) as caught:
            await writer.commit(partial(add, key="a"))
        assert caught.value.fault.cause == "store_locked"
        # Records need no lock.
        assert await writer.insert(put("b"))
        over.set()
        thread.join()
        await until(lambda: writer.able)
        await writer.commit(partial(add, key="a"))
        assert keys(database) == {"a", "b"}


async def test_a_statement_that_takes_too_long_is_ended(own: postgres.Server) -> None:
    """By the server itself, which therefore goes on with nothing."""
    async with opened(own) as (database, writer):
        started = time.monotonic()
        with pytest.raises(TokenHubError) as caught:
            await writer.commit(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(600)").all())
        assert caught.value.fault.cause == "store_slow"
        assert time.monotonic() - started < PATIENCE
        with database.reading() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(600)%%' AND state = 'active'"
            assert connection.exec_driver_sql(query).scalar() in {0, 1}  # the asking itself
        await until(lambda: writer.able)


class _Unheard(Writer):
    """A writer that does not hear its first commit answered: the connection is gone when it is done."""

    cut = False

    def _together(self, batch: list[Any]) -> Any:
        done = super()._together(batch)
        if not self.cut and any(isinstance(one.work, Insert) for one in batch):
            self.cut = True
            assert self._connection is not None
            raw: Any = self._connection.connection.dbapi_connection
            raw.close()
            raw.execute("SELECT 1")
        return done


async def test_a_commit_that_nobody_heard_of_is_made_once(own: postgres.Server) -> None:
    """Rows are added again, which does nothing; work that would be done twice fails instead."""
    async with opened(own) as (database, _):
        writer = _Unheard(database)
        more = Insert(
            "INSERT INTO settings (key, value) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET value = settings.value || excluded.value",
            ("counted", "x"),
        )
        tasks = [
            asyncio.create_task(writer.insert(Insert(_PUT, ("a", ""), (more,)))),
            asyncio.create_task(writer.commit(partial(add, key="work"))),
            asyncio.create_task(writer.insert(Insert(_PUT, ("b", ""), (more,)))),
        ]
        await asyncio.sleep(0)
        writer.start()
        first, work, second = await asyncio.gather(*tasks, return_exceptions=True)
        await writer.close()
        assert (first, second) == (True, True)
        assert causes([work]) == {"store_lost"}
        with database.reading() as connection:
            found = {row.key: row.value for row in connection.execute(select(schema.SETTINGS))}
        assert found == {"a": "", "b": "", "counted": "xx", "work": ""}


async def test_nothing_that_was_acknowledged_is_lost_with_the_server(own: postgres.Server) -> None:
    """It is killed again and again while records are stored; each that was acknowledged is there, once."""
    async with opened(own, patience=20) as (database, writer):
        recorder, log, told = StoreRecorder(database, writer), RequestLog(database), list[str]()
        ended = asyncio.Event()

        async def caller(number: int) -> None:
            n = 0
            while not ended.is_set():
                n += 1
                record = Record(
                    f"{number}-{n}", time.time(), Outcome.OK, 200, Caller(), "POST", "/v1/messages"
                )
                try:
                    await recorder.commit(record)
                except TokenHubError:
                    # Refused at once, without anybody else's turn: then nothing would ever come back.
                    await asyncio.sleep(0.01)
                    continue
                told.append(record.id)

        callers = [asyncio.create_task(caller(number)) for number in range(8)]
        for _ in range(3):
            before = len(told)
            await until(lambda: len(told) >= before + 20)  # noqa: B023 -- awaited here
            await asyncio.to_thread(own.stop, signal.SIGKILL)
            await asyncio.to_thread(own.start)
        ended.set()
        await asyncio.gather(*callers)
        assert len(told) >= 60
        assert [one for one in told if log.get(one) is None] == []
        assert len(set(told)) == len(told)


# --- at start ------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_one_line(own: postgres.Server) -> None:
    """Without the password that the address holds."""
    dsn = f"postgresql://tokenhub:{'hunter2'}@127.0.0.1:1/x?connect_timeout=2"
    with pytest.raises(ConfigError) as caught:
        open_database(dsn)
    assert str(caught.value).startswith(
        "database postgresql://127.0.0.1:1/x: the database cannot be reached: "
    )
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    for broken in ("postgresql://u:hunter2@[x/db", "postgresql://u:hunter2@h/db?nothing=1"):
        with pytest.raises(ConfigError) as caught:
            open_database(broken)
        assert "hunter2" not in str(caught.value)
        assert "not a PostgreSQL URI" in str(caught.value)
    with pytest.raises(ConfigError, match='"nowhere" does not exist'):
        open_database(own.dsn("nowhere"))


def test_the_password_may_stand_in_a_file(own: postgres.Server, tmp_path: Any) -> None:
    """It is read for each connection, so that a new one holds from then on; a wrong one is refused and not shown."""
    dsn = f"postgresql://tokenhub@127.0.0.1:{own.port}/postgres?sslmode=disable"
    file = tmp_path / "password"
    file.write_text(postgres.PASSWORD + "\n")
    database = open_database(dsn, password_file=str(file))
    assert database.where == f"postgresql://127.0.0.1:{own.port}/postgres"
    database.close()
    file.write_text("hunter2")
    with pytest.raises(ConfigError) as caught:
        open_database(dsn, password_file=str(file))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError):
        open_database(dsn, password_file=str(tmp_path / "nothing"))
