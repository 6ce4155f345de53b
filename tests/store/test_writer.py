"""The one writer: acknowledged after COMMIT, together where possible, alone where one fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from tests.patience import PATIENCE
from tokenhub_core.errors import TokenHubError
from tokenhub_core.store import schema
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.writer import Counts, Writer

_PUT = "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"


def _put(key: str, value: str = "") -> Insert:
    return Insert(_PUT, (key, value))


def _add(connection: Connection, key: str) -> str:
    """A work item that fails where the key is already there."""
    connection.execute(insert(schema.SETTINGS).values(key=key, value=""))
    return key


def _keys(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(connection.execute(select(schema.SETTINGS.c.key)).scalars())


class _Gate:
    """Work that holds the writer until it is opened, so that a batch can gather behind it."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._reached = threading.Event()

    def __call__(self, connection: Connection) -> None:
        self._reached.set()
        self._opened.wait(PATIENCE)

    async def reached(self) -> None:
        await asyncio.to_thread(self._reached.wait, 10)

    def open(self) -> None:
        self._opened.set()


async def _gathered(writer: Writer, works: list[Any]) -> list[Any]:
    """Submit all of `works` so that they land in one batch; return results and errors in order."""
    gate = _Gate()
    tasks = [asyncio.create_task(writer.commit(gate))]
    await asyncio.sleep(0)
    await gate.reached()
    for work in works:
        submit: Callable[[Any], Any] = writer.insert if isinstance(work, Insert) else writer.commit
        tasks.append(asyncio.create_task(submit(work)))
    await asyncio.sleep(0)
    gate.open()
    return (await asyncio.gather(*tasks, return_exceptions=True))[1:]


# --- what is promised --------------------------------------------------------------------------------------


async def test_a_waiter_goes_on_after_its_commit(writer: Writer, database: Database) -> None:
    """When `commit` returns, another connection sees the work, and its result is here."""
    for n in range(20):
        assert await writer.commit(partial(_add, key=str(n))) == str(n)
        assert str(n) in _keys(database)


async def test_what_gathers_behind_a_commit_is_committed_together(writer: Writer, database: Database) -> None:
    """A hundred waiters share one transaction."""
    results = await _gathered(writer, [_put(str(n)) for n in range(100)])
    assert results == [True] * 100
    assert writer.counts == Counts(committed=101, batches=2)
    assert len(_keys(database)) == 100


def _following(key: str, *values: str) -> Insert:
    """An insert that another one goes with: what was there for each value is counted in it."""
    more = tuple(Insert(_COUNT, (f"n{value}", "x")) for value in values)
    return Insert(_PUT, (key, ""), more)


_COUNT = (
    "INSERT INTO settings (key, value) VALUES (?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = settings.value || excluded.value"
)


def _values(database: Database) -> dict[str, str]:
    with database.reading() as connection:
        found = connection.execute(select(schema.SETTINGS)).all()
    return {row.key: row.value for row in found if row.value}


async def test_what_goes_with_a_row_goes_once(writer: Writer, database: Database) -> None:
    """In its transaction, however many share that; where the row is there already it is left out."""
    assert await _gathered(writer, [_following(str(n), "a", "b") for n in range(3)]) == [True] * 3
    assert _values(database) == {"na": "xxx", "nb": "xxx"}
    assert await writer.insert(_following("0", "a")) is False
    assert await _gathered(writer, [_following("1", "a"), _following("2", "a")]) == [False, False]
    assert _values(database) == {"na": "xxx", "nb": "xxx"}
    assert writer.counts.duplicates == 3


async def test_new_rows_and_old_ones_may_share_a_transaction(writer: Writer, database: Database) -> None:
    """What goes with the new ones is there, of the old ones nothing; beside other work, too."""
    await writer.insert(_following("0", "a"))
    assert await _gathered(writer, [_following("0", "a"), _following("1", "a")]) == [False, True]
    assert _values(database) == {"na": "xx"}
    works = [_following("1", "a"), partial(_add, key="2"), _following("3", "a"), _following("4", "b")]
    assert await _gathered(writer, works) == [False, "2", True, True]
    assert _values(database) == {"na": "xxx", "nb": "x"}


async def test_a_row_goes_nowhere_without_what_goes_with_it(writer: Writer, database: Database) -> None:
    """One that fails takes its row along, and no other one."""
    broken = Insert(_PUT, ("0", ""), (Insert("INSERT INTO settings (key) VALUES (?)", ("x",)),))
    results = await _gathered(writer, [broken, _following("1", "a")])
    assert isinstance(results[0], Exception)
    assert results[1] is True
    assert _keys(database) == {"1", "na"}
    with pytest.raises(IntegrityError):
        await writer.insert(broken)
    assert _keys(database) == {"1", "na"}


async def test_what_a_busy_loop_hands_over_is_committed_together(database: Database) -> None:
    """Turns that take a while bring company: who comes within two milliseconds shares one transaction."""
    looks = count()
    writer = Writer(database, monotonic=lambda: next(looks) * 0.0001)
    writer.start()
    await writer.insert(_put("before"))
    tasks = []
    for n in range(3):
        tasks.append(asyncio.create_task(writer.insert(_put(str(n)))))
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*tasks) == [True] * 3
    # The thread may find the first of them before the others are beside it.
    assert writer.counts in {Counts(committed=4, batches=2), Counts(committed=4, batches=3)}
    assert next(looks) in {23, 24}, "the first came at the third look, and waited for two milliseconds"
    await writer.close()


async def test_what_comes_after_a_pause_waits_for_nobody(database: Database) -> None:
    """However busy the loop is with other things: company is unlikely, and the wait would be for nothing."""
    looks = iter((0.0, 0.0002, 0.004, 0.0042, 0.008, 0.0082))
    writer = Writer(database, monotonic=lambda: next(looks))
    writer.start()
    async with asyncio.timeout(PATIENCE):
        for n in range(3):
            await writer.insert(_put(str(n)))
    assert list(looks) == [], "one look when it came, one in the turn after"
    await writer.close()


async def test_a_loop_with_nothing_else_to_do_hands_over_at_once(database: Database) -> None:
    """Callers who come close together but alone wait for nobody, however far away the end of the wait is."""
    looks = count()
    writer = Writer(database, monotonic=lambda: next(looks) * 0.00001)
    writer.start()
    for n in range(3):
        await writer.insert(_put(str(n)))
    assert next(looks) == 6, "one look when it came, one in the turn after"
    await writer.close()


async def test_a_batch_has_a_largest_size(database: Database) -> None:
    """One transaction never grows without limit."""
    writer = Writer(database, batch=10)
    writer.start()
    await _gathered(writer, [_put(str(n)) for n in range(25)])
    assert writer.counts.batches == 4
    await writer.close()


async def test_the_loop_is_woken_once_a_batch(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waking it once an item would cost more than the items."""
    loop, woken = asyncio.get_running_loop(), []
    wake = loop.call_soon_threadsafe

    def counted(callback: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(callback, "__self__", None) is writer:
            woken.append(len(args[0]))
        return wake(callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    await _gathered(writer, [_put(str(n)) for n in range(100)])
    assert woken == [1, 100]


async def test_order_is_kept(writer: Writer, database: Database) -> None:
    """Work is done in the order in which it was handed over, rows and callables alike."""
    seen: list[str] = []

    def look(connection: Connection, name: str) -> None:
        seen.append(f"{name}:{len(connection.execute(select(schema.SETTINGS)).all())}")

    await _gathered(
        writer,
        [partial(look, name="a"), _put("1"), partial(look, name="b"), _put("2"), partial(look, name="c")],
    )
    assert seen == ["a:0", "b:1", "c:2"]


# --- one item fails ----------------------------------------------------------------------------------------


async def test_one_failing_item_takes_no_other_along(writer: Writer, database: Database) -> None:
    """Its waiter hears why; everyone else's work is durable."""
    results = await _gathered(
        writer, [_put("a"), partial(_add, key="a"), partial(_add, key="b"), _put("c"), partial(_add, key="b")]
    )
    assert [type(result) for result in results] == [bool, IntegrityError, str, bool, IntegrityError]
    assert _keys(database) == {"a", "b", "c"}
    assert writer.counts == Counts(committed=4, batches=2, failed=2)


async def test_what_a_failing_item_did_before_it_failed_is_undone(writer: Writer, database: Database) -> None:
    """Each item is whole or not there, also in company."""

    def half(connection: Connection) -> None:
        _add(connection, "half")
        raise LookupError("the other half")

    results = await _gathered(writer, [_put("a"), half, _put("b")])
    assert isinstance(results[1], LookupError)
    assert _keys(database) == {"a", "b"}
    with pytest.raises(LookupError):
        await writer.commit(half)
    assert _keys(database) == {"a", "b"}


async def test_a_row_the_driver_refuses_fails_alone(writer: Writer, database: Database) -> None:
    """Rows that share one call to the driver are told apart when one of them cannot be bound."""
    results = await _gathered(writer, [_put("a"), Insert(_PUT, ("b", object())), _put("c")])
    assert (results[0], results[2]) == (True, True)
    assert isinstance(results[1], SQLAlchemyError)
    assert _keys(database) == {"a", "c"}


async def test_a_lone_row_the_driver_refuses_leaves_nothing_behind(
    writer: Writer, database: Database
) -> None:
    """Its waiter hears why, as it would in company, and the next row finds no open transaction."""
    with pytest.raises(SQLAlchemyError):
        await writer.insert(Insert(_PUT, ("a", object())))
    assert await writer.insert(_put("b"))
    assert _keys(database) == {"b"}
    assert writer.counts == Counts(committed=1, batches=2, failed=1)


async def test_a_row_that_is_already_there_is_counted_and_told(writer: Writer, database: Database) -> None:
    """The one that was first is new, and only that one."""
    await writer.insert(_put("old"))
    results = await _gathered(writer, [_put("a"), _put("old"), _put("b"), _put("a")])
    assert results == [True, False, True, False]
    assert await writer.insert(_put("a")) is False
    assert await _gathered(writer, [_put("a"), _put("b")]) == [False, False]
    assert writer.counts.duplicates == 5
    assert _keys(database) == {"old", "a", "b"}


async def test_one_row_among_many_that_is_there_already_is_found_by_halves(
    writer: Writer, database: Database
) -> None:
    """Those behind it wait for some savepoints, and not for one each: after an outage hundreds have gathered."""
    await writer.insert(_put("0"))
    told = list[str]()
    event.listen(database._engine, "savepoint", lambda _, name: told.append(name))
    results = await _gathered(writer, [_put(str(number)) for number in range(256)])
    assert results == [False, *[True] * 255]
    assert len(told) == 2 * 8


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["put", "add", "refused"]), st.sampled_from("abcdef")), min_size=2))
def test_whatever_fails_in_company_has_the_result_that_it_has_alone(works: list[tuple[str, str]]) -> None:
    """Rows that are new and rows that are not, work that fails and a row that cannot be bound, in any order."""
    kinds: dict[str, Callable[[str], Any]] = {
        "put": _put,
        "add": lambda key: partial(_add, key=key),
        "refused": lambda key: Insert(_PUT, (key, object())),
    }

    async def played(*, together: bool) -> tuple[list[Any], set[str]]:
        database = open_database(":memory:")
        made = Writer(database)
        made.start()
        try:
            items = [kinds[kind](key) for kind, key in works]
            results = [
                result
                for part in ([items] if together else [[one] for one in items])
                for result in await _gathered(made, part)
            ]
            return [type(one) if isinstance(one, Exception) else one for one in results], _keys(database)
        finally:
            await made.close()
            database.close()

    assert asyncio.run(played(together=True)) == asyncio.run(played(together=False))


async def test_a_waiter_that_left_leaves_its_work_to_be_done(writer: Writer, database: Database) -> None:
    """Cancelling the wait does not take the work back, nor disturb anyone else's."""
    gate = _Gate()
    first = asyncio.create_task(writer.commit(gate))
    await asyncio.sleep(0)
    left = asyncio.create_task(writer.insert(_put("left")))
    stayed = asyncio.create_task(writer.insert(_put("stayed")))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait({left})
    assert left.cancelled()
    gate.open()
    await asyncio.gather(first, stayed)
    assert _keys(database) == {"left", "stayed"}


# --- the queue ---------------------------------------------------------------------------------------------


async def test_a_full_queue_makes_waiters_wait_and_refuses_the_rest(database: Database) -> None:
    """Memory is bounded: `commit` waits for room, `post` is told no and counted."""
    writer = Writer(database, limit=2)
    writer.start()
    gate = _Gate()
    first = asyncio.create_task(writer.commit(gate))
    await asyncio.sleep(0)
    assert writer.post(_put("posted"))
    waiting = asyncio.create_task(writer.insert(_put("waited")))
    await asyncio.sleep(0)
    assert not writer.post(_put("refused"))
    assert (writer.pending, writer.counts.refused) == (2, 1)
    gate.open()
    await asyncio.gather(first, waiting)
    assert _keys(database) == {"posted", "waited"}
    await writer.close()


async def test_nobody_who_waits_for_room_is_forgotten(database: Database) -> None:
    """Fifty callers through a queue of three, one of whom leaves: all others arrive."""
    writer = Writer(database, limit=3, batch=2)
    writer.start()
    tasks = [asyncio.create_task(writer.insert(_put(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    tasks[10].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(result is True for result in results) == 49
    assert "10" not in _keys(database)
    assert (writer.pending, writer.counts.refused) == (0, 1)
    await writer.close()


async def test_closing_commits_what_was_taken(database: Database) -> None:
    """A drain, not a cut: posted work is there afterwards."""
    writer = Writer(database)
    writer.start()
    assert all(writer.post(_put(str(n))) for n in range(1200))
    await writer.close()
    assert len(_keys(database)) == 1200
    assert (writer.pending, writer.counts.committed) == (0, 1200)
    assert not writer._thread.is_alive()


async def test_closing_commits_what_a_loop_took_in_its_last_turn(database: Database) -> None:
    """Also where that loop never came round again."""

    def ended() -> Writer:
        writer = Writer(database)

        async def hand_over() -> None:
            writer.start()
            assert writer.post(_put("posted"))

        asyncio.run(hand_over())
        return writer

    writer = await asyncio.to_thread(ended)
    await writer.close()
    assert _keys(database) == {"posted"}


async def test_a_closed_writer_refuses_without_harm(database: Database) -> None:
    """Whoever is late hears a typed error, also those who were waiting for room; closing twice is fine."""
    writer = Writer(database, limit=1)
    writer.start()
    gate = _Gate()
    first = asyncio.create_task(writer.commit(gate))
    await asyncio.sleep(0)
    late = asyncio.create_task(writer.insert(_put("late")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    with pytest.raises(TokenHubError) as caught:
        await late
    assert caught.value.fault.cause == "store_closed"
    gate.open()
    await asyncio.gather(first, closing, writer.close())
    assert not writer.post(_put("later"))
    assert writer.counts.refused == 2
    assert _keys(database) == set()


async def test_a_writer_that_never_started_can_be_closed(database: Database) -> None:
    """A start-up that failed halfway closes what it made."""
    await Writer(database).close()


# --- the store fails ---------------------------------------------------------------------------------------


async def test_a_locked_database_tells_its_waiters_and_recovers(tmp_path: Path) -> None:
    """Typed, one busy timeout for all who queued up meanwhile, and over when the lock is."""
    database = open_database(str(tmp_path / "t.sqlite"), busy_ms=50)
    writer = Writer(database, batch=2)
    other = database.writer_connection()
    lock = other.begin()
    tasks = [asyncio.create_task(writer.insert(_put(str(n)))) for n in range(7)]
    await asyncio.sleep(0)
    writer.post(_put("posted"))
    writer.start()  # now: one batch of two, and six behind it
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(r, "fault").cause for r in results] == ["store_locked"] * 7  # noqa: B009 -- may be a bool
    assert writer.counts == Counts(batches=1, failed=7, lost=1)
    lock.rollback()
    assert await writer.insert(_put("after"))
    assert _keys(database) == {"after"}
    other.close()
    await writer.close()
    database.close()


async def test_a_full_disk_fails_the_whole_batch_and_is_not_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the batch is there, every waiter knows, what nobody waited for is counted and logged."""
    database = open_database(str(tmp_path / "t.sqlite"))
    writer = Writer(database)
    writer.start()

    def fill(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await writer.commit(fill)
    gate = _Gate()
    first = asyncio.create_task(writer.commit(gate))
    await asyncio.sleep(0)
    await gate.reached()
    tasks = [asyncio.create_task(writer.insert(_put(str(n), "x" * 100_000))) for n in range(3)]
    await asyncio.sleep(0)
    writer.post(_put("posted"))
    gate.open()
    await first
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, TokenHubError)
        assert result.fault.cause == "store_full"
    assert (writer.counts.failed, writer.counts.lost) == (3, 1)
    assert "nobody waited for: the disk is full" in caplog.text
    assert _keys(database) == set()
    assert await writer.insert(_put("after", "x" * 100_000))  # a new connection, without our limit
    await writer.close()
    database.close()


async def test_a_loop_that_ended_first_loses_no_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread finds nobody to tell, and what it committed stays."""
    database = open_database(str(tmp_path / "t.sqlite"))

    def abandoned() -> Writer:
        loop = asyncio.new_event_loop()
        writer = Writer(database)

        async def hand_over() -> None:
            writer.start()
            gate = _Gate()
            writer.post(gate)
            writer.post(_put("posted"))
            await gate.reached()
            loop.call_soon(loop.stop)
            gates.append(gate)

        gates: list[_Gate] = []
        loop.run_until_complete(hand_over())
        loop.close()
        gates[0].open()
        return writer

    writer = await asyncio.to_thread(abandoned)
    await writer.close()
    assert _keys(database) == {"posted"}
    assert "the store's loop ended" in caplog.text
    database.close()
