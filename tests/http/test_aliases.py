"""Aliases over the admin API, the calls that they stand in, and what came of those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.http.test_admin_providers import quoted
from tokenhub_core.types import Json


def body(*variants: Any, **more: Any) -> Json:
    pairs = [one if isinstance(one, tuple) else (one, 1) for one in variants]
    listed = [{"model_id": name, "weight": weight} for name, weight in pairs]
    return {"name": "fast", "variants": listed, **more}


async def test_an_alias_is_registered_shown_and_removed(it: House, fake: FakeProvider) -> None:
    """201 the first time, 200 when it is replaced; the list shows what the answer showed."""
    await it.provider(fake, "p", "a", "b")
    told = await it.admin("POST", "/aliases", body(("a", 3), "b", sticky_by="key"))
    assert told.status == 201
    assert told.json == {
        "name": "fast",
        "strategy": "weighted",
        "variants": [
            {"model_id": "a", "weight": 3, "missing": ""},
            {"model_id": "b", "weight": 1, "missing": ""},
        ],
        "sticky_by": "key",
        "enabled": True,
        "output_format": None,
        "strip_think": False,
        "shadowed": False,
    }
    assert await it.done("GET", "/aliases/fast") == told.json
    assert await it.done("GET", "/aliases") == {"items": [told.json], "total": 1}
    assert (await it.admin("POST", "/aliases", body("b"))).status == 200
    await it.done("DELETE", "/aliases/fast")
    assert (await it.admin("DELETE", "/aliases/fast")).status == 404
    assert (await it.admin("GET", "/aliases/fast")).status == 404


async def test_a_patch_changes_what_it_names(it: House, fake: FakeProvider) -> None:
    """And is checked like the whole."""
    await it.provider(fake, "p", "a", "b")
    await it.done("POST", "/aliases", body("a", "b", sticky_by="key"))
    told = await it.done("PATCH", "/aliases/fast", {"enabled": False})
    assert (told["enabled"], told["sticky_by"], len(told["variants"])) == (False, "key", 2)
    told = await it.done("PATCH", "/aliases/fast", {"variants": [{"model_id": "b", "weight": 2}]})
    assert [one["weight"] for one in told["variants"]] == [2]
    refused = await it.admin("PATCH", "/aliases/fast", {"strategy": "round_robin"})
    assert (refused.status, refused.fault["param"]) == (400, "sticky_by")
    assert (await it.admin("PATCH", "/aliases/none", {"enabled": True})).status == 404


@pytest.mark.parametrize("name", ["vendor/fast", "with space", "ümläut", "a?b#c", "a//b", "100%", "report"])
async def test_a_name_may_hold_whatever_can_be_seen(it: House, fake: FakeProvider, name: str) -> None:
    """It is called, reported, changed and removed under its own name."""
    await it.provider(fake, "p", "a")
    await it.done("POST", "/aliases", body("a", name=name))
    assert (await it.chat(name)).status == 200
    assert (await it.done("GET", f"/aliases/{quoted(name)}/report"))["requests"] == 1
    assert (await it.done("PATCH", f"/aliases/{quoted(name)}", {"enabled": False}))["name"] == name
    await it.done("DELETE", f"/aliases/{quoted(name)}")
    assert (await it.done("GET", "/aliases"))["total"] == 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"name": "a"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x\n"}, "name"),
        ({"name": "auto"}, "name"),
        ({"name": "x/report"}, "name"),
        ({"variants": [{"model_id": "unknown"}]}, "variants"),
        ({"variants": [{"model_id": "chained"}]}, "variants"),
        ({"variants": []}, "variants"),
        ({"strategy": "pool", "variants": [{"model_id": "gpt-*"}]}, "variants"),
    ],
)
async def test_an_alias_that_leads_nowhere_is_refused(
    it: House, fake: FakeProvider, changes: Json, param: str
) -> None:
    """With the field that is wrong; nothing is stored."""
    await it.provider(fake, "p", "a")
    await it.done("POST", "/aliases", body("a", name="chained"))
    refused = await it.admin("POST", "/aliases", {**body("a"), **changes})
    assert (refused.status, refused.fault["param"]) == (400, param)
    assert (await it.done("GET", "/aliases"))["total"] == 1


@pytest.mark.parametrize("wrong", [{"weight": -1}, {"weight": 1.5}, {"weight": 10_001}, {"share": 1}])
async def test_a_weight_is_a_whole_number(it: House, fake: FakeProvider, wrong: Json) -> None:
    """From nothing to ten thousand."""
    await it.provider(fake, "p", "a")
    refused = await it.admin("POST", "/aliases", {"name": "x", "variants": [{"model_id": "a", **wrong}]})
    assert refused.status == 400


async def test_calls_are_told_by_alias_and_reported(it: House, fake: FakeProvider) -> None:
    """The reply names the alias, the record the variant too, and the report counts both."""
    await it.provider(fake, "p", "a", "b")
    await it.done("POST", "/aliases", body("a", "b", strategy="round_robin"))
    replies = [await it.chat("fast") for _ in range(4)]
    assert [reply.header("x-tokenhub-alias") for reply in replies] == ["fast"] * 4
    assert [reply.header("x-tokenhub-model") for reply in replies] == ["a", "b", "a", "b"]
    assert not (await it.chat("a")).header("x-tokenhub-alias")
    record = await it.done("GET", f"/logs/{replies[1].header('x-request-id')}")
    assert (record["requested_model"], record["alias"], record["variant"]) == ("fast", "fast", "b")
    assert record["decision"]["policy"]["why"]["model"] == "request, alias fast"
    report = await it.done("GET", "/aliases/fast/report")
    assert (report["requests"], report["complete"], report["confidence"]) == (4, True, 0.95)
    a, b = report["variants"]
    assert (a["model_id"], a["weight"], a["requests"], a["succeeded"], b["requests"]) == ("a", 1, 2, 2, 2)
    assert a["success_rate"]["value"] == 1.0
    assert 0 < a["success_rate"]["low"] < 1
    assert a["cost_usd"]["value"] > 0
    assert a["latency_ms"]["low"] is not None


async def test_a_report_is_of_the_variant_that_was_meant(it: House, fake: FakeProvider) -> None:
    """Another model's answer counts for it, and is told; times bound what is counted."""
    await it.provider(fake, "p", "a", "b")
    await it.done("POST", "/aliases", body("a"))
    fake.script("a", ["500"])
    assert (await it.chat("fast")).header("x-tokenhub-model") == "b"
    (a,) = (await it.done("GET", "/aliases/fast/report"))["variants"]
    assert (a["model_id"], a["succeeded"], a["failed_over"]) == ("a", 1, 1)
    assert (await it.done("GET", "/aliases/fast/report?since=9999999999"))["requests"] == 0
    for wrong in ("since=x", "until=-1", "since=nan", "until=inf"):
        assert (await it.admin("GET", f"/aliases/fast/report?{wrong}")).status == 400


async def test_the_report_outlives_the_alias(it: House, fake: FakeProvider) -> None:
    """What happened has happened; of one that never was there is none."""
    await it.provider(fake, "p", "a")
    await it.done("POST", "/aliases", body("a"))
    await it.chat("fast")
    await it.done("DELETE", "/aliases/fast")
    report = await it.done("GET", "/aliases/fast/report")
    assert [(one["model_id"], one["weight"], one["requests"]) for one in report["variants"]] == [
        ("a", None, 1)
    ]
    assert (await it.chat("fast")).status == 404
    assert (await it.admin("GET", "/aliases/never/report")).status == 404


async def test_a_pool_follows_the_models_that_there_are(it: House, fake: FakeProvider) -> None:
    """One that is registered later is in it; its report tells them apart."""
    await it.provider(fake, "p", "claude-1", "other")
    pool = {"name": "*", "strategy": "pool", "variants": [{"model_id": "claude-*"}]}
    assert (await it.done("POST", "/aliases", pool))["models"] == ["claude-1"]
    await it.provider(fake, "q", "claude-2")
    assert (await it.done("GET", "/aliases/*"))["models"] == ["claude-1", "claude-2"]
    reply = await it.chat("auto")
    assert reply.header("x-tokenhub-alias") == "*"
    decision = (await it.done("GET", f"/logs/{reply.header('x-request-id')}"))["decision"]
    assert decision["policy"]["models"] == ["claude-1", "claude-2"]
    assert {"model": "other", "provider": "p", "reason": "not_requested", "detail": ""} in decision["skips"]
    (one,) = (await it.done("GET", "/aliases/*/report"))["variants"]
    assert (one["model_id"], one["requests"]) == (reply.header("x-tokenhub-model"), 1)


async def test_what_has_gone_is_shown(it: House, fake: FakeProvider) -> None:
    """A target that was removed, and an alias that a model's id has taken the place of."""
    await it.provider(fake, "p", "a", "b")
    await it.done("POST", "/aliases", body("a", "b"))
    await it.done("DELETE", "/models/a")
    shown = await it.done("GET", "/aliases/fast")
    assert [one["missing"] for one in shown["variants"]] == ["is not registered", ""]
    assert (await it.chat("fast")).header("x-tokenhub-model") == "b"
    await it.done("DELETE", "/models/b")
    assert (await it.chat("fast")).fault["code"] == "alias_empty"
    await it.provider(fake, "p", "fast")
    assert (await it.done("GET", "/aliases/fast"))["shadowed"] is True
    reply = await it.chat("fast")
    assert (reply.header("x-tokenhub-model"), reply.header("x-tokenhub-alias")) == ("fast", "")


async def test_an_alias_outlives_a_restart(tmp_path: Path, fake: FakeProvider) -> None:
    """As it was."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "a")
        told = await it.done("POST", "/aliases", body("a", sticky_by="conversation"))
    async with house(tmp_path) as it:
        assert await it.done("GET", "/aliases/fast") == told


async def test_a_simulated_decision_resolves_an_alias_and_takes_no_turn(
    it: House, fake: FakeProvider
) -> None:
    """Asking what would happen changes nothing."""
    await it.provider(fake, "p", "a", "b")
    await it.done("POST", "/aliases", body("a", "b", strategy="round_robin"))
    for _ in range(3):
        told = await it.done("POST", "/routing/simulate", {"model_hint": "fast"})
        assert told["policy"]["model"] == "a"
    assert (await it.chat("fast")).header("x-tokenhub-model") == "a"
