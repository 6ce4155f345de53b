"""The two benchmarks that need no servers: regret in a simulated fleet, and the CPU time of a plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scripts.benchmark import chart, regret
from scripts.benchmark.world import Floats
from tokenhub_core.routing import fleet
from tokenhub_core.routing.bandit import Bandit, propensities, sampled
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.learning import Average, Key, Learner, Measure
from tokenhub_core.routing.plan import plan
from tokenhub_core.types import Features, Fleet, Model, Policy, Prices, Provider, ProviderType, Standing

SIZES: Final = (10, 100, 1_000)
_CONTEXT: Final = "medium"
_NOW: Final = 1.8e9
_ROUNDS: Final = 7
_SMOOTH: Final = 2_000


def show_regret(place: Path, console: Console, *, count: int = regret.COUNT, seeds: int = 1) -> None:
    """Run every way over the same calls, print what each left on the table, and draw it into `place`.

    With several seeds each is a world of its own; the table has their means and standard deviations, the picture the
    first of them.
    """
    worlds = []
    with Progress(
        TextColumn("{task.description:<16}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as progress:
        tasks = {way: progress.add_task(way, total=count * seeds) for way in regret.WAYS}
        for seed in regret.SEEDS[:seeds]:
            cores = min(os.cpu_count() or 1, 4)
            worlds.append(
                regret.runs(count, seed, cores, lambda way, done: progress.advance(tasks[way], done))
            )
    _table(worlds, count, console)
    _draw(worlds[0], count, place)
    console.print(f"drawn into {place}")


def _table(worlds: Sequence[Mapping[str, regret.Run]], count: int, console: Console) -> None:
    happened = regret.events(count)
    seeds = ", ".join(map(str, regret.SEEDS[: len(worlds)]))
    table = Table(title=f"Regret over {count:,} calls, seeds {seeds}", title_justify="left")
    table.add_column("way")
    for name in ("whole", "a call", *(event.name for event in happened)):
        table.add_column(name, justify="right")
    for way in worlds[0]:
        sums = [float(world[way].regret.sum()) for world in worlds]
        after = [[regret.recovery(world[way].regret, event.at) for world in worlds] for event in happened]
        table.add_row(way, _spread(sums), f"{np.mean(sums) / count:.4f}", *map(_recoveries, after))
    console.print(table)
    console.print(
        "Under an event: calls after it until the next 1,000 had a mean regret below 0.03. `adversarial` chooses as"
        " `planning` does."
    )


def _spread(values: Sequence[float]) -> str:
    """Return the mean, and the standard deviation where there are several."""
    middle = f"{np.mean(values):,.0f}"
    return middle if len(values) == 1 else f"{middle} ± {np.std(values, ddof=1):,.0f}"


def _recoveries(calls: Sequence[int | None]) -> str:
    """Return the smallest and the largest; `never` where at least one was."""
    known = [count for count in calls if count is not None]
    if not known:
        return "never"
    low, high = f"{min(known):,}", f"{max(known):,}" if len(known) == len(calls) else "never"
    return low if low == high else f"{low} to {high}"


def _draw(found: Mapping[str, regret.Run], count: int, place: Path) -> None:
    happened = regret.events(count)
    parts = [
        chart.panel(
            "Regret in sum, in rewards (a call's is at most 1)",
            {way: np.cumsum(one.regret) for way, one in found.items()},
            happened,
        ),
        chart.panel(
            f"Regret a call, mean of {_SMOOTH:,}",
            {way: _smoothed(one.regret) for way, one in found.items()},
            happened,
        ),
    ]
    place.write_text(chart.panels(parts))


def _smoothed(values: Floats) -> Floats:
    """Return the mean of the calls before each one; the first ones share that of the first full window."""
    width = min(_SMOOTH, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.maximum(width, np.arange(1, len(values) + 1))
    result: Floats = (sums[ends] - sums[ends - width]) / width
    return result


def show_plan(console: Console) -> None:
    """Print the CPU time of a plan for fleets of each size: by score, with what was learned, and exploring."""
    table = Table(title="CPU time of plan(), microseconds", title_justify="left")
    for name in ("models", "score", "score, learned", "thompson, learned", "of it: drawing", "propensities"):
        table.add_column(name, justify="right")
    for size in SIZES:
        table.add_row(f"{size:,}", *(f"{value:,.0f}" for value in plan_costs(size)))
    console.print(table)


def plan_costs(size: int) -> tuple[float, ...]:
    """Return what a plan costs with a fleet of so many models, in microseconds of CPU time, median of seven rounds."""
    view, bandit, learner = stocked(size)
    standings = {name: Standing(True, False, 0.01, 300.0 + len(name)) for name in view.providers}
    ask, policy = Features(model="*", text_bytes=8_000, turns=4, max_output_tokens=800), Policy()
    arms = [(model.id, model.provider_id) for model in view.models]
    nothing = [0.0] * size
    bare = Circumstances(standings, lambda _: True)
    learned = Circumstances(standings, lambda _: True, learner, at=_NOW)
    explored = Circumstances(standings, lambda _: True, learner, bandit, at=_NOW)
    draws = bandit.draw(arms, _CONTEXT, penalties=nothing, seed="s", now=_NOW)
    alpha, beta = np.array([one.alpha for one in draws]), np.array([one.beta for one in draws])
    rounds = max(3, 1_000 // size)
    return tuple(
        _cpu(work, rounds)
        for work in (
            lambda: plan(view, ask, policy, now=bare, seed="s"),
            lambda: plan(view, ask, policy, now=learned, seed="s"),
            lambda: plan(view, ask, policy, now=explored, seed="s"),
            lambda: sampled(arms, *bandit.posteriors(arms, _CONTEXT, _NOW), "s"),
            lambda: propensities(alpha, beta, np.zeros(size)),
        )
    )


def _cpu(work: Callable[[], object], rounds: int) -> float:
    work()
    found = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(rounds):
            work()
        found.append((time.process_time() - began) / rounds * 1e6)
    return median(found)


def stocked(size: int) -> tuple[Fleet, Bandit, Learner]:
    """Return a fleet, and records of all its models that all differ."""
    random = np.random.default_rng(size)
    providers = [
        Provider(f"p{n}", ProviderType.VLLM, ("https://x.example",)) for n in range(max(3, size // 20))
    ]
    models = [
        Model(f"m{n}", providers[n % len(providers)].id, weight=n % 10, prices=Prices(100 + n, 400 + n))
        for n in range(size)
    ]
    bandit = Bandit()
    for reward in random.random((5, size)):
        for model, value in zip(models, reward.tolist(), strict=True):
            bandit.reward((model.id, model.provider_id), _CONTEXT, value, _NOW)
    known = [
        (Key(measure, model.id, subject), Average(mean, 0.1, 20))
        for model in models
        for measure, subject, mean in (
            (Measure.TOKENS, "prose", 0.22),
            (Measure.OUTPUT, "", 300.0),
            (Measure.TTFT, model.provider_id, 400.0),
            (Measure.PACE, model.provider_id, 12.0),
        )
    ]
    return fleet.build(providers, models, version=1), bandit, Learner(known)
