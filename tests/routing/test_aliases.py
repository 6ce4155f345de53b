"""Names that stand for models: shares, turns, and what stays with whom."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.routing import aliases
from tokenhub_core.routing.aliases import Asking, Turns, applied, check, conversation_key, missing, resolve
from tokenhub_core.routing.fleet import build
from tokenhub_core.types import (
    Alias,
    Fleet,
    Model,
    Policy,
    Provider,
    ProviderType,
    Sticky,
    Strategy,
    Target,
    TextSlot,
)

P = Provider("p", ProviderType.OPENAI, ("https://p.example",))
Q = Provider("q", ProviderType.OPENAI, ("https://q.example",))
MODELS = (Model("a", "p"), Model("b", "p"), Model("b", "q"), Model("claude-1", "p"), Model("claude-2", "q"))
SHARES = Alias("x", (Target("a", 3), Target("b", 1)))


def fleet(*made: Alias, models: Sequence[Model] = MODELS, providers: Sequence[Provider] = (P, Q)) -> Fleet:
    return build(providers, models, version=1, aliases=made)


def pool(name: str, *patterns: str) -> Alias:
    return Alias(name, tuple(Target(pattern) for pattern in patterns), Strategy.POOL)


def slots(*texts: tuple[str, str]) -> list[TextSlot]:
    return [TextSlot(role, ("messages", n, "content"), text) for n, (role, text) in enumerate(texts)]


# --- shares ------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5),
    st.sampled_from(Sticky),
    st.text(min_size=1, max_size=10),
)
def test_each_target_gets_its_share(weights: list[int], sticky: Sticky, name: str) -> None:
    """Of calls, callers or conversations alike, within what chance allows (five standard deviations)."""
    alias = Alias(name, tuple(Target(f"m{n}", weight) for n, weight in enumerate(weights)), sticky=sticky)
    units = 2000
    seen = Counter(
        resolve(alias, seed=f"req_{n}", key=f"user {n}", conversation=f"c{n}") for n in range(units)
    )
    for target in alias.targets:
        share = target.weight / sum(weights)
        assert abs(seen[target.model] - units * share) < 5 * math.sqrt(units * share * (1 - share))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=6), st.integers(0, 5), st.text())
def test_only_the_share_of_a_target_that_goes_moves(weights: list[int], gone: int, seed: str) -> None:
    """Everyone else stays where they were, whether it was taken out, given no weight, or cannot serve."""
    alias = Alias("x", tuple(Target(f"m{n}", weight) for n, weight in enumerate(weights)))
    model = f"m{gone % len(weights)}"
    before = resolve(alias, seed=seed)
    without = resolve(alias, seed=seed, without={model})
    assert before in {without, model}
    assert without != model
    left = replace(alias, targets=tuple(one for one in alias.targets if one.model != model))
    off = tuple(replace(one, weight=0) if one.model == model else one for one in alias.targets)
    assert resolve(left, seed=seed) == resolve(replace(alias, targets=off), seed=seed) == without


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.text())
def test_a_target_that_grows_only_gains(weight: int, more: int, seed: str) -> None:
    """A rising share takes from the others; nobody else changes places."""
    alias = Alias("x", (Target("a", weight), Target("b", 10), Target("c", 10)))
    grown = replace(alias, targets=(Target("a", weight + more), *alias.targets[1:]))
    before, after = resolve(alias, seed=seed), resolve(grown, seed=seed)
    assert after in {"a", before}
    assert resolve(replace(alias, targets=alias.targets[::-1]), seed=seed) == before


def test_two_aliases_do_not_share_their_luck() -> None:
    """Who is in the small group of one experiment is no likelier to be in that of another."""
    other = replace(SHARES, name="y")
    both = sum(
        resolve(SHARES, seed=str(n)) == "b" and resolve(other, seed=str(n)) == "b" for n in range(4000)
    )
    assert abs(both - 4000 / 16) < 5 * math.sqrt(4000 / 16)


@pytest.mark.parametrize("sticky", [Sticky.KEY, Sticky.CONVERSATION])
def test_what_it_is_sticky_by_keeps_its_target(sticky: Sticky) -> None:
    """Whatever the call's own id is; and different ones are spread."""
    alias = replace(SHARES, sticky=sticky)

    def served(who: str, seed: str) -> str:
        return resolve(alias, seed=seed, key=who, conversation=who)

    for who in ("ann", "bob", "cem"):
        assert len({served(who, f"req_{n}") for n in range(50)}) == 1
    assert {served(f"user {n}", "req_1") for n in range(50)} == {"a", "b"}


@pytest.mark.parametrize("sticky", [Sticky.KEY, Sticky.CONVERSATION])
def test_who_is_not_known_is_spread_by_calls(sticky: Sticky) -> None:
    """All strangers together would otherwise be one."""
    alias = replace(SHARES, sticky=sticky)
    assert {resolve(alias, seed=f"req_{n}") for n in range(50)} == {"a", "b"}


# --- turns -------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 10**9))
def test_a_round_robin_is_exact_over_every_round(weights: list[int], start: int) -> None:
    """Wherever it is looked at, as many turns as there are parts give each target its weight."""
    targets = tuple(Target(f"m{n}", weight) for n, weight in enumerate(weights))
    alias = Alias("x", targets, Strategy.ROUND_ROBIN)
    whole = sum(weights)
    seen = Counter(resolve(alias, seed="s", turn=turn) for turn in range(start, start + whole))
    assert seen == {target.model: target.weight for target in targets}


def test_turns_are_spread_and_not_in_blocks() -> None:
    """Equals alternate, whatever their weights are; a lesser one comes between the others."""
    equal = Alias("x", (Target("a", 50), Target("b", 50)), Strategy.ROUND_ROBIN)
    assert "".join(resolve(equal, seed="s", turn=n) for n in range(6)) == "ababab"
    uneven = replace(equal, targets=(Target("a", 6), Target("b", 4)))
    assert "bb" not in "".join(resolve(uneven, seed="s", turn=n) for n in range(20))


def test_each_alias_counts_its_own_turns() -> None:
    """Looking at one takes none."""
    turns = Turns()
    assert [turns.take("x"), turns.peek("x"), turns.take("x"), turns.take("y")] == [0, 1, 1, 0]


# --- conversations -----------------------------------------------------------------------------------------


def test_a_conversation_keeps_its_key_as_it_grows() -> None:
    """It is the user's first message, whatever stands before and after it."""
    first = ("user", "Write a poem")
    whole = slots(("system", "Be brief"), first, ("assistant", "No"), ("user", "Please"))
    keys = {conversation_key(whole[:n]) for n in (2, 3, 4)} | {conversation_key(whole[1:])}
    assert len(keys) == 1
    assert conversation_key(slots(("user", "Write a song"))) not in keys
    assert conversation_key(slots(first, ("user", "Please"))) in keys


def test_all_parts_of_the_first_message_tell_conversations_apart() -> None:
    """Programs put the same preamble before what the user wrote; and parts are not run together."""

    def key(*texts: str) -> str:
        return conversation_key(
            TextSlot("user", ("messages", 0, "content", n, "text"), text) for n, text in enumerate(texts)
        )

    assert len({key("pre", "one"), key("pre", "two"), key("preone"), key("pre"), key()}) == 5
    assert key() == conversation_key(slots(("system", "only"))) == ""


# --- in a policy -------------------------------------------------------------------------------------------


def test_an_alias_becomes_the_model_that_it_means() -> None:
    """The policy names the model, and says where it came from."""
    meant = applied(Policy(model="x", why={"model": "request"}), fleet(SHARES), Asking("req_1"))
    assert meant.variant == meant.policy.model == meant.model == resolve(SHARES, seed="req_1")
    assert (meant.alias, meant.policy.models) == ("x", None)
    assert meant.policy.why["model"] == "request, alias x"


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (SHARES, "a"),
        (SHARES, "unknown"),
        (SHARES, None),
        (replace(SHARES, enabled=False), "x"),
        (replace(SHARES, name="a", targets=(Target("b"),)), "a"),
    ],
)
def test_every_other_name_is_left_as_it_is(made: Alias, asked: str | None) -> None:
    """Switched-off aliases are none, and the exact id of a model comes first."""
    policy = Policy(model=asked)
    assert applied(policy, fleet(made), Asking("s")) == aliases.Applied(policy)


def test_a_target_may_name_the_provider() -> None:
    """Two providers of one model are an experiment like any other."""
    alias = Alias("x", (Target("q/b"),))
    meant = applied(Policy(model="x"), fleet(alias), Asking("s"))
    assert (meant.policy.model, meant.model) == ("q/b", "b")


def test_a_target_that_has_gone_is_left_out_with_its_reason() -> None:
    """Its share goes to the others, and the decision says why; without any other the call fails."""
    off = (Model("a", "p", enabled=False), Model("b", "p"))
    meant = applied(Policy(model="x"), fleet(SHARES, models=off), Asking("s"))
    assert (meant.variant, meant.policy.why["model"]) == ("b", "default, alias x without a is disabled")
    resting = replace(P, enabled=False)
    assert missing(SHARES, fleet(SHARES, models=off[1:], providers=[resting])) == {
        "a": "is not registered",
        "b": "is disabled",
    }
    with pytest.raises(TokenHubError, match="a is not registered, b is not registered") as error:
        applied(Policy(model="x"), fleet(SHARES, models=()), Asking("s"))
    assert (error.value.fault.kind, error.value.fault.label) == (Kind.NO_CANDIDATE, "alias_empty")


def test_a_pool_leaves_the_choice_among_its_models() -> None:
    """Patterns say which; what matches none is empty and not everything."""
    view = fleet(pool("smart", "claude-*", "b"), pool("gone", "o*"))
    meant = applied(Policy(model="smart"), view, Asking("s"))
    assert (meant.policy.model, meant.policy.models) == (None, frozenset({"claude-1", "claude-2", "b"}))
    assert (meant.alias, meant.variant, meant.model) == ("smart", "", "*")
    assert applied(Policy(model="gone"), view, Asking("s")).policy.models == frozenset()
    off = Alias("half", (Target("a"), Target("b", 0)), Strategy.POOL)
    assert fleet(off).pools == {"half": frozenset({"a"})}
    assert missing(view.aliases["gone"], view) == {"o*": "matches no model"}


def test_the_star_says_what_any_model_is() -> None:
    """A call that leaves the choice gets its pool; or its targets, and nothing else may stand in for them."""
    assert applied(Policy(), fleet(pool("*", "claude-*")), Asking("s")).policy.models == frozenset(
        {"claude-1", "claude-2"}
    )
    bound = applied(Policy(), fleet(replace(SHARES, name="*")), Asking("s")).policy
    assert bound.model in {"a", "b"}
    assert bound.models == frozenset({"a", "b"})


def test_only_what_it_needs_is_asked() -> None:
    """Nobody's texts are read and no turn is taken for an alias that it does not matter to."""
    asked: list[str] = []

    def conversation() -> str:
        asked.append("conversation")
        return "c"

    def turn(name: str) -> int:
        asked.append(name)
        return 0

    asking = Asking("s", conversation=conversation, turn=turn)
    for alias in (SHARES, replace(SHARES, sticky=Sticky.KEY), pool("x", "*")):
        applied(Policy(model="x"), fleet(alias), asking)
    assert asked == []
    applied(Policy(model="x"), fleet(replace(SHARES, sticky=Sticky.CONVERSATION)), asking)
    applied(Policy(model="x"), fleet(replace(SHARES, strategy=Strategy.ROUND_ROBIN)), asking)
    assert asked == ["conversation", "x"]


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "param", "words"),
    [
        (replace(SHARES, name="a"), "name", "model's id"),
        (replace(SHARES, name="auto"), "name", "'\\*'"),
        (Alias("y", ()), "variants", "1 to 100"),
        (Alias("y", (Target("a"), Target("a"))), "variants", "each once"),
        (Alias("y", (Target("a", 0),)), "variants", "above 0"),
        (Alias("y", (Target("a", -1), Target("b"))), "variants", "between"),
        (Alias("y", (Target("unknown"),)), "variants", "no model 'unknown'"),
        (Alias("y", (Target("x"),)), "variants", "not chained"),
        (Alias("y", (Target("y"),)), "variants", "not chained"),
        (pool("y", "gpt-*"), "variants", "no model matches"),
        (replace(pool("y", "*"), sticky=Sticky.KEY), "sticky_by", "sticky by nothing"),
    ],
)
def test_an_alias_that_leads_nowhere_is_refused(alias: Alias, param: str, words: str) -> None:
    """Or that shadows a model, or leads on to another alias."""
    view = fleet(SHARES)
    with pytest.raises(TokenHubError, match=words) as error:
        check(alias, view)
    assert (error.value.fault.kind, error.value.fault.param) == (Kind.INVALID, param)


def test_what_leads_to_models_is_taken() -> None:
    """Also one that replaces itself, and the star."""
    for alias in (SHARES, pool("*", "*"), Alias("vendor/x", (Target("vendor/a"), Target("q/b", 0)))):
        check(alias, fleet(SHARES))
