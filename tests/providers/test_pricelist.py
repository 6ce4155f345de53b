"""A price list against what is registered."""

from __future__ import annotations

from dataclasses import replace

from tests.providers.test_catalogue import catalogue, listing
from tokenhub_core.providers import pricelist
from tokenhub_core.providers.pricelist import Change, compare
from tokenhub_core.types import Model, Prices, Provider, ProviderType

LIST = catalogue(
    openai=[listing("gpt-x", {"input": 2, "output": 8})],
    reseller=[listing("gpt-x", {"input": 3, "output": 9}), listing("unpriced", None)],
)
PROVIDERS = {
    "own": Provider("own", ProviderType.OPENAI, ("https://api.openai.com",)),
    "other": Provider("other", ProviderType.OPENAI, ("https://reseller.example/v1",)),
}
LISTED = Model("gpt-x", "own", prices=Prices(2000, 8000), pricing_source="models-dev")


def test_each_model_is_compared_with_its_sellers_price() -> None:
    """The same id at two providers has two prices."""
    resold = replace(LISTED, provider_id="other")
    found = compare([LISTED, resold], PROVIDERS, LIST.price)
    assert (found.changes, found.same) == ((Change(resold, Prices(3000, 9000)),), 1)


def test_a_price_set_by_hand_is_not_compared() -> None:
    """It is counted, so that nobody wonders."""
    mine = replace(LISTED, prices=Prices(1, 1), pricing_source="manual")
    found = compare([mine], PROVIDERS, LIST.price)
    assert (found.changes, found.manual) == ((), 1)


def test_what_the_list_has_no_price_for_keeps_its_own() -> None:
    """Missing is neither free nor unknown."""
    models = [replace(LISTED, id=name, provider_id="other") for name in ("nobody", "unpriced")]
    found = compare(models, PROVIDERS, LIST.price)
    assert (found.changes, found.unlisted) == ((), 2)


def test_a_price_that_was_unknown_is_news_even_at_nothing() -> None:
    """Zero and unknown are stored alike, and are not."""
    free = catalogue(openai=[listing("gpt-x", {"input": 0, "output": 0})])
    model = replace(LISTED, prices=Prices(), pricing_source="unknown")
    assert [change.prices for change in compare([model], PROVIDERS, free.price).changes] == [Prices()]


def test_the_upstream_name_is_looked_up() -> None:
    """What the provider calls it is what the list calls it."""
    renamed = replace(LISTED, id="mine", upstream="gpt-x", prices=Prices(1, 1))
    assert [change.prices for change in compare([renamed], PROVIDERS, LIST.price).changes] == [
        Prices(2000, 8000)
    ]


def test_a_list_is_known_by_its_bytes() -> None:
    """The source names the beginning of the digest."""
    whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert pricelist.digest(b"abc") == whole
    assert pricelist.source(b"abc") == "sha256:ba7816bf8f01"
