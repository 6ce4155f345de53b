"""What is to be done once is done by one of several processes, and by another one when that is gone."""

from __future__ import annotations

import asyncio

from tokenhub_core.leading import LEASE, Lead
from tokenhub_core.store import faults
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Work, Writer


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return 1_700_000_000.0 + self.at

    def monotonic(self) -> float:
        return self.at


def leads(lead: Lead) -> bool:
    """Tell whether it is this one's turn now."""
    waiting = lead.turn()
    try:
        waiting.send(None)
    except StopIteration:
        return True
    waiting.close()
    return False


async def test_of_two_one_leads_and_keeps_leading(writer: Writer) -> None:
    """For as long as it says that it is there."""
    clock = Hands()
    one, two = Lead(writer, clock, "one"), Lead(writer, clock, "two")
    for _ in range(4):
        for it in (one, two):
            await it.look()
        assert (leads(one), leads(two)) == (True, False)
        clock.at += LEASE / 2


async def test_who_was_killed_is_followed_when_its_time_is_over(writer: Writer) -> None:
    """Not before; and who was only asleep does not go on when it wakes."""
    clock = Hands()
    one, two = Lead(writer, clock, "one"), Lead(writer, clock, "two")
    await one.look()
    clock.at += LEASE - 0.1
    await two.look()
    assert not leads(two)
    clock.at += 0.2
    assert not leads(one)
    await two.look()
    assert leads(two)

    await one.look()

    assert (leads(one), leads(two)) == (False, True)


async def test_who_leaves_is_followed_at_once(writer: Writer) -> None:
    """One that does not lead takes nothing from the other."""
    clock = Hands()
    one, two = Lead(writer, clock, "one"), Lead(writer, clock, "two")
    await one.look()
    await two.leave()
    await two.look()
    assert not leads(two)

    await one.leave()
    await two.look()

    assert leads(two)


async def test_who_waits_for_its_turn_has_it_as_soon_as_it_leads(writer: Writer) -> None:
    """What is due is not put off until the next time."""
    lead = Lead(writer, Hands(), "one")
    waiting = asyncio.create_task(lead.turn())
    await asyncio.sleep(0)
    assert not waiting.done()
    await lead.look()
    await waiting


class Away(Writer):
    """A writer whose store is away."""

    async def commit[T](self, work: Work[T]) -> T:
        del work
        raise faults.unavailable("the store is away")


async def test_where_the_store_is_away_the_lead_ends_by_itself(database: Database) -> None:
    """Nobody can know whether another one has it by then."""
    clock = Hands()
    lead = Lead(Away(database), clock, "one")
    lead._until = clock.at + LEASE
    lead._mine.set()
    await lead.begin()
    assert leads(lead)
    clock.at += LEASE
    assert not leads(lead)
    await lead.leave()


async def test_who_is_alone_leads_for_ever(database: Database) -> None:
    """Without a word in the database."""
    clock = Hands()
    lead = Lead(Away(database), clock, "one")
    lead.alone()
    clock.at += 1e9
    assert leads(lead)
