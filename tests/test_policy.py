"""Merging wishes into a policy."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from tokenhub_core.policy import Layer, for_call, for_key, merge
from tokenhub_core.types import ApiKey, Mode, Policy

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


def test_what_a_key_is_good_for_is_the_last_word() -> None:
    """Nothing that a caller or a default sets is a limit of a key's; `*` is none; and the source is told."""
    with pytest.raises(KeyError):
        merge([Layer("directive", {"allowed_models": None})])
    wishes = Policy(mode=Mode.CHEAP)
    everything = ApiKey("k1", models=("*", "x"), providers=("*",))
    assert for_key(everything, wishes, "", ()) is wishes
    bound = for_key(ApiKey("k1", models=("gpt-*",)), wishes, "", ())
    assert (bound.allowed_models, bound.allowed_providers) == (("gpt-*",), ())
    assert bound.why == {"allowed_models": "key k1", "allowed_providers": "key k1"}
    assert bound.mode is Mode.CHEAP


def test_a_key_for_an_alias_is_good_for_what_it_means_and_for_nothing_that_looks_alike() -> None:
    """In this call, letter by letter: a name that holds wildcards is still a name."""
    key = ApiKey("k1", models=("fa?t",), providers=("*",))
    bound = for_key(key, Policy(), "fast", {"a[1]", "b*"})
    patterns = bound.allowed_models
    assert patterns == ("fa?t", "a[[]1]", "b[*]")
    assert all(any(fnmatchcase(name, one) for one in patterns) for name in ("a[1]", "b*"))
    assert not any(fnmatchcase(name, one) for one in patterns[1:] for name in ("a1", "bc"))
    assert for_key(key, Policy(), "slow", {"a"}).allowed_models == ("fa?t",)
