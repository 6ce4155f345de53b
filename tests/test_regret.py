"""The regret benchmark: its world, its measures, its picture, and a very small run of the real thing."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from scripts.benchmark import chart, regret, rehearsals
from scripts.benchmark.world import IMPROVES, OUTAGES, PLACES, World

COUNT = 1_500


def ignore(way: str, done: int) -> None:
    del way, done


def test_the_world_follows_from_its_seed() -> None:
    """The same calls and the same luck for whoever chooses, and another seed gives another world."""
    one, same, other = World(COUNT, 7), World(COUNT, 7), World(COUNT, 8)
    assert (one.answers == same.answers).all()
    assert (one.worth == same.worth).all()
    assert (one.answers != other.answers).any()


def test_what_happens_to_the_fleet_is_in_the_truth() -> None:
    """A model that is down is worth next to nothing, and the one that improves is worth more than before."""
    world = World(COUNT, 7)
    words = ~world.tools
    for name, begin, end in OUTAGES:
        during = slice(int(begin * COUNT) + 1, int(end * COUNT))
        assert world.worth[during, PLACES[name]].max() < 0.02
    name, begin, _, _ = IMPROVES
    turn = int(begin * COUNT)
    assert world.worth[:turn, PLACES[name]][words[:turn]].max() < 0.6
    assert world.worth[turn + 1 : turn + 200, PLACES[name]].min() > 0.8


def test_learning_leaves_less_on_the_table_than_chance() -> None:
    """Even in so few calls; nobody beats the oracle."""
    thompson = regret.run(regret.THOMPSON, COUNT, 7, ignore)
    uniform = regret.run(regret.UNIFORM, COUNT, 7, ignore)
    assert thompson.regret.min() >= 0
    assert thompson.regret.mean() < 0.7 * uniform.regret.mean()


def test_a_run_can_be_repeated() -> None:
    """The same seed gives the same choices, exploring included."""
    first, second = (regret.run(regret.THOMPSON, 300, 7, ignore) for _ in range(2))
    assert (first.first == second.first).all()


@pytest.mark.parametrize("way", [way for way in regret.WAYS if way != regret.UNIFORM])
def test_the_quick_orders_are_those_of_plan(way: str) -> None:
    """Call after call the same model first, through outages, drift and everything that is learned on the way."""
    quick, real = (regret.run(way, 400, 11, ignore, kind=kind) for kind in (regret.Quick, regret.Chooser))
    assert (quick.first == real.first).all()


def test_no_figure_is_reported_of_the_seed_that_was_tuned_on() -> None:
    """Whoever tunes on what he reports flatters himself."""
    assert regret.TUNED_ON not in regret.SEEDS


def test_recovery_is_when_the_regret_stays_low() -> None:
    """Counted from the event to the first window that is good; None where none is."""
    values = np.concatenate([np.zeros(100), np.ones(50), np.zeros(100)])
    assert regret.recovery(values, 100, window=10, bar=0.05) == 50
    assert regret.recovery(values, 0, window=10, bar=0.05) == 0
    assert regret.recovery(np.ones(50), 0, window=10, bar=0.05) is None


def test_the_picture_is_well_formed_and_names_every_line() -> None:
    """An SVG that any browser reads."""
    lines = {"one <way>": np.arange(500.0), "another": np.ones(500)}
    events = regret.events(500)
    picture = ET.fromstring(chart.panels([chart.panel("Title & more", lines, events)]))
    words = " ".join(element.text or "" for element in picture.iter() if element.tag.endswith("text"))
    assert "one <way>" in words
    assert "Title & more" in words
    assert all(event.name in words for event in events)
    assert len([one for one in picture.iter() if one.tag.endswith("polyline")]) == 2


def test_all_ways_run_side_by_side_and_are_drawn(tmp_path: Path) -> None:
    """The whole command over a few calls: a table with every way, and the picture."""
    console = Console(record=True, width=160)
    rehearsals.show_regret(tmp_path / "regret.svg", console, count=500, seeds=2)
    said = console.export_text()
    assert "seeds 11, 12" in said
    assert "±" in said
    assert all(way in said for way in regret.WAYS)
    assert (tmp_path / "regret.svg").read_text().startswith("<svg")


def test_the_cost_of_a_plan_is_measured_for_every_part() -> None:
    """Five figures, all above nothing."""
    assert all(value > 0 for value in rehearsals.plan_costs(10))
