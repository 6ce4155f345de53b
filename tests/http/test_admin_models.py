"""Registering, changing and removing models, and what they cost."""

from __future__ import annotations

import pytest

from tests.fakes.house import House
from tests.fakes.provider import FakeProvider
from tests.http.test_admin_providers import quoted
from tokenhub_core.types import Json

PRICES = {"input_per_1k": 0.002, "output_per_1k": 0.008}


async def model(it: House, name: str, provider: str = "p") -> Json:
    items = (await it.done("GET", f"/models?provider={provider}"))["items"]
    found: Json = next(item for item in items if item["id"] == name)
    return found


async def test_a_model_is_registered_and_shown(it: House, fake: FakeProvider) -> None:
    """201 the first time, 200 when it is replaced; the list shows what the answer showed."""
    await it.provider(fake)
    body = {"id": "m", "provider_id": "p", "upstream": "m-2026", "weight": 0, "lacks": ["tools"], **PRICES}
    told = await it.admin("POST", "/models", body)
    assert told.status == 201
    assert told.json == {
        "id": "m",
        "provider_id": "p",
        "upstream": "m-2026",
        "weight": 0,
        "max_context_tokens": 0,
        "max_output_tokens": 0,
        "input_per_1k": 0.002,
        "output_per_1k": 0.008,
        "cache_read_per_1k": None,
        "cache_write_per_1k": None,
        "reasoning_per_1k": None,
        "batch_share": None,
        "price_tiers": [],
        "pricing_source": "manual",
        "enabled": True,
        "lacks": ["tools"],
        "quirks": [],
    }
    assert await model(it, "m") == told.json
    assert (await it.admin("POST", "/models", {**body, "weight": 10})).status == 200
    assert (await model(it, "m"))["weight"] == 10


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-8B-Instruct:free",
        "a/b/c/d",
        "with space",
        "ümläut/日本",
        "100%/x",
        "a?b=c",
        "a#b",
        "a//b",
        "a/../b",
        "../x",
        "*.*",
        "'; DROP TABLE models;--",
        "<img src=x onerror=alert(1)>",
        "[bold]x[/]",
        "x" * 200,
    ],
)
async def test_an_id_may_hold_whatever_can_be_seen(it: House, fake: FakeProvider, name: str) -> None:
    """Slashes above all: it is changed and removed under its own id, and nothing else is."""
    await it.provider(fake, "p", "other")
    await it.done("POST", "/models", {"id": name, "provider_id": "p", **PRICES})
    assert (await it.done("PATCH", f"/models/{quoted(name)}", {"weight": 7}))["id"] == name
    assert ((await model(it, name))["weight"], (await model(it, "other"))["weight"]) == (7, 5)
    assert (await it.chat(name)).header("x-tokenhub-provider") == "p"
    await it.done("DELETE", f"/models/{quoted(name)}")
    assert [item["id"] for item in (await it.done("GET", "/models"))["items"]] == ["other"]


async def test_slashes_need_no_encoding(it: House, fake: FakeProvider) -> None:
    """As people write it in a shell."""
    await it.provider(fake, "p", "meta/llama")
    assert (await it.done("PATCH", "/models/meta/llama", {"enabled": False}))["enabled"] is False
    await it.done("DELETE", "/models/meta/llama")


@pytest.mark.parametrize("name", ["", " ", ".", "..", "x" * 201, "a\nb", "a\r\nx-evil: 1", "a\x1b[31m", " a"])
async def test_an_id_that_cannot_be_told_is_refused(it: House, fake: FakeProvider, name: str) -> None:
    """It would stand in headers, in logs and on terminals."""
    await it.provider(fake)
    told = await it.admin("POST", "/models", {"id": name, "provider_id": "p", **PRICES})
    assert (told.status, told.fault["param"]) == (400, "id")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight", 11),
        ("weight", -1),
        ("weight", 1.5),
        ("weight", "5"),
        ("weight", None),
        ("input_per_1k", -0.001),
        ("input_per_1k", 1e300),
        ("output_per_1k", "free"),
        ("max_context_tokens", -1),
        ("max_context_tokens", 10**12),
        ("max_output_tokens", 1e400),
        ("enabled", 1),
        ("lacks", ["wings"]),
        ("lacks", "tools"),
        ("quirks", "thinking_tags"),
        ("quirks", [1]),
        ("pricing_source", "models-dev"),
        ("cost_nanousd", 1),
    ],
)
async def test_a_bad_value_is_refused_by_its_field(
    it: House, fake: FakeProvider, field: str, value: object
) -> None:
    """By POST and by PATCH alike; what was stands as it was."""
    await it.provider(fake, "p", "m")
    before = await model(it, "m")
    body = {"id": "new", "provider_id": "p", **PRICES, field: value}
    for told in (
        await it.admin("POST", "/models", body),
        await it.admin("PATCH", "/models/m", {field: value}),
    ):
        assert told.status == 400
        assert field in told.fault["message"] or "out of range" in told.fault["message"]
    assert (await it.done("GET", "/models"))["items"] == [before]


async def test_a_models_quirks_are_named_and_changed(it: House, fake: FakeProvider) -> None:
    """In a list; one that is unknown is refused with those that are known, and nothing changes."""
    await it.provider(fake)
    body = {"id": "m", "provider_id": "p", "quirks": ["tool_names", "merge_turns", "tool_names"], **PRICES}
    assert (await it.done("POST", "/models", body))["quirks"] == ["merge_turns", "tool_names"]
    for told in (
        await it.admin("POST", "/models", {**body, "id": "n", "quirks": ["merge_turns", "haste"]}),
        await it.admin("PATCH", "/models/m", {"quirks": ["haste"]}),
    ):
        assert (told.status, told.fault["param"]) == (400, "quirks")
        assert "no quirk 'haste'" in told.fault["message"]
        assert "tool_names, tool_call_ids" in told.fault["message"]
    assert (await model(it, "m"))["quirks"] == ["merge_turns", "tool_names"]
    assert (await it.done("PATCH", "/models/m", {"quirks": ["thinking_tags"]}))["quirks"] == ["thinking_tags"]
    assert (await it.done("PATCH", "/models/m", {"weight": 1}))["quirks"] == ["thinking_tags"]
    assert (await it.done("PATCH", "/models/m", {"quirks": []}))["quirks"] == []


async def test_an_infinite_number_is_no_price(it: House, fake: FakeProvider) -> None:
    """JSON has no NaN and no infinity, and what would become one is refused."""
    await it.provider(fake, "p", "m")
    for value in (b"NaN", b"Infinity", b"1e999", b"-1e999"):
        assert (await it.admin("PATCH", "/models/m", b'{"input_per_1k":' + value + b"}")).status == 400


async def test_what_is_not_said_comes_from_the_price_list(it: House, fake: FakeProvider) -> None:
    """Prices, context and gaps of a known model; prices that are said are kept, zero is a price."""
    await it.provider(fake)
    filled = await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
    assert filled["pricing_source"] == "models-dev"
    assert filled["input_per_1k"] > 0
    assert filled["max_context_tokens"] == 128_000
    own = await it.done("POST", "/models", {"id": "gpt-4o-mini", "provider_id": "p", **PRICES})
    assert (own["input_per_1k"], own["pricing_source"]) == (0.002, "manual")
    assert own["max_context_tokens"] == 128_000
    free = {"id": "gpt-4.1", "provider_id": "p", "input_per_1k": 0, "output_per_1k": 0}
    shown = await it.done("POST", "/models", free)
    assert (shown["input_per_1k"], shown["pricing_source"]) == (0, "manual")


async def test_a_price_that_nobody_knows_is_not_zero(it: House, fake: FakeProvider) -> None:
    """It is marked unknown; what one hosts oneself costs nothing by itself."""
    await it.provider(fake)
    assert (await it.done("POST", "/models", {"id": "mine", "provider_id": "p"}))[
        "pricing_source"
    ] == "unknown"
    await it.done("POST", "/providers", {"id": "v", "type": "vllm", "base_url": fake.url})
    hosted = await it.done("POST", "/models", {"id": "mine", "provider_id": "v"})
    assert (hosted["pricing_source"], hosted["input_per_1k"]) == ("manual", 0)


@pytest.mark.parametrize("half", ["input_per_1k", "output_per_1k"])
async def test_half_a_price_is_refused(it: House, fake: FakeProvider, half: str) -> None:
    """The other half would be taken for free; where a price stands already one side can be changed."""
    await it.provider(fake, "p", "known")
    told = await it.admin("POST", "/models", {"id": "mine", "provider_id": "p", half: 0.001})
    assert (told.status, "output_per_1k" in told.fault["message"]) == (400, True)
    await it.done("POST", "/models", {"id": "mine", "provider_id": "p"})
    assert (await it.admin("PATCH", "/models/mine", {half: 0.001})).status == 400
    changed = await it.done("PATCH", "/models/known", {half: 0.0003})
    assert {**PRICES, half: 0.0003}.items() <= changed.items()
    assert (await it.done("PATCH", "/models/mine", PRICES))["pricing_source"] == "manual"


async def test_a_price_is_charged_as_it_was_given(it: House, fake: FakeProvider) -> None:
    """0.0003 dollars per thousand tokens are 300 nano-dollars a token, without binary noise."""
    await it.provider(fake)
    odd = {"id": "m", "provider_id": "p", "input_per_1k": 0.0003, "output_per_1k": 0.0011}
    assert odd.items() <= (await it.done("POST", "/models", odd)).items()
    told = await it.chat("m")
    usage = told.json["usage"]
    row = await it.done("GET", f"/logs/{told.header('x-request-id')}")
    assert row["cost_nanousd"] == usage["prompt_tokens"] * 300 + usage["completion_tokens"] * 1100


async def test_of_several_providers_one_must_be_named(it: House, fake: FakeProvider) -> None:
    """One id at two providers: the change says which, and the other one stays."""
    await it.provider(fake, "a", "m")
    await it.provider(fake, "b", "m")
    for method in ("PATCH", "DELETE"):
        told = await it.admin(method, "/models/m", {"weight": 9})
        assert (told.status, told.fault["param"]) == (400, "provider")
        assert (await it.admin(method, "/models/m?provider=c", {})).status == 404
    await it.done("PATCH", "/models/m?provider=b", {"weight": 9})
    assert ((await model(it, "m", "a"))["weight"], (await model(it, "m", "b"))["weight"]) == (5, 9)
    await it.done("DELETE", "/models/m?provider=a")
    assert [item["provider_id"] for item in (await it.done("GET", "/models"))["items"]] == ["b"]


async def test_an_unknown_model_or_provider_is_not_found(it: House, fake: FakeProvider) -> None:
    """404 with the field in question, and nothing comes into being."""
    await it.provider(fake)
    for method in ("PATCH", "DELETE"):
        assert (await it.admin(method, "/models/none", {})).status == 404
    told = await it.admin("POST", "/models", {"id": "m", "provider_id": "none", **PRICES})
    assert (told.status, told.fault["param"]) == (404, "provider_id")
    assert (await it.done("GET", "/models"))["total"] == 0


async def test_a_model_of_the_simulator_is_not_changed_here(simulated: House) -> None:
    """It says so, for every verb."""
    for method in ("PATCH", "DELETE"):
        told = await simulated.admin(method, "/models/gpt-4o", {"weight": 1})
        assert (told.status, "simulator" in told.fault["message"]) == (400, True)
    body = {"id": "m", "provider_id": "sim-openai", **PRICES}
    assert (await simulated.admin("POST", "/models", body)).fault["param"] == "provider_id"


async def test_a_change_holds_from_the_next_call_on(it: House, fake: FakeProvider) -> None:
    """No restart: off is off, and another name upstream is what the provider hears next."""
    await it.provider(fake, "p", "m")
    await it.done("PATCH", "/models/m", {"upstream": "m-2026"})
    assert (await it.chat("m")).status == 200
    assert fake.requests[-1].model == "m-2026"
    await it.done("PATCH", "/models/m", {"enabled": False})
    assert (await it.chat("m")).status == 503
