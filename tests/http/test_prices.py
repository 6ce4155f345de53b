"""Another price list: what it would change, and taking it."""

from __future__ import annotations

import orjson
import pytest

from tests.fakes.house import House
from tests.fakes.provider import FakeProvider
from tests.http.test_admin_models import model
from tokenhub_core.providers import pricelist
from tokenhub_core.types import Json

REFRESH = "/prices/refresh"


def listed(**costs: Json) -> bytes:
    """Return a price list of one vendor."""
    models = {name: {"id": name, "cost": cost} for name, cost in costs.items()}
    return orjson.dumps({"openai": {"id": "openai", "models": models}})


LIST = listed(
    gpt={
        "input": 1,
        "output": 4,
        "cache_read": 0.5,
        "reasoning": 6,
        "tiers": [{"input": 2, "output": 8, "tier": {"type": "context", "size": 1000}}],
    },
    mine={"input": 9, "output": 9},
)


@pytest.fixture
async def stocked(it: House, fake: FakeProvider) -> House:
    """A model whose price nobody knows, and one that was priced by hand."""
    await it.provider(fake, "p", "mine")
    await it.done("POST", "/models", {"id": "gpt", "provider_id": "p", "weight": 8})
    return it


async def test_a_list_is_compared_and_changes_nothing(stocked: House) -> None:
    """What was, what would be, and who is left alone."""
    before = await stocked.done("GET", "/models")
    told = await stocked.done("POST", REFRESH, LIST)
    (change,) = told["changes"]
    assert (change["model_id"], change["pricing_source"], change["applied"]) == ("gpt", "unknown", False)
    assert (change["now"]["input_per_1k"], change["now"]["reasoning_per_1k"]) == (0.001, 0.006)
    assert change["now"]["price_tiers"][0]["above_tokens"] == 1000
    assert (told["same"], told["manual"], told["unlisted"], told["applied"]) == (0, 1, 0, False)
    assert told["sha256"] == pricelist.digest(LIST)
    assert await stocked.done("GET", "/models") == before


async def test_a_list_is_taken_where_that_is_asked_for(stocked: House, fake: FakeProvider) -> None:
    """From the next call on, thoughts and long calls at their own price; what was set by hand stays."""
    told = await stocked.done("POST", f"{REFRESH}?apply=true&sha256={pricelist.digest(LIST)}", LIST)
    assert [change["applied"] for change in told["changes"]] == [True]
    now = await model(stocked, "gpt")
    assert (now["input_per_1k"], now["cache_read_per_1k"], now["weight"]) == (0.001, 0.0005, 8)
    assert now["pricing_source"] == f"sha256:{pricelist.digest(LIST)[:12]}"
    assert (await model(stocked, "mine"))["pricing_source"] == "manual"
    again = await stocked.done("POST", REFRESH, LIST)
    assert (again["changes"], again["same"]) == ([], 1)
    wish = {"model_hint": "gpt", "max_output_tokens": 1}
    short = await stocked.done("POST", "/routing/simulate", {**wish, "token_count": 1000})
    long = await stocked.done("POST", "/routing/simulate", {**wish, "token_count": 1001})
    assert short["candidates"][0]["estimated_nanousd"] == 1000 * 1000 + 4000
    assert long["candidates"][0]["estimated_nanousd"] == 1001 * 2000 + 8000


async def test_without_a_body_it_is_the_installed_list(it: House, fake: FakeProvider) -> None:
    """Nothing is fetched."""
    await it.provider(fake, "p")
    await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
    told = await it.done("POST", REFRESH)
    assert (told["source"], told["sha256"], told["changes"], told["same"]) == ("models-dev", "", [], 1)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"v": {}}', b'{"v": {"models": {"m": {}}}}', b"\xff"])
async def test_what_is_no_list_is_refused(stocked: House, body: bytes) -> None:
    """400, and nothing has changed."""
    told = await stocked.admin("POST", f"{REFRESH}?apply=true", body)
    assert (told.status, "models.dev" in told.fault["message"]) == (400, True)


async def test_a_list_that_is_not_the_one_that_was_shown_is_refused(stocked: House) -> None:
    """By its digest."""
    told = await stocked.admin("POST", f"{REFRESH}?apply=true&sha256={'0' * 64}", LIST)
    assert (told.status, told.fault["param"]) == (400, "sha256")
    assert (await model(stocked, "gpt"))["pricing_source"] == "unknown"


async def test_a_list_has_a_size(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger ones are not even read."""
    monkeypatch.setattr(pricelist, "MAX_BYTES", 100)
    assert (await it.admin("POST", REFRESH, b" " * 101)).status == 413


async def test_all_prices_can_be_set_by_hand(it: House, fake: FakeProvider) -> None:
    """Cached, thoughts, batches, tiers; a new plain price takes the tiers with it, null forgets one."""
    await it.provider(fake)
    tier = {
        "above_tokens": 9,
        "input_per_1k": 2,
        "output_per_1k": 3,
        "cache_read_per_1k": 1,
        "cache_write_per_1k": None,
    }
    more = {"cache_read_per_1k": 0.5, "reasoning_per_1k": 4.0, "batch_share": 0.5, "price_tiers": [tier]}
    body = {"id": "m", "provider_id": "p", "input_per_1k": 1, "output_per_1k": 2, **more}
    await it.done("POST", "/models", body)
    told = await model(it, "m")
    assert {name: told[name] for name in more} == more
    patched = await it.done("PATCH", "/models/m", {"cache_read_per_1k": None, "reasoning_per_1k": 5})
    assert (patched["cache_read_per_1k"], patched["reasoning_per_1k"], patched["price_tiers"]) == (
        None,
        5,
        [tier],
    )
    assert (await it.done("PATCH", "/models/m", {"input_per_1k": 7}))["price_tiers"] == []
    alone = await it.admin("POST", "/models", {"id": "n", "provider_id": "p", **more})
    assert (alone.status, alone.fault["param"]) == (400, "input_per_1k")
    wrong = await it.admin("PATCH", "/models/m", {"price_tiers": [tier, tier]})
    assert (wrong.status, "tiers" in wrong.fault["message"]) == (400, True)
