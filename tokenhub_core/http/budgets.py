"""The admin API's part about budgets: `/admin/v1/budgets`.

Amounts are whole numbers: of `usd` micro-dollars, else tokens or requests. What is spent and held is rounded up, what
is left down. Moments are seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from tokenhub_core.admission import budgets
from tokenhub_core.admission.budgets import MOST, THRESHOLDS, Budget, Period, Unit
from tokenhub_core.admission.ledger import Standing
from tokenhub_core.budgets import Budgets
from tokenhub_core.errors import client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.ports import Clock
from tokenhub_core.store.rows import MICROS
from tokenhub_core.types import Json

PATH: Final = "/admin/v1/budgets"
_NANO: Final = 1000
"""Nano-dollars per micro-dollar."""

type Amount = Annotated[int, Meta(ge=0, le=MOST // _NANO)]
type Percent = Annotated[int, Meta(ge=1, le=budgets.FULL)]


class BudgetBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /budgets`. An empty zone is that of `TOKENHUB_BUDGET_ZONE`."""

    owner: str
    limit: Amount
    period: Period = Period.MONTH
    unit: Unit = Unit.USD
    zone: str = ""
    thresholds: list[Percent] = msgspec.field(default_factory=lambda: list(THRESHOLDS))
    hard: bool = True


class BudgetPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /budgets/{id}`: what is absent stays."""

    limit: Amount | None = None
    thresholds: list[Percent] | None = None
    hard: bool | None = None


class BudgetPages:
    """The handlers. Every route needs the admin token; the side server sees to that."""

    def __init__(self, kept: Budgets, clock: Clock) -> None:
        self._kept = kept
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._list),
            web.post(PATH, self._put),
            web.get(PATH + "/{id}", self._one),
            web.patch(PATH + "/{id}", self._patch),
            web.delete(PATH + "/{id}", self._delete),
            web.post(PATH + "/{id}/paid", self._paid),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        owner = request.query.get("owner", "")
        found = [one for one in self._kept.standings() if owner in {"", one.budget.owner}]
        return answer({"items": [self._shown(one) for one in found], "total": len(found)})

    async def _one(self, request: web.Request) -> web.Response:
        return answer(self._shown(self._kept.standing(request.match_info["id"])))

    async def _put(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, BudgetBody)
        standing, new = await self._kept.put(budget_of(body))
        return answer(self._shown(standing), 201 if new else 200)

    async def _patch(self, request: web.Request) -> web.Response:
        known = self._kept.standing(request.match_info["id"]).budget
        body = await shapes.read(request, BudgetPatch)
        changed = await self._kept.patch(
            known.id,
            limit=None if body.limit is None else _inside(body.limit, known.unit),
            thresholds=None if body.thresholds is None else tuple(body.thresholds),
            hard=body.hard,
        )
        return answer(self._shown(changed))

    async def _paid(self, request: web.Request) -> web.Response:
        if await shapes.raw(request) not in {b"", b"{}"}:
            raise client_fault("this takes no body")
        return answer(self._shown(await self._kept.paid(request.match_info["id"])))

    async def _delete(self, request: web.Request) -> web.Response:
        await self._kept.remove(request.match_info["id"])
        return answer({"ok": True})

    def _shown(self, standing: Standing) -> Json:
        budget, span = standing.budget, standing.span
        at = round(self._clock.now() * MICROS)
        ahead = budgets.forecast(budget, standing.spent, span, at)
        scale = _scale(budget.unit)
        return {
            "id": budget.id,
            **budget_json(budget),
            "spent": _up(standing.spent, scale),
            "reserved": _up(standing.held, scale),
            "left": max(standing.left, 0) // scale,
            "since": span.since / MICROS,
            "resets_at": _seconds(span.until),
            "forecast": None
            if ahead is None
            else {
                "at_end": None if ahead.at_end is None else _up(ahead.at_end, scale),
                "met_at": _seconds(ahead.met_at),
            },
            "created_at": budget.created_at / MICROS,
        }


def budget_of(body: BudgetBody) -> Budget:
    """Return the budget that a body describes; it has no id yet."""
    return Budget(
        "",
        body.owner,
        body.period,
        body.unit,
        _inside(body.limit, body.unit),
        body.zone,
        tuple(body.thresholds),
        body.hard,
    )


def budget_json(budget: Budget) -> Json:
    """Return a budget as `BudgetBody` takes it."""
    return {
        "owner": budget.owner,
        "period": budget.period.value,
        "unit": budget.unit.value,
        "zone": budget.zone,
        "limit": budget.limit // _scale(budget.unit),
        "thresholds": list(budget.thresholds),
        "hard": budget.hard,
    }


def _scale(unit: Unit) -> int:
    return _NANO if unit is Unit.USD else 1


def _inside(amount: int, unit: Unit) -> int:
    return amount * _scale(unit)


def _up(amount: int, scale: int) -> int:
    return -(-amount // scale)


def _seconds(at: int | None) -> float | None:
    return None if at is None else at / MICROS
