"""The shell around the failover machine: it does what the machine says and tells it what came of it."""

from __future__ import annotations

import asyncio
from typing import assert_never

from tokenhub_core.dispatch.attempt import Attempting, Leftovers
from tokenhub_core.dispatch.failover import Failover, GiveUp, Try, Wait
from tokenhub_core.dispatch.job import Job, Live, Means, Patience, Trace, Whole
from tokenhub_core.errors import TokenHubError


class Executor:
    """Runs calls. Holds what all calls share; nothing of a single one."""

    def __init__(self, means: Means, patience: Patience = Patience()) -> None:
        self.means = means
        self.patience = patience
        self._leftovers = Leftovers()
        self._turn = 0

    async def close(self) -> None:
        """Let go of connections whose streams have just ended."""
        await self._leftovers.close()

    async def run(self, job: Job, trace: Trace) -> Whole | Live:
        """Return the answer of the first candidate that gives one; raises `TokenHubError` when none does."""
        machine = Failover(
            job.plan,
            limits=job.limits,
            retries=self.means.retries,
            started=job.snapshot.started,
            max_output_tokens=job.request.features.max_output_tokens,
        )
        while True:
            step = machine.next(self.means.clock.monotonic(), self.means.random())
            match step:
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case GiveUp(fault):
                    raise TokenHubError(fault)
                case Try():
                    tried = Attempting(
                        self.means,
                        self.patience,
                        job,
                        trace,
                        step,
                        turn=self._next_turn(),
                        after=self._leftovers,
                    )
                    try:
                        result = await tried.start()
                    except TokenHubError as error:
                        if tried.refused:
                            machine.refused(error.fault)
                        else:
                            machine.failed(error.fault, self.means.clock.monotonic(), spare=tried.spare)
                        continue
                    machine.succeeded()
                    return result
                case _:
                    assert_never(step)

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn
