"""The most that an attempt can use: never less than what any answer within its cap can come to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.admission.outlay import UNCAPPED, answers, dearest, outlay
from tokenhub_core.ports import Outlay
from tokenhub_core.routing import pricing
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.types import (
    Candidate,
    Dialect,
    Expected,
    Features,
    Json,
    Model,
    Prices,
    Provider,
    ProviderType,
    Request,
    Terms,
    Tier,
    Usage,
)

HOST = Provider("p", ProviderType.OPENAI, ("https://p.example",))


def asked(
    cap: int | None = 100,
    *,
    own: int = 0,
    source: str = "manual",
    dialect: Dialect = Dialect.OPENAI_CHAT,
    data: Json | None = None,
    expected: int = 10,
    media: int = 0,
) -> Outlay:
    """Return the outlay of a call of 1,000 bytes in two turns at a model of 1 and 2 nano-dollars."""
    model = Model("m", "p", max_output_tokens=own, prices=Prices(1, 2), pricing_source=source)
    features = Features("m", max_output_tokens=cap, text_bytes=1000, turns=2, media=media)
    candidate = Candidate(model, HOST, 0.0, Terms(), 77, expected=Expected(input_tokens=expected))
    return outlay(Request(dialect, b"", data or {}, features), candidate, 512)


READ = 1000 + 3 * 16


def test_a_capped_call_holds_every_byte_and_its_cap() -> None:
    """And tells apart what is likely: the plan's estimate, and its reserve up to the cap."""
    assert asked() == Outlay(77, READ + 200, 10 + 100, READ + 100)
    assert asked(1_000) == Outlay(77, READ + 2_000, 10 + 512, READ + 1_000)


def test_the_models_own_maximum_holds_too() -> None:
    """It writes no more, whatever was asked for."""
    assert asked(1_000, own=300) == Outlay(77, READ + 600, 10 + 300, READ + 300)
    assert asked(200, own=300).most_tokens == READ + 200


def test_without_a_cap_it_is_the_models_maximum() -> None:
    """Or, where that is not known, one that few have."""
    assert asked(None, own=4_000) == Outlay(77, READ + 8_000, 10 + 512, READ + 4_000, capped=False)
    assert asked(None).most_tokens == READ + UNCAPPED


def test_an_estimate_that_is_larger_than_the_bytes_wins() -> None:
    """And media count as they are estimated."""
    assert asked(expected=5_000).most_tokens == 5_000 + 100
    assert asked(media=2).most_tokens == READ + 2_000 + 100


def test_a_price_that_nobody_knows_has_no_most() -> None:
    """Tokens it has."""
    assert (asked(source=UNKNOWN_PRICE).most_nanousd, asked(source=UNKNOWN_PRICE).most_tokens) == (
        None,
        READ + 100,
    )


def test_vectors_have_no_output_and_counts_cost_nothing() -> None:
    """So neither is held for."""
    assert asked(None, dialect=Dialect.OPENAI_EMBEDDINGS) == Outlay(77, READ, 10, READ)
    assert asked(dialect=Dialect.ANTHROPIC_COUNT_TOKENS) == Outlay(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": 0}, 1),
        ({"n": True}, 1),
        ({"n": 10_000}, 10_000),
        ({"n": "9"}, 1),
        ({"n": 10**9}, 1_000_000),
        ({"n": 2, "best_of": 5}, 5),
        ({"generationConfig": {"candidateCount": 4}}, 4),
        ({"generation_config": {"candidate_count": 4}}, 4),
        ({"generationConfig": []}, 1),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": []}, 1),
        ({"prompt": "a"}, 1),
    ],
)
def test_every_answer_that_is_asked_for_may_have_the_cap(data: dict[str, Any], count: int) -> None:
    """In any dialect; what is no count is one answer."""
    assert answers(data) == count
    most = asked(data=data)
    assert (most.most_tokens, most.most_nanousd) == (READ + 100 * count, READ + 2 * 100 * count)


prices = st.integers(0, 100_000).map(lambda tenths: tenths / 10)
maybe = st.none() | prices
tiers = st.builds(Tier, st.integers(1, 50_000), prices, prices, maybe, maybe)
lists = st.builds(
    Prices,
    prices,
    prices,
    maybe,
    maybe,
    maybe,
    tiers=st.lists(tiers, max_size=3, unique_by=lambda tier: tier.above).map(
        lambda drawn: tuple(sorted(drawn, key=lambda tier: tier.above))
    ),
)


@given(lists, st.integers(0, 100_000), st.integers(0, 100_000), st.data())
def test_nothing_costs_more_than_the_dearest(
    given_: Prices, tokens: int, output: int, data: st.DataObject
) -> None:
    """However many of the tokens come, are cached, are written to a cache, or are thoughts; below a tier or above."""
    came = data.draw(st.integers(0, tokens))
    read = data.draw(st.integers(0, came))
    write = data.draw(st.integers(0, came - read))
    said = data.draw(st.integers(0, output))
    usage = Usage(came, said, read, write, data.draw(st.integers(0, said)))
    assert pricing.cost(given_, usage) <= dearest(given_, tokens, output)


def test_the_dearest_is_rounded_up() -> None:
    """A part of a nano-dollar is a whole one, and nothing is nothing."""
    assert dearest(Prices(0.4, 0), 1, 5) == 1
    assert dearest(Prices(0, 0), 10, 10) == 0
    assert dearest(Prices(1, 2, cache_write=3, reasoning=5), 10, 100) == 530
    assert dearest(Prices(1, 2, cache_read=4), 10, 100) == 240
    assert dearest(Prices(2, 2, tiers=(Tier(5, 1, 1),)), 10, 0) == 20
    dearer = Prices(1, 1, tiers=(Tier(5, 9, 9),))
    assert (dearest(dearer, 5, 0), dearest(dearer, 6, 0)) == (5, 54)
    narrow = Prices(1, 1, tiers=(Tier(5, 9, 9), Tier(6, 1, 1)))
    assert dearest(narrow, 7, 0) == 63
