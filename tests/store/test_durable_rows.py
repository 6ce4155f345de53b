"""Durable calls as rows: an attempt is begun once, and never after its call was claimed, whoever else begins what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event

from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.durable import By, DurableCalls, Mark, Sealed
from tokenhub_core.store.writer import Writer

NOW: Final = 1_700_000_000.0
FIRST, SECOND = Sealed("k", b"first"), Sealed("k", b"second")
CALL, STEP, CLAIM = "req_1", "req_1~answer", 0
BESIDE: Final = 0.3
"""Seconds for the other one to come to where it has to wait; were it not to wait, it would be done within them."""


@pytest.fixture(params=["sqlite", "postgresql", "postgresql, repeatable read by default"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a database that two processes may open."""
    if request.param == "sqlite":
        return str(tmp_path / "tokenhub.sqlite")
    where: str = request.getfixturevalue("postgresql")
    if request.param == "postgresql":
        return where
    return f"{where}&options=-cdefault_transaction_isolation%3Drepeatable%5C%20read"


@asynccontextmanager
async def process(where: str) -> AsyncIterator[tuple[DurableCalls, Database]]:
    database = open_database(where)
    writer = Writer(database)
    writer.start()
    try:
        yield DurableCalls(database, writer), database
    finally:
        await writer.close()
        database.close()


def held(database: Database, begins: str, meanwhile: Callable[[threading.Event], None]) -> None:
    """Have the first statement that begins so followed by something else before its transaction goes on.

    That goes on when the event is set, or when it is clear that it is waited for.
    """
    once = [True]

    def after(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(begins) and "durable_attempts" in statement and once.pop():
            done = threading.Event()
            once.append(False)
            meanwhile(done)
            done.wait(BESIDE)

    event.listen(database._engine, "after_cursor_execute", after)


async def test_an_attempt_is_begun_once_and_ended_once(writer: Writer, database: Database) -> None:
    """Who comes second is told of the first, in the mark and in what came of it."""
    rows = DurableCalls(database, writer)
    assert await rows.begin(CALL, 1, By.WORKFLOW, now=NOW) is None
    assert await rows.begin(CALL, 1, By.DIRECT, now=NOW + 1) == Mark(1, By.WORKFLOW, NOW)
    assert await rows.end(CALL, 1, FIRST) == FIRST
    assert await rows.end(CALL, 1, SECOND) == FIRST
    assert await rows.marks(CALL) == [Mark(1, By.WORKFLOW, NOW, FIRST)]


async def test_a_call_that_is_kept_first_is_the_one_that_counts(writer: Writer, database: Database) -> None:
    """A step is decided once, whichever worker is asked again."""
    rows = DurableCalls(database, writer)
    assert await rows.first(STEP, FIRST, now=NOW) == FIRST
    assert await rows.first(STEP, SECOND, now=NOW) == FIRST
    assert await rows.begins(f"{CALL}~") == [STEP]


@pytest.mark.parametrize("name", [CALL, STEP])
async def test_after_the_claim_no_worker_begins_an_attempt(
    name: str, writer: Writer, database: Database
) -> None:
    """Neither of the call itself nor of a step of it; who has claimed it does."""
    rows = DurableCalls(database, writer)
    assert await rows.begin(CALL, CLAIM, By.DIRECT, now=NOW) is None
    refused = await rows.begin(name, 1, By.WORKFLOW, now=NOW, part_of=CALL)
    assert refused == Mark(CLAIM, By.DIRECT, NOW)
    assert await rows.begin(name, 1, By.DIRECT, now=NOW) is None


async def test_what_is_forgotten_leaves_the_claim(writer: Writer, database: Database) -> None:
    """Answers go, marks of workers go; a workflow that comes back still finds that it has nothing to do."""
    rows = DurableCalls(database, writer)
    await rows.keep(CALL, FIRST, now=NOW)
    await rows.begin(CALL, 1, By.WORKFLOW, now=NOW, part_of=CALL)
    await rows.end(CALL, 1, FIRST)
    await rows.begin(CALL, CLAIM, By.DIRECT, now=NOW)
    rows.forget(CALL, attempts=True)
    assert await rows.begin(CALL, 1, By.WORKFLOW, now=NOW, part_of=CALL) == Mark(CLAIM, By.DIRECT, NOW)
    assert await rows.load(CALL) is None


async def test_an_attempt_that_was_not_refused_is_seen_by_whoever_claims_in_that_moment(shared: str) -> None:
    """A worker has looked for a claim and found none: whoever claims now finds its mark once he has claimed."""
    loop = asyncio.get_running_loop()
    async with process(shared) as (worker, base), process(shared) as (front, _):
        seen = list[Sequence[Mark]]()

        async def claim(done: threading.Event) -> None:
            await front.begin(CALL, CLAIM, By.DIRECT, now=NOW)
            seen.append(await front.marks(STEP))
            done.set()

        claiming = list[Any]()
        held(
            base,
            "SELECT",
            lambda done: claiming.append(asyncio.run_coroutine_threadsafe(claim(done), loop)),
        )
        refused = await worker.begin(STEP, 1, By.WORKFLOW, now=NOW, part_of=CALL)
        await asyncio.gather(*map(asyncio.wrap_future, claiming))

    assert refused is None
    assert seen == [[Mark(1, By.WORKFLOW, NOW)]]


async def test_an_attempt_that_waits_for_a_claim_is_refused(shared: str) -> None:
    """The claim is made and not durable yet: a worker that comes in that moment waits, and then finds it."""
    loop = asyncio.get_running_loop()
    async with process(shared) as (worker, _), process(shared) as (front, base):
        found = list[Mark | None]()

        async def attempt(done: threading.Event) -> None:
            found.append(await worker.begin(STEP, 1, By.WORKFLOW, now=NOW, part_of=CALL))
            done.set()

        asking = list[Any]()
        held(
            base,
            "INSERT",
            lambda done: asking.append(asyncio.run_coroutine_threadsafe(attempt(done), loop)),
        )
        assert await front.begin(CALL, CLAIM, By.DIRECT, now=NOW) is None
        await asyncio.gather(*map(asyncio.wrap_future, asking))
        marks = await front.marks(STEP)

    assert found == [Mark(CLAIM, By.DIRECT, NOW)]
    assert marks == []
