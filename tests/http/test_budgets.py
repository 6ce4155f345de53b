"""Budgets over the admin API, with calls that count in them, in a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.config import Settings
from tokenhub_core.types import Json


def body(limit: int = 10_000_000, **more: Any) -> Json:
    return {"owner": "all", "limit": limit, **more}


async def audited(it: House, action: str) -> list[Json]:
    """Return the entries of one action, oldest first."""
    found = await it.done("GET", f"/audit?action={action}")
    return list(reversed(found["entries"]))


async def crossings(it: House, count: int) -> list[Json]:
    """Return what was written of thresholds, once there are so many."""
    found: list[Json] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found = await audited(it, "budget.cross")
    return found


async def spent(it: House) -> int:
    """Return what the request log says of money, in nano-dollars."""
    logs = await it.done("GET", "/logs?limit=1000")
    return sum(one["cost_nanousd"] for one in logs["logs"])


async def test_a_budget_is_made_shown_and_removed(it: House) -> None:
    """201 the first time; the list and the budget's own page show what the answer showed."""
    told = await it.admin("POST", "/budgets", body(zone="Europe/Berlin"))
    assert told.status == 201
    made = told.json
    since, resets, created = made.pop("since"), made.pop("resets_at"), made.pop("created_at")
    assert since == created < resets < created + 32 * 86_400
    assert made == {
        "id": made["id"],
        "owner": "all",
        "period": "month",
        "unit": "usd",
        "zone": "Europe/Berlin",
        "limit": 10_000_000,
        "spent": 0,
        "reserved": 0,
        "left": 10_000_000,
        "thresholds": [50, 80, 95],
        "hard": True,
        "forecast": None,
    }
    assert await it.done("GET", f"/budgets/{made['id']}") == told.json
    assert await it.done("GET", "/budgets") == {"items": [told.json], "total": 1}
    await it.done("DELETE", f"/budgets/{made['id']}")
    assert await it.done("GET", "/budgets") == {"items": [], "total": 0}
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/paid")):
        gone = await it.admin(method, f"/budgets/{made['id']}{path}", {} if method == "PATCH" else None)
        assert (gone.status, gone.fault["message"]) == (404, f"no budget '{made['id']}'")


async def test_one_of_the_same_owner_period_and_unit_is_changed(it: House) -> None:
    """200, under its id, with its count and zone; any other one is another one."""
    first = await it.done("POST", "/budgets", body())
    again = await it.admin("POST", "/budgets", body(5, thresholds=[10], hard=False))
    assert again.status == 200
    assert again.json == {**first, "limit": 5, "left": 5, "thresholds": [10], "hard": False}
    refused = await it.admin("POST", "/budgets", body(zone="Asia/Tokyo"))
    assert (refused.status, refused.fault["param"]) == (400, "zone")
    for changes in ({"owner": "key:k1"}, {"unit": "tokens"}, {"period": "day"}):
        assert (await it.admin("POST", "/budgets", {**body(), **changes})).status == 201
    assert (await it.done("GET", "/budgets"))["total"] == 4
    assert [one["owner"] for one in (await it.done("GET", "/budgets?owner=key:k1"))["items"]] == ["key:k1"]


async def test_a_patch_changes_what_it_names(it: House) -> None:
    """And is checked like the whole."""
    made = await it.done("POST", "/budgets", body(unit="tokens"))
    path = f"/budgets/{made['id']}"
    assert await it.done("PATCH", path, {}) == made
    assert await it.done("PATCH", path, {"limit": 7}) == {**made, "limit": 7, "left": 7}
    told = await it.done("PATCH", path, {"thresholds": [], "hard": False})
    assert told == {**made, "limit": 7, "left": 7, "thresholds": [], "hard": False}
    refused = await it.admin("PATCH", path, {"thresholds": [80, 50]})
    assert (refused.status, refused.fault["param"]) == (400, "thresholds")
    assert (await it.admin("PATCH", path, {"period": "day"})).status == 400
    assert await it.done("GET", path) == told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owner": "me"}, "owner: all, key:ID or project:NAME"),
        ({"limit": -1}, "$.limit"),
        ({"limit": 10**16}, "$.limit"),
        ({"limit": 1.5}, "$.limit"),
        ({"period": "year"}, "$.period"),
        ({"unit": "eur"}, "$.unit"),
        ({"zone": "Mars/Olympus"}, "'Mars/Olympus' is no time zone"),
        ({"zone": "../etc/passwd"}, "is no time zone"),
        ({"thresholds": [0]}, "$.thresholds"),
        ({"thresholds": [101]}, "$.thresholds"),
        ({"thresholds": [80, 50]}, "thresholds: at most ten, ascending"),
        ({"spent": 1}, "spent"),
    ],
)
async def test_a_budget_that_cannot_be_is_refused(it: House, changes: Json, words: str) -> None:
    """With what is wrong; and nothing is made."""
    refused = await it.admin("POST", "/budgets", body(**changes))
    assert refused.status == 400
    assert words in refused.fault["message"]
    assert (await it.done("GET", "/budgets"))["total"] == 0


async def test_a_zone_that_is_none_is_named_as_what_is_wrong(it: House) -> None:
    """Forms show the error beside its field."""
    refused = await it.admin("POST", "/budgets", body(zone="Mars/Olympus"))
    assert (refused.status, refused.fault["param"]) == (400, "zone")


async def test_every_call_counts_until_nothing_is_left(it: House, fake: FakeProvider) -> None:
    """What is shown is the sum over the log; then calls are refused in the caller's dialect; paid begins anew."""
    await it.provider(fake, "p", "a")
    made = await it.done("POST", "/budgets", body(2_000))
    path = f"/budgets/{made['id']}"
    answers = [await it.chat("a", max_tokens=50) for _ in range(50)]
    statuses = [one.status for one in answers]
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 402}
    answer = answers[-1]
    assert answer.fault["code"] == "budget_exhausted"
    assert "$0.002 of this month are spent" in answer.fault["message"]
    assert 'unit=microusd, id="bud_' in answer.header("x-tokenhub-budget")
    shown = await it.done("GET", path)
    total = await spent(it)
    assert 0 < total <= 2_000_000
    assert (shown["spent"], shown["reserved"]) == (-(-total // 1000), 0)
    assert shown["left"] == (2_000_000 - total) // 1000
    paid = await it.done("POST", f"{path}/paid")
    assert (paid["spent"], paid["left"]) == (0, 2_000)
    assert paid["since"] > shown["since"]
    assert (await it.chat("a", max_tokens=50)).status == 200
    assert (await it.done("GET", path))["spent"] > 0
    refused = await it.admin("POST", f"{path}/paid", {"at": 1})
    assert refused.status == 400


async def test_a_count_survives_a_restart(tmp_path: Path, fake: FakeProvider) -> None:
    """In whichever unit, with its thresholds; a budget that was removed stays so."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "a")
        made = [await it.done("POST", "/budgets", body(10, unit=unit)) for unit in ("usd", "requests")]
        gone = await it.done("POST", "/budgets", body(10**9, unit="tokens"))
        await it.done("PATCH", f"/budgets/{made[0]['id']}", {"limit": 10**9})
        for _ in range(6):
            assert (await it.chat("a", max_tokens=50)).status == 200
        await it.done("DELETE", f"/budgets/{gone['id']}")
        assert [one["after"]["percent"] for one in await crossings(it, 1)] == [50]
        before = (await it.done("GET", "/budgets"))["items"]
    async with house(tmp_path) as it:
        after = (await it.done("GET", "/budgets"))["items"]
        assert [{**one, "forecast": None} for one in after] == [{**one, "forecast": None} for one in before]
        assert after[1]["spent"] == 6
        await it.provider(fake, "p", "a")
        for _ in range(4):
            assert (await it.chat("a", max_tokens=50)).status == 200
        assert (await it.chat("a", max_tokens=50)).status == 402
        assert [one["after"]["percent"] for one in await crossings(it, 4)] == [50, 80, 95, 100]


async def test_changes_and_thresholds_are_audited(it: House, fake: FakeProvider) -> None:
    """Who made it, what changed, and what the service saw by itself, each once."""
    await it.provider(fake, "p", "a")
    made = await it.done("POST", "/budgets", body(2, unit="requests", thresholds=[50]))
    with it.bus.listen() as listener:
        await it.chat("a")
        await it.chat("a")
        told, heard = await crossings(it, 2), list[Json]()
        async with asyncio.timeout(PATIENCE):
            while len(heard) < 2:
                await listener.ready()
                heard += [event.data for event in listener.take() if event.type == "budget_threshold"]
    assert [(one["actor"], one["subject"], one["after"]["percent"]) for one in told] == [
        ("system", made["id"], 50),
        ("system", made["id"], 100),
    ]
    assert [(one["percent"], one["spent"], one["unit"]) for one in heard] == [
        (50, 1, "requests"),
        (100, 2, "requests"),
    ]
    await it.done("PATCH", f"/budgets/{made['id']}", {"limit": 9})
    await it.done("DELETE", f"/budgets/{made['id']}")
    (created,) = await audited(it, "budget.create")
    (changed,) = await audited(it, "budget.change")
    (deleted,) = await audited(it, "budget.delete")
    assert created["after"]["thresholds"] == [50]
    assert (changed["before"], changed["after"]) == ({"limit": 2}, {"limit": 9})
    assert deleted["before"]["limit"] == 9
    assert {one["actor"] for one in (created, changed, deleted)} == {"admin-token"}


async def test_dollars_are_told_of_in_their_unit(it: House, fake: FakeProvider) -> None:
    """The audit log has nano-dollars, and says so."""
    await it.provider(fake, "p", "a")
    await it.done("POST", "/budgets", body(1, hard=False))
    await it.chat("a", max_tokens=50)
    told = await crossings(it, 4)
    assert {(one["after"]["unit"], one["after"]["limit"]) for one in told} == {("nanousd", 1_000)}
    assert told[0]["after"]["spent"] == await spent(it)


async def test_the_zone_is_a_setting(tmp_path: Path) -> None:
    """For budgets that name none; what was made keeps the zone that it was made in."""
    async with house(tmp_path, settings={"BUDGET_ZONE": "Asia/Tokyo"}) as it:
        made = await it.done("POST", "/budgets", body())
        assert made["zone"] == "Asia/Tokyo"
        assert (made["resets_at"] + 9 * 3600) % 86_400 == 0
    async with house(tmp_path) as it:
        assert (await it.done("GET", "/budgets"))["items"] == [made]
        assert (await it.done("PATCH", f"/budgets/{made['id']}", {"limit": 3}))["zone"] == "Asia/Tokyo"
    assert Settings().budget_zone == "UTC"
