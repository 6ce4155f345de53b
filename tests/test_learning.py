"""Learning in the running application: fed by records, saved, and there again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import structs

from tests.fakes.house import House, house
from tokenhub_core.clock import SystemClock
from tokenhub_core.errors import Blame
from tokenhub_core.learning import Learning
from tokenhub_core.routing.affinity import Served
from tokenhub_core.routing.reward import Reward
from tokenhub_core.store import faults
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.types import (
    Attempt,
    Caller,
    Features,
    Left,
    Outcome,
    Plan,
    Policy,
    Record,
    Shadow,
    Traces,
    Usage,
)

FAILED = Attempt(1, "bad", "p", 0, 10, cause="http_503", blame=Blame.PROVIDER.value)
ANSWERED = Attempt(2, "good", "q", 10, 1_010, 210, 200, usage=Usage(250, 100))
RECORD = Record(
    id="r",
    at=0.0,
    outcome=Outcome.OK,
    status=200,
    caller=Caller(program="cli"),
    method="POST",
    path="/",
    stream=True,
    attempts=(FAILED, ANSWERED),
    plan=Plan(Policy(), (), (), 0, 0, "", features=Features("*", text_bytes=1_000), context="small"),
)
ARMS = [("bad", "p"), ("good", "q")]


@pytest.fixture
def database() -> Iterator[Database]:
    database = open_database(MEMORY)
    yield database
    database.close()


def means(learning: Learning) -> list[float]:
    alpha, beta = learning.bandit.posteriors(ARMS, "small", SystemClock().now())
    return [float(one) for one in alpha / (alpha + beta)]


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something is so; the test's time limit ends it otherwise."""
    for _ in range(1_000_000):
        if true():
            return
        await asyncio.sleep(0)


async def test_every_attempt_is_rewarded_the_failed_ones_too(database: Database) -> None:
    """A failover teaches twice: of the one that failed and of the one that answered."""
    learning = Learning(database, Writer(database), SystemClock(), Reward())
    learning(RECORD)
    learning.learn()
    bad, good = means(learning)
    assert bad < 0.5 < good
    assert learning.learner.latency_ms("good", "q", 100) == pytest.approx(1_000)


async def test_a_shadow_teaches_estimates_and_rewards_nobody(database: Database) -> None:
    """What the model at its host needs is true whoever chose it; nobody chose it here."""
    learning = Learning(database, Writer(database), SystemClock(), Reward())
    before = means(learning)
    passed = structs.replace(RECORD, outcome=Outcome.PASSED, attempts=(ANSWERED,))
    learning(structs.replace(passed, attempts=(), plan=None))
    learning.learn()
    assert learning.learner.averages() == {}
    learning(structs.replace(passed, shadow=Shadow(model="other")))
    learning.learn()
    assert means(learning) == before
    assert learning.learner.latency_ms("good", "q", 100) == pytest.approx(1_000)
    assert learning.learner.answer("cli", "good") is None
    learning(structs.replace(passed, shadow=Shadow(model="other"), stop="end"))
    learning.learn()
    assert learning.learner.answer("cli", "good") == (100, 0)


async def test_what_the_caller_did_is_nobodys_failure(database: Database) -> None:
    """A bad request teaches nothing."""
    learning = Learning(database, Writer(database), SystemClock(), Reward())
    theirs = structs.replace(FAILED, cause="invalid_request", blame=Blame.CLIENT.value)
    learning(structs.replace(RECORD, outcome=Outcome.ERROR, attempts=(theirs,)))
    assert learning.bandit.kept() == []


async def test_a_restart_finds_what_was_learned(database: Database) -> None:
    """Saved at the end, read at the next start: the same draws for the same seed."""
    writer = Writer(database)
    writer.start()
    before = Learning(database, writer, SystemClock(), Reward())
    for _ in range(3):
        before(RECORD)
    await before.close()
    after = Learning(database, writer, SystemClock(), Reward())
    await after.load()
    await writer.close()
    at = SystemClock().now()
    draws = [
        one.bandit.draw(ARMS, "small", penalties=[0.0, 0.0], seed="s", now=at) for one in (before, after)
    ]
    assert draws[0] == draws[1]
    assert after.learner.averages() == before.learner.averages()


class Away(Writer):
    """A writer whose store is away for the first saving."""

    tries = 0

    async def commit[T](self, work: Work[T]) -> T:
        self.tries += 1
        if self.tries == 1:
            raise faults.unavailable("the store is away")
        return await super().commit(work)


async def test_what_a_failed_saving_held_is_in_the_next_one(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that is away for a while costs a warning and nothing else."""
    writer = Away(database)
    writer.start()
    learning = Learning(database, writer, SystemClock(), Reward())
    learning(RECORD)
    now = SystemClock().now()
    thread = learning.affinity.follow(lambda: Traces(room="conv_1"), now)
    learning.affinity.note(thread, Served("m", "p", round(now), 9), Left())
    saving = asyncio.create_task(learning.keep(0.001))
    await until(lambda: writer.counts.committed > 0)
    saving.cancel()
    await writer.close()
    found = Learning(database, writer, SystemClock(), Reward())
    await found.load()
    assert "could not be saved" in caplog.text
    assert sorted(found.bandit.kept(), key=repr) == sorted(learning.bandit.kept(), key=repr)
    assert found.affinity.kept() == learning.affinity.kept()
    assert len(found.affinity) == 1


async def test_a_store_that_is_gone_keeps_nobody_from_ending(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The last saving may fail too."""
    writer = Writer(database)
    writer.start()
    learning = Learning(database, writer, SystemClock(), Reward())
    learning(RECORD)
    await writer.close()
    await learning.close()
    assert "could not be saved" in caplog.text


# --- the whole application


async def call(it: House, stream: bool = False) -> None:
    body = {"model": "*", "messages": [{"role": "user", "content": "hi there"}], "stream": stream}
    reply = await it.ask("POST", "/v1/chat/completions", body)
    assert reply.status == 200


async def decision(it: House) -> dict[str, object]:
    newest = (await it.done("GET", "/logs?limit=1"))["logs"][0]
    found = await it.done("GET", f"/logs/{newest['id']}")
    shown: dict[str, object] = found["decision"]
    return shown


@pytest_asyncio.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, simulate=True) as opened:
        yield opened


async def test_exploring_is_off_until_somebody_wants_it(simulated: House) -> None:
    """Nothing is drawn by default; switched on at run time, the next call's candidates have their draws."""
    await call(simulated)
    calm = await decision(simulated)
    await simulated.done("PUT", "/routing-config", {"explore": "thompson"})
    await call(simulated, stream=True)
    moved = await decision(simulated)
    assert "draw" not in str(calm)
    assert moved["reason"] == "routed-thompson"
    assert "propensity" in str(moved)


async def test_a_restart_of_the_application_keeps_what_it_learned(tmp_path: Path) -> None:
    """The second process draws with what the first one has seen."""
    async with house(tmp_path, simulate=True, settings={"EXPLORE": "thompson"}) as first:
        for _ in range(4):
            await call(first)
        before = await decision(first)
    async with house(tmp_path, simulate=True, settings={"EXPLORE": "thompson"}) as second:
        await call(second)
        after = await decision(second)

    def evidence(shown: dict[str, object]) -> float:
        rows = shown["candidates"]
        assert isinstance(rows, list)
        return float(sum(row["draw"]["alpha"] + row["draw"]["beta"] - 2 for row in rows))

    assert evidence(after) > evidence(before) > 0
