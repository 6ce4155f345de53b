"""The rest of the admin API: routing defaults, the simulator of decisions, health, the request log, the vault."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core import __version__

DIRECTIVE = "@@tokenhub nonsense=1\nHello"


async def asked(it: House, text: str = "Hello", model: str = "gpt-4o") -> int:
    messages = [{"role": "user", "content": text}]
    return (await it.ask("POST", "/v1/chat/completions", {"model": model, "messages": messages})).status


# --- what it is ---------------------------------------------------------------------------------------------


async def test_the_info_says_what_is_running(simulated: House) -> None:
    """Version, whether answers are made up, the vault's state, and how much there is."""
    info = await simulated.done("GET", "/info")
    assert (info["version"], info["simulated"], info["vault"]) == (__version__, True, "uninitialised")
    assert info["providers"] == 4
    assert info["models"] > 10


# --- routing defaults ---------------------------------------------------------------------------------------


async def test_what_holds_is_shown_beside_what_was_set(tmp_path: Path) -> None:
    """Nothing was set: nulls, and under `effective` what the settings say."""
    async with house(tmp_path, settings={"DEFAULT_MODE": "cheap", "DEFAULT_MAX_BUDGET_USD": "0.5"}) as it:
        config = await it.done("GET", "/routing-config")
        assert config == {
            "default_mode": None,
            "default_max_budget_usd": None,
            "default_max_latency_ms": None,
            "on_malformed_directive": None,
            "fallback": None,
            "explore": None,
            "affinity": None,
            "effective": {
                "default_mode": "cheap",
                "default_max_budget_usd": 0.5,
                "default_max_latency_ms": None,
                "on_malformed_directive": "reject",
                "fallback": True,
                "explore": "off",
                "affinity": "on",
            },
        }


async def test_a_default_holds_from_the_next_call_on_and_over_a_restart(
    tmp_path: Path, fake: FakeProvider
) -> None:
    """A budget of zero is a budget, null is none; the same is true after a restart."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        assert await asked(it) == 200
        config = await it.done("PUT", "/routing-config", {"default_max_budget_usd": 0})
        assert (config["default_max_budget_usd"], config["effective"]["default_max_budget_usd"]) == (0, 0)
        assert await asked(it) == 402
    async with house(tmp_path) as it:
        await it.done("PATCH", "/providers/p", {"api_key": "sk", "cred_store": "memory"})
        assert await asked(it) == 402
        config = await it.done("PUT", "/routing-config", {"default_max_budget_usd": None})
        assert config["effective"]["default_max_budget_usd"] is None
        assert await asked(it) == 200


async def test_put_is_the_whole_of_it(it: House) -> None:
    """What a PUT does not name goes back to the setting."""
    await it.done("PUT", "/routing-config", {"default_mode": "cheap", "fallback": False})
    config = await it.done("PUT", "/routing-config", {"default_max_latency_ms": 1000})
    assert (config["default_mode"], config["fallback"], config["default_max_latency_ms"]) == (
        None,
        None,
        1000,
    )
    assert (config["effective"]["default_mode"], config["effective"]["fallback"]) == ("normal", True)


async def test_what_a_malformed_directive_does_can_be_changed(it: House, fake: FakeProvider) -> None:
    """Reject, ignore, leave in place: live."""
    await it.provider(fake, "p", "gpt-4o")
    for wish, status in (("reject", 400), ("ignore", 200), ("off", 200), (None, 400)):
        await it.done("PUT", "/routing-config", {"on_malformed_directive": wish})
        assert await asked(it, DIRECTIVE) == status
    assert [b"@@tokenhub" in request.body for request in fake.requests] == [True, True]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("default_mode", "fast"),
        ("default_mode", ""),
        ("default_max_budget_usd", -0.01),
        ("default_max_budget_usd", 100.01),
        ("default_max_budget_usd", "none"),
        ("default_max_latency_ms", 0),
        ("default_max_latency_ms", 3_600_001),
        ("default_max_latency_ms", 1.5),
        ("on_malformed_directive", "explode"),
        ("fallback", "yes"),
        ("updated_at", 0),
        ("effective", {}),
    ],
)
async def test_a_bad_default_is_refused_by_its_field(it: House, field: str, value: object) -> None:
    """400 that names it, and what was set stays."""
    before = await it.done("PUT", "/routing-config", {"default_mode": "cheap"})
    told = await it.admin("PUT", "/routing-config", {field: value})
    assert (told.status, field in told.fault["message"]) == (400, True)
    assert await it.done("GET", "/routing-config") == before


# --- health -------------------------------------------------------------------------------------------------


async def test_health_is_told_in_calendar_time(it: House, fake: FakeProvider) -> None:
    """Moments are seconds since the epoch, and a provider that was never called has every field too."""
    await it.provider(fake, "p", "gpt-4o")
    await it.provider(fake, "q")
    fake.script("gpt-4o", ["500"])
    for _ in range(3):
        await asked(it)
    ill, well = (await it.done("GET", "/health"))["providers"]
    assert (ill["provider_id"], ill["state"], ill["last_error"]) == ("p", "down", "http_500")
    now = time.time()
    assert ill["last_error_at"] == pytest.approx(now, abs=5)
    assert ill["cooldown_until"] == pytest.approx(now + 30, abs=5)
    assert ill["last_success_at"] is None
    assert set(well) == set(ill)
    assert (well["provider_id"], well["state"], well["calls"]) == ("q", "healthy", 0)


# --- the request log ----------------------------------------------------------------------------------------


async def test_the_log_is_paged_without_gaps_or_repeats(it: House, fake: FakeProvider) -> None:
    """`next` of one page is `before` of the following one; calls that come meanwhile move nothing."""
    await it.provider(fake, "p", "gpt-4o")
    ids = [(await it.chat()).header("x-request-id") for _ in range(5)]
    found: list[str] = []
    before = ""
    while True:
        page = await it.done("GET", f"/logs?limit=2{before}")
        found += [row["id"] for row in page["logs"]]
        await it.chat()
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert found == ids[::-1]


async def test_a_record_is_found_by_its_id(it: House, fake: FakeProvider) -> None:
    """With its decision and attempts, its time in seconds; the list leaves the decision out."""
    await it.provider(fake, "p", "gpt-4o")
    name = (await it.chat()).header("x-request-id")
    row = await it.done("GET", f"/logs/{name}")
    assert row["at"] == pytest.approx(time.time(), abs=60)
    assert row["decision"]["candidates"][0]["model"] == "gpt-4o"
    assert [attempt["provider"] for attempt in row["attempts"]] == ["p"]
    listed = (await it.done("GET", "/logs"))["logs"][0]
    assert "decision" not in listed
    assert listed["at"] == row["at"]
    for unknown in ("req_none", "'%20OR%201=1", "%00"):
        assert (await it.admin("GET", f"/logs/{unknown}")).status == 404


async def test_the_log_is_filtered(it: House, fake: FakeProvider) -> None:
    """By model, provider, outcome, and a piece of text that means itself, percent signs too."""
    await it.provider(fake, "a", "one")
    await it.provider(fake, "b", "two")
    await asked(it, model="one")
    await asked(it, model="two")
    await asked(it, model="none%")
    for query, models in (
        ("model=one", ["one"]),
        ("provider=b", ["two"]),
        ("outcome=error", ["none%"]),
        ("outcome=ok", ["two", "one"]),
        ("q=ONE%25", ["none%"]),
        ("q=tw", ["two"]),
        ("q='%20OR%201=1", []),
        ("model=one&outcome=error", []),
    ):
        rows = (await it.done("GET", f"/logs?{query}"))["logs"]
        assert [row["requested_model"] for row in rows] == models, query


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1e2",
        "limit=%D9%A1",
        "limit=0000000000000000000001999999",
        "before=-1",
        "before=1.5",
        "before=100000000000000000000000000000",
        "before=" + "9" * 5000,
        "outcome=fine",
    ],
)
async def test_a_bad_query_is_refused_by_its_name(it: House, query: str) -> None:
    """Never clipped, never ignored."""
    told = await it.admin("GET", f"/logs?{query}")
    assert (told.status, told.fault["param"]) == (400, query.partition("=")[0])


# --- the vault ----------------------------------------------------------------------------------------------


async def test_the_vault_is_made_locked_and_unlocked(it: House) -> None:
    """Each answer says the state; wrong passwords and wrong moments are told as such."""
    password = {"admin_password": "correct horse battery"}
    state = {"state": "uninitialised", "entries": 0, "seals": 0, "bad": []}
    assert await it.done("GET", "/vault") == state
    assert (await it.admin("POST", "/vault/unlock", password)).status == 400
    assert (await it.admin("POST", "/vault/init", {"admin_password": "short"})).status == 400
    assert (await it.done("POST", "/vault/init", password))["state"] == "unlocked"
    assert (await it.admin("POST", "/vault/init", password)).status == 400
    assert (await it.done("POST", "/vault/lock"))["state"] == "locked"
    wrong = await it.admin("POST", "/vault/unlock", {"admin_password": "incorrect horse battery"})
    assert (wrong.status, wrong.fault["code"]) == (401, "wrong_password")
    assert (await it.done("GET", "/vault"))["state"] == "locked"
    assert (await it.done("POST", "/vault/unlock", password))["state"] == "unlocked"
