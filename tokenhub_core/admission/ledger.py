"""Two-phase money: what is held for calls under way, what is spent, and what budgets say to it.

A call is looked at three times. Before an attempt `reserve` holds the most that it can use in every budget of its
caller, or refuses, all at once: nothing else runs meanwhile. `settle` puts what the attempt really used in its place.
When the call is over, `book` takes away all that is held for it and adds what its record says. So what is spent is
the sum over the records, and nothing is counted twice or forgotten, whatever became of an attempt.

What passes by is not reserved, because nobody knows beforehand what it costs; it is booked like everything else.

A call whose caller set no cap can be as long as the model pleases. As long as what it will probably use is there, it
is let through, and holds what it can use at most or all that is left: so budgets end at most one answer too late.

Where several processes share a budget (`leases`), this one decides with its own share. What that has not, the budget
may have: then `reserve` raises `Short`, and whoever can ask the database does and comes again. A look at what others
had at hand a moment ago spares the question where the answer is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final

import msgspec

from tokenhub_core.admission import budgets, leases
from tokenhub_core.admission.budgets import Budget, Span, Unit
from tokenhub_core.admission.leases import Claim, Key, View
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Charge, Outlay, Reservation, Short, Want
from tokenhub_core.types import Caller, Record, Snapshot, Usage

CAUSE: Final = "budget_exhausted"

_MICROS: Final = 1_000_000
_KEPT: Final = 4
"""Spans of one budget that are remembered, the newest ones: a clock that is put back finds them again."""
_UNSURE: Final = 10_000
"""Booked records that may be handed over again."""
_BUSY: Final = 20
"""Draws for which an account takes part after it was used."""
_UNKNOWN: Final = View(0, left=budgets.MOST)
"""Of what was never drawn from, everything may be left."""


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
    others: int = 0
    """Spent by other processes, as far as is known, and by all that were there before this one."""
    warned: int = 0
    own: int = 0
    """Spent by this process."""
    held: int = 0
    granted: int | None = None
    """Up to how much this process may come; None where it shares with nobody."""
    wanted: int = 0
    """What calls wait for."""
    busy: int = _BUSY
    view: View = _UNKNOWN

    @property
    def spent(self) -> int:
        return self.own + self.others

    @property
    def used(self) -> int:
        return self.own + self.held

    def claim(self) -> Claim:
        return Claim(self.used, self.granted or 0, self.wanted)


class _Line:
    """A budget with its accounts."""

    __slots__ = ("accounts", "budget", "first", "now", "share", "zone")

    def __init__(
        self, budget: Budget, zone: tzinfo, counts: Iterable[Count], *, share: int | None = None
    ) -> None:
        self.zone = zone
        self.share = share
        self.accounts = {
            one.since: _Account(Span(one.since, None), budget.unit, one.spent, one.warned, granted=share)
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
            account = self.accounts[span.since] = _Account(span, self.budget.unit, granted=self.share)
            for since in sorted(self.accounts)[:-_KEPT]:
                old = self.accounts[since]
                if not (old.held or old.wanted) and since != span.since:
                    del self.accounts[since]
        account.span, self.now = span, account
        return account

    def standing(self, at: int) -> Standing:
        account = self.at(at)
        return Standing(self.budget, account.span, account.spent, account.held + account.view.held)


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

    `awake` is called when a threshold was crossed; `crossings` has it then. A ledger that shares its budgets has the
    name of its `process`, and a clock that tells whether its lease is good; it begins without one.
    """

    def __init__(
        self,
        awake: Callable[[], None] = _deaf,
        *,
        process: str = "",
        monotonic: Callable[[], float] = float,
    ) -> None:
        self._awake = awake
        self._process = process
        self._monotonic = monotonic
        self._ends = -math.inf if process else math.inf
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

    @property
    def budgeted(self) -> bool:
        """Tell whether there is any budget."""
        return bool(self._lines)

    # --- budgets

    def install(self, budget: Budget, zone: tzinfo, counts: Iterable[Count] = (), *, at: int) -> None:
        """Let a budget hold from `at` on, which is now; one of its id is replaced, and its counts stay."""
        for line in self._lines.get(budget.owner, ()):
            if line.budget.id == budget.id:
                line.become(budget)
                break
        else:
            line = _Line(budget, zone, counts, share=0 if self._process else None)
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
        return {line.budget.id: line.standing(at) for line in self._all()}

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
        lapsed = self._monotonic() >= self._ends
        wants: list[Want] = []
        parts = [(line.at(at), _needed(line, at, outlay, call, wants, lapsed=lapsed)) for line in lines]
        if wants:
            short = next(line for line in lines if line.budget.id == wants[0].budget)
            most = _used(short.budget.unit, outlay)[1]
            raise Short(_refusal(short, short.standing(at), most), wants)
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
                account.own += spent
                account.busy = _BUSY
                charges.append(Charge(line.budget.id, account.span.since, spent, self._process))
                self._warn(line, account)
        if charges:
            self._booked[record.id] = charges
            if len(self._booked) > _UNSURE:
                del self._booked[next(iter(self._booked))]
        return charges

    def booked(self, record: Record) -> None:
        """Forget a record that is stored."""
        self._booked.pop(record.id, None)

    # --- shares

    def want(self, short: Short, times: int) -> None:
        """Note that a call waits for what it is short of; with -1 that it does not any more."""
        for one in short.wants:
            if (account := self._account(one.budget, one.since)) is not None:
                account.wanted += times * one.amount

    def waiting(self) -> dict[Key, Claim]:
        """Return what to draw with for the calls that wait."""
        return {
            (line.budget.id, since): account.claim()
            for line in self._all()
            for since, account in line.accounts.items()
            if account.wanted
        }

    def claims(self, at: int, *, also: Set[Key] = frozenset(), every: bool = False) -> dict[Key, Claim]:
        """Return what to draw with: of what was used lately, of `also`, and of all budgets where that is asked."""
        found: dict[Key, Claim] = {}
        for line in self._all():
            now = line.at(at)
            for since, account in line.accounts.items():
                key = (line.budget.id, since)
                current = account is now and (every or account.busy > 0)
                if account.granted is not None and (current or account.held or account.wanted or key in also):
                    account.busy -= account.busy > 0
                    found[key] = account.claim()
        return found

    def drawn(self, views: Mapping[Key, View], *, ends: float) -> None:
        """Take over what came of a draw; the lease is good until `ends`.

        A lease that has ended meanwhile took everything along that was not drawn anew.
        """
        lapsed = self._monotonic() >= self._ends
        for line in self._all():
            for since, account in line.accounts.items():
                view = views.get((line.budget.id, since))
                if view is not None:
                    account.granted, account.others, account.view = view.granted, view.spent, view
                    account.warned = max(account.warned, view.warned)
                    self._warn(line, account)
                elif lapsed and account.granted is not None:
                    account.granted, account.view = account.own, _UNKNOWN
        self._ends = ends

    def give_back(self) -> set[Key]:
        """Let go of what others may need more, and return where that is; it is theirs with the next draw."""
        given: set[Key] = set()
        for line in self._all():
            for since, account in line.accounts.items():
                if account.granted is None or self._monotonic() >= self._ends:
                    continue
                spare = leases.spare(
                    account.view,
                    account.granted - account.used,
                    process=self._process,
                    wanted=account.wanted,
                )
                if spare:
                    account.granted -= spare
                    given.add((line.budget.id, since))
        return given

    def _account(self, budget_id: str, since: int) -> _Account | None:
        found = (line.accounts.get(since) for line in self._all() if line.budget.id == budget_id)
        return next(found, None)

    def _all(self) -> list[_Line]:
        return [line for some in self._lines.values() for line in some]

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


def _needed(line: _Line, at: int, outlay: Outlay, call: _Call, wants: list[Want], *, lapsed: bool) -> int:
    """Return what is held for an attempt in one budget; raises `TokenHubError` where that is not there.

    Where only this process's share has not enough of it, `wants` gets what is missing.
    """
    budget, account = line.budget, line.at(at)
    least, most = _used(budget.unit, outlay)
    if budget.unit is Unit.REQUESTS and call.held.get(account):
        return 0
    account.busy = _BUSY
    if not budget.hard:
        return least if most is None else most
    left = budget.limit - account.spent - account.held
    if most is None:
        raise TokenHubError(_refusal(line, line.standing(at), None))
    share, near = left, left
    if account.granted is not None:
        share = min(left, 0 if lapsed else account.granted - account.used)
        view = account.view
        near = left if lapsed else min(left, share + max(0, view.left) + view.idle)
    if most <= max(share, 0):
        return most
    fitting = _fitting(near, least, most, capped=outlay.capped)
    if fitting is None:
        told = most if outlay.capped else least
        raise TokenHubError(_refusal(line, line.standing(at), told))
    if fitting > share:
        wants.append(Want(budget.id, account.span.since, fitting))
    return fitting


def _fitting(left: int, least: int, most: int, *, capped: bool) -> int | None:
    """Return what is held where so much is left, None where the call is refused."""
    if most <= max(left, 0):
        return most
    return left if not capped and 0 < left >= least else None


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
