"""Drives a machine: makes its asks, all of a batch at once, and tells it what came of them.

Whatever ends a run, no ask is left behind: those that are not over are cancelled, and have ended when the run has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tokenhub_core.dispatch.job import STOPPED
from tokenhub_core.errors import TokenHubError
from tokenhub_core.orchestration.asks import AGREED, LATE, Ask, Batch, Composite, Machine, Told
from tokenhub_core.orchestration.saying import voices


@dataclass(frozen=True, slots=True)
class Driving:
    """What a run needs."""

    ask: Callable[[Ask], Awaitable[Told]]
    """Makes one ask; a `TokenHubError` counts as what came of it."""
    now: Callable[[], float]
    """Monotonic seconds."""
    until: float | None = None
    """When the run should be over, by that clock; None: whenever it is."""
    heard: Callable[[Told], None] = lambda _: None
    """Hears of each outcome, in the order in which they come."""


async def run(machine: Machine, driving: Driving) -> Composite:
    """Return what came of a machine that has not begun."""
    batch = next(machine)
    while True:
        told = await made(batch, driving)
        try:
            batch = machine.send(told)
        except StopIteration as end:
            composite: Composite = end.value
            return composite


async def made(batch: Batch, driving: Driving) -> Sequence[Told]:
    """Return what came of each ask of a batch, in their order."""
    tasks = [asyncio.create_task(_asked(one, driving), name=f"step {one.step}") for one in batch.asks]
    now, until = driving.now(), driving.until
    limit = None if until is None else now + (until - now) * batch.share
    why, word = LATE, ""
    waiting = set(tasks)
    try:
        while waiting:
            left = None if limit is None else max(0.0, limit - driving.now())
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                word = STOPPED.label
                break
            if _agree(batch, tasks):
                why, word = AGREED, STOPPED.label
                break
    finally:
        # In the order of the asks: where a history is read again, the same ones are cancelled first.
        for task in [one for one in tasks if one in waiting]:
            # An attempt that ends by this word was given up by us; by any other its caller has left.
            task.cancel(word)
        await asyncio.gather(*tasks, return_exceptions=True)
    return [
        Told(ask.step, fault=why) if task.cancelled() else task.result()
        for ask, task in zip(batch.asks, tasks, strict=True)
    ]


async def _asked(ask: Ask, driving: Driving) -> Told:
    try:
        told = await driving.ask(ask)
    except TokenHubError as error:
        told = Told(ask.step, fault=error.fault)
    driving.heard(told)
    return told


def _agree(batch: Batch, tasks: Sequence[asyncio.Task[Told]]) -> bool:
    """Tell whether as many models as the batch asks for have answered the same."""
    if not batch.agree:
        return False
    ended = [task.result() for task in tasks if task.done() and not task.cancelled() and not task.exception()]
    return max(voices(ended).values(), default=0) >= batch.agree
