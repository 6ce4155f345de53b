"""Merging wishes into a policy."""

from __future__ import annotations

import pytest

from tokenhub_core.policy import Layer, for_call, merge
from tokenhub_core.types import Mode, Policy

DEFAULTS = Layer("default", {"mode": Mode.NORMAL, "max_budget_usd": 0.5})


def test_later_layers_win_and_every_field_says_why() -> None:
    """A field's value and its `why` come from the last layer that names it."""
    policy = merge([DEFAULTS, Layer("directive", {"mode": Mode.CHEAP})])
    assert (policy.mode, policy.max_budget_usd) == (Mode.CHEAP, 0.5)
    assert policy.why == {"mode": "directive", "max_budget_usd": "default"}


def test_none_lifts_a_limit() -> None:
    """There is a way to say unlimited: an explicit None over a number."""
    assert merge([DEFAULTS, Layer("directive", {"max_budget_usd": None})]).max_budget_usd is None


def test_an_unknown_field_is_a_bug_that_shows() -> None:
    """A layer cannot carry what no policy has."""
    with pytest.raises(KeyError):
        merge([Layer("directive", {"base_url": "http://evil"})])


@pytest.mark.parametrize("name", ["", "*", "auto", "tokenhub/auto"])
def test_a_caller_can_leave_the_choice_open(name: str) -> None:
    """These names ask for no model in particular."""
    assert for_call(DEFAULTS, name, {}).model is None


def test_the_named_model_is_kept_unless_the_directive_frees_it() -> None:
    """A budget leaves the caller's model alone; a mode or a weight asks the router to choose."""
    assert for_call(DEFAULTS, "gpt-4o", {}).model == "gpt-4o"
    assert for_call(DEFAULTS, "gpt-4o", {"max_budget_usd": 0.1}).model == "gpt-4o"
    assert for_call(DEFAULTS, "gpt-4o", {"mode": Mode.CHEAP}).model is None
    assert for_call(DEFAULTS, "gpt-4o", {"min_weight": 3}).model is None
    named = for_call(DEFAULTS, "gpt-4o", {"mode": Mode.CHEAP, "model": "claude-opus-4-7"})
    assert (named.model, named.why["model"]) == ("claude-opus-4-7", "directive")


def test_a_policy_without_layers_limits_nothing() -> None:
    """The empty merge is the default policy."""
    assert merge([]) == Policy()
