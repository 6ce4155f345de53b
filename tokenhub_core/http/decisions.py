"""The admin API's part about decisions: why a call went where it went, and where one would go.

    GET  /admin/v1/decisions/{id}     the id is in `x-tokenhub-decision` of every reply
    POST /admin/v1/routing/simulate   the same of a call that nobody makes; changes nothing

Both answer in one shape, `shown`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

import msgspec
from aiohttp import web
from msgspec import Meta

from tokenhub_core.errors import Fault, Kind, TokenHubError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.policy import ANY_MODEL, Layer
from tokenhub_core.routing import decision
from tokenhub_core.routing.estimate import BYTES_PER_TOKEN
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.rows import MICROS
from tokenhub_core.types import NANO, Dialect, Features, Json, Mode, Need, Plan, Skipped

BASE: Final = "/admin/v1"
_NOBODY: Final[Json] = {
    "reason": "",
    "candidates": [],
    "spared": [],
    "skips": [],
    "asked": None,
    "policy": None,
}
"""The decision of an exchange that came to none."""
_USAGE: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class SimulateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /routing/simulate`. What is absent is as in a call that says nothing of it."""

    mode: Mode | None = None
    max_budget_usd: shapes.Budget | None = None
    max_latency_ms: shapes.Latency | None = None
    min_weight: shapes.Weight | None = None
    token_count: shapes.Tokens = 500
    max_output_tokens: shapes.Tokens | None = None
    model_hint: str = ""
    provider: str | None = None
    needs: list[Need] = []
    fallback: bool | None = None
    dialect: Dialect = Dialect.OPENAI_CHAT
    """The caller's."""
    stream: bool = False
    seed: Annotated[str, Meta(max_length=100)] = "simulate"
    """What breaks ties, in a call its id."""


class Simulating(Protocol):
    """Who decides calls that nobody makes."""

    def simulate(
        self, features: Features, wishes: Layer, *, dialect: Dialect, seed: str
    ) -> tuple[Plan, Fault | None]:
        """Return the plan, and why where nobody could serve; changes nothing."""
        ...


class Decisions:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, requests: RequestLog, engine: Simulating) -> None:
        self._requests = requests
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(f"{BASE}/decisions/{{id}}", self._decision),
            web.post(f"{BASE}/routing/simulate", self._simulate),
        ]

    async def _decision(self, request: web.Request) -> web.Response:
        row = await asyncio.to_thread(self._requests.get, request.match_info["id"])
        if row is None:
            raise client_fault("there is no such decision", kind=Kind.NOT_FOUND, param="id")
        return answer(of_record(row))

    async def _simulate(self, request: web.Request) -> web.Response:
        """Say what a call would come to, also where that is an error: then `error` says which."""
        body = await shapes.read(request, SimulateBody)
        features = Features(
            model=body.model_hint,
            stream=body.stream,
            max_output_tokens=body.max_output_tokens,
            needs=frozenset(body.needs),
            text_bytes=body.token_count * BYTES_PER_TOKEN,
        )
        try:
            plan, fault = self._engine.simulate(
                features, layer_of(body), dialect=body.dialect, seed=body.seed
            )
        except TokenHubError as error:
            return answer(_undecided(body, error.fault))
        return answer(of_simulation(plan, fault))


def of_simulation(plan: Plan, fault: Fault | None) -> Json:
    """Return a plan that nobody follows; `decision` is what would be tried first, null where nothing would."""
    told = shown(decision.shown(plan))
    first = told["candidates"][0] if told["candidates"] else None
    chosen = first and {
        "model_id": first["model"],
        "provider_id": first["provider"],
        "estimated_cost_usd": first["estimated_cost_usd"],
        "reason": plan.reason,
    }
    return {**told, "decision": chosen, "total": len(plan.candidates), "error": fault and _error(fault)}


def of_record(row: Json) -> Json:
    """Return a stored record as a decision: what was asked and decided, what was tried, and what came of it.

    Where `shadow` is not null, nobody followed the decision: the call went its own way.
    """
    served = {"model": row["model_id"], "provider": row["provider_id"]}
    error = {"type": row["error_class"], "message": row["message"], "status": row["status"]}
    told = shown({**_NOBODY, **(row["decision"] or {})})
    for candidate in told["candidates"]:
        candidate["served"] = served == {name: candidate[name] for name in ("model", "provider")}
    return {
        "id": row["id"],
        "at": row["at"] / MICROS,
        **told,
        "asked": {
            **(told["asked"] or {"stream": row["stream"]}),
            "model": row["requested_model"],
            "dialect": row["dialect"],
            **{name: row[name] for name in ("method", "path", "origin_host", "lane", "program", "directive")},
            **{name: row.get(name, "") for name in ("alias", "variant")},
        },
        "served": {**served, "reason": row["reason"]} if row["model_id"] else None,
        "attempts": row["attempts"],
        "timings": {name: row[name] for name in ("queue_ms", "route_ms", "ttft_ms", "total_ms")},
        "usage": {name: row[name] for name in _USAGE} | {"estimated": row["usage_estimated"]},
        "cost_usd": row["cost_nanousd"] / NANO,
        "losses": row["losses"],
        **{name: row[name] for name in ("outcome", "status", "identical", "simulated", "stop_reason")},
        "error": error if row["error_class"] else None,
        "shadow": row.get("shadow"),
        "composition": row.get("composition"),
    }


def shown(told: Json) -> Json:
    """Return a decision with what people ask of it first: dollars, and the exclusions counted by reason."""
    return {
        **told,
        "candidates": [_priced(one) for one in told["candidates"]],
        "spared": [_priced(one) for one in told.get("spared", ())],
        "exclusions": exclusions([*told["skips"], *told.get("passed_over", ())]),
    }


def exclusions(skips: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return how many models were left out for each reason, and which, in the order in which reasons are checked."""
    order = [reason.value for reason in Skipped]
    found: dict[str, list[Json]] = {}
    for skip in skips:
        one = {name: skip.get(name, "") for name in ("model", "provider", "detail")}
        found.setdefault(skip["reason"], []).append(one)
    ranked = sorted(found, key=lambda reason: order.index(reason) if reason in order else len(order))
    return [{"reason": reason, "count": len(found[reason]), "models": found[reason]} for reason in ranked]


def _priced(candidate: Json) -> Json:
    dollars = candidate["estimated_nanousd"] / NANO
    names = {"model_id": candidate["model"], "provider_id": candidate["provider"]}
    return {**candidate, **names, "estimated_cost_usd": dollars}


def _error(fault: Fault) -> Json:
    return {
        "type": fault.label,
        "kind": fault.kind.value,
        "message": fault.message,
        "status": fault.http_status,
    }


def _undecided(body: SimulateBody, fault: Fault) -> Json:
    """Return what is told of a call that is refused before anybody is looked at."""
    asked = {"model": body.model_hint, "stream": body.stream}
    told = shown({**_NOBODY, "asked": asked, "dialect": body.dialect.value})
    return {**told, "decision": None, "total": 0, "error": _error(fault)}


def layer_of(body: SimulateBody) -> Layer:
    """Return the wishes of a simulated call."""
    names = ("mode", "max_budget_usd", "max_latency_ms", "min_weight", "provider", "fallback")
    wishes = {name: value for name in names if (value := getattr(body, name)) is not None}
    if body.model_hint not in ANY_MODEL:
        wishes["model"] = body.model_hint
    return Layer("request", wishes)
