"""Two processes' budgets on one database: what they see of each other, and what becomes of one that dies or sleeps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import select, update

from tests.patience import PATIENCE
from tokenhub_core.admission import leases
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.audit.journal import Audit
from tokenhub_core.budgets import Budgets
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Outlay, Reservation, Short
from tokenhub_core.presence import present
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.schema import BUDGETS, SHARES
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Attempt, Caller, Outcome, Record, Snapshot, Usage

WANTED = Budget("", "all", Period.TOTAL, Unit.TOKENS, 1_000, zone="UTC")
_IDS = itertools.count(1)


@dataclass
class Time:
    """Both clocks, as the scene sets them."""

    at: float = 2_000_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@dataclass
class Process:
    """One process, as far as budgets go."""

    name: str
    database: Database
    writer: Writer
    kept: Budgets
    bus: Bus
    recorder: StoreRecorder
    clock: Time

    def reserve(self, most: int, *, name: str = "") -> tuple[Snapshot, Reservation]:
        call = Snapshot(name or f"c{next(_IDS)}", "POST", "/", (), b"", self.clock.at, 0.0)
        return call, self.kept.ledger.reserve(call, 0, lambda: Outlay(0, 0, most, most))

    async def call(self, most: int) -> tuple[Snapshot, Reservation]:
        """Reserve as an attempt does: where it is short it asks, as long as that is of use."""
        started = self.clock.at
        for times in itertools.count():
            try:
                return self.reserve(most)
            except Short as short:
                if not await self.kept.more(short, started, times):
                    raise
        raise AssertionError

    async def end(self, call: tuple[Snapshot, Reservation], used: int) -> None:
        """Let a call end, and its record be durable."""
        snapshot, reservation = call
        self.kept.ledger.settle(reservation, 0, Usage(used))
        tried = (Attempt(1, "m", "p", 0, 1, usage=Usage(used)),)
        await self.recorder.commit(
            Record(snapshot.id, self.clock.at, Outcome.OK, 200, Caller(), "POST", "/", attempts=tried)
        )

    def rows(self) -> dict[str, int]:
        """Return up to how much each process may come."""
        with self.database.reading() as connection:
            return {row.process: row.granted for row in connection.execute(select(SHARES))}


@asynccontextmanager
async def process(path: Path, name: str, clock: Time, *, died: Sequence[str] = ()) -> AsyncIterator[Process]:
    database = open_database(str(path / "t.sqlite"))
    writer, bus = Writer(database), Bus()
    writer.start()
    audit = Audit(database, writer, clock=clock)
    await audit.load()
    kept = Budgets(
        writer, audit, bus, clock, process=name, entropy=lambda: bytes([next(_IDS) % 256]), zone="UTC"
    )
    await kept.load(died)
    try:
        yield Process(
            name, database, writer, kept, bus, StoreRecorder(database, writer, books=kept.ledger), clock
        )
    finally:
        await writer.close()
        database.close()


@asynccontextmanager
async def two(path: Path, wanted: Budget = WANTED) -> AsyncIterator[tuple[Process, Process, Budget]]:
    """Run `a`, which makes a budget, and then `b`."""
    clock = Time()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(process(path, "a", clock))
        made, _ = await first.kept.put(wanted)
        second = await stack.enter_async_context(process(path, "b", clock))
        yield first, second, made.budget


async def both_look(*processes: Process, turn: int = 1) -> None:
    for one in processes:
        await one.kept.look(turn)


async def test_one_alone_decides_without_the_database(tmp_path: Path) -> None:
    """Down to the last token, refusals too: nothing is written but records."""
    async with process(tmp_path, "a", Time()) as it:
        await it.kept.put(WANTED)
        await it.kept.look(1)
        before = it.writer.counts.committed
        held = [it.reserve(100) for _ in range(10)]
        with pytest.raises(TokenHubError) as refused:
            it.reserve(1)
        assert not isinstance(refused.value, Short)
        await it.kept.look(2)
        assert it.writer.counts.committed == before
        await it.end(held[0], 100)
        assert it.writer.counts.committed == before + 1


async def test_where_there_is_no_budget_nothing_is_drawn(tmp_path: Path) -> None:
    """However often it is looked."""
    async with process(tmp_path, "a", Time()) as it:
        before = it.writer.counts.committed
        it.clock.at += 100
        await it.kept.look(10)
        assert it.writer.counts.committed == before


async def test_two_share_what_is_left(tmp_path: Path) -> None:
    """The second is short until the first has looked; from then on both decide with what they have."""
    async with two(tmp_path) as (first, second, _):
        waiting = asyncio.create_task(second.call(100))
        await asyncio.sleep(0)
        await second.kept.look(1)
        assert [share.wanted for share in _shares(first)] == [0, 100]
        await first.kept.look(1)
        async with asyncio.timeout(PATIENCE):
            await second.end(await waiting, 60)
        await both_look(first, second)
        granted = first.rows()
        assert 0 < granted["a"] < 500
        assert 100 < granted["b"] < 500
        before = first.writer.counts.committed
        first.reserve(granted["a"])
        assert first.writer.counts.committed == before


def _shares(one: Process) -> list[leases.Share]:
    with one.database.reading() as connection:
        rows = connection.execute(select(SHARES).order_by(SHARES.c.process)).all()
    return [leases.Share(*row[2:]) for row in rows]


async def test_at_the_edge_both_together_have_what_there_is(tmp_path: Path) -> None:
    """A hundred callers in two processes, ten tokens for each of which there are forty calls' worth: forty get in."""
    async with two(tmp_path, structs.replace(WANTED, limit=400)) as (first, second, budget):
        stop = asyncio.Event()

        async def looking(one: Process) -> None:
            for turn in itertools.count(1):
                if stop.is_set():
                    return
                await one.kept.look(turn)

        async def caller(one: Process) -> str:
            try:
                call = await one.call(10)
            except TokenHubError as error:
                return error.fault.cause
            await one.end(call, 10)
            return ""

        lookers = [asyncio.create_task(looking(one)) for one in (first, second)]
        async with asyncio.timeout(PATIENCE):
            causes = await asyncio.gather(*(caller(one) for one in (first, second) for _ in range(50)))
        stop.set()
        await asyncio.gather(*lookers)
        await both_look(first, second, turn=10)
        standings = [one.kept.standing(budget.id) for one in (first, second)]
        served = causes.count("")
        assert [(one.spent, one.held) for one in standings] == [(served * 10, 0)] * 2
        assert (served <= 40, set(causes)) == (True, {"", "budget_exhausted"})
        # Nothing that could be spent is kept from anybody.
        for _ in range(served, 40):
            await first.end(await _in_time(first, second), 10)
        with pytest.raises(TokenHubError):
            await first.call(10)


async def _in_time(one: Process, other: Process) -> tuple[Snapshot, Reservation]:
    """Let one call while the other one looks."""
    waiting = asyncio.create_task(one.call(10))
    while not waiting.done():
        await other.kept.look(1)
    return await waiting


async def test_changes_reach_the_others_with_their_next_look(tmp_path: Path) -> None:
    """A limit, hard or soft, a new one, counting anew, and removal."""
    async with two(tmp_path) as (first, second, budget):
        await second.kept.patch(budget.id, limit=40, thresholds=(10,), hard=None)
        await first.kept.look(1)
        assert first.kept.standing(budget.id).budget == second.kept.standing(budget.id).budget
        with pytest.raises(TokenHubError):
            first.reserve(41)
        await first.end(await first.call(30), 30)
        await both_look(first, second, turn=10)
        assert second.kept.standing(budget.id).spent == 30
        second.clock.at += 1
        await second.kept.paid(budget.id)
        await both_look(first, second)
        assert [one.kept.standing(budget.id).spent for one in (first, second)] == [0, 0]
        new, _ = await first.kept.put(structs.replace(WANTED, unit=Unit.REQUESTS, limit=0))
        await second.kept.look(1)
        with pytest.raises(TokenHubError, match="requests"):
            second.reserve(1)
        await first.kept.remove(new.budget.id)
        await first.kept.patch(budget.id, limit=None, thresholds=None, hard=False)
        await second.kept.look(1)
        second.reserve(5_000)


async def test_the_share_of_one_that_died_comes_back(tmp_path: Path) -> None:
    """When its lease is over, less what its records say; a restart begins with all of that."""
    async with two(tmp_path) as (first, second, budget):
        await both_look(second, first)
        await first.end(first.reserve(100), 70)
        first.reserve(100)
        # From here on `first` is not heard of any more.
        second.clock.at += 1
        assert await _refused(second, 950)
        for _ in range(12):
            second.clock.at += 1
            await second.kept.look(1)
        standing = second.kept.standing(budget.id)
        assert (standing.spent, standing.left) == (70, 930)
        second.reserve(930)
        async with process(tmp_path, "c", second.clock) as third:
            assert third.kept.standing(budget.id).spent == 70


async def _refused(one: Process, most: int) -> bool:
    """Ask for more than is to be had, while time goes on."""
    started = one.clock.at
    for _ in range(100):
        try:
            one.reserve(most)
            return False
        except Short as short:
            one.clock.at += leases.PACE
            if not await one.kept.more(short, started, 0):
                return True
        except TokenHubError:
            return True
    raise AssertionError("it asks for ever")


async def test_one_that_starts_again_has_what_the_dead_one_had(tmp_path: Path) -> None:
    """At once, where it is known that it is dead: its lock is free. Of one that is alive it is not."""
    directory = tmp_path / "present"
    async with two(tmp_path) as (first, _, _):
        with present(directory, "b") as died:
            assert died == ()
            (directory / "a").touch()
            with present(directory, "c") as gone:
                assert gone == ("a",)
                async with process(tmp_path, "c", first.clock, died=gone) as third:
                    await third.call(1_000)
        assert [*directory.iterdir()] == []


async def test_one_that_leaves_leaves_its_share(tmp_path: Path) -> None:
    """At once."""
    async with two(tmp_path) as (first, second, _):
        await first.kept.close()
        await second.call(1_000)


async def test_one_leaves_though_the_database_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it had at hand comes back by its lease, and the log says why."""
    async with two(tmp_path) as (first, _, _):
        await first.writer.close()
        await first.kept.close()
    assert "could not be given back" in caplog.text


async def test_a_zone_that_only_another_machine_knows_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its budget holds here too, counted in UTC."""
    async with two(tmp_path) as (first, second, budget):
        await first.kept.put(structs.replace(budget, limit=900))
        with first.database.writing() as connection:
            connection.execute(update(BUDGETS).values(zone="Atlantis/Centre"))
        await second.kept.look(1)
        assert second.kept.standing(budget.id).budget.limit == 900
    wrong = "'Atlantis/Centre' is no time zone that this machine knows"
    assert f"budget {budget.id}: {wrong}; it is counted in UTC" in caplog.messages


async def test_one_that_has_waited_long_enough_does_not_ask_again(tmp_path: Path) -> None:
    """Its caller gets the refusal."""
    async with two(tmp_path) as (_, second, _):
        short = _short(second)
        assert await second.kept.more(short, second.clock.at - leases.WAIT, 0) is False
        assert await second.kept.more(short, second.clock.at, 0)


async def test_one_that_wakes_does_not_spend_what_others_have_now(tmp_path: Path) -> None:
    """It knows by its own clock that its lease is over, and asks first."""
    async with two(tmp_path) as (first, second, budget):
        await both_look(second, first)
        first.clock.at += leases.LEASE
        await second.kept.look(1)
        second.reserve(1_000)
        with pytest.raises(Short):
            first.reserve(1)
        await both_look(first, second, first)
        with pytest.raises(TokenHubError) as refused:
            await first.call(1)
        assert refused.value.fault.cause == "budget_exhausted"
        assert first.kept.standing(budget.id).left == 0


async def test_a_database_that_does_not_answer_is_waited_for_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the call is refused, and told to come back: nothing is let through on a guess, and nothing is stuck."""
    async with two(tmp_path) as (_, second, _):
        monkeypatch.setattr(leases, "WAIT", 0.05)
        short = _short(second)
        with second.database.writing(), pytest.raises(TokenHubError) as refused:
            await second.kept.more(short, second.clock.at, 0)
        fault = refused.value.fault
        assert (fault.kind, fault.cause, fault.http_status) == (Kind.INTERNAL, "budget_unknown", 503)
        assert fault.retry_after == 1.0
        assert fault.message == "what is left of the budgets cannot be found out now"
        await second.writer.close()
        with pytest.raises(TokenHubError) as refused:
            await second.kept.more(short, second.clock.at, 0)
        assert refused.value.fault.cause == "budget_unknown"


def _short(one: Process) -> Short:
    with pytest.raises(Short) as refused:
        one.reserve(10)
    return refused.value


async def test_a_threshold_is_told_by_one_of_them(tmp_path: Path) -> None:
    """Whoever sees it first; both know the sum."""
    async with two(tmp_path, structs.replace(WANTED, thresholds=(10,))) as (first, second, _):
        with first.bus.listen(after=0) as one, second.bus.listen(after=0) as other:
            await first.end(first.reserve(100), 100)
            await both_look(first, second, turn=10)
            assert second.kept.ledger.crossings() != []
            second.kept.ledger._crossings += first.kept.ledger._crossings
            await first.kept.tell()
            await second.kept.tell()
            assert [event.data["percent"] for told in (one, other) for event in told.take()] == [10]


async def test_who_leaves_while_it_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    """What it waited for is wanted no more, and the draw that was under way holds."""
    async with two(tmp_path) as (first, second, budget):
        waiting = asyncio.create_task(second.call(100))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert second.kept.ledger.waiting() == {}
        await both_look(second, first, second)
        assert [share.wanted for share in _shares(first)] == [0, 0]
        assert second.kept.standing(budget.id).held == 0


async def test_what_waits_for_a_budget_that_has_gone_waits_for_nothing(tmp_path: Path) -> None:
    """It was removed while the call asked for more of it: nothing is noted, and no share is asked for."""
    async with two(tmp_path) as (first, second, budget):
        await both_look(first, second)
        with pytest.raises(Short) as short:
            second.reserve(900)
        second.kept.ledger.remove(budget)
        second.kept.ledger.want(short.value, 1)
        assert second.kept.ledger.waiting() == {}


async def test_a_budget_is_made_though_no_share_of_it_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stored; whoever needs a share of it asks then."""
    async with process(tmp_path, "a", Time()) as it:

        async def fails(**_: bool) -> None:
            raise TokenHubError(Fault(Kind.OVERLOADED, Blame.US, "the store does not answer"))

        monkeypatch.setattr(it.kept, "_draw", fails)
        made, _ = await it.kept.put(WANTED)
        assert it.kept.standing(made.budget.id).budget == made.budget
        assert "shares of budgets could not be drawn: the store does not answer" in caplog.messages
