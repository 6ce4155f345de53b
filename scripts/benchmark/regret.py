"""Regret: how much reward each way of choosing leaves on the table in a simulated fleet, beside an oracle's choice.

Every way goes through the real parts: plans, health, the learner, rewards. A call whose first try fails goes on to
the next candidates, three at most, and each try teaches. The regret of a call is the oracle's expected reward less
that of the model which was tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from queue import Empty
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scripts.benchmark.world import (
    ARMS,
    FAILED_MS,
    IMPROVES,
    OUTAGES,
    PLACES,
    SECONDS_APART,
    Floats,
    World,
)
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.routing import estimate, scoring
from tokenhub_core.routing.bandit import DEFAULT, STILL, Bandit, Forgetting, context, sampled
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.learning import Learner
from tokenhub_core.routing.plan import plan
from tokenhub_core.routing.reward import Reward
from tokenhub_core.types import (
    Attempt,
    Caller,
    Dialect,
    Features,
    Mode,
    Outcome,
    Plan,
    Policy,
    Record,
    Usage,
)

COUNT: Final = 200_000
TUNED_ON: Final = 7
"""The seed that `bandit.Forgetting` was tuned on. No figure is reported of it."""
SEEDS: Final = (11, 12, 13, 14, 15)
"""Those of the report."""
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


class Chooser:
    """One way of choosing, with everything that it knows. Orders are made by `plan` itself."""

    def __init__(self, way: str, world: World, seed: int, forgetting: Forgetting = DEFAULT) -> None:
        self._way = way
        self._world = world
        self._random = np.random.default_rng(seed)
        self._health = HealthTracker()
        self._learner = Learner()
        self._bandit = Bandit(forgetting=forgetting)
        self._reward = Reward()
        self._policy = Policy(mode=Mode(way) if way in set(Mode) else Mode.NORMAL)

    def call(self, n: int) -> int:
        """Serve one call, learn from it, and return the model that was tried first."""
        now = n * SECONDS_APART
        if self._way == UNIFORM:
            return self._anyone(n)
        order, lone = self._order(n, now)
        attempts: list[Attempt] = []
        for model in order:
            if len(attempts) == TRIES or (attempts and not attempts[-1].cause):
                break
            if self._health.admit(ARMS[model][1], now) or lone:
                attempts.append(self._try(n, model, len(attempts) + 1, now))
        self._learn(n, tuple(attempts))
        return PLACES[attempts[0].model]

    def _anyone(self, n: int) -> int:
        """Return one of the models that can serve the call: nothing is learned by it."""
        able = np.flatnonzero(self._world.worth[n])
        return int(able[self._random.integers(len(able))])

    def _order(self, n: int, now: float) -> tuple[Sequence[int], bool]:
        """Return the models in the order in which they are to be tried, and whether the first is a lone one."""
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
        return [PLACES[one.model.id] for one in found.candidates], found.lone

    def _try(self, n: int, model: int, number: int, now: float) -> Attempt:
        world, (name, provider) = self._world, ARMS[model]
        if not world.answers[n, model]:
            self._health.failed(provider, _DOWN, now, started=now)
            return Attempt(number, name, provider, 0, FAILED_MS, cause="http_503", blame=Blame.PROVIDER.value)
        first, whole = float(world.first[n, model]), float(world.whole[n, model])
        self._health.succeeded(provider, now, first, started=now)
        usage = Usage(int(world.input[n]), int(world.output[n]))
        cost = int(world.costs[n, model])
        return Attempt(number, name, provider, 0, whole, first, 200, usage=usage, cost_nanousd=cost)

    def _learn(self, n: int, attempts: tuple[Attempt, ...]) -> None:
        last, features = attempts[-1], self._world.features(n)
        record = Record(
            id=str(n),
            at=float(self._world.at[n]),
            outcome=Outcome.ERROR if last.cause else Outcome.OK,
            status=503 if last.cause else 200,
            caller=_CALLER,
            method="POST",
            path="/",
            dialect=Dialect.OPENAI_CHAT,
            stream=True,
            attempts=attempts,
            plan=Plan(self._policy, (), (), 0, 0, "", features=features),
        )
        if self._way != THOMPSON:
            self._learner.learn(record)
            return  # rewards would change nothing here, nor estimates there
        kind = context(features, estimate.input_tokens(features))
        for model, provider, reward in self._reward.lessons(record):
            self._bandit.reward((model, provider), kind, reward, record.at)


class Quick(Chooser):
    """Makes the orders that `plan` makes, and nothing of what else a plan holds: several times faster.

    What a candidate's score is made of is kept in a row of numbers a model, and made anew by the same functions where
    something was learned of it. Health that only ages does so from one slot of ten seconds to the next. Where this
    cannot tell, at ties and with nobody healthy, `plan` is asked. A test holds both against each other.
    """

    def __init__(self, way: str, world: World, seed: int, forgetting: Forgetting = DEFAULT) -> None:
        super().__init__(way, world, seed, forgetting)
        size = len(ARMS)
        self._models = [world.fleet.by_id[name][0] for name, _ in ARMS]
        self._weights = scoring.WEIGHTS[self._policy.mode]
        self._prices = np.array([[one.prices.input, one.prices.output] for one in self._models])
        self._heavy = -self._weights.weight * (
            np.array([one.weight for one in self._models]) / max(one.weight for one in self._models)
        )
        self._open = np.ones(size, bool)
        self._errors, self._seen_ms = np.zeros(size), np.zeros(size)
        self._rates = np.full((2, size), 1 / estimate.BYTES_PER_TOKEN)
        self._lengths, self._times = np.full(size, float(estimate.DEFAULT_OUTPUT_TOKENS)), np.zeros(size)
        self._slot = -1

    def _order(self, n: int, now: float) -> tuple[Sequence[int], bool]:
        self._age(now)
        able = np.flatnonzero(self._world.able[n] & self._open)
        if not len(able):
            return super()._order(n, now)
        if self._way == THOMPSON:
            features = self._world.features(n)
            arms = [ARMS[model] for model in able]
            kind = context(features, estimate.input_tokens(features))
            alpha, beta = self._bandit.posteriors(arms, kind, float(self._world.at[n]))
            values = -sampled(arms, alpha, beta, f"{self._way}-{n}")
        else:
            values = self._scores(n, able)
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        if (ranked[1:] == ranked[:-1]).any():
            return super()._order(n, now)
        result: list[int] = able[order].tolist()
        return result, False

    def _scores(self, n: int, able: NDArray[np.intp]) -> Floats:
        """Return `scoring.total` of `scoring.weighed` of these models, in the same order of sums."""
        world, weights = self._world, self._weights
        tokens = np.ceil(world.text_bytes[n] * self._rates[int(world.tools[n])][able]) + _TURNS
        prices = self._prices[able]
        cost = np.rint(tokens * prices[:, 0] + self._lengths[able] * prices[:, 1])
        late, wrong = np.where(self._times > 0, self._times, self._seen_ms)[able], self._errors[able]
        heavy = self._heavy[able]
        if len(able) < len(ARMS):
            heaviest = max(self._models[model].weight for model in able)
            heavy = -weights.weight * (np.array([self._models[model].weight for model in able]) / heaviest)
        score: Floats = (
            weights.cost * _share(cost)
            + weights.latency * _share(late)
            + weights.failure * _share(wrong)
            + heavy
        )
        return score

    def _age(self, now: float) -> None:
        slot = int(now // 10)
        if slot != self._slot:
            self._slot = slot
            for model in range(len(ARMS)):
                self._look(model, now)
        else:
            for model in np.flatnonzero(~self._open).tolist():
                self._look(model, now)

    def _look(self, model: int, now: float) -> None:
        standing = self._health.standing(ARMS[model][1], now)
        self._open[model] = standing.available
        self._errors[model], self._seen_ms[model] = standing.error_rate, standing.latency_ms

    def _learn(self, n: int, attempts: tuple[Attempt, ...]) -> None:
        super()._learn(n, attempts)
        for attempt in attempts:
            model = PLACES[attempt.model]
            self._look(model, n * SECONDS_APART)
            if self._way != THOMPSON:
                self._measure(model)

    def _measure(self, model: int) -> None:
        """Read anew what is expected of a model; the length of its answers does not depend on the call."""
        one, learner = self._models[model], self._learner
        for row, kind in enumerate((estimate.Writing.PROSE, estimate.Writing.STRUCTURED)):
            rate = learner.tokens_per_byte(one.id, kind)
            self._rates[row, model] = 1 / estimate.BYTES_PER_TOKEN if rate is None else rate
        known = estimate.expected(_ANY, one, self._world.fleet.providers[one.provider_id], learner)
        self._lengths[model], self._times[model] = known.output_tokens, known.latency_ms


_TURNS: Final = estimate.TURN_TOKENS * 3
_ANY: Final = Features("*")
_CALLER: Final = Caller()


def _share(values: Floats) -> Floats:
    top = values.max()
    return values / top if top > 0 else np.zeros_like(values)


def run(
    way: str,
    count: int,
    seed: int,
    tell: Tell,
    *,
    forgetting: Forgetting = DEFAULT,
    kind: type[Chooser] = Quick,
) -> Run:
    """Serve `count` calls in one way."""
    world = World(count, seed)
    chooser = kind(way, world, seed, forgetting)
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
