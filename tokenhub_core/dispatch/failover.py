"""The failover machine: which candidate of a plan is tried next, after how long, and when it is over.

It sees facts and answers with steps; it sends nothing, sleeps nowhere and never raises. The shell asks
`next(now, rand)` and does as it is told:

    Try     send the call to this candidate, then say how it ended: `failed`, `refused` or `succeeded`
            (and `committed` as soon as the caller has seen a part of the answer)
    Wait    sleep, then ask again
    GiveUp  answer the caller with this fault

While a try is open and slow the shell may ask `hedge(now)` for a second one, to be run beside it. Then it names the
try in each report by its number, and asks for the next step when neither is open any more, or when the call is `over`.

The rules, in the order in which they win:

1.  Nothing is tried after the commit. The caller has seen a beginning; to go on with it is another way: `resuming`.
2.  What the caller got wrong stays with the caller. An invalid, oversized, filtered or cancelled call is not
    shown to another model: it would fail there too, or, worse, be shopped around until somebody obeys. Nor is
    a name that only its origin could have known, and does not.
3.  Nothing is tried that is not in the plan. Budget, weight, context and pinning were settled there, so they
    hold here without being asked again.
4.  Attempts are capped (`Limits.max_attempts`) and so is the time (`Limits.total_seconds`). A step that could
    only end after the deadline is not taken.
5.  New candidates come first, in the order of the plan; those at a provider that has already failed this call
    go behind the others, or a dead provider with many models would use up the attempts. As long as there is a
    new one nobody waits: it is tried at once.
6.  What a failure says of the others:
      - transient, overloaded, timeout, truncated: nothing; the candidate itself may be asked again later;
      - rate limited, quota, credential refused: everything else that this credential pays for would meet the
        same. Where the provider has another credential that can take the call (`spare`), the candidate stays and
        is tried with that one at once; else all of the provider is passed over, and only a rate limit with a
        short Retry-After leaves a way back (rule 8);
      - forbidden, not found, failed inside ourselves: this candidate is out, its provider's others are not.
        What was forbidden to one credential may be allowed to a spare one: then it stays, as before;
      - refused before it was sent (no money, somebody else's probe is under way): as before, and it is no
        attempt.
7.  The context was exceeded. First the same candidate once more with a smaller output cap, where that can
    help: its context is known, the input leaves room for at least 64 tokens after a margin of 256, and the
    cap that was in force is larger than that room. Otherwise only candidates with a larger context: first
    those with at least twice the estimated input (estimates are rough), the smallest of them first; then the
    other larger ones, the largest first; then those whose context nobody knows.
8.  When nothing new is left, the machine comes back to candidates that may recover: those with the fewest
    failures first, rate-limited ones last. It waits 100 ms before the first retry of a candidate and 200 ms
    before the second, times 0.5 to 1.5, or as long as Retry-After says, which is honoured up to 5 s and
    otherwise rules the retry out. Nobody is retried more than twice, after a timeout or behind a rate limit
    not more than once: each of those may have been paid for, and a long answer that takes longer than the
    limit would take as long again. Where a provider says `x-should-retry: false` that candidate is out.
9.  Every further try at a provider that this call has already been sent to, for whatever reason and with
    whichever of its models, is taken out of that provider's retry budget; a first one pays in. A hop to
    another provider is therefore free for the one that failed, and counts as an attempt only. When the budget
    is empty the provider is left alone for the rest of the call.
10. What the caller is told. A single candidate's fault keeps its own words; where the credential was ours,
    401 and 403 become 502, because the caller's key is not at fault, and where it was the caller's own (the
    origin), the origin's status stands. Several rate limits are one: 429 with the smallest Retry-After.
    Otherwise the last fault that a provider gave is named, as 502, 503 or 504, with the cause `all_failed`.
11. A hedge is one more try of this call, so rules 1 to 4 hold for it: never after the commit or the deadline, never
    beyond the attempts or the plan. There is at most one in a call; none beside a lone candidate, and none where the
    model was named and no other one may stand in. It goes to the first new candidate in the order of rules 5 and 7
      - at a provider that has not failed this call, and another one than the open try's, unless the whole plan has
        only that one;
      - that is the named model too, where the open try is: being slow is no failure, so nobody else stands in for it;
      - whose reserve and that of the open try are together within the budget of the call;
      - whose provider has a retry left: each hedge is taken out of the retry budget of the provider that it goes to,
        and pays nothing in. It is also taken out of a share of all calls, so that a slow fleet is not asked twice.
12. Of two open tries the first answer counts, and the other one is forgotten: it has neither failed nor answered.
    While one of them is open, the failure of the other is learned from (rule 6) and nothing new is tried. A fault
    that ends the call (rule 2) ends it at once where the first try meets it. Where the hedge does, it counts only when
    the first try fails as well: a call must not fail because it was hedged.

Why a plain loop over the plan and no queue: a plan has a handful of candidates, and every rule above is then
a filter or a sort key that can be read next to its sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Final, NamedTuple, assert_never

import msgspec

from tokenhub_core.dispatch.backoff import RetryBudget, jittered
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import NANO, Candidate, Plan, ProviderType

_BASE: Final = 0.1
"""Seconds before the first retry, before jitter."""
_MARGIN: Final = 256
"""Tokens that a reduced output cap leaves free, for what the estimate missed."""
_ROOM: Final = 64
"""An answer of fewer tokens is not worth asking for."""
_TICK: Final = 0.001
"""Seconds by which a sleep may end too early without another one being ordered."""

_EVERYBODY: Final = ""
"""Under what all calls together have their share of hedges."""

REDUCED: Final = "reduced-max-tokens"
ESCALATED: Final = "escalated-context-overflow"


class Limits(msgspec.Struct, frozen=True):
    """The caps on one call."""

    max_attempts: int = 5
    total_seconds: float | None = None
    """From `started` to the last moment at which a step may end; None: no limit."""
    retries_per_candidate: int = 2
    longest_wait: float = 5.0
    """Seconds; a longer Retry-After is not waited for."""


class Try(msgspec.Struct, frozen=True):
    """Send the call to `candidate`."""

    candidate: Candidate
    n: int
    """From 1, one more with each `Try`."""
    timeout: float | None
    """Seconds left of the call's total."""
    max_output_tokens: int | None
    """The cap to send instead of the caller's; None: leave that as it is."""
    change: str = ""
    """`REDUCED`, `ESCALATED`, or empty: what becomes of `Attempt.change`."""
    others: bool = False
    """Another provider is left that this call has not been sent to."""


class Wait(msgspec.Struct, frozen=True):
    """Ask again in so many seconds."""

    seconds: float


class GiveUp(msgspec.Struct, frozen=True):
    """Answer with `fault`. Whoever asks again gets the same."""

    fault: Fault


type Step = Try | Wait | GiveUp


class _Fate(Enum):
    """Where a candidate stands within this call."""

    FRESH = auto()
    RETRY = auto()
    """Failed in a way that may pass."""
    LIMITED = auto()
    """Behind a rate limit that ends soon."""
    OUT = auto()


class _Entry:
    """A candidate of the plan and what became of it so far."""

    __slots__ = ("candidate", "cap", "change", "failures", "fate", "limited", "order", "ready")

    def __init__(self, order: int, candidate: Candidate) -> None:
        self.order = order
        self.candidate = candidate
        self.fate = _Fate.FRESH
        self.failures = 0
        self.limited = False
        """It has been behind a rate limit once."""
        self.ready = 0.0
        """When Retry-After ends."""
        self.cap: int | None = None
        self.change = ""

    @property
    def provider(self) -> str:
        return self.candidate.provider.id

    @property
    def context(self) -> int:
        return self.candidate.model.max_context_tokens


class _Open(NamedTuple):
    """A try whose outcome is awaited."""

    entry: _Entry
    since: float
    hedge: bool = False


class Failover:
    """One call's way through its plan. See the module for the rules.

    `max_output_tokens` is the caller's own cap, None where it set none; `started` is on the same monotonic
    clock as every `now`. `retries` is shared by all calls, and so is `hedges`; None: this call is not hedged. `issued`
    is the number of the last try of a call that is gone on with, 0 for one that begins.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        limits: Limits,
        retries: RetryBudget,
        started: float,
        max_output_tokens: int | None,
        hedges: RetryBudget | None = None,
        issued: int = 0,
    ) -> None:
        self._limits = limits
        self._retries = retries
        self._hedges = hedges
        self._policy = plan.policy
        self._cap = max_output_tokens
        self._input = plan.input_tokens
        self._deadline = None if limits.total_seconds is None else started + limits.total_seconds
        self._entries = [_Entry(order, candidate) for order, candidate in enumerate(plan.candidates)]
        self._overflowed = False
        self._open: dict[int, _Open] = {}
        """By number, in the order in which they were begun."""
        self._again: _Entry | None = None
        """The candidate to try next whatever the others are like: with a reduced cap, or after its wait."""
        self._until = started
        self._paid = False
        """`_again` has been taken out of the retry budget already."""
        self._issued = issued
        self._sent = 0
        self._visited: set[str] = set()
        """Providers that this call has been sent to."""
        self._failing: set[str] = set()
        """Providers that have failed this call, other than by refusing it."""
        self._dry: set[str] = set()
        """Providers whose retry budget is empty."""
        self._faults: list[tuple[_Entry, Fault]] = []
        self._refusals: list[Fault] = []
        self._committed = False
        self._end: Fault | None = None
        self._held: Fault | None = None
        """What ends the call unless the try that is still open answers."""
        if plan.lone or (self._policy.model is not None and not self._policy.fallback):
            self._hedges = None
        if self._hedges is not None:
            self._hedges.deposit(_EVERYBODY, started)

    # --- what the shell reports

    def failed(self, fault: Fault, now: float, n: int = 0, *, spare: bool = False) -> None:
        """Hear that try `n` was sent and did not succeed; 0: the one that was begun first of those open.

        `spare`: its provider has another credential that can take the call at once.
        """
        tried = self._close(n)
        if tried is None or self._end is not None:
            return
        entry = tried.entry
        self._faults.append((entry, fault))
        stays = fault.blame is Blame.CLIENT and fault.kind is not Kind.OVERFLOW
        if self._committed or stays or self._unheard(entry, fault):
            if tried.hedge and self._open:
                self._held = fault
            else:
                self._end = fault
        elif self._held is not None:
            self._end = self._held
        elif spare and fault.blame is Blame.CREDENTIAL:
            entry.fate = _Fate.FRESH
        else:
            self._learn(entry, fault, now)

    def _unheard(self, entry: _Entry, fault: Fault) -> bool:
        """Tell whether a name's own origin says that there is no such model, and nobody else knows it."""
        if fault.kind is not Kind.NOT_FOUND or entry.candidate.provider.type is not ProviderType.ORIGIN:
            return False
        return all(other is entry or not other.candidate.pinned for other in self._entries)

    def refused(self, fault: Fault, n: int = 0) -> None:
        """Hear that try `n` was not sent: there was no money for it, or no permission to probe."""
        tried = self._taken(n)
        if tried is not None:
            tried.entry.fate = _Fate.OUT
            self._refusals.append(fault)
            if self._held is not None and not self._open:
                self._end = self._end or self._held

    def committed(self) -> None:
        """Hear that the caller has seen a part of the answer."""
        self._committed = True

    def succeeded(self, n: int = 0) -> None:
        """Hear that try `n` was the answer; whatever else is open has lost."""
        self._close(n)
        while self._open:
            self._close(0)
        self._end = _ANSWERED

    def _taken(self, n: int) -> _Open | None:
        return self._open.pop(n or next(iter(self._open), 0), None)

    def _close(self, n: int) -> _Open | None:
        """End an open try as one that was sent."""
        tried = self._taken(n)
        if tried is not None:
            self._sent += 1
            provider = tried.entry.provider
            if provider not in self._visited:
                self._visited.add(provider)
                if not tried.hedge:
                    self._retries.deposit(provider, tried.since)
        return tried

    def _learn(self, entry: _Entry, fault: Fault, now: float) -> None:
        """Draw the consequences of a fault for the candidates (rules 6 and 7)."""
        # What failed beside it may have ruled it out already.
        out = entry.fate is _Fate.OUT
        entry.ready = now + (fault.retry_after or 0.0)
        entry.failures += 1
        retries = self._limits.retries_per_candidate
        match fault.kind:
            case Kind.TRANSIENT | Kind.OVERLOADED | Kind.TRUNCATED:
                self._failing.add(entry.provider)
                entry.fate = _Fate.RETRY if entry.failures <= retries else _Fate.OUT
            case Kind.TIMEOUT:
                self._failing.add(entry.provider)
                entry.fate = _Fate.RETRY if entry.failures <= min(1, retries) else _Fate.OUT
            case Kind.RATE_LIMITED:
                self._pass_over(entry.provider)
                if fault.retry_after is not None and not entry.limited and entry.failures <= retries:
                    entry.fate, entry.limited = _Fate.LIMITED, True
            case Kind.QUOTA | Kind.AUTH:
                self._pass_over(entry.provider)
            case Kind.OVERFLOW:
                self._overflow(entry, now)
            case (
                Kind.FORBIDDEN
                | Kind.NOT_FOUND
                | Kind.INTERNAL
                | Kind.BUDGET
                | Kind.NO_CANDIDATE
                | Kind.INVALID
                | Kind.TOO_LARGE
                | Kind.REFUSED
            ):
                # The last three only where the caller is not to blame: a provider that talks nonsense.
                entry.fate = _Fate.OUT
            case Kind.CANCELLED:
                self._end = fault
            case _:
                assert_never(fault.kind)
        if out or (fault.final and entry.fate in {_Fate.RETRY, _Fate.LIMITED}):
            entry.fate = _Fate.OUT

    def _pass_over(self, provider: str) -> None:
        for entry in self._entries:
            if entry.provider == provider:
                entry.fate = _Fate.OUT

    def _overflow(self, entry: _Entry, now: float) -> None:
        room = self._room(entry)
        if room is not None:
            entry.cap, entry.change = room, REDUCED
            if self._again is None:
                self._again, self._until, self._paid = entry, now, False
            return
        self._overflowed = True
        entry.fate = _Fate.OUT
        for other in self._entries:
            if entry.context and 0 < other.context <= entry.context:
                other.fate = _Fate.OUT
            elif other.fate is _Fate.FRESH:
                other.change = ESCALATED

    def _room(self, entry: _Entry) -> int | None:
        """Return the output cap that may still fit, None where reducing cannot help."""
        room = entry.context - self._input - _MARGIN
        cap = self._cap or entry.candidate.model.max_output_tokens
        if entry.cap is not None or not entry.context or room < _ROOM or (cap and cap <= room):
            return None
        return room

    # --- what the shell is told

    def next(self, now: float, rand: float) -> Step:
        """Return the next step. `now` is monotonic, `rand` in [0, 1)."""
        while self._open:
            # The shell lost track of its try; whatever it did may have been sent.
            self.failed(_LOST, now)
        if self._end is None:
            step = self._choose(now, rand)
            if not isinstance(step, GiveUp):
                return step
            self._end = step.fault
        return GiveUp(self._end)

    def _choose(self, now: float, rand: float) -> Step:
        if self._sent >= self._limits.max_attempts:
            return GiveUp(self._verdict())
        if self._again is not None:
            if self._until - now > _TICK:
                return Wait(self._until - now)
            entry, self._again = self._again, None
            if entry.fate is not _Fate.OUT and (self._paid or self._afford(entry, now)):
                return self._try(entry, now)
            # A reduced cap that the retry budget does not allow: the candidate's provider is dry by now.
            entry.fate = _Fate.OUT
        for entry in self._fresh():
            if self._afford(entry, now):
                return self._try(entry, now)
        return self._come_back(now, rand)

    def _fresh(self) -> Sequence[_Entry]:
        """Return the candidates that were not tried, in the order of rules 5 and 7."""
        fresh = [entry for entry in self._entries if entry.fate is _Fate.FRESH]
        if self._overflowed:
            fresh.sort(key=self._by_context)
        fresh.sort(key=lambda entry: entry.provider in self._failing)
        return fresh

    def _by_context(self, entry: _Entry) -> tuple[int, int]:
        if not entry.context:
            return (2, 0)
        return (0, entry.context) if entry.context >= 2 * self._input else (1, -entry.context)

    def _come_back(self, now: float, rand: float) -> Step:
        """Order the wait before a retry (rule 8), or give up."""
        waiting = [entry for entry in self._entries if entry.fate in {_Fate.RETRY, _Fate.LIMITED}]
        waiting.sort(key=lambda entry: (entry.fate is _Fate.LIMITED, entry.failures, entry.order))
        for entry in waiting:
            pause = self._pause(entry, now, rand)
            if pause > self._limits.longest_wait or self._late(now + pause):
                continue
            if self._afford(entry, now):
                self._again, self._until, self._paid = entry, now + pause, True
                return Wait(pause)
        return GiveUp(self._verdict())

    def _pause(self, entry: _Entry, now: float, rand: float) -> float:
        backoff = jittered(_BASE, entry.failures, rand)
        asked = entry.ready - now
        if asked <= backoff:
            return backoff
        # Later than asked, never earlier, and not all callers at once.
        return max(asked, min(asked + backoff, self._limits.longest_wait))

    def _afford(self, entry: _Entry, now: float) -> bool:
        """Tell whether the provider may be sent this call (again); takes what that costs (rule 9)."""
        if entry.provider not in self._visited:
            return True
        if entry.provider in self._dry:
            return False
        if self._retries.withdraw(entry.provider, now):
            return True
        self._dry.add(entry.provider)
        return False

    def _late(self, when: float) -> bool:
        return self._deadline is not None and when >= self._deadline

    def _try(self, entry: _Entry, now: float) -> Step:
        if self._late(now):
            return GiveUp(self._timed_out())
        return self._begun(_Open(entry, now))

    def _begun(self, one: _Open) -> Try:
        self._issued += 1
        self._open[self._issued] = one
        left = None if self._deadline is None else self._deadline - one.since
        return Try(one.entry.candidate, self._issued, left, one.entry.cap, one.entry.change, self._others())

    def _others(self) -> bool:
        """Tell whether this call could still be sent, with what is open, to a provider that knows nothing of it."""
        if len(self._entries) == 1 or self._sent + len(self._open) >= self._limits.max_attempts:
            return False
        asked = {one.entry.provider for one in self._open.values()} | self._visited
        return any(entry.fate is _Fate.FRESH and entry.provider not in asked for entry in self._entries)

    # --- hedging (rules 11 and 12)

    @property
    def over(self) -> bool:
        """Return whether the call has come to its end, whatever is still open."""
        return self._end is not None

    def hedgeable(self) -> bool:
        """Tell whether the open try could be hedged, as far as the plan and this call decide."""
        return next(iter(self._rivals()), None) is not None

    def hedge(self, now: float) -> Try | None:
        """Return a second try to run beside the open one, None where the rules forbid one."""
        share = self._hedges
        if share is None or self._late(now) or not share.balance(_EVERYBODY, now):
            return None
        for rival in self._rivals():
            if self._retries.withdraw(rival.provider, now):
                share.withdraw(_EVERYBODY, now)
                self._hedges = None
                return self._begun(_Open(rival, now, hedge=True))
        return None

    def _rivals(self) -> Sequence[_Entry]:
        """Return the candidates that a hedge may go to, in the order of preference."""
        barred = self._hedges is None or self._committed or self.over or len(self._open) != 1
        if barred or self._sent + 1 >= self._limits.max_attempts:
            return ()
        (first,) = (one.entry for one in self._open.values())
        most = self._policy.max_budget_usd
        left = None if most is None else most * NANO - first.candidate.estimated_nanousd
        alone = all(entry.provider == first.provider for entry in self._entries)
        return [
            entry
            for entry in self._fresh()
            if entry is not first
            and (alone or entry.provider != first.provider)
            and entry.provider not in self._failing | self._dry
            and (entry.candidate.pinned or not first.candidate.pinned)
            and (left is None or entry.candidate.estimated_nanousd <= left)
        ]

    # --- what the caller is told (rule 10)

    def _timed_out(self) -> Fault:
        seconds = f"{self._limits.total_seconds:g} s"
        if not self._faults:
            return Fault(
                Kind.TIMEOUT, Blame.CLIENT, f"the limit of {seconds} passed before any try", cause="deadline"
            )
        last = self._faults[-1][1]
        return Fault(
            Kind.TIMEOUT,
            Blame.CLIENT,
            f"no answer within {seconds}; last: {last.message}",
            cause="deadline",
            retry_after=last.retry_after,
            upstream_status=last.upstream_status,
            provider_request_id=last.provider_request_id,
        )

    def _verdict(self) -> Fault:
        if not self._faults:
            return _soonest(self._refusals) if self._refusals else _NOBODY
        entry, last = self._faults[-1]
        if last.blame is Blame.CLIENT:
            return last
        tried = {entry.order for entry, _ in self._faults}
        if len(tried) == 1:
            return _own_words(entry.candidate, last)
        waits = [fault.retry_after for _, fault in self._faults if fault.retry_after is not None]
        limited = all(fault.kind is Kind.RATE_LIMITED for _, fault in self._faults)
        return replace(
            last,
            message=f"{self._who(tried)} failed; last: {last.message}",
            cause="all_failed",
            status=429 if limited else _STATUS.get(last.kind, 502),
            retry_after=min(waits, default=None),
            param="",
        )

    def _who(self, tried: set[int]) -> str:
        providers = {self._entries[order].provider for order in tried}
        every = "all " if len(tried) == len(self._entries) else ""
        if len(providers) > 1:
            return f"{every}{len(providers)} providers"
        return f"{every}{len(tried)} models of one provider"


_STATUS: Final[dict[Kind, int]] = {
    Kind.OVERLOADED: 503,
    Kind.RATE_LIMITED: 503,
    Kind.TIMEOUT: 504,
    Kind.INTERNAL: 500,
}
"""The status when several candidates failed, by the last fault's kind; 502 for the others."""

_ANSWERED: Final = Fault(Kind.INTERNAL, Blame.US, "the call has been answered already", cause="answered")
_LOST: Final = Fault(Kind.INTERNAL, Blame.US, "an attempt ended without an outcome", cause="no_outcome")
_NOBODY: Final = Fault(Kind.NO_CANDIDATE, Blame.US, "nothing in the plan can serve this call")


def _soonest(refusals: Sequence[Fault]) -> Fault:
    """Return the last of them, or of nothing but rate limits the one that ends first."""
    if all(fault.kind is Kind.RATE_LIMITED for fault in refusals):
        return min(refusals, key=lambda fault: fault.retry_after or 0.0)
    return refusals[-1]


def _own_words(candidate: Candidate, fault: Fault) -> Fault:
    """Return a single candidate's fault with the status that its caller should see."""
    if candidate.provider.type is ProviderType.ORIGIN:
        return replace(fault, status=fault.upstream_status) if fault.upstream_status >= 400 else fault
    if fault.kind in {Kind.AUTH, Kind.FORBIDDEN} or (
        fault.kind is Kind.TOO_LARGE and fault.blame is Blame.PROVIDER
    ):
        return replace(fault, status=502)
    return fault
