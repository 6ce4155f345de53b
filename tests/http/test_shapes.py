"""The JSON of the admin API as values: what is shown of what."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.errors import TokenHubError
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.http import shapes
from tokenhub_core.types import Dialect, Model, Need, Prices, Provider, ProviderType


def test_a_provider_is_shown_without_its_credential() -> None:
    """Only where it is kept, and whether there is one."""
    provider = Provider("p", ProviderType.OPENAI, (), cred_store="memory")
    shown = shapes.provider_json(provider, models=3, credentials=[{"name": "default", "credential": True}])
    assert (shown["cred_store"], shown["credential"], shown["models"]) == ("memory", True, 3)
    assert (shown["base_url"], shown["endpoints"]) == ("", [])


def test_a_provider_is_made_of_its_body() -> None:
    """Its dialect comes with its type; what is not said of the credential is what was."""
    body = shapes.ProviderBody(id="a", type=ProviderType.ANTHROPIC, base_url="https://a.example")
    made = shapes.provider_of(body, "vault")
    assert (made.dialect, made.endpoints, made.cred_store) == (
        Dialect.ANTHROPIC_MESSAGES,
        ("https://a.example",),
        "vault",
    )
    several = shapes.ProviderBody(id="a", base_url="https://x", endpoints=["https://y"], cred_store="none")
    assert (
        shapes.provider_of(several, "vault").endpoints,
        shapes.provider_of(several, "vault").cred_store,
    ) == (
        ("https://y",),
        "none",
    )


def test_a_patch_names_only_what_changes() -> None:
    """Absent fields do not appear; a type brings its dialect, a base URL is the one endpoint, a key is no field."""
    assert shapes.provider_changes(shapes.ProviderPatch()) == {}
    patch = shapes.ProviderPatch(type=ProviderType.ANTHROPIC, base_url="https://x", api_key="sk")
    assert shapes.provider_changes(patch) == {
        "type": ProviderType.ANTHROPIC,
        "dialect": Dialect.ANTHROPIC_MESSAGES,
        "endpoints": ("https://x",),
    }
    assert shapes.model_changes(shapes.ModelPatch(weight=0)) == {"weight": 0}
    prices = shapes.ModelPatch(input_per_1k=0.0003, enabled=False)
    assert shapes.model_changes(prices) == {"prices": {"input": 300.0}, "enabled": False}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1_000_000))
def test_a_price_is_shown_as_it_was_given(millionths: int) -> None:
    """Dollars per thousand tokens, there and back, to the millionth of a dollar."""
    usd = millionths / 1e6
    changes = shapes.model_changes(shapes.ModelPatch(output_per_1k=usd))
    shown = shapes.model_json(Model("m", "p", prices=Prices(0, changes["prices"]["output"])))
    assert shown["output_per_1k"] == usd


def test_gaps_are_shown_in_order() -> None:
    """Sets have none of their own."""
    shown = shapes.model_json(Model("m", "p", lacks=frozenset({Need.VISION, Need.AUDIO, Need.TOOLS})))
    assert shown["lacks"] == ["audio", "tools", "vision"]


@pytest.mark.parametrize(
    ("query", "number"), [("", 7), ("?n=5", 5), ("?n=10", 10), ("?n=007", 7), ("?n=5&n=6", 5), ("?m=1", 7)]
)
def test_a_whole_number_is_read_from_the_query(query: str, number: int) -> None:
    """The default where it is absent, the first where it is repeated."""
    assert shapes.whole(make_mocked_request("GET", f"/{query}"), "n", 7, 5, 10) == number


@pytest.mark.parametrize(
    "raw", ["4", "11", "", "x", "+5", "5.0", "%205", "0x5", "5_0", "9" * 30, "%E2%91%A4"]
)
def test_what_is_no_such_number_is_refused(raw: str) -> None:
    """Named with its bounds, never clipped."""
    with pytest.raises(TokenHubError, match="n must be between 5 and 10") as refused:
        shapes.whole(make_mocked_request("GET", f"/?n={raw}"), "n", 7, 5, 10)
    assert refused.value.fault.param == "n"


def test_health_moments_become_calendar_time() -> None:
    """The tracker's clock means nothing outside; moments that never were stay null."""
    tracker = HealthTracker()
    tracker.succeeded("p", 50.0, 0.2, started=49.0)
    shown = shapes.health_json("p", tracker.snapshot(60.0)["p"], age=1_700_000_000.0)
    assert (shown["last_success_at"], shown["last_error_at"]) == (1_700_000_050.0, None)
    unseen = shapes.health_json("q", None, age=1.0)
    assert (unseen["provider_id"], unseen["state"], set(unseen)) == ("q", "healthy", set(shown))
