"""Events of several processes: whoever listens at one hears all, and goes on at another where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest import mock

import pytest

from tests.e2e.serving import until
from tests.fakes.wire import Wire, kept
from tokenhub_core import tidings
from tokenhub_core.relay import Relay
from tokenhub_core.siblings import Siblings
from tokenhub_core.telemetry.events import KEPT, Bus, Event, Listener
from tokenhub_core.tidings import HOLDS, Tidings


class Process:
    """One process's bus, and its part."""

    def __init__(self, name: str, wire: Wire, clock: list[float]) -> None:
        self.relay = Relay(name, Siblings(), wire)
        self.bus = Bus(1000)
        self.sunk: list[Event] = []
        self.bus.follow(self.sunk.append)
        self.part = Tidings(self.relay, self.bus, lambda: clock[0])

    def happen(self, *numbers: int) -> None:
        for number in numbers:
            self.bus.publish("x", {"n": number})


class Fleet:
    def __init__(self, wire: Wire, clock: list[float], several: list[Process]) -> None:
        self.wire = wire
        self.clock = clock
        self.several = several


@asynccontextmanager
async def fleet(many: int = 2) -> AsyncIterator[Fleet]:
    wire, clock = Wire(), [100.0]
    several = [Process(f"p{number}", wire, clock) for number in range(many)]
    with mock.patch.object(tidings, "GATHER", 0.001):
        async with kept(*(one.relay for one in several)):
            for one in several:
                one.part._send([], past=False)
            await until(lambda: all(len(one.bus._heads) == many - 1 for one in several))
            yield Fleet(wire, clock, several)


class Reader:
    """Takes what comes, and remembers its place."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.seen: list[int] = []
        self.lost = 0
        self.place = ""

    def read(self) -> list[int]:
        for event in self.listener.take():
            self.place = self.listener.place(event)
            if event.type == "lost":
                self.lost += int(event.data["count"] or -1)
            else:
                self.seen.append(event.data["n"])
        return self.seen

    async def until(self, count: int) -> list[int]:
        await until(lambda: len(self.read()) >= count)
        return self.seen


async def test_a_listener_hears_what_happens_at_any_process() -> None:
    """Each event once; whoever follows events for another purpose hears those of its own process only."""
    async with fleet() as it:
        one, two = it.several
        with one.bus.listen() as listener:
            reader = Reader(listener)
            await until(lambda: two.part._until > 0)
            one.happen(1)
            two.happen(2, 3)
            assert sorted(await reader.until(3)) == [1, 2, 3]
        assert [event.data["n"] for event in one.sunk] == [1]
        assert [event.data["n"] for event in two.sunk] == [2, 3]
        assert sorted(reader.place.split(",")) == ["p0.1001", "p1.1002"]


async def test_where_nobody_listens_nothing_is_told() -> None:
    """Also when somebody did, and has left."""
    async with fleet() as it:
        one, two = it.several
        with mock.patch.object(it.wire, "send", mock.AsyncMock(side_effect=it.wire.send)) as send:
            one.happen(1, 2)
            with two.bus.listen():
                await until(lambda: one.part._until > 0)
            it.clock[0] += HOLDS
            before = send.await_count
            one.happen(3)
            with one.bus.listen():
                await until(lambda: send.await_count > before)
            assert one.part._timer is None


async def test_who_comes_back_to_another_process_goes_on_where_it_was() -> None:
    """It gets what it has missed of both, nothing twice, and knows that nothing is lost."""
    async with fleet(3) as it:
        one, two, _ = it.several
        with one.bus.listen() as listener:
            first = Reader(listener)
            await until(lambda: all(that.part._until > 0 for that in it.several))
            one.happen(1)
            two.happen(2)
            await first.until(2)
        one.happen(3)
        two.happen(4)
        with two.bus.listen(two.bus.place(first.place, replay=True)) as listener:
            second = Reader(listener)
            assert sorted(await second.until(2)) == [3, 4]
            one.happen(5)
            assert (await second.until(3))[-1] == 5
        assert second.lost == 0


async def test_who_was_away_while_nobody_listened_misses_nothing_that_is_kept() -> None:
    """The other process had not told it meanwhile: it does when somebody listens again."""
    async with fleet() as it:
        one, two = it.several
        with one.bus.listen() as listener:
            first = Reader(listener)
            await until(lambda: two.part._until > 0)
            one.happen(1)
            await first.until(1)
        it.clock[0] += HOLDS
        one.happen(2, 3)
        with two.bus.listen(two.bus.place(first.place, replay=False)) as listener:
            second = Reader(listener)
            assert await second.until(2) == [2, 3]
        assert second.lost == 0


async def test_who_begins_now_gets_nothing_of_before_also_after_coming_back() -> None:
    """What others still keep is for those who go on."""
    async with fleet() as it:
        one, two = it.several
        two.happen(1, 2)
        with one.bus.listen() as listener:
            first = Reader(listener)
            await until(lambda: one.bus._heads["p1"])
            one.happen(3)
            assert await first.until(1) == [3]
        with two.bus.listen(two.bus.place(first.place, replay=False)) as listener:
            two.happen(4)
            assert await Reader(listener).until(1) == [4]
        with one.bus.listen(one.bus.place("", replay=True)) as listener:
            assert sorted(await Reader(listener).until(4)) == [1, 2, 3, 4]


async def test_what_is_lost_on_the_way_is_counted() -> None:
    """A gap in one process's numbers: whoever listens hears how many."""
    async with fleet() as it:
        one, two = it.several
        with one.bus.listen() as listener:
            reader = Reader(listener)
            await until(lambda: two.part._until > 0)
            two.happen(1)
            await reader.until(1)
            it.wire.there = False
            two.happen(2, 3)
            await until(lambda: two.part._timer is None and not two.relay._waiting)
            it.wire.there = True
            two.happen(4)
            assert await reader.until(2) == [1, 4]
        assert reader.lost == 2


async def test_what_is_not_kept_any_more_is_counted() -> None:
    """Of its own process and of another one."""
    async with fleet() as it:
        one, two = it.several
        with one.bus.listen() as listener:
            first = Reader(listener)
            await until(lambda: two.part._until > 0)
            one.happen(0)
            two.happen(0)
            await first.until(2)
        one.happen(*range(KEPT + 10))
        two.happen(*range(5))
        await until(lambda: one.bus._heads["p1"] == 1006)
        with one.bus.listen(one.bus.place(first.place, replay=False)) as listener:
            second = Reader(listener)
            await second.until(KEPT)
        assert len(second.seen) + second.lost == KEPT + 15


@pytest.mark.parametrize("last", ["1000", "q7.5", "q7.5,r8.9"])
async def test_a_place_that_nobody_here_knows_is_told_so_and_means_everything(last: str) -> None:
    """All those processes have been started again since, or events were not shared then."""
    async with fleet(1) as it:
        (one,) = it.several
        one.happen(1)
        with one.bus.listen(one.bus.place(last, replay=False)) as listener:
            lost, event = listener.take()
        assert (lost.type, lost.data) == ("lost", {"count": None, "restarted": True})
        assert event.data == {"n": 1}


@pytest.mark.parametrize("last", ["", "x", "p0", "p0.", ".5", "p0.x", "p0.5,", "p0." + "9" * 30])
async def test_a_place_that_is_none_is_left_aside(last: str) -> None:
    """The listener begins now."""
    async with fleet(1) as it:
        (one,) = it.several
        one.happen(1)
        with one.bus.listen(one.bus.place(last, replay=False)) as listener:
            one.happen(2)
            assert Reader(listener).read() == [2]


async def test_for_as_long_as_somebody_listens_it_is_said_again() -> None:
    """Otherwise the others would stop."""
    async with fleet() as it:
        one, two = it.several
        with mock.patch.object(tidings, "WANT", 0.001), one.bus.listen():
            await until(lambda: two.part._until > 0)
            before = two.part._until
            it.clock[0] += HOLDS / 2
            keeping = asyncio.create_task(one.part.keep())
            await until(lambda: two.part._until > before)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
