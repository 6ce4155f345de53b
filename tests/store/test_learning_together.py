"""Several processes on one database learn as one, and none takes back what another has learned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.test_learning import ANSWERED, ARMS, FAILED, RECORD
from tokenhub_core.errors import TokenHubError
from tokenhub_core.learning import Learning
from tokenhub_core.routing.affinity import Served
from tokenhub_core.routing.bandit import sampled
from tokenhub_core.routing.reward import Reward
from tokenhub_core.store import faults
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.types import Left, Policy, Record, Traces


class Still:
    """A clock that stands still: what was counted fades with later counts only."""

    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 0.0


class Unsteady(Writer):
    """A writer whose store is away for as long as it is told so."""

    away = False

    async def commit[T](self, work: Work[T]) -> T:
        if self.away:
            raise faults.unavailable("the store is away")
        return await super().commit(work)


@asynccontextmanager
async def processes(many: int) -> AsyncIterator[tuple[list[Learning], Unsteady]]:
    database = open_database(MEMORY)
    writer = Unsteady(database)
    writer.start()
    try:
        yield [Learning(database, writer, Still(), Reward()) for _ in range(many)], writer
    finally:
        await writer.close()
        database.close()


def call(number: int) -> Record:
    """Return one of a few kinds of calls."""
    answered = structs.replace(ANSWERED, ended_ms=1_010 + 100 * number, first_byte_ms=50.0 + 40 * number)
    attempts = (FAILED, answered) if number % 2 else (answered,)
    assert RECORD.plan is not None
    context = ("small", "large")[number % 3 > 0]
    plan = structs.replace(RECORD.plan, policy=Policy(hedge=0.9), context=context)
    return structs.replace(RECORD, attempts=attempts, plan=plan)


def known(learning: Learning) -> tuple[object, ...]:
    """Return everything that was learned, in one order."""
    return (
        sorted(learning.bandit.kept(), key=repr),
        sorted(learning.learner.averages().items(), key=repr),
        sorted(learning.spreads.kept(), key=repr),
    )


async def exchange(all_of_them: Sequence[Learning], times: int = 2) -> None:
    """Let each save, one after another, often enough for all to have seen all."""
    for _ in range(times):
        for one in all_of_them:
            await one.save()


async def test_two_processes_know_what_one_would_know() -> None:
    """To the last bit, where the calls of one come before those of the other."""
    async with processes(2) as ((one, two), _), processes(1) as ((alone,), _):
        for number in range(4):
            one(call(number))
            alone(call(number))
        for number in range(4, 9):
            two(call(number))
            alone(call(number))
        await exchange([one, two])
        alone.learn()

        assert known(one) == known(two) == known(alone)


async def test_who_has_nothing_to_say_hears_all_the_same() -> None:
    """A process without calls knows what the others have learned after its next saving."""
    async with processes(2) as ((one, two), _):
        one(call(1))
        await one.save()
        assert two.bandit.kept() == []
        await two.save()
        assert known(two) == known(one)


async def test_who_leaves_takes_nothing_back() -> None:
    """The last saving stores everything that is known here, and others know more."""
    async with processes(3) as ((one, two, after), _):
        one(call(1))
        await one.save()
        two(call(2))
        two(call(3))
        thread = two.affinity.follow(lambda: Traces(room="conv_1"), two._clock.now())
        two.affinity.note(thread, Served("m", "p", round(two._clock.now()), 9), Left())
        await two.save()
        one(call(4))
        await one.close()
        await after.load()

        assert known(after) == known(one)
        assert len(after.bandit.kept()) == len(one.bandit.kept()) > 0
        assert len(after.affinity) == 1
        assert sum(row.step for row in after.bandit.kept() if not row.context) > 2


async def test_what_is_seen_while_others_are_read_is_not_lost() -> None:
    """A call that ends in the middle of it counts once, here and for the others."""
    async with processes(2) as ((one, two), writer):
        one(call(1))
        await one.save()
        two(call(2))
        reading = asyncio.Event()
        commit = writer.commit

        async def late[T](work: Work[T]) -> T:
            if not reading.is_set() and two._others:
                reading.set()
                two(call(3))
                two.learn()
            return await commit(work)

        writer.commit = late  # type: ignore[method-assign] # as long as this test lasts
        await two.save()
        assert reading.is_set()
        await exchange([two, one])

        async with processes(1) as ((alone,), _):
            for number in (1, 2, 3):
                alone(call(number))
            alone.learn()
            assert known(one) == known(two) == known(alone)


async def test_what_could_not_be_saved_is_counted_once_when_it_can() -> None:
    """Others have saved meanwhile: it comes on top of theirs."""
    async with processes(2) as ((one, two), writer):
        one(call(1))
        writer.away = True
        with pytest.raises(TokenHubError):
            await one.save()
        one(call(2))
        writer.away = False
        two(call(3))
        await two.save()
        await one.save(everything=True)
        await two.save()

        async with processes(1) as ((alone,), _):
            for number in (3, 1, 2):
                alone(call(number))
            alone.learn()
            assert known(one) == known(two) == known(alone)


async def test_savings_at_the_same_time_are_all_counted(database: Database, writer: Writer) -> None:
    """On either database: who is second looks again."""
    several = [Learning(database, writer, Still(), Reward()) for _ in range(3)]
    for turn in range(3):
        for number, one in enumerate(several):
            one(call(number + turn))
        await asyncio.gather(*(one.save() for one in several))
    await exchange(several, 3)

    assert known(several[0]) == known(several[1]) == known(several[2])
    rewards = sum(len(call(number + turn).attempts) for number in range(3) for turn in range(3))
    assert max(row.step for row in several[0].bandit.kept() if not row.context) == rewards


async def test_what_was_drawn_before_others_were_heard_can_be_drawn_again() -> None:
    """A decision holds the parameters that it was drawn with: what is learned since changes nothing of it."""
    async with processes(2) as ((one, two), _):
        one(call(1))
        one.learn()
        now = one._clock.now()
        before = one.bandit.draw(ARMS, "large", penalties=[0.0, 0.0], seed="s", now=now)
        two(call(2))
        await exchange([two, one])
        after = one.bandit.draw(ARMS, "large", penalties=[0.0, 0.0], seed="s", now=now)
        alpha, beta = (np.array([getattr(row, name) for row in before]) for name in ("alpha", "beta"))

        assert after != before
        assert sampled(ARMS, alpha, beta, "s").tolist() == [row.sample for row in before]


async def test_one_process_alone_reads_nothing_again() -> None:
    """What it has saved is what it knows."""
    async with processes(1) as ((one,), _):
        for number in range(3):
            one(call(number))
            await one.save()
        assert not one._others


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans()), max_size=25))
def test_however_calls_fall_all_know_the_same_in_the_end(calls: list[tuple[int, int, bool]]) -> None:
    """Who made a call and who saved when changes nothing of how much was counted."""

    async def scene() -> None:
        async with processes(3) as (all_of_them, _):
            for who, number, saved in calls:
                all_of_them[who](call(number))
                if saved:
                    await all_of_them[who].save()
            await exchange(all_of_them)
            assert known(all_of_them[0]) == known(all_of_them[1]) == known(all_of_them[2])
            rewards = sum(len(call(number).attempts) for _, number, _ in calls)
            everywhere = [row.step for row in all_of_them[0].bandit.kept() if not row.context]
            assert max(everywhere, default=0) == rewards

    asyncio.run(scene())
