"""What logged calls add up to under another policy, and what is said of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from tests.routing.entries import entry
from tests.routing.test_replay import FLEET, ground, logged
from tokenhub_core.errors import Blame
from tokenhub_core.routing.offpolicy import FEWEST
from tokenhub_core.routing.rehearsal import Rehearsal, Report, sentences
from tokenhub_core.routing.replay import AsLogged, Today, Wish
from tokenhub_core.store.rows import attempts_json
from tokenhub_core.types import Alias, Attempt, Json, Mode, Target

import orjson  # isort: skip


def came(row: Json, **changes: Any) -> Json:
    """Return the call with a first attempt at its first choice: half a second and a cent where nothing else is said."""
    first = row["decision"]["candidates"][0]
    attempt = Attempt(1, first["model"], first["provider"], 10.0, 510.0, cost_nanousd=10_000_000)
    fields = {name: getattr(attempt, name) for name in attempt.__struct_fields__}
    return {**row, "attempts": orjson.loads(attempts_json([Attempt(**{**fields, **changes})]))}


def rehearsed(rows: list[Json], wish: Wish, **how: Any) -> Report:
    facts = ground()
    rehearsal = Rehearsal(Today(facts, wish), ground=facts)
    for row in rows:
        rehearsal.add(row)
    return rehearsal.report(**how)


def explored(count: int, share: float = 0.5) -> list[Json]:
    """Return calls of an alias of two targets: `cheap` fails every fourth time, `dear` never and costs five cents."""
    weights = (Target("cheap", round(100 * share)), Target("dear", round(100 - 100 * share)))
    view = replace(FLEET, aliases={"fast": Alias("fast", weights)})
    dice, rows = random.Random(5), []
    for n in range(count):
        row = logged(view, asked="fast", seed=f"r{n}")
        dear = row["decision"]["candidates"][0]["model"] == "dear"
        if dear:
            rows.append(came(row, cost_nanousd=50_000_000, ended_ms=2_010.0))
        else:
            failed = {"cause": "http_503", "blame": Blame.PROVIDER.value, "cost_nanousd": 0}
            rows.append(came(row, **(failed if dice.random() < 0.25 else {})))
    return rows


def test_choices_are_counted_exactly() -> None:
    """How many go elsewhere, the mix before and after, who is left out, and what both are expected to cost."""
    rows = [came(logged(seed=str(n), mode=Mode.HIGH_CONFIDENCE)) for n in range(10)]
    told = rehearsed([*rows, came(logged(asked="dear"))], Wish({"mode": Mode.CHEAP, "max_budget_usd": 0.01}))
    mix = {one.model: (one.logged, one.rehearsed) for one in told.mix}
    assert mix == {"dear": (11.0, 0.0), "cheap": (0.0, 11.0)}
    assert (told.calls, told.differently, told.compared) == (11, 11.0, 11.0)
    assert [(one.reason, one.logged, one.rehearsed) for one in told.exclusions] == [
        ("budget_exceeded", 0.0, 11.0)
    ]
    assert told.cost_usd is not None
    assert told.cost_usd.logged == pytest.approx((1_004 * 10_000 + 512 * 30_000) / 1e9, rel=0.01)
    assert told.cost_usd.rehearsed < told.cost_usd.logged / 50


def test_refusals_are_counted_for_both_and_expectations_are_of_calls_that_both_serve() -> None:
    """A budget that nobody keeps refuses every call; a call that was refused then can be served now."""
    rows = [came(logged(seed=str(n))) for n in range(4)]
    refused = {**logged(min_weight=10), "error_class": "no_candidate"}
    told = rehearsed([*rows, refused], Wish({"min_weight": 0}))
    assert (told.refused.logged, told.refused.rehearsed, told.compared) == (1.0, 0.0, 4.0)
    told = rehearsed([*rows, refused], Wish({"max_budget_usd": 0.0}))
    assert (told.refused.logged, told.refused.rehearsed, told.compared) == (1.0, 5.0, 0.0)
    assert told.cost_usd is None
    assert [(one.reason, one.rehearsed) for one in told.refusals if one.rehearsed] == [
        ("budget_exceeded", 5.0)
    ]


def test_an_experiment_tells_what_either_side_alone_would_be_worth() -> None:
    """All to the one: reward, success, cost and latency of the first attempt, near what each really is."""
    rows = explored(600)
    wish = Wish(aliases=(Alias("fast", (Target("dear", 1),)),))
    told = rehearsed(rows, wish)
    assert told.refusal == ""
    assert told.support.overlap == 1.0
    assert told.support.effective == pytest.approx(300, rel=0.15)
    dear = {name: one.dr for name, one in told.estimates.items()}
    assert dear["answered"].value == pytest.approx(1.0, abs=0.03)
    assert dear["cost_usd"].value == pytest.approx(0.05, abs=0.003)
    assert dear["latency_ms"].value == pytest.approx(2_000, rel=0.05)
    assert told.estimates["reward"].snips.value == pytest.approx(0.3 * 0.5 + 0.3 * 0.9 + 0.4)
    assert "answers" not in told.estimates


def test_intervals_stay_within_what_a_mean_can_be() -> None:
    """Nobody answers more than all calls; a cost is not negative."""
    told = rehearsed(explored(300), Wish(aliases=(Alias("fast", (Target("dear", 1),)),)))
    for name in ("ips", "snips", "dr"):
        figure = getattr(told.estimates["answered"], name)
        assert 0 <= (figure.low or 0) <= (figure.high or 0) <= 1


def test_a_policy_that_was_followed_is_not_said_to_differ() -> None:
    """The same alias again: weights of 1, and a difference that is none but for the luck of the draw."""
    rows = explored(200)
    told = rehearsed(rows, Wish(aliases=(Alias("fast", (Target("cheap", 50), Target("dear", 50))),)))
    reward = told.estimates["reward"]
    assert reward.ips.value == pytest.approx(reward.logged.value, abs=1e-9)
    assert told.support.largest_weight == 1.0
    assert (reward.difference.low or 0) < 0 < (reward.difference.high or 0)
    assert abs(reward.difference.value) < 0.02


def test_what_was_never_tried_is_not_guessed_at() -> None:
    """A log without chance: no number of the changed choices, and the sentence says what would help."""
    told = rehearsed([came(logged(seed=str(n), mode=Mode.CHEAP)) for n in range(99)], Wish(model="dear"))
    assert told.estimates == {}
    assert told.support.unsupported == 99
    said = " ".join(sentences(told))
    assert "cannot be said" in said
    assert "None of the changed choices was ever possible" in said
    assert "Exploring, or a weighted alias" in said


def test_too_few_calls_are_not_guessed_at() -> None:
    """The number of calls that the log is worth is told instead."""
    told = rehearsed(explored(FEWEST), Wish(aliases=(Alias("fast", (Target("dear", 1),)),)))
    assert told.estimates == {}
    assert f"{FEWEST} are needed" in told.refusal


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cause": "bad_request", "blame": Blame.CLIENT.value}, "the caller left or was to blame"),
        ({"model": "another"}, "the first choice was not tried"),
    ],
)
def test_what_says_nothing_of_the_first_choice_is_counted_and_left_out(
    changes: dict[str, Any], why: str
) -> None:
    """The caller's own fault, and a call whose first choice was not asked."""
    rows = [came(logged(seed="a")), came(logged(seed="b"), **changes)]
    told = rehearsed(rows, Wish())
    assert (told.calls, told.observed, told.unobserved) == (2, 1, {why: 1})


def test_attempts_from_before_blame_was_recorded_are_not_interpreted() -> None:
    """Their successes neither: the failures would be missing beside them."""
    row = came(logged())
    del row["attempts"][0]["blame"]
    told = rehearsed([row], Wish())
    assert told.unobserved == {"recorded before blame was": 1}


def test_decisions_of_another_version_are_counted_apart() -> None:
    """And those that were none."""
    other = logged()
    other["decision"]["version"] = 0
    told = rehearsed([other, entry(None)], Wish())
    assert (told.calls, told.unreadable) == (0, 2)
    assert sentences(told) == ["There is no call here that could be decided again."]


def test_a_cap_on_weights_is_told() -> None:
    """Clipping is a choice of whoever asks, and it leans."""
    wish = Wish(aliases=(Alias("fast", (Target("dear", 1),)),))
    told = rehearsed(explored(400), wish, clip=1.5)
    assert told.support.largest_weight == 1.5
    assert any("weights were clipped" in line for line in sentences(told))


def test_the_reward_is_compared_in_words() -> None:
    """Higher, lower, or not shown."""
    told = rehearsed(explored(1_000, 0.5), Wish(aliases=(Alias("fast", (Target("cheap", 1),)),)))
    difference = told.estimates["reward"].difference
    line = next(line for line in sentences(told) if line.startswith("There"))
    low, high = difference.low or 0.0, difference.high or 0.0
    wanted = "is higher" if low > 0 else "is lower" if high < 0 else "no difference"
    assert wanted in line


def test_as_logged_needs_no_fleet() -> None:
    """The facts are in the records."""
    rehearsal = Rehearsal(AsLogged(Wish({"mode": Mode.CHEAP})))
    for n in range(5):
        rehearsal.add(came(logged(seed=str(n), mode=Mode.HIGH_CONFIDENCE)))
    told = rehearsal.report()
    assert (told.differently, told.compared) == (5.0, 5.0)
    assert told.cost_usd is not None
    assert told.cost_usd.rehearsed < told.cost_usd.logged
