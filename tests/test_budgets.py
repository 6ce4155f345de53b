"""Budgets between the store and the ledger: what fails, what is lost, what survives."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Connection, insert, select, update

from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.audit.journal import Audit
from tokenhub_core.budgets import Budgets
from tokenhub_core.clock import SystemClock
from tokenhub_core.errors import ConfigError, Kind, TokenHubError
from tokenhub_core.store import budgets
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.schema import BUDGETS, REQUEST_LOGS, SPENDS
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import ApiKey, Attempt, Caller, Outcome, Record, Usage

WANTED = Budget("", "all", Period.MONTH, Unit.REQUESTS, 10, zone="")
_IDS = itertools.count(1)


@dataclass
class Shop:
    """A database with budgets and what records into it."""

    database: Database
    writer: Writer
    kept: Budgets
    bus: Bus
    recorder: StoreRecorder
    clock: SystemClock
    records: list[Record] = field(default_factory=list)

    def record(self, **more: Any) -> Record:
        name = f"r{next(_IDS)}"
        tried = (Attempt(1, "m", "p", 0, 1, usage=Usage(3, 4), cost_nanousd=50),)
        one = Record(
            name, self.clock.now(), Outcome.OK, 200, Caller(), "POST", "/", cost_nanousd=50, attempts=tried
        )
        return structs.replace(one, **more)

    def stored(self) -> dict[str, int]:
        """Return what the store has counted, by budget."""
        with self.database.reading() as connection:
            return {
                budget.id: sum(one.spent for one in counts)
                for budget, counts in budgets.load(connection)
                if counts
            }

    def standing(self, name: str) -> tuple[int, int]:
        one = self.kept.standing(name)
        return one.spent, one.held


@asynccontextmanager
async def shop(path: Path, zone: str = "UTC") -> AsyncIterator[Shop]:
    database = open_database(str(path / "t.sqlite"))
    writer = Writer(database)
    writer.start()
    clock, bus = SystemClock(), Bus()
    audit = Audit(database, writer, clock=clock)
    await audit.load()
    names = itertools.count(1)
    kept = Budgets(
        writer, audit, bus, clock, process=f"p{next(_IDS)}", entropy=lambda: bytes([next(names)]), zone=zone
    )
    try:
        await kept.load()
        yield Shop(database, writer, kept, bus, StoreRecorder(database, writer, books=kept.ledger), clock)
    finally:
        await writer.close()
        database.close()


async def test_what_is_counted_is_stored_with_its_record(tmp_path: Path) -> None:
    """Once, however often the record is handed over, by whichever way; the ledger and the store say the same."""
    async with shop(tmp_path) as it:
        for unit in Unit:
            await it.kept.put(structs.replace(WANTED, unit=unit, limit=10**9))
        names = [one.budget.id for one in it.kept.standings()]
        first, second = it.record(), it.record()
        await it.recorder.commit(first)
        it.recorder.post(second)
        await it.recorder.commit(it.record(outcome=Outcome.ERROR, attempts=(), cost_nanousd=0))
        assert it.stored() == dict(zip(names, (100, 14, 2), strict=True))
        assert [it.standing(name)[0] for name in names] == [100, 14, 2]
        # A row that is there already adds nothing.
        await it.recorder.commit(second)
        assert it.stored() == dict(zip(names, (100, 14, 2), strict=True))


async def test_counts_are_of_their_owners(tmp_path: Path) -> None:
    """And the time that they are for stands beside them."""
    async with shop(tmp_path, "Asia/Tokyo") as it:
        made = [
            (await it.kept.put(structs.replace(WANTED, owner=owner)))[0]
            for owner in ("all", "key:k1", "project:web")
        ]
        await it.recorder.commit(it.record(caller=Caller(key=ApiKey("k1"))))
        await it.recorder.commit(it.record(caller=Caller(key=ApiKey("k2", project="web"))))
        await it.recorder.commit(it.record())
        assert it.stored() == dict(zip([one.budget.id for one in made], (3, 1, 1), strict=True))
        with it.database.reading() as connection:
            rows = [counts for _, counts in budgets.load(connection)]
        assert [[row.since for row in counts] for counts in rows] == [[one.span.since] for one in made]
        assert {one.budget.zone for one in made} == {"Asia/Tokyo"}


async def test_a_budget_that_cannot_be_stored_does_not_hold(tmp_path: Path) -> None:
    """A new one is gone again, a changed one is as it was."""
    async with shop(tmp_path) as it:
        made, new = await it.kept.put(WANTED)
        assert new
        await it.recorder.commit(it.record())
        await it.writer.close()
        before = it.kept.standings()
        with pytest.raises(TokenHubError):
            await it.kept.put(structs.replace(WANTED, unit=Unit.TOKENS))
        for change in (
            it.kept.put(structs.replace(WANTED, limit=3)),
            it.kept.patch(made.budget.id, limit=3, thresholds=None, hard=None),
            it.kept.paid(made.budget.id),
            it.kept.remove(made.budget.id),
        ):
            with pytest.raises(TokenHubError):
                await change
        assert it.kept.standings() == before
        assert before[0].spent == 1


async def test_a_budget_holds_before_it_is_stored(tmp_path: Path) -> None:
    """So that every record which is stored behind it is counted in it, and the sum over them is what it says."""
    async with shop(tmp_path) as it:
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                await it.recorder.commit(it.record())

        callers = [asyncio.create_task(load()) for _ in range(5)]
        for _ in range(5):
            await it.recorder.commit(it.record())
        made, _ = await it.kept.put(structs.replace(WANTED, limit=10**6))
        for _ in range(5):
            await it.recorder.commit(it.record())
        stop.set()
        await asyncio.gather(*callers)
        with it.database.reading() as connection:
            at = list(connection.execute(select(REQUEST_LOGS.c.at)).scalars())
        assert it.kept.standing(made.budget.id).spent == sum(one >= made.budget.created_at for one in at)
        assert sum(it.stored().values()) == it.kept.standing(made.budget.id).spent


async def test_what_is_counted_of_a_budget_that_is_gone_is_dropped(tmp_path: Path) -> None:
    """A record that was on its way when it was removed leaves no count behind."""
    async with shop(tmp_path) as it:
        made, _ = await it.kept.put(WANTED)
        await it.recorder.commit(it.record())
        late = it.record()
        it.kept.ledger.book(late)
        await it.kept.remove(made.budget.id)
        await it.recorder.commit(late)
        assert it.stored() == {}


async def test_a_threshold_that_could_not_be_told_is_told_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a restart, once; what was told is not told again, because both are one transaction."""
    async with shop(tmp_path) as it:
        made, _ = await it.kept.put(structs.replace(WANTED, limit=2))
        await it.recorder.commit(it.record())
        await it.writer.close()
        await it.kept.tell()
        assert [one for one in caplog.messages if one.startswith("an audit entry was lost: [{'budget_id'")]
        with it.bus.listen(after=0) as listener:
            assert [event.data["percent"] for event in listener.take()] == [50]
    for expected in ([50], []):
        async with shop(tmp_path) as it:
            await it.kept.tell()
            with it.bus.listen(after=0) as listener:
                assert [event.data["percent"] for event in listener.take()] == expected
            assert it.standing(made.budget.id) == (1, 0)


async def test_thresholds_are_told_while_the_service_runs(tmp_path: Path) -> None:
    """As soon as a record crosses one; nothing is told for nothing."""
    async with shop(tmp_path) as it:
        teller = asyncio.create_task(it.kept.keep())
        made, _ = await it.kept.put(structs.replace(WANTED, limit=2))
        with it.bus.listen() as listener:
            await it.recorder.commit(it.record())
            await listener.ready()
            (event,) = listener.take()
            await it.kept.tell()
            assert listener.take() == []
        teller.cancel()
        assert (event.type, event.data["owner"], event.data["limit"]) == ("budget_threshold", "all", 2)
        assert event.data["budget_id"] == made.budget.id
        assert 0 < event.data["timestamp"] <= it.clock.now()


async def test_a_zone_that_is_gone_stops_the_start(tmp_path: Path) -> None:
    """Counting in another one would begin anew at the wrong time."""
    async with shop(tmp_path) as it:
        await it.kept.put(WANTED)
        with it.database.writing() as connection:
            connection.execute(update(BUDGETS).values(zone="Atlantis/Centre"))
    with pytest.raises(ConfigError, match="'Atlantis/Centre' is no time zone"):
        async with shop(tmp_path):
            pass


async def test_only_the_newest_counts_are_read(tmp_path: Path) -> None:
    """What was spent years ago is kept, and does not make the start slow."""
    async with shop(tmp_path) as it:
        made, _ = await it.kept.put(WANTED)
        await it.recorder.commit(it.record())

        def old(connection: Connection) -> None:
            rows = [
                {"budget_id": made.budget.id, "since": since, "spent": 9, "warned": 0} for since in range(50)
            ]
            connection.execute(insert(SPENDS), rows)

        await it.writer.commit(old)
    async with shop(tmp_path) as it:
        assert it.standing(made.budget.id) == (1, 0)
        (line,) = it.kept.ledger._lines["all"]
        assert sorted(line.accounts) == [47, 48, 49, made.span.since]


async def test_two_that_ask_for_the_same_make_one(tmp_path: Path) -> None:
    """Changes wait for each other."""
    async with shop(tmp_path) as it:
        both = await asyncio.gather(it.kept.put(WANTED), it.kept.put(structs.replace(WANTED, limit=5)))
        assert [new for _, new in both] == [True, False]
        (only,) = it.kept.standings()
        assert (only.budget.limit, only.budget.id) == (5, both[0][0].budget.id)


async def test_a_budget_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    """Whatever is to be done with it."""
    async with shop(tmp_path) as it:
        for change in (
            it.kept.patch("none", limit=1, thresholds=None, hard=None),
            it.kept.paid("none"),
            it.kept.remove("none"),
        ):
            with pytest.raises(TokenHubError) as refused:
                await change
            assert refused.value.fault.kind is Kind.NOT_FOUND
