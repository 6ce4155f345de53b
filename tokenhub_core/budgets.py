"""Budgets as they are kept: in the store, in the ledger, and told of where a threshold is reached.

The ledger in memory decides, with this process's share of what is left (`leases`). What it counts is added to the
store in the transaction of the record that it comes from: after a crash both are the sum over the records again.

A call that is short of a share waits, for `WAIT` seconds at most, while the database is asked; all that wait are asked
for together. Twice a second there is a look at what other processes have changed, and at whether there are any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Coroutine, Iterable
from datetime import UTC, tzinfo
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from msgspec import structs
from sqlalchemy import Connection

from tokenhub_core.admission import budgets, leases
from tokenhub_core.admission.budgets import Budget
from tokenhub_core.admission.leases import Claim, Key
from tokenhub_core.admission.ledger import Count, Crossing, Ledger, Standing
from tokenhub_core.audit.entries import Action, Draft
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.following import follow
from tokenhub_core.ports import Clock, Short
from tokenhub_core.store import budgets as rows
from tokenhub_core.store import generations
from tokenhub_core.store import leases as shares
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import Json

FULL_TURNS: Final = 10
"""Looks between two draws that all budgets take part in, used or not."""
FORGET: Final = 3600
"""Seconds after which a process that is gone is counted as past."""

_MICROS: Final = 1_000_000
_UNKNOWN: Final = Fault(
    Kind.INTERNAL,
    Blame.US,
    "what is left of the budgets cannot be found out now",
    cause="budget_unknown",
    status=503,
    retry_after=1.0,
)
_log: Final = logging.getLogger(__name__)


class Budgets:
    """Belongs to one event loop. Every change is in the audit log; so is every threshold that is reached, once."""

    def __init__(
        self,
        writer: Writer,
        audit: Audit,
        bus: Bus,
        clock: Clock,
        *,
        process: str,
        entropy: Callable[[], bytes],
        zone: str,
    ) -> None:
        """`process` is a name that no other process on this database has; `zone` is that of budgets which name none."""
        self._database = audit.database
        self._writer = writer
        self._process = process
        self._audit = audit
        self._bus = bus
        self._clock = clock
        self._entropy = entropy
        self._zone = zone
        self._awake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._generation = 0
        self._others = 0
        self._renewed = 0.0
        # One draw at a time; each that has begun has a number.
        self._drawing = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        self.ledger: Final = Ledger(self._awake.set, process=process, monotonic=clock.monotonic)

    async def load(self, died: Iterable[str] = ()) -> None:
        """Go on where the last process ended; raises `ConfigError` where a budget cannot be counted here.

        What processes have at hand that have `died` is there again; of others their leases say when.
        """
        for name in died:
            await self._writer.commit(partial(shares.leave, process=name))
        await self._writer.commit(partial(shares.settle, before=self._clock.now() - FORGET))
        loaded, self._generation = await asyncio.to_thread(self._load)
        for budget, counts in loaded:
            self.ledger.install(budget, _zone(budget.zone), counts, at=self._now())
        await self._draw(every=True)

    async def close(self) -> None:
        """Leave to others what is not spent. A store that is gone does not keep anyone from ending."""
        try:
            await self._writer.commit(partial(shares.leave, process=self._process))
        except TokenHubError as error:
            _log.warning("shares of budgets could not be given back: %s", error)

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

        def telling(connection: Connection) -> tuple[list[Crossing], list[Draft]]:
            first = rows.warned(connection, crossings)
            return first, [Draft(Action.BUDGET_CROSS, one.budget.id, after=_described(one)) for one in first]

        try:
            crossings = await self._audit.commit_telling(telling)
        except TokenHubError as error:
            _log.error("an audit entry was lost: %s: %s", [*map(_described, crossings)], error)
        for one in crossings:
            self._bus.publish("budget_threshold", {"timestamp": self._clock.now(), **_described(one)})

    # --- shares

    async def more(self, short: Short, started: float, times: int) -> bool:
        """Draw for a call that is short, for the n-th time since `started` (monotonic); tell whether it may try again.

        Raises `TokenHubError` (503) where the database does not answer in time.
        """
        if self._clock.monotonic() - started >= leases.WAIT:
            return False
        self.ledger.want(short, 1)
        try:
            if times:
                await asyncio.sleep(leases.PACE)
            async with asyncio.timeout(leases.WAIT):
                await self._in_full(self._for_waiting(self._begun))
        except TimeoutError:
            raise TokenHubError(_UNKNOWN) from None
        except TokenHubError as error:
            _log.warning("shares of budgets could not be drawn: %s", error)
            raise TokenHubError(_UNKNOWN) from error
        finally:
            self.ledger.want(short, -1)
        return True

    async def follow(self) -> None:
        """Follow other processes, for as long as the service runs."""
        await follow("budgets", self.look)

    async def look(self, turn: int) -> None:
        """Take over what others have changed; renew, draw and give back what is due. Raises where the store fails."""
        seen = await asyncio.to_thread(self._look)
        news = seen.generation != self._generation
        if news:
            async with self._turn:
                await self._refresh()
        parted, self._others = self._others > seen.others, seen.others
        due = self._clock.monotonic() - self._renewed >= leases.RENEW
        if not (news or parted or seen.others or due):
            return
        await self._draw(every=news or parted or turn % FULL_TURNS == 0, also=seen.asked)
        if given := self.ledger.give_back():
            await self._draw(also=frozenset(given))

    async def _for_waiting(self, number: int) -> None:
        """Draw for all calls that wait, unless a draw behind this one has ended: it has asked for them too."""
        async with self._drawing:
            if self._ended <= number:
                await self._take(self.ledger.waiting())

    async def _draw(self, *, every: bool = False, also: frozenset[Key] = frozenset()) -> None:
        if self.ledger.budgeted:
            await self._in_full(self._for_all(every=every, also=also))

    async def _for_all(self, *, every: bool, also: frozenset[Key]) -> None:
        async with self._drawing:
            await self._take(self.ledger.claims(self._now(), also=also, every=every))
            self._renewed = self._clock.monotonic()

    async def _in_full(self, draw: Coroutine[Any, Any, None]) -> None:
        """Draw, and let it hold here also where whoever asked for it leaves: memory must follow the rows."""
        await asyncio.shield(asyncio.create_task(draw, name="budget draw"))

    async def _take(self, claims: dict[Key, Claim]) -> None:
        self._begun += 1
        number, begun = self._begun, self._clock.monotonic()
        views = await self._writer.commit(
            partial(shares.draw, process=self._process, claims=claims, clock=self._clock.now)
        )
        self.ledger.drawn(views, ends=begun + leases.LEASE - leases.MARGIN)
        self._ended = number

    async def _refresh(self) -> None:
        """Let budgets hold as they are stored."""
        known = {one.budget.id: one.budget for one in self.standings()}
        loaded, generation = await asyncio.to_thread(self._load, known)
        for budget, counts in loaded:
            if known.pop(budget.id, None) != budget:
                self.ledger.install(budget, _nearest(budget), counts, at=self._now())
        for gone in known.values():
            self.ledger.remove(gone)
        self._generation = generation

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
            return await self._change(self.drafted(wanted, known), known), known is None

    def drafted(self, wanted: Budget, known: Budget | None) -> Budget:
        """Return a budget as it is to be stored; raises `TokenHubError` where that cannot be."""
        if known is None:
            now = self._now()
            made = structs.replace(
                wanted,
                id=f"bud_{self._entropy().hex()}",
                zone=wanted.zone or self._zone,
                created_at=now,
                counted_from=now,
            )
            return _checked(made)
        if wanted.zone not in {"", known.zone}:
            raise client_fault("a budget keeps its zone; remove it and make another one", param="zone")
        changed = structs.replace(known, limit=wanted.limit, thresholds=wanted.thresholds, hard=wanted.hard)
        return _checked(changed)

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
        zone = _zone(_checked(budget).zone)
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
        try:
            await self._draw(every=True)
        except TokenHubError as error:
            # It is stored, and whoever needs a share of it asks.
            _log.warning("shares of budgets could not be drawn: %s", error)
        return self.standing(budget.id)

    def _now(self) -> int:
        return round(self._clock.now() * _MICROS)

    def _load(self, known: Container[str] = ()) -> tuple[list[tuple[Budget, list[Count]]], int]:
        with self._database.reading() as connection:
            generation = generations.last(connection, generations.BUDGETS)
            return rows.load(connection, known), generation

    def _look(self) -> shares.Seen:
        with self._database.reading() as connection:
            return shares.look(connection, self._process, now=self._clock.now())


def _same(one: Budget, other: Budget) -> bool:
    return (one.owner, one.period, one.unit) == (other.owner, other.period, other.unit)


def _checked(budget: Budget) -> Budget:
    """Return a budget that can be counted here; raises `TokenHubError` that names the field."""
    if wrong := budgets.checked(budget):
        raise client_fault(wrong, param=wrong.partition(":")[0])
    try:
        _zone(budget.zone)
    except ConfigError as error:
        raise client_fault(str(error), param="zone") from None
    return budget


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ConfigError(f"{name!r} is no time zone that this machine knows") from None


def _nearest(budget: Budget) -> tzinfo:
    """Return the zone of a budget that another process has made; it must hold here too, whatever is known here."""
    try:
        return _zone(budget.zone)
    except ConfigError as error:
        _log.error("budget %s: %s; it is counted in UTC", budget.id, error)
        return UTC


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
