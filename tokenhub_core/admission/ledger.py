"""Two-phase money: what is held for calls under way, what is spent, and what budgets say to it.

A call is looked at three times. Before an attempt `reserve` holds the most that it can use in every budget of its
caller, or refuses, all at once: nothing else runs meanwhile. `settle` puts what the attempt really used in its place.
When the call is over, `book` takes away all that is held for it and adds what its record says. So what is spent is
the sum over the records, and nothing is counted twice or forgotten, whatever became of an attempt.

What passes by is not reserved, because nobody knows beforehand what it costs; it is booked like everything else.

A call whose caller set no cap can be as long as the model pleases. As long as what it will probably use is there, it
is let through, and holds what it can use at most or all that is left: so budgets end at most one answer too late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final

import msgspec

from tokenhub_core.admission import budgets
from tokenhub_core.admission.budgets import Budget, Span, Unit
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Charge, Outlay, Reservation
from tokenhub_core.types import Caller, Record, Snapshot, Usage

CAUSE: Final = "budget_exhausted"

_MICROS: Final = 1_000_000
_KEPT: Final = 4
"""Spans of one budget that are remembered, the newest ones: a clock that is put back finds them again."""
_UNSURE: Final = 10_000
"""Booked records that may be handed over again."""


class Count(msgspec.Struct, frozen=True):
    """What was counted of one span of a budget, and the highest threshold (per cent) that was told of."""

    since: int
    spent: int
    warned: int = 0


class Crossing(msgspec.Struct, frozen=True):
    """A threshold of a budget was reached."""

    budget: Budget
    since: int
    percent: int
    spent: int


class Standing(msgspec.Struct, frozen=True):
    """Where a budget is at one moment, in its unit."""

    budget: Budget
    span: Span
    spent: int
    held: int

    @property
    def left(self) -> int:
        """Return what may still be held; below 0 where more was spent than anybody could know before."""
        return self.budget.limit - self.spent - self.held


@dataclass(slots=True, eq=False)
class _Account:
    """One span's count."""

    span: Span
    unit: Unit
    spent: int = 0
    held: int = 0
    warned: int = 0


class _Line:
    """A budget with its accounts."""

    __slots__ = ("accounts", "budget", "first", "now", "zone")

    def __init__(self, budget: Budget, zone: tzinfo, counts: Iterable[Count]) -> None:
        self.zone = zone
        self.accounts = {
            one.since: _Account(Span(one.since, None), budget.unit, one.spent, 0, one.warned)
            for one in counts
        }
        self.become(budget)

    def become(self, budget: Budget) -> None:
        self.budget = budget
        self.first = budgets.first(budget)
        self.now: _Account | None = None

    def at(self, at: int) -> _Account:
        now = self.now
        if now is not None and now.span.holds(at):
            return now
        span = budgets.span(self.budget, at, self.zone)
        account = self.accounts.get(span.since)
        if account is None:
            account = self.accounts[span.since] = _Account(span, self.budget.unit)
            for since in sorted(self.accounts)[:-_KEPT]:
                if not self.accounts[since].held and since != span.since:
                    del self.accounts[since]
        account.span, self.now = span, account
        return account

    def standing(self, at: int) -> Standing:
        account = self.at(at)
        return Standing(self.budget, account.span, account.spent, account.held)


@dataclass(slots=True, eq=False)
class _Call:
    """What is held for one call, over all its attempts."""

    held: dict[_Account, int] = field(default_factory=dict)
    over: bool = False

    def add(self, account: _Account, amount: int) -> None:
        account.held += amount
        self.held[account] = self.held.get(account, 0) + amount


@dataclass(slots=True, eq=False)
class _Hold:
    """What is held for one attempt."""

    call: _Call
    parts: Sequence[tuple[_Account, int]]


def _deaf() -> None:
    pass


class Ledger:
    """The ledger in memory. Implements `ports.Ledger` and `ports.Books`; belongs to one event loop.

    `awake` is called when a threshold was crossed; `crossings` has it then.
    """

    def __init__(self, awake: Callable[[], None] = _deaf) -> None:
        self._awake = awake
        self._next = 1
        self._open: dict[int, tuple[int, _Hold | None]] = {}
        self._lines: dict[str, list[_Line]] = {}
        self._known: dict[tuple[str, str], Sequence[_Line]] = {}
        self._calls: dict[str, _Call] = {}
        self._booked: dict[str, Sequence[Charge]] = {}
        self._crossings: list[Crossing] = []
        self.spent_nanousd = 0

    @property
    def reserved_nanousd(self) -> int:
        """Return what is set aside for attempts under way."""
        return sum(nanousd for nanousd, _ in self._open.values())

    # --- budgets

    def install(self, budget: Budget, zone: tzinfo, counts: Iterable[Count] = (), *, at: int) -> None:
        """Let a budget hold from `at` on, which is now; one of its id is replaced, and its counts stay."""
        for line in self._lines.get(budget.owner, ()):
            if line.budget.id == budget.id:
                line.become(budget)
                break
        else:
            line = _Line(budget, zone, counts)
            self._lines.setdefault(budget.owner, []).append(line)
            self._known.clear()
        self._warn(line, line.at(at))

    def remove(self, budget: Budget) -> None:
        """Let a budget hold no more."""
        left = [line for line in self._lines.get(budget.owner, ()) if line.budget.id != budget.id]
        self._lines[budget.owner] = left
        self._known.clear()
        if not left:
            del self._lines[budget.owner]

    def standings(self, at: int) -> Mapping[str, Standing]:
        """Return where every budget is, by id; `at` in microseconds since the epoch."""
        lines = [line for some in self._lines.values() for line in some]
        return {line.budget.id: line.standing(at) for line in lines}

    def _of(self, caller: Caller) -> Sequence[_Line]:
        key = caller.key
        if key is None:
            return self._lines.get(budgets.EVERYBODY, ())
        known = self._known.get((key.id, key.project))
        if known is None:
            lines = [line for owner in budgets.owners(caller) for line in self._lines.get(owner, ())]
            known = self._known[key.id, key.project] = lines
        return known

    # --- calls

    def reserve(
        self, snapshot: Snapshot, nanousd: int, outlay: Callable[[], Outlay] | None = None
    ) -> Reservation:
        """Hold the most that an attempt can use; raises `TokenHubError` (`BUDGET`) where a hard budget has less."""
        hold = None
        if self._lines and (lines := self._of(snapshot.caller)):
            used = Outlay(nanousd, nanousd, 0, 0) if outlay is None else outlay()
            hold = self._hold(snapshot, lines, used)
        reservation = Reservation(self._next, nanousd)
        self._next += 1
        self._open[reservation.id] = (nanousd, hold)
        return reservation

    def _hold(self, snapshot: Snapshot, lines: Sequence[_Line], outlay: Outlay) -> _Hold:
        at = round(snapshot.received_at * _MICROS)
        call = self._calls.get(snapshot.id) or _Call()
        parts = [(line.at(at), _needed(line, at, outlay, call)) for line in lines]
        self._calls[snapshot.id] = call
        for account, amount in parts:
            call.add(account, amount)
        return _Hold(call, parts)

    def settle(self, reservation: Reservation, nanousd: int, usage: Usage) -> None:
        """Hold what the attempt really used. Settling twice is a bug and raises KeyError."""
        _, hold = self._open.pop(reservation.id)
        self.spent_nanousd += nanousd
        if hold is None or hold.call.over:
            return
        for account, amount in hold.parts:
            # The call stays one request as long as it is under way.
            if account.unit is Unit.USD:
                hold.call.add(account, nanousd - amount)
            elif account.unit is Unit.TOKENS:
                hold.call.add(account, usage.input_tokens + usage.output_tokens - amount)

    def admit(self, caller: Caller, at: float) -> Fault | None:
        """Return why a call that cannot be reserved for is refused: a hard budget has nothing left."""
        for line in self._of(caller):
            standing = line.standing(round(at * _MICROS))
            if line.budget.hard and standing.left <= 0:
                return _refusal(line, standing, 0)
        return None

    def book(self, record: Record) -> Sequence[Charge]:
        """Count a record and return what it adds. Until `booked` the same record adds nothing more."""
        if (known := self._booked.get(record.id)) is not None:
            return known
        call = self._calls.pop(record.id, None)
        if call is not None:
            call.over = True
            for account, amount in call.held.items():
                account.held -= amount
        if not self._lines:
            return ()
        at, charges = round(record.at * _MICROS), []
        for line in self._of(record.caller):
            spent = budgets.used(line.budget.unit, record)
            if spent and at >= line.budget.created_at:
                account = line.at(at)
                account.spent += spent
                charges.append(Charge(line.budget.id, account.span.since, spent))
                self._warn(line, account)
        if charges:
            self._booked[record.id] = charges
            if len(self._booked) > _UNSURE:
                del self._booked[next(iter(self._booked))]
        return charges

    def booked(self, record: Record) -> None:
        """Forget a record that is stored."""
        self._booked.pop(record.id, None)

    # --- what is told

    def told(self, caller: Caller, at: float) -> str:
        """Return the header of the budget that is nearest to its end, once that has reached a threshold."""
        if not self._lines:
            return ""
        now = round(at * _MICROS)
        near = [line for line in self._of(caller) if line.at(now).spent >= line.first]
        if not near:
            return ""
        one = min((line.standing(now) for line in near), key=_share_left)
        return budgets.header(one.budget, one.left, one.span)

    def crossings(self) -> list[Crossing]:
        """Return what was crossed since this was last asked, in order."""
        crossings, self._crossings = self._crossings, []
        return crossings

    def _warn(self, line: _Line, account: _Account) -> None:
        if account.spent < line.first:
            return
        reached = budgets.crossed(line.budget, account.spent, account.warned)
        if not reached:
            return
        account.warned = reached[-1]
        self._crossings += [
            Crossing(line.budget, account.span.since, percent, account.spent) for percent in reached
        ]
        self._awake()


def _needed(line: _Line, at: int, outlay: Outlay, call: _Call) -> int:
    """Return what is held for an attempt in one budget; raises `TokenHubError` where that is not there."""
    budget, account = line.budget, line.at(at)
    least, most = _used(budget.unit, outlay)
    if budget.unit is Unit.REQUESTS and call.held.get(account):
        return 0
    if not budget.hard:
        return least if most is None else most
    left = budget.limit - account.spent - account.held
    if most is not None and most <= max(left, 0):
        return most
    if most is not None and not outlay.capped and 0 < left >= least:
        return left
    told = most if most is None or outlay.capped else least
    raise TokenHubError(_refusal(line, line.standing(at), told))


def _used(unit: Unit, outlay: Outlay) -> tuple[int, int | None]:
    if unit is Unit.USD:
        return outlay.nanousd, outlay.most_nanousd
    return (outlay.tokens, outlay.most_tokens) if unit is Unit.TOKENS else (1, 1)


def _refusal(line: _Line, standing: Standing, most: int | None) -> Fault:
    until = standing.span.until
    resets = "" if until is None else budgets.moment(until, line.zone)
    message = budgets.refusal(line.budget, standing.spent, standing.held, most, resets=resets)
    return Fault(Kind.BUDGET, Blame.CLIENT, message, cause=CAUSE)


def _share_left(standing: Standing) -> float:
    return standing.left / standing.budget.limit if standing.budget.limit else 0.0
