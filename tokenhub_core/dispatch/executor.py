"""The shell around the failover machine: it does what the machine says and tells it what came of it."""

from __future__ import annotations

import asyncio
import math
from typing import assert_never

from msgspec import structs

from tokenhub_core.dispatch.attempt import Attempting
from tokenhub_core.dispatch.checking import checked
from tokenhub_core.dispatch.failover import Failover, GiveUp, Try, Wait
from tokenhub_core.dispatch.job import CANCELLED, OUTRUN, Hedging, Job, Live, Means, Patience, Trace, Whole
from tokenhub_core.dispatch.leftovers import Leftovers
from tokenhub_core.dispatch.resuming import Resuming, resumable
from tokenhub_core.dispatch.seams import RESUMED
from tokenhub_core.dispatch.streaming import Stream
from tokenhub_core.errors import Fault, TokenHubError
from tokenhub_core.routing import deadlines


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
        """Return the answer of the first candidate that gives one; raises `TokenHubError` when none does.

        An answer that has to fit is returned once it does; see `checking`.
        """
        if job.check is None:
            return await self._run(job, trace)
        return await checked(self._run, job, job.check, trace)

    async def _run(self, job: Job, trace: Trace) -> Whole | Live:
        if not resumable(job):
            return await self._failover(job, trace)
        job = structs.replace(job, resumable=True)
        result = await self._failover(job, trace)
        if not isinstance(result, Stream):
            return result
        sign = self.means.dialects[job.request.dialect].keep_alive(job.request)
        return Resuming(self._failover, job, trace, result, sign=sign, tick=self.patience.tick)

    async def _failover(self, job: Job, trace: Trace) -> Whole | Live:
        hedging = self.means.hedging if _hedged(job) else None
        machine = Failover(
            job.plan,
            limits=job.limits,
            retries=self.means.retries,
            started=job.snapshot.started,
            max_output_tokens=job.request.features.max_output_tokens,
            hedges=hedging.share if hedging is not None else None,
            issued=0 if job.begun is None else max(one.n for one in trace.attempts),
        )
        while True:
            step = machine.next(self.means.clock.monotonic(), self.means.random())
            match step:
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case GiveUp(fault):
                    raise TokenHubError(fault)
                case Try():
                    wait = None if hedging is None else _until_slow(hedging, job, machine, step)
                    if wait is None:
                        result = await self._lone(machine, self.attempt(job, trace, step))
                    else:
                        result = await self._raced(machine, job, trace, step, wait)
                    if result is not None:
                        return result
                case _:
                    assert_never(step)

    def attempt(self, job: Job, trace: Trace, step: Try) -> Attempting:
        """Return an attempt that is still to be started."""
        self._turn += 1
        if job.begun is not None:
            step = structs.replace(step, change=RESUMED)
        patience = self.patience
        if job.request.features.stream and (patience.learns or patience.own):
            patience = _suited(patience, self.means, job.plan.input_tokens, step)
        return Attempting(self.means, patience, job, trace, step, turn=self._turn, after=self._leftovers)

    async def _lone(self, machine: Failover, tried: Attempting) -> Whole | Live | None:
        """Return the attempt's answer; None, and the machine told, where it has failed."""
        try:
            result = await tried.start()
        except TokenHubError as error:
            self._tell(machine, tried, error.fault)
            return None
        machine.succeeded(tried.n)
        return result

    def _tell(self, machine: Failover, tried: Attempting, fault: Fault) -> None:
        if tried.refused:
            machine.refused(fault, tried.n)
        else:
            machine.failed(fault, self.means.clock.monotonic(), tried.n, spare=tried.spare)

    async def _raced(
        self, machine: Failover, job: Job, trace: Trace, step: Try, wait: float
    ) -> Whole | Live | None:
        """Return the answer of this try or of its hedge, whichever comes first; None where both have failed.

        The hedge is sent after `wait` seconds without an answer, if the machine has one. Whatever is still running
        in the end is accounted for before this returns, and cancelled.
        """
        running: dict[asyncio.Task[Whole | Live], Attempting] = {}
        pause: float | None = wait
        # Why what is left over in the end was given up: as long as nobody has answered it is the caller who left.
        left = CANCELLED
        self._begin(running, self.attempt(job, trace, step))
        try:
            while running and not machine.over:
                done, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                second = machine.hedge(self.means.clock.monotonic()) if not done else None
                if second is not None:
                    self._begin(running, self.attempt(job, trace, second))
                pause = None
                for task in [one for one in running if one in done]:
                    tried = running.pop(task)
                    try:
                        result = task.result()
                    except TokenHubError as error:
                        self._tell(machine, tried, error.fault)
                        continue
                    machine.succeeded(tried.n)
                    left = OUTRUN
                    trace.hedged = tried.n != step.n and bool(running)
                    tried.won()
                    return result
            left = OUTRUN
            return None
        finally:
            for task, tried in running.items():
                tried.abandon(left)
                self._leftovers.end(tried, task)

    def _begin(self, running: dict[asyncio.Task[Whole | Live], Attempting], tried: Attempting) -> None:
        running[asyncio.create_task(tried.start(), name=f"attempt {tried.n}")] = tried


def _hedged(job: Job) -> bool:
    """Tell whether the call is one that may be hedged.

    Only streams are: they show when an answer begins. How long a whole answer takes is mostly how long it is, so one
    that is late would be as late again from somebody else, and both would be paid in full. What a conversation is
    locked to stays where it is: slow is no failure. The rest of an answer that broke off is written to one place.
    """
    bond = job.plan.bond
    free = bond is None or not bond.lock
    begins = job.request.features.stream and job.begun is None
    return job.plan.policy.hedge is not None and begins and free


def _suited(patience: Patience, means: Means, tokens: int, step: Try) -> Patience:
    """Return the patience with a stream of this try's model: the operator's word, else what was learned.

    What was learned of beginnings only sends a call on to another provider; where none is left it is waited for as
    ever. A silence behind the first content ends the stream wherever it is.
    """
    model, provider = step.candidate.model.id, step.candidate.provider.id
    rule = deadlines.own(patience.own, model, provider)
    ttft, stall, silence = patience.ttft, patience.stall, math.inf
    if rule is not None and rule.stall is not None:
        stall = rule.stall
    elif patience.stall_floor is not None and means.silences is not None:
        known = max(patience.stall_floor, means.silences(model, provider))
        silence = known if known < stall else math.inf
    if rule is not None and rule.ttft is not None:
        ttft = rule.ttft
    elif patience.floor is not None and means.learned is not None and step.others:
        ttft = deadlines.limit(means.learned(model, provider), tokens, floor=patience.floor, most=ttft)
    if (ttft, stall, silence) == (patience.ttft, patience.stall, patience.silence):
        return patience
    suited = ttft != patience.ttft
    return structs.replace(patience, ttft=ttft, stall=stall, silence=silence, suited=suited)


def _until_slow(hedging: Hedging, job: Job, machine: Failover, step: Try) -> float | None:
    """Return the seconds after which a try without an answer is slow; None where it is not to be hedged."""
    quantile = job.plan.policy.hedge
    if quantile is None or not machine.hedgeable():
        return None
    after = hedging.after(step.candidate.model.id, step.candidate.provider.id, quantile)
    return None if after is None else after / 1000
