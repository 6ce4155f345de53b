"""The benchmark of off-policy estimates: its truths, and small runs of the real thing."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from scripts.benchmark import coverage
from scripts.benchmark.coverage import ALIAS, LOGGERS, MIXED, THOMPSON
from scripts.benchmark.world import PLACES, World
from tokenhub_core.routing.offpolicy import FLOOR


def test_the_truth_is_what_outcomes_are_on_average() -> None:
    """Over many calls every model's mean reward, cost and time lie where the world says."""
    world = World(20_000, 3)
    known = coverage.expected(world)
    rows = np.arange(world.count)
    for model in (PLACES["glacier"], PLACES["atlas-xl"], PLACES["dune-8b"]):
        came = coverage.seen(world, rows, np.full(world.count, model))
        for name in coverage.OUTCOMES:
            error = came[name].std() / np.sqrt(world.count)
            assert came[name].mean() == pytest.approx(known[name][:, model].mean(), abs=5 * error)


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_log_holds_the_propensities_that_it_was_written_with(logger: str) -> None:
    """They add up to 1 a call, and over all calls each model was chosen as often as they say."""
    log = coverage.written(logger, 2_000, 1)
    assert log.propensities.sum(axis=1) == pytest.approx(1)
    shares = np.bincount(log.chosen, minlength=len(PLACES)) / 2_000
    assert shares == pytest.approx(log.propensities.mean(axis=0), abs=0.04)


def test_a_run_can_be_repeated() -> None:
    """The same seed, the same log and the same figures."""
    assert coverage.judged(THOMPSON, 300, 5) == coverage.judged(THOMPSON, 300, 5)


def test_what_must_be_refused_is_refused() -> None:
    """A model that the log never held, whatever its length, and every model that it hardly held in a short one."""
    for size in (300, 3_000):
        refused = {one.target: one.refused for one in coverage.judged(ALIAS, size, 1)}
        assert refused["atlas-xl"]
        assert not refused["the cheapest"]
    assert {one.target: one.refused for one in coverage.judged(MIXED, 300, 1)}["glacier"]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """In forty logs of a thousand calls: so far from 95 % that chance alone would be one in ten thousand is wrong."""
    results = [one for seed in range(40) for one in coverage.judged(MIXED, 1_000, seed)]
    rows = {row.target: row for row in coverage.rows(results)}
    held = rows["any"].coverage
    assert all(held["reward", name] >= 0.82 for name in coverage.ESTIMATORS)
    assert abs(rows["any"].bias["reward", "dr"]) < 0.01
    assert rows["any"].width["reward", "dr"] < 0.7 * rows["any"].width["reward", "ips"]


def test_the_table_names_every_policy() -> None:
    """Also those of which nothing can be said."""
    console = Console(record=True, width=160)
    coverage.show(coverage.judged(ALIAS, 300, 1), console)
    said = console.export_text()
    assert "atlas-xl" in said
    assert "100%" in said
    assert FLOOR < 0.05
