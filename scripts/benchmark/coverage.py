"""Off-policy estimates against a truth that is known: how often the 95 % intervals hold it.

Many independent logs of the simulated world are written by policies of known propensities, one of them Thompson
sampling that learns while it writes. What other policies would have been worth is estimated from each log, and
compared with the expectation over the very same calls, which the world knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final

import numpy as np
from numpy.polynomial.hermite import hermgauss
from rich.console import Console
from rich.table import Table

from scripts.benchmark.world import (
    ARMS,
    DEAR_NANOUSD,
    FAILED_MS,
    HORIZON_MS,
    NOISE,
    PLACES,
    TRUTHS,
    Floats,
    World,
)
from tokenhub_core.routing.bandit import Bandit, context, propensities
from tokenhub_core.routing.estimate import BYTES_PER_TOKEN
from tokenhub_core.routing.experiment import Figure
from tokenhub_core.routing.offpolicy import FLOOR, Estimates, Evaluation, Ints, Sample

SIZES: Final = (300, 1_000, 3_000)
LOGS: Final = 100
SEED: Final = 1_000
ALIAS: Final = "alias 80/15/5"
MIXED: Final = "half one, half any"
THOMPSON: Final = "thompson"
LOGGERS: Final = (ALIAS, MIXED, THOMPSON)
OUTCOMES: Final = ("reward", "cost", "latency")
ESTIMATORS: Final = ("ips", "snips", "dr", "difference")

_SHARES: Final = {"atlas-mini": 0.80, "glacier": 0.15, "cirrus": 0.05}
_BATCH: Final = 50
"""Calls between two lessons of the policy that learns: answers take their time."""
_NODES: Final = 24


@dataclass(frozen=True, slots=True)
class Log:
    """What a policy did in a world, and what every choice would have come to on average. A row a call."""

    world: World
    contexts: Ints
    chosen: Ints
    propensities: Floats
    """Of every model."""
    expected: dict[str, Floats]
    seen: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Result:
    """What one log said of one target: whether it refused, and by outcome and estimator the figure and the truth."""

    logger: str
    size: int
    target: str
    refused: bool
    figures: dict[tuple[str, str], tuple[Figure, float]]


def expected(world: World) -> dict[str, Floats]:
    """Return the expectation of each outcome of each model; that of the time's cut-off by Gauss and Hermite."""
    points, weights = hermgauss(_NODES)
    late = np.zeros(world.worth.shape)
    for point, weight in zip(points, weights / np.sqrt(np.pi), strict=True):
        late += weight * np.minimum(world.expected_ms * np.exp(np.sqrt(2) * NOISE * point) / HORIZON_MS, 1)
    value = 0.3 * (1 - np.minimum(world.costs / DEAR_NANOUSD, 1)) + 0.3 * (1 - late) + 0.4
    time = world.expected_ms * np.exp(NOISE**2 / 2)
    return {
        "reward": world.rates * value,
        "cost": world.rates * world.costs / 1e9,
        "latency": world.rates * time + (1 - world.rates) * FAILED_MS,
    }


def seen(world: World, rows: Ints, chosen: Ints) -> dict[str, Floats]:
    """Return what came of the choices that were made in these calls."""
    answered = world.answers[rows, chosen]
    cost, time = world.costs[rows, chosen], world.whole[rows, chosen]
    value = 0.3 * (1 - np.minimum(cost / DEAR_NANOUSD, 1)) + 0.3 * (1 - np.minimum(time / HORIZON_MS, 1))
    return {
        "reward": answered * (value + 0.4),
        "cost": answered * cost / 1e9,
        "latency": np.where(answered, time, FAILED_MS),
    }


def written(logger: str, size: int, seed: int) -> Log:
    """Return a log of so many calls."""
    world = World(size, seed)
    random = np.random.default_rng([seed, size, LOGGERS.index(logger)])
    kinds = [context(world.features(n), int(world.text_bytes[n]) // BYTES_PER_TOKEN) for n in range(size)]
    names, contexts = np.unique(kinds, return_inverse=True)
    if logger == THOMPSON:
        chosen, shares = _explored(world, names.tolist(), contexts, random)
    else:
        shares = _alias(world) if logger == ALIAS else _mixed(world)
        chosen = _drawn(shares, random)
    return Log(world, contexts, chosen, shares, expected(world), seen(world, np.arange(size), chosen))


def targets(world: World) -> dict[str, Floats]:
    """Return policies that were not followed: for each the probability of every model, call by call."""
    size = len(TRUTHS)
    prices = np.where(world.able, world.costs, np.inf)
    usual = np.where(world.able, [truth.success for truth in TRUTHS], 0)
    return {
        "the cheapest": np.eye(size)[prices.argmin(axis=1)],
        "the surest below 1 cent": np.eye(size)[np.where(world.costs < 1e7, usual, 0).argmax(axis=1)],
        "glacier": _one(world, "glacier"),
        "cirrus": _one(world, "cirrus"),
        "glacier or atlas-mini": (_one(world, "glacier") + _one(world, "atlas-mini")) / 2,
        "any": world.able / world.able.sum(axis=1, keepdims=True),
        "atlas-xl": _one(world, "atlas-xl"),
    }


def judged(logger: str, size: int, seed: int) -> list[Result]:
    """Write a log and return what it says of every target."""
    log = written(logger, size, seed)
    return [_judged(log, logger, name, shares) for name, shares in targets(log.world).items()]


def runs(
    logs: int, cores: int, tell: Callable[[int, int, str], None], sizes: Sequence[int] = SIZES
) -> list[Result]:
    """Judge `logs` logs of every policy and size, several at once; the same seeds give the same results."""
    jobs = [(logger, size, SEED + number) for size in sizes for logger in LOGGERS for number in range(logs)]
    found: list[Result] = []
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        parts = [jobs[begin : begin + _CHUNK] for begin in range(0, len(jobs), _CHUNK)]
        waiting = {pool.submit(_part, part): len(part) for part in parts}
        done = 0
        for ready in as_completed(waiting):
            found += ready.result()
            done += waiting[ready]
            tell(done, len(jobs), "logs")
    return found


_CHUNK: Final = 10


def _part(jobs: Sequence[tuple[str, int, int]]) -> list[Result]:
    return [one for job in jobs for one in judged(*job)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; the figures are of those logs that did not refuse."""

    logger: str
    target: str
    size: int
    refused: float
    coverage: dict[tuple[str, str], float]
    bias: dict[tuple[str, str], float]
    width: dict[tuple[str, str], float]


def rows(results: Sequence[Result]) -> Iterator[Row]:
    """Return the table, by policy that was followed, target and size."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for one in results:
        groups.setdefault((one.logger, one.target, one.size), []).append(one)
    for (logger, target, size), group in sorted(groups.items(), key=lambda item: item[0]):
        told = [one.figures for one in group if not one.refused]
        coverage, bias, width = {}, {}, {}
        for key in told[0] if told else ():
            found = [one[key] for one in told]
            coverage[key] = float(np.mean([_holds(figure, truth) for figure, truth in found]))
            bias[key] = float(np.mean([figure.value - truth for figure, truth in found]))
            width[key] = float(np.mean([(figure.high or 0) - (figure.low or 0) for figure, _ in found]))
        refused = float(np.mean([one.refused for one in group]))
        yield Row(logger, target, size, refused, coverage, bias, width)


def show(results: Sequence[Result], console: Console) -> None:
    """Print how often the intervals held the truth, how wide those of the reward were, and how often none was given."""
    table = Table(title="95 % intervals that held the truth, %", title_justify="left")
    for name in ("followed", "target", "calls", "refused", *_COLUMNS, "width IPS", "width DR", "bias DR"):
        table.add_column(name, justify="left" if name in {"followed", "target"} else "right")
    for row in rows(results):
        held = [row.coverage.get(key) for key in _COLUMNS.values()]
        more = [row.width.get(("reward", name)) for name in ("ips", "dr")]
        table.add_row(
            *(row.logger, row.target, f"{row.size:,}", f"{row.refused:.0%}"),
            *("" if share is None else f"{100 * share:.1f}" for share in held),
            *("" if value is None else f"{value:.3f}" for value in (*more, row.bias.get(("reward", "dr")))),
        )
    console.print(table)


_COLUMNS: Final = {
    "reward IPS": ("reward", "ips"),
    "SNIPS": ("reward", "snips"),
    "DR": ("reward", "dr"),
    "DR - logged": ("reward", "difference"),
    "cost DR": ("cost", "dr"),
    "latency DR": ("latency", "dr"),
}


def _holds(figure: Figure, truth: float) -> bool:
    return figure.low is not None and figure.high is not None and figure.low <= truth <= figure.high


def _judged(log: Log, logger: str, target: str, shares: Floats) -> Result:
    held = np.where(log.propensities >= FLOOR, shares, 0.0)
    rows, arms = np.nonzero(held)
    size = log.world.count
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))])
    own = log.propensities[np.arange(size), log.chosen]
    sample = Sample(log.contexts, log.chosen, own, starts, arms, held[rows, arms])
    evaluation = Evaluation(sample)
    if evaluation.refusal:
        return Result(logger, size, target, True, {})
    mass = held.sum(axis=1)
    figures = {}
    for outcome in OUTCOMES:
        estimates = evaluation.of(log.seen[outcome])
        assert isinstance(estimates, Estimates)
        value = log.expected[outcome]
        truth = float((held * value).sum() / mass.sum())
        before = float((mass * (log.propensities * value).sum(axis=1)).sum() / mass.sum())
        for name in ESTIMATORS:
            figures[outcome, name] = getattr(estimates, name), truth - before * (name == "difference")
    return Result(logger, size, target, False, figures)


def _one(world: World, name: str) -> Floats:
    shares = np.zeros(world.worth.shape)
    shares[:, PLACES[name]] = 1.0
    return shares


def _alias(world: World) -> Floats:
    shares = np.zeros(world.worth.shape)
    for name, share in _SHARES.items():
        shares[:, PLACES[name]] = share
    return shares


def _mixed(world: World) -> Floats:
    found: Floats = _one(world, "atlas-mini") / 2 + world.able / world.able.sum(axis=1, keepdims=True) / 2
    return found


def _drawn(shares: Floats, random: np.random.Generator) -> Ints:
    """Return one model a call, by its probabilities."""
    points = random.random(len(shares))[:, None] * shares.sum(axis=1, keepdims=True)
    return (shares.cumsum(axis=1) < points).sum(axis=1)


def _explored(
    world: World, names: Sequence[str], contexts: Ints, random: np.random.Generator
) -> tuple[Ints, Floats]:
    """Return the choices of Thompson sampling and its propensities, as they are recorded with decisions."""
    bandit = Bandit()
    chosen, shares = np.zeros(world.count, np.int64), np.zeros(world.worth.shape)
    for begin in range(0, world.count, _BATCH):
        batch = np.arange(begin, min(begin + _BATCH, world.count))
        for place, name in enumerate(names):
            rows = batch[contexts[batch] == place]
            if not len(rows):
                continue
            able = np.flatnonzero(world.able[rows[0]])
            arms = [ARMS[model] for model in able]
            alpha, beta = bandit.posteriors(arms, name, float(world.at[begin]))
            values = random.beta(alpha, beta, (len(rows), len(able)))
            chosen[rows] = able[values.argmax(axis=1)]
            shares[np.ix_(rows, able)] = propensities(alpha, beta, np.zeros(len(able)))
        rewards = seen(world, batch, chosen[batch])["reward"]
        for row, reward in zip(batch.tolist(), rewards.tolist(), strict=True):
            bandit.reward(ARMS[chosen[row]], names[contexts[row]], reward, float(world.at[row]))
    return chosen, shares
