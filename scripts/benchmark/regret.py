"""Regret: how much reward each way of choosing leaves on the table in a simulated fleet, beside an oracle's choice.

Every way goes through the real parts: plans, health, the learner, rewards. A call whose first try fails goes on to
the next candidates, three at most, and each try teaches. The regret of a call is the oracle's expected reward less
that of the model which was tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from queue import Empty
from typing import Final

import numpy as np

from scripts.benchmark.world import IMPROVES, OUTAGES, PLACES, SECONDS_APART, Floats, World
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.routing.bandit import STILL, Bandit
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.learning import Learner
from tokenhub_core.routing.plan import plan
from tokenhub_core.routing.reward import Reward
from tokenhub_core.types import (
    Attempt,
    Caller,
    Candidate,
    Dialect,
    Mode,
    Outcome,
    Plan,
    Policy,
    Record,
    Timings,
    Usage,
)

COUNT: Final = 200_000
SEED: Final = 7
TRIES: Final = 3
UNIFORM: Final = "uniform"
THOMPSON: Final = "thompson"
WAYS: Final = (THOMPSON, *(mode.value for mode in Mode if mode is not Mode.ADVERSARIAL), UNIFORM)
"""`adversarial` has the weights of `planning`."""

_STEP: Final = 500
_DOWN: Final = Fault(Kind.TRANSIENT, Blame.PROVIDER, "down", cause="http_503", upstream_status=503)

type Tell = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What one way of choosing came to: per call the regret, and the model that was tried first."""

    way: str
    regret: Floats
    first: Floats


class _Chooser:
    """One way of choosing, with everything that it knows."""

    def __init__(self, way: str, world: World, seed: int) -> None:
        self._way = way
        self._world = world
        self._random = np.random.default_rng(seed)
        self._health = HealthTracker()
        self._learner = Learner()
        self._bandit = Bandit()
        self._reward = Reward()
        self._policy = Policy(mode=Mode(way) if way in set(Mode) else Mode.NORMAL)

    def call(self, n: int) -> int:
        """Serve one call, learn from it, and return the model that was tried first."""
        now = n * SECONDS_APART
        if self._way == UNIFORM:
            return self._anyone(n)
        found = self._plan(n, now)
        attempts: list[Attempt] = []
        for candidate in found.candidates:
            if len(attempts) == TRIES or (attempts and not attempts[-1].cause):
                break
            if self._health.admit(candidate.provider.id, now) or found.lone:
                attempts.append(self._try(n, candidate, len(attempts) + 1, now))
        self._learn(n, found, tuple(attempts))
        return PLACES[attempts[0].model]

    def _anyone(self, n: int) -> int:
        """Return one of the models that can serve the call: nothing is learned by it."""
        able = np.flatnonzero(self._world.worth[n])
        return int(able[self._random.integers(len(able))])

    def _plan(self, n: int, now: float) -> Plan:
        world, standing = self._world, self._health.standing
        found = plan(
            world.fleet,
            world.features(n),
            self._policy,
            now=Circumstances(
                {name: standing(name, now) for name in world.fleet.providers},
                lambda _: True,
                estimates=self._learner,
                explorer=self._bandit if self._way == THOMPSON else STILL,
                at=float(world.at[n]),
            ),
            seed=f"{self._way}-{n}",
        )
        assert isinstance(found, Plan)
        return found

    def _try(self, n: int, candidate: Candidate, number: int, now: float) -> Attempt:
        world, model = self._world, PLACES[candidate.model.id]
        name, provider = candidate.model.id, candidate.provider.id
        if not world.answers[n, model]:
            self._health.failed(provider, _DOWN, now, started=now)
            return Attempt(number, name, provider, 0, 200, cause="http_503", blame=Blame.PROVIDER.value)
        first, whole = float(world.first[n, model]), float(world.whole[n, model])
        self._health.succeeded(provider, now, first, started=now)
        usage = Usage(int(world.input[n]), int(world.output[n]))
        cost = int(world.costs[n, model])
        return Attempt(number, name, provider, 0, whole, first, 200, usage=usage, cost_nanousd=cost)

    def _learn(self, n: int, found: Plan, attempts: tuple[Attempt, ...]) -> None:
        last = attempts[-1]
        record = Record(
            id=str(n),
            at=float(self._world.at[n]),
            outcome=Outcome.ERROR if last.cause else Outcome.OK,
            status=503 if last.cause else 200,
            caller=Caller(),
            method="POST",
            path="/",
            dialect=Dialect.OPENAI_CHAT,
            stream=True,
            attempts=attempts,
            plan=found,
            timings=Timings(),
        )
        self._learner.learn(record)
        if self._way != THOMPSON:
            return  # rewards would change nothing here
        for model, provider, reward in self._reward.lessons(record):
            self._bandit.reward((model, provider), found.context, reward, record.at)


def run(way: str, count: int, seed: int, tell: Tell) -> Run:
    """Serve `count` calls in one way."""
    world = World(count, seed)
    chooser = _Chooser(way, world, seed)
    regret, first = np.zeros(count), np.zeros(count)
    for n in range(count):
        model = chooser.call(n)
        worth = world.worth[n]
        regret[n], first[n] = worth.max() - worth[model], model
        if n % _STEP == _STEP - 1:
            tell(way, _STEP)
    return Run(way, regret, first)


class _Line:
    """Where the workers of a pool tell how far they are; made once in each process."""

    queue: Queue[tuple[str, int]] | None = None

    @classmethod
    def join(cls, queue: Queue[tuple[str, int]]) -> None:
        cls.queue = queue


def _worker(way: str, count: int, seed: int) -> Run:
    queue = _Line.queue
    assert queue is not None
    return run(way, count, seed, lambda name, done: queue.put((name, done)))


def runs(count: int, seed: int, cores: int, tell: Tell) -> Mapping[str, Run]:
    """Serve the same calls in every way, several ways at once."""
    context = get_context("spawn")
    queue: Queue[tuple[str, int]] = context.Queue()
    with ProcessPoolExecutor(cores, context, _Line.join, (queue,)) as pool:
        jobs = {way: pool.submit(_worker, way, count, seed) for way in WAYS}
        left = len(WAYS) * (count // _STEP)
        while left:
            if any(job.done() and job.exception() for job in jobs.values()):
                break
            try:
                tell(*queue.get(timeout=1))
                left -= 1
            except Empty:
                continue
        return {way: job.result() for way, job in jobs.items()}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to the fleet, and from which call on."""

    name: str
    at: int
    until: int


def events(count: int) -> tuple[Event, ...]:
    """Return the improvement and the outages of a run."""
    name, begin, _, _ = IMPROVES
    found = [Event(f"{name} improves", int(begin * count), count)]
    found += [Event(f"{down} down", int(start * count), int(end * count)) for down, start, end in OUTAGES]
    return tuple(sorted(found, key=lambda event: event.at))


def recovery(regret: Floats, at: int, *, window: int = 1_000, bar: float = 0.03) -> int | None:
    """Return after how many calls the mean regret of the `window` calls that follow is below the bar; None: never."""
    sums = np.concatenate([[0.0], np.cumsum(regret[at:])])
    means = (sums[window:] - sums[:-window]) / window
    below = np.flatnonzero(means < bar)
    return int(below[0]) if len(below) else None
