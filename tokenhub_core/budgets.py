"""Budgets as they are kept: in the store, in the ledger, and told of where a threshold is reached.

The ledger in memory decides, because only one process owns a database's budgets. What it counts is added to the store
in the transaction of the record that it comes from: after a crash both are the sum over the records again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import structs

from tokenhub_core.admission import budgets
from tokenhub_core.admission.budgets import Budget
from tokenhub_core.admission.ledger import Count, Crossing, Ledger, Standing
from tokenhub_core.audit.entries import Action, Draft
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import ConfigError, Kind, TokenHubError, client_fault
from tokenhub_core.ports import Clock
from tokenhub_core.store import budgets as rows
from tokenhub_core.store.database import Database
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import Json

_MICROS: Final = 1_000_000
_log: Final = logging.getLogger(__name__)


class Budgets:
    """Belongs to one event loop. Every change is in the audit log; so is every threshold that is reached, once."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        bus: Bus,
        clock: Clock,
        *,
        entropy: Callable[[], bytes],
        zone: str,
    ) -> None:
        """`zone` is that of budgets which name none."""
        self._database = database
        self._audit = audit
        self._bus = bus
        self._clock = clock
        self._entropy = entropy
        self._zone = zone
        self._awake = asyncio.Event()
        self._turn = asyncio.Lock()
        self.ledger: Final = Ledger(self._awake.set)

    async def load(self) -> None:
        """Go on where the last process ended; raises `ConfigError` where a budget cannot be counted here."""
        for budget, counts in await asyncio.to_thread(self._load):
            self.ledger.install(budget, _zone(budget.zone), counts, at=self._now())

    async def keep(self) -> None:
        """Tell of thresholds, for as long as the service runs."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            await self.tell()

    async def tell(self) -> None:
        """Tell of every threshold that was reached since the last time: in the audit log, and to who listens."""
        crossings = self.ledger.crossings()
        if not crossings:
            return
        drafts = [Draft(Action.BUDGET_CROSS, one.budget.id, after=_described(one)) for one in crossings]
        try:
            await self._audit.commit(partial(rows.warned, crossings=crossings), also=drafts)
        except TokenHubError as error:
            _log.error("an audit entry was lost: %s: %s", [draft.after for draft in drafts], error)
        for one in crossings:
            self._bus.publish("budget_threshold", {"timestamp": self._clock.now(), **_described(one)})

    # --- what an operator does

    def standings(self) -> list[Standing]:
        """Return where every budget is now, in the order in which they were made."""
        found = self.ledger.standings(self._now()).values()
        return sorted(found, key=lambda one: (one.budget.created_at, one.budget.id))

    def standing(self, budget_id: str) -> Standing:
        """Return where a budget is now; raises `TokenHubError` (`NOT_FOUND`)."""
        found = self.ledger.standings(self._now()).get(budget_id)
        if found is None:
            raise client_fault(f"no budget {budget_id!r}", kind=Kind.NOT_FOUND)
        return found

    async def put(self, wanted: Budget) -> tuple[Standing, bool]:
        """Make a budget, or change the one of this owner, period and unit; tell whether it is new.

        A new one counts from now on. One that is changed keeps its count, and its zone unless another one is named.
        Raises `TokenHubError` where it cannot be like this.
        """
        async with self._turn:
            known = next((one.budget for one in self.standings() if _same(one.budget, wanted)), None)
            if known is None:
                now = self._now()
                made = structs.replace(
                    wanted,
                    id=f"bud_{self._entropy().hex()}",
                    zone=wanted.zone or self._zone,
                    created_at=now,
                    counted_from=now,
                )
                return await self._change(made, None), True
            if wanted.zone not in {"", known.zone}:
                raise client_fault("a budget keeps its zone; remove it and make another one", param="zone")
            changed = structs.replace(
                known, limit=wanted.limit, thresholds=wanted.thresholds, hard=wanted.hard
            )
            return await self._change(changed, known), False

    async def patch(
        self, budget_id: str, *, limit: int | None, thresholds: tuple[int, ...] | None, hard: bool | None
    ) -> Standing:
        """Change what is given; the count stays."""
        async with self._turn:
            known = self.standing(budget_id).budget
            changed = structs.replace(
                known,
                limit=known.limit if limit is None else limit,
                thresholds=known.thresholds if thresholds is None else thresholds,
                hard=known.hard if hard is None else hard,
            )
            return await self._change(changed, known)

    async def paid(self, budget_id: str) -> Standing:
        """Let counting begin anew now."""
        async with self._turn:
            known = self.standing(budget_id).budget
            return await self._change(structs.replace(known, counted_from=self._now()), known)

    async def remove(self, budget_id: str) -> None:
        """Remove a budget, and what was counted of it."""
        async with self._turn:
            known = self.standing(budget_id).budget
            await self._audit.commit(partial(rows.remove, budget=known))
            self.ledger.remove(known)

    async def _change(self, budget: Budget, known: Budget | None) -> Standing:
        """Store a budget. It holds before that is done, so that no record falls between the two."""
        if wrong := budgets.checked(budget):
            raise client_fault(wrong, param=wrong.partition(":")[0])
        try:
            zone = _zone(budget.zone)
        except ConfigError as error:
            raise client_fault(str(error), param="zone") from None
        self.ledger.install(budget, zone, at=self._now())
        try:
            await self._audit.commit(partial(rows.save, budget=budget))
        except BaseException:
            # Also where the caller left: then it may be stored all the same, and holds after the next start.
            if known is None:
                self.ledger.remove(budget)
            else:
                self.ledger.install(known, zone, at=self._now())
            raise
        return self.standing(budget.id)

    def _now(self) -> int:
        return round(self._clock.now() * _MICROS)

    def _load(self) -> list[tuple[Budget, list[Count]]]:
        with self._database.reading() as connection:
            return rows.load(connection)


def _same(one: Budget, other: Budget) -> bool:
    return (one.owner, one.period, one.unit) == (other.owner, other.period, other.unit)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ConfigError(f"{name!r} is no time zone that this machine knows") from None


def _described(one: Crossing) -> Json:
    """Return a crossing as the audit log and events have it; amounts in the unit that is named."""
    return {
        "budget_id": one.budget.id,
        "owner": one.budget.owner,
        "period": one.budget.period.value,
        "unit": "nanousd" if one.budget.unit is budgets.Unit.USD else one.budget.unit.value,
        "percent": one.percent,
        "spent": one.spent,
        "limit": one.budget.limit,
        "since": one.since,
    }
