"""What tokens cost: cached, thought, and above a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.routing.pricing import at, cost
from tokenhub_core.types import Prices, Tier, Usage

LONG = Tier(200_000, 2_500, 15_000, 250)
PRO = Prices(1_250, 10_000, 125, tiers=(LONG,))


@pytest.mark.parametrize(("tokens", "rate"), [(1, 1_250), (200_000, 1_250), (200_001, 2_500)])
def test_a_long_call_is_dearer_as_a_whole(tokens: int, rate: int) -> None:
    """The tier begins above its line, and holds for the first token too."""
    assert cost(PRO, Usage(tokens)) == tokens * rate


def test_output_follows_the_tier_of_the_input() -> None:
    """However short the answer is."""
    assert cost(PRO, Usage(300_000, 10)) == 300_000 * 2_500 + 10 * 15_000
    assert cost(PRO, Usage(100_000, 250_000)) == 100_000 * 1_250 + 250_000 * 10_000


def test_cached_tokens_count_for_the_tier_and_have_its_price() -> None:
    """Most of a long prompt comes from the cache."""
    usage = Usage(300_000, cache_read_tokens=290_000)
    assert cost(PRO, usage) == 10_000 * 2_500 + 290_000 * 250


def test_the_highest_line_that_is_crossed_decides() -> None:
    """Some lists have several."""
    prices = Prices(1, 1, tiers=(Tier(32, 2, 2), Tier(128, 3, 3)))
    assert [at(prices, tokens).input for tokens in (32, 33, 128, 129)] == [1, 2, 2, 3]


def test_what_a_tier_does_not_price_apart_follows_the_tier() -> None:
    """Never the lower price from below the line."""
    prices = Prices(10, 20, 1, 2, reasoning=25, batch=0.5, tiers=(Tier(100, 30, 40),))
    assert at(prices, 101) == Prices(30, 40, reasoning=40, batch=0.5)
    assert cost(prices, Usage(101, 0, cache_read_tokens=101)) == 101 * 30


def test_thoughts_are_priced_apart_where_they_are() -> None:
    """They are a part of the output, never on top of it, and no more than there is."""
    apart = Prices(1, 10, reasoning=30)
    assert cost(apart, Usage(0, 100, reasoning_tokens=40)) == 60 * 10 + 40 * 30
    assert cost(apart, Usage(0, 100, reasoning_tokens=400)) == 100 * 30
    assert cost(Prices(1, 10), Usage(0, 100, reasoning_tokens=40)) == 1_000


def test_cached_tokens_are_a_part_of_the_input_and_no_more_than_there_is() -> None:
    """A provider that counts more from its cache than was sent is not paid for it."""
    prices = Prices(10, 0, 1, 12)
    assert cost(prices, Usage(1, cache_read_tokens=10**9)) == 1
    assert cost(prices, Usage(5, cache_read_tokens=2, cache_write_tokens=10**9)) == 2 * 1 + 3 * 12


def test_a_batch_is_priced_like_any_call() -> None:
    """The share is only known: no call that is routed is a batch."""
    assert cost(Prices(10, 10, batch=0.5), Usage(1, 1)) == 20


_rate = st.floats(0, 1e6)
_count = st.integers(0, 10**9)


@given(_rate, _rate, _count, _count)
def test_plain_prices_are_input_and_output(rate_in: float, rate_out: float, tokens: int, more: int) -> None:
    """Where nothing is priced apart, nothing else counts."""
    assert cost(Prices(rate_in, rate_out), Usage(tokens, more, 0, 0, more)) == round(
        tokens * rate_in + more * rate_out
    )
