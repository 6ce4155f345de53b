"""Why a call went where it went, and where one would go."""

from __future__ import annotations

import pytest

from tests.fakes.house import House
from tests.fakes.provider import FakeProvider
from tests.http.test_admin import asked
from tokenhub_core.http import decisions
from tokenhub_core.http.decisions import SimulateBody, layer_of
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.types import Json, Mode

# --- what a call would come to ------------------------------------------------------------------------------


async def test_a_simulation_shows_scores_skips_and_whys(it: House, fake: FakeProvider) -> None:
    """The candidates in order with the parts of their scores, who is left out, and whose wish each was."""
    await it.provider(fake, "p", "cheap", "dear", "light")
    await it.done("PATCH", "/models/dear", {"input_per_1k": 0.1, "output_per_1k": 0.1, "weight": 6})
    await it.done("PATCH", "/models/light", {"weight": 1})
    wish = {"mode": "cheap", "min_weight": 2, "token_count": 1000, "max_output_tokens": 100}
    told = await it.done("POST", "/routing/simulate", wish)
    assert [candidate["model_id"] for candidate in told["candidates"]] == ["cheap", "dear"]
    first = told["candidates"][0]
    assert sum(first["terms"].values()) == pytest.approx(first["score"])
    assert first["estimated_cost_usd"] == pytest.approx(0.002 + 0.1 * 0.008)
    assert told["decision"] == {
        "model_id": "cheap",
        "provider_id": "p",
        "estimated_cost_usd": first["estimated_cost_usd"],
        "reason": "routed-weight-5",
    }
    assert (told["total"], told["error"]) == (2, None)
    assert told["exclusions"] == [
        {
            "reason": "weight_below_minimum",
            "count": 1,
            "models": [{"model": "light", "provider": "p", "detail": ""}],
        }
    ]
    assert told["skips"] == [
        {"model": "light", "provider": "p", "reason": "weight_below_minimum", "detail": ""}
    ]
    assert (told["reason"], told["input_tokens"]) == ("routed-weight-5", 1000)
    assert told["policy"]["why"] == {
        "mode": "request",
        "min_weight": "request",
        "max_budget_usd": "default",
        "max_latency_ms": "default",
        "fallback": "default",
        "lossy": "default",
    }


async def test_a_hint_is_pinned_as_in_a_call(it: House, fake: FakeProvider) -> None:
    """The named model leads, and `*` leaves the choice to the scores."""
    await it.provider(fake, "p", "a", "b")
    told = await it.done("POST", "/routing/simulate", {"model_hint": "b"})
    assert [(c["model_id"], c["pinned"]) for c in told["candidates"]] == [("b", True), ("a", False)]
    assert told["policy"]["why"]["model"] == "request"
    free = await it.done("POST", "/routing/simulate", {"model_hint": "*"})
    assert not any(candidate["pinned"] for candidate in free["candidates"])


@pytest.mark.parametrize(
    ("wish", "status", "left_out"),
    [
        ({"model_hint": "none"}, 404, []),
        ({"max_budget_usd": 0}, 402, ["budget_exceeded"]),
        ({"min_weight": 10}, 400, ["weight_below_minimum"]),
        ({"provider": "none"}, 503, ["not_requested"]),
        ({"dialect": "openai_embeddings"}, 400, []),
    ],
)
async def test_a_simulation_that_ends_in_nobody_says_so(
    it: House, fake: FakeProvider, wish: Json, status: int, left_out: list[str]
) -> None:
    """With the status that the call would get, and who was left out for what."""
    await it.provider(fake, "p", "m")
    told = await it.done("POST", "/routing/simulate", wish)
    assert (told["decision"], told["candidates"], told["total"]) == (None, [], 0)
    assert (told["error"]["status"], set(told["error"])) == (status, {"type", "kind", "message", "status"})
    assert [one["reason"] for one in told["exclusions"]] == left_out


async def test_a_simulation_changes_nothing(it: House, fake: FakeProvider) -> None:
    """Not the view, not the health of an ejected provider, not a metric, not the log; and it is repeatable."""
    await it.provider(fake, "p", "gpt-4o")
    fake.script("gpt-4o", ["500"])
    for _ in range(3):
        await asked(it)

    async def everything() -> tuple[object, ...]:
        health = await it.done("GET", "/health")
        metrics = (await it.ask("GET", "/metrics")).body.decode()
        # These follow the clock and the store, simulation or not.
        own = ("provider_health_state", "event_loop", "store_", "provider_connections")
        ours = [
            line
            for line in metrics.splitlines()
            if line.startswith("tokenhub_") and not line.removeprefix("tokenhub_").startswith(own)
        ]
        logs = await it.done("GET", "/logs")
        config = await it.done("GET", "/routing-config")
        states = [(i["provider_id"], i["state"], i["probing"], i["ejections"]) for i in health["providers"]]
        return it.app.catalog.fleet.version, states, ours, len(logs["logs"]), config, len(fake.requests)

    before = await everything()
    first = await it.done("POST", "/routing/simulate", {"mode": "cheap"})
    assert await it.done("POST", "/routing/simulate", {"mode": "cheap"}) == first
    assert await everything() == before


@pytest.mark.parametrize(
    "wish",
    [
        {"token_count": -1},
        {"token_count": 10**18},
        {"max_output_tokens": -1},
        {"min_weight": 11},
        {"max_budget_usd": -1},
        {"max_latency_ms": 0},
        {"mode": "fast"},
        {"needs": ["wings"]},
        {"model_hint": None},
        {"api_key_id": 1},
    ],
)
async def test_a_wish_that_cannot_be_is_refused_by_its_field(it: House, wish: Json) -> None:
    """400, in words that name it."""
    told = await it.admin("POST", "/routing/simulate", wish)
    assert (told.status, next(iter(wish)) in told.fault["message"]) == (400, True)


# --- what a call came to ------------------------------------------------------------------------------------


async def test_every_reply_names_its_decision_which_explains_it(it: House, fake: FakeProvider) -> None:
    """What was asked, who could, who was left out, what was tried, and what came of it."""
    await it.provider(fake, "p", "gpt-4o", "light")
    await it.provider(fake, "q", "gpt-4o-mini")
    await it.done("PATCH", "/models/light", {"enabled": False})
    fake.script("gpt-4o", ["500"])
    reply = await it.chat(max_tokens=7)
    told = await it.done("GET", f"/decisions/{reply.header('x-tokenhub-decision')}")
    assert told["id"] == reply.header("x-request-id")
    assert (told["asked"]["model"], told["asked"]["max_output_tokens"]) == ("gpt-4o", 7)
    assert (told["asked"]["dialect"], told["asked"]["lane"]) == ("openai_chat", "direct")
    assert told["policy"]["why"]["model"] == "request"
    tried = [(one["model"], one["provider"], one["served"], one["pinned"]) for one in told["candidates"]]
    assert tried == [("gpt-4o", "p", False, True), ("gpt-4o-mini", "q", True, False)]
    assert all(sum(one["terms"].values()) == pytest.approx(one["score"]) for one in told["candidates"])
    assert told["exclusions"] == [
        {"reason": "disabled", "count": 1, "models": [{"model": "light", "provider": "p", "detail": ""}]}
    ]
    assert [(one["n"], one["provider"], one["cause"]) for one in told["attempts"]] == [
        (1, "p", "http_500"),
        (2, "q", ""),
    ]
    assert told["served"] == {"model": "gpt-4o-mini", "provider": "q", "reason": "failover"}
    assert (told["reason"], told["outcome"], told["status"]) == ("routed-hint-exact", "ok", 200)
    assert told["error"] is None
    assert told["timings"]["total_ms"] >= told["timings"]["route_ms"] > 0
    assert (told["losses"], told["usage"]["estimated"]) == ([], False)
    assert told["cost_usd"] > 0


async def test_an_error_names_its_decision_too(it: House, fake: FakeProvider) -> None:
    """Nobody could serve: who was left out, and for what, is what the caller has to know."""
    await it.provider(fake, "p", "gpt-4o")
    await it.done("PUT", "/routing-config", {"default_max_budget_usd": 0})
    reply = await it.chat()
    assert reply.status == 402
    told = await it.done("GET", f"/decisions/{reply.header('x-tokenhub-decision')}")
    assert (told["candidates"], told["served"], told["outcome"]) == ([], None, "error")
    assert [(one["reason"], one["count"]) for one in told["exclusions"]] == [("budget_exceeded", 1)]
    assert (told["error"]["type"], told["error"]["status"]) == ("budget_exceeded", 402)
    unread = await it.ask("POST", "/v1/chat/completions", b"{", {"content-type": "application/json"})
    told = await it.done("GET", f"/decisions/{unread.header('x-tokenhub-decision')}")
    assert (told["candidates"], told["exclusions"], told["policy"]) == ([], [], None)
    assert told["error"]["status"] == 400


async def test_a_decision_that_is_none_is_not_found(it: House) -> None:
    """404."""
    assert (await it.admin("GET", "/decisions/req_none")).status == 404


async def test_what_the_api_shows_can_be_recomputed(simulated: House) -> None:
    """Every decision of a run, refused ones too: the same order, the same scores."""
    names = []
    for model in ("gpt-4o", "*", "claude-sonnet-4-5", "nobody", "auto"):
        reply = await simulated.chat(model, max_tokens=50)
        names.append(reply.header("x-tokenhub-decision"))
    all_told = [await simulated.done("GET", f"/decisions/{name}") for name in names]
    for told in all_told:
        again = recompute(told)
        assert [(c.model.id, c.provider.id, c.score) for c in again.candidates] == [
            (c["model"], c["provider"], c["score"]) for c in told["candidates"]
        ]
        assert again.reason == told["reason"]
    assert [bool(told["candidates"]) for told in all_told] == [True, True, True, False, True]


def test_wishes_are_a_layer_of_what_was_asked() -> None:
    """What was not asked for is in no layer, so that each `why` names the one whose wish it was."""
    assert layer_of(SimulateBody()).values == {}
    wishes = SimulateBody(mode=Mode.CHEAP, min_weight=0, model_hint="m", provider="p", max_budget_usd=0.0)
    assert layer_of(wishes).values == {
        "mode": Mode.CHEAP,
        "min_weight": 0,
        "model": "m",
        "provider": "p",
        "max_budget_usd": 0.0,
    }
    for any_model in ("", "*", "auto"):
        assert "model" not in layer_of(SimulateBody(model_hint=any_model)).values


def test_exclusions_are_counted_in_the_order_in_which_they_are_checked() -> None:
    """A reason of a later version comes last."""
    told = decisions.exclusions(
        [
            {"model": "a", "provider": "p", "reason": "unheard_of"},
            {"model": "b", "provider": "p", "reason": "health_down"},
            {"model": "c", "provider": "p", "reason": "disabled"},
            {"model": "d", "provider": "p", "reason": "health_down"},
        ]
    )
    assert [(one["reason"], one["count"]) for one in told] == [
        ("disabled", 1),
        ("health_down", 2),
        ("unheard_of", 1),
    ]


async def test_the_dialect_of_the_caller_counts(it: House, fake: FakeProvider) -> None:
    """A call for vectors is never translated, and needs no model that speaks."""
    await it.provider(fake, "p", "m")
    await it.provider(fake, "q", "m", type="anthropic")
    told = await it.done("POST", "/routing/simulate", {"model_hint": "m", "dialect": "openai_embeddings"})
    assert told["dialect"] == "openai_embeddings"
    assert [one["provider"] for one in told["candidates"]] == ["p"]
    assert [(one["reason"], one["count"]) for one in told["exclusions"]] == [("no_adapter", 1)]
    assert "chat" not in told["asked"]["needs"]
    chat = await it.done("POST", "/routing/simulate", {"dialect": "anthropic_messages"})
    assert {one["provider"]: one["dialect"] for one in chat["candidates"]} == {
        "p": "openai_chat",
        "q": "anthropic_messages",
    }
    assert chat["asked"]["needs"] == ["chat"]
