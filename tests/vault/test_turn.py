"""The one place in which passwords are tried, and the queue before it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.patience import PATIENCE
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.vault.turn import Turn, threaded

BUSY = Fault(
    Kind.RATE_LIMITED,
    Blame.CLIENT,
    "too many passwords are being tried at once",
    cause="vault_busy",
    retry_after=1.0,
)


async def crowd(turn: Turn) -> list[Fault]:
    """Let five have the place at once, and six more come while one has it; return what those were told."""
    free, inside = asyncio.Event(), 0

    async def hold() -> None:
        nonlocal inside
        async with turn.alone():
            inside += 1
            assert inside == 1
            await free.wait()
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(hold())
        await asyncio.sleep(0)
        told = []
        for _ in range(2):
            with pytest.raises(TokenHubError) as caught:
                await turn.run(lambda: None)
            told.append(caught.value.fault)
        free.set()
    return told


async def test_four_wait_while_one_works_and_others_come_again() -> None:
    """In a second; and when all have left there is as much room as before."""
    turn = Turn("vault")
    assert await crowd(turn) == [BUSY, BUSY]
    assert await turn.run(lambda: "worked") == "worked"
    assert await crowd(turn) == [BUSY, BUSY]


async def test_who_leaves_waits_for_what_cannot_be_stopped() -> None:
    """The memory is taken until the thread has ended, however it ends."""
    begun, free, over = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        free.wait(PATIENCE)
        over.set()
        raise ValueError

    task = asyncio.create_task(threaded(work))
    await asyncio.to_thread(begun.wait, PATIENCE)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over.is_set()
