"""What calls in shadow cost, and what they would have cost and lost with us.

Each call is compared with itself: what its tokens cost at the host that answered, and what the same tokens would have
cost at the candidate that would have been asked first. So the differences are paired, and their mean has the interval
of Student's t (`routing.experiment`), of 95 %. Below `LEAST` calls none is given: the costs of calls are skewed, and
of so few their mean is not close enough to normal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tokenhub_core.numeric import np
from tokenhub_core.routing import experiment
from tokenhub_core.routing.experiment import Figure
from tokenhub_core.types import NANO, Outcome, Shadow

LEAST: Final = 30
"""Calls without which there is no interval."""

ASSUMPTIONS: Final = (
    "The answer would have been as long at the other model, and its tokens as many.",
    "Cached tokens count as cached only where the other candidate is the same model.",
    "The first candidate would have answered: no failover, no retry.",
    "Both sides are priced by list prices at the time of the call; batches, priorities and discounts are not known.",
    "Time is expected from what was learned of the candidate; where nothing was, it is unknown and left out.",
    "Calls that failed or were given up, and those that we would have refused, are counted and not compared.",
    "How good the other model's answers would have been is not measured.",
)


class Seen(msgspec.Struct, frozen=True):
    """What the report takes from one record."""

    outcome: str
    status: int
    model: str
    """The one that answered, else the one that was asked for."""
    host: str
    estimated: bool
    """The tokens are estimated: the host did not tell them."""
    shadow: Shadow


class Money(msgspec.Struct, frozen=True):
    """Dollars of the calls that are compared. What is saved is positive where we would have been cheaper."""

    paid: float
    would: float
    saved: float
    saved_share: float | None
    """Of what was paid."""
    saved_each: Figure
    """The mean of a call; without an interval below `LEAST` calls."""


class Time(msgspec.Struct, frozen=True):
    """Milliseconds to the end of the answer. What is saved is positive where we would have been quicker."""

    known: int
    unknown: int
    """Compared calls of whose candidate no time was learned."""
    saved_each: Figure | None


class Move(msgspec.Struct, frozen=True):
    """Calls for one model at one host that one candidate would have got; dollars are of those that are compared."""

    asked: str
    host: str
    model: str
    provider: str
    calls: int
    paid: float
    would: float


class Refusal(msgspec.Struct, frozen=True):
    """Calls that we would have answered with one fault; the message is the newest one's."""

    fault: str
    status: int
    message: str
    calls: int


class Report(msgspec.Struct, frozen=True):
    """What calls in shadow came to."""

    calls: int
    answered: int
    failed: int
    """The host answered with an error, or could not be reached."""
    cancelled: int
    unchanged: int
    """Answered calls that we would have left with their host and model."""
    compared: int
    """Answered calls that we would have served, with both prices and the tokens known."""
    estimated: int
    """Compared calls whose tokens are estimated."""
    unpriced: dict[str, int]
    """Why other answered calls are not compared: reason → calls."""
    cost: Money | None
    interval: str
    """How the intervals were made, or why there are none."""
    latency: Time
    losses: dict[str, int]
    """What would have been lost in translation: name → answered calls."""
    refusals: list[Refusal]
    models: list[Move]
    """Where answered calls would have gone, the most frequent first."""
    paid_prices: dict[str, int]
    """Where the prices of compared calls come from: source → calls."""
    would_prices: dict[str, int]
    assumptions: tuple[str, ...] = ASSUMPTIONS


def report(calls: Sequence[Seen]) -> Report:
    """Return what these calls came to; they are given newest first."""
    answered = [call for call in calls if call.outcome == Outcome.PASSED and 200 <= call.status < 300]
    cancelled = sum(call.outcome == Outcome.CANCELLED for call in calls)
    served = [call for call in answered if not call.shadow.fault]
    gaps = [_gap(call) for call in served]
    compared = [call for call, gap in zip(served, gaps, strict=True) if not gap]
    return Report(
        calls=len(calls),
        answered=len(answered),
        failed=len(calls) - len(answered) - cancelled,
        cancelled=cancelled,
        unchanged=sum(call.shadow.same for call in served),
        compared=len(compared),
        estimated=sum(call.estimated for call in compared),
        unpriced=_counted(gap for gap in gaps if gap),
        cost=_money([_pair(call.shadow) for call in compared]),
        interval=_interval(len(compared)),
        latency=_time(compared),
        losses=_counted(loss for call in served for loss in call.shadow.losses),
        refusals=_refusals([call.shadow for call in calls if call.shadow.fault]),
        models=_moves(served),
        paid_prices=_counted(call.shadow.paid_price for call in compared),
        would_prices=_counted(call.shadow.price for call in compared),
    )


def _gap(call: Seen) -> str:
    """Return what keeps a call from being compared, empty where nothing does."""
    shadow = call.shadow
    if not shadow.model:
        return "nobody would have been asked"
    if shadow.paid is None:
        known = shadow.paid_price not in ("", "unknown")
        return "tokens unknown" if known else "price of the model that answered unknown"
    return "price of the candidate unknown" if shadow.nanousd is None else ""


def _pair(shadow: Shadow) -> tuple[float, float]:
    return (shadow.paid or 0) / NANO, (shadow.nanousd or 0) / NANO


def _money(pairs: Sequence[tuple[float, float]]) -> Money | None:
    if not pairs:
        return None
    paid, would = np.array(pairs, dtype=np.float64).T
    total, other = float(paid.sum()), float(would.sum())
    return Money(
        paid=total,
        would=other,
        saved=total - other,
        saved_share=(total - other) / total if total else None,
        saved_each=_mean(paid - would),
    )


def _mean(differences: experiment.Floats) -> Figure:
    found = experiment.mean(differences)
    if found is None or differences.size < LEAST:
        return Figure(float(differences.mean()))
    return found


def _interval(compared: int) -> str:
    if compared < LEAST:
        return f"none: {compared} calls can be compared, and it takes {LEAST}"
    return "95 %, Student's t over the differences of single calls"


def _time(compared: Sequence[Seen]) -> Time:
    saved = [
        call.shadow.took_ms - call.shadow.expected_ms
        for call in compared
        if call.shadow.took_ms is not None and call.shadow.expected_ms is not None
    ]
    figure = _mean(np.array(saved, dtype=np.float64)) if saved else None
    return Time(len(saved), len(compared) - len(saved), figure)


def _refusals(shadows: Sequence[Shadow]) -> list[Refusal]:
    counts = Counter((shadow.fault, shadow.status) for shadow in shadows)
    newest: dict[tuple[str, int], str] = {}
    for shadow in shadows:
        newest.setdefault((shadow.fault, shadow.status), shadow.message)
    return [Refusal(*key, newest[key], count) for key, count in counts.most_common()]


def _moves(served: Sequence[Seen]) -> list[Move]:
    groups: dict[tuple[str, str, str, str], list[Seen]] = {}
    for call in served:
        key = call.model, call.host, call.shadow.model, call.shadow.provider
        groups.setdefault(key, []).append(call)
    moves = []
    for key, found in groups.items():
        pairs = [_pair(call.shadow) for call in found if not _gap(call)]
        paid, would = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        moves.append(Move(*key, len(found), paid, would))
    return sorted(moves, key=lambda move: -move.calls)


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
