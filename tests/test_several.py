"""The benchmark of several models on one question: what is simulated, what is counted, and what is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from scripts.benchmark import chart, several
from scripts.benchmark.several import Found
from tokenhub_core.orchestration.asks import Goal, Way, Wishes

COUNT = 400


def ignore(done: int, total: int, what: str) -> None:
    del done, total, what


def alone(model: str) -> Found:
    return several.run(model, Goal(Way.PLANNING, "", primary=Wishes(model=model)), COUNT)


def test_a_model_alone_is_as_good_and_as_dear_as_it_is() -> None:
    """Who has more skill is right more often, and one question costs one answer at the model's own prices."""
    best, worst = alone("atlas-xl"), alone("atlas-mini")
    assert best.quality > worst.quality + 0.1
    assert set(worst.nanousd) == {several.QUESTION * 150 + several.ANSWER * 600}
    assert best.steps == 1


def test_every_way_is_asked_the_same_questions() -> None:
    """The same seed gives the same answers, and another seed others."""
    goal = several.ways()["vote"]
    one, same = (several.run("vote", goal, 200) for _ in range(2))
    other = several.run("vote", goal, 200, seed=several.SEED + 1)
    assert (one.right == same.right).all()
    assert (one.nanousd == same.nanousd).all()
    assert (one.right != other.right).any()


def test_a_mode_costs_what_its_steps_cost() -> None:
    """Of a vote that needs a judge four steps are paid, of one that agrees as many as voted."""
    found = several.run("vote", several.ways()["vote"], COUNT)
    assert 3 < found.steps < 4
    prices = sorted(set(found.nanousd))
    assert len(prices) > 1
    assert prices[0] > 0


def test_a_judge_that_sees_nothing_takes_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chances of the one who judges decide a vote: with nobody's eyes it gets worse than with the judge's."""
    goal = several.ways()["vote"]
    good = several.run("vote", goal, COUNT).quality
    monkeypatch.setattr(several, "EASIER", -50.0)
    blind = several.run("vote", goal, COUNT).quality
    assert blind < good - 0.05


def test_what_is_worth_its_money_has_nothing_as_good_below_its_price() -> None:
    """Of two that are right as often only the cheaper one is."""

    def found(way: str, share: float, nanousd: float) -> Found:
        return Found(way, True, np.array([share]), np.array([nanousd]), 1)

    cheap, equal, better, worse = (
        found("a", 0.5, 1),
        found("b", 0.5, 2),
        found("c", 0.8, 3),
        found("d", 0.7, 4),
    )
    assert [one.way for one in several.frontier([worse, better, equal, cheap])] == ["a", "c"]


def test_all_ways_are_told_and_drawn(tmp_path: Path) -> None:
    """The whole command over a few questions: a row and a point a way."""
    console = Console(record=True, width=160)
    several.show(tmp_path / "modes.svg", console, ignore, count=40)
    said = console.export_text()
    assert all(way in said for way in several.ways())
    picture = ET.parse(tmp_path / "modes.svg").getroot()
    assert len([one for one in picture.iter() if one.tag.endswith("circle")]) == len(several.ways())


def test_a_point_stands_where_its_figures_say() -> None:
    """The cheapest to the left, the best above, and named first."""
    picture = ET.fromstring(chart.panels([chart.scatter("t", [("a", 1, 50, True), ("b", 100, 80, False)])]))
    b, a = (one.attrib for one in picture.iter() if one.tag.endswith("circle"))
    assert float(a["cx"]) < float(b["cx"])
    assert float(a["cy"]) > float(b["cy"])
    assert a["fill"] != b["fill"]
