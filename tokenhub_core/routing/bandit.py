"""Thompson sampling: which candidate comes first where no model was named. Pure.

An arm is a model at a provider, seen apart in each context (the size of the input and what the call needs). Each
attempt gives its arm a reward r in [0, 1] (`routing.reward`), counted as r of a success and 1 - r of a failure, so the
posterior of the arm's mean reward is a Beta distribution (Agrawal and Goyal 2012). To choose, one value is drawn from
every candidate's posterior, and the candidates are ordered by their values, largest first.

    alpha = 1 + won·d + b·share       beta = 1 + lost·d + b·(1 - share)       d = keep^steps · 2^(-age / half-life)

The world drifts, so what was counted is forgotten: by count, with every later reward in the same context
(`steps`, whichever arm it went to), and by time. An arm that is not chosen thereby returns to its prior and is
tried again. The prior is Beta(1, 1): mean one half, less than a working arm's. An arm with a record in another context
borrows from it: `share` is its mean reward over all contexts, `b` as many observations as it has there, at most
`_BORROWED`. A provider that is dead in one context is thus not taken for new in the next.

No state can make a draw fail: counts are held within 0 and `_MOST` when they come in, are read or are stored, so
alpha and beta are finite and at least 1, whatever was loaded.

Randomness is PCG64, seeded by a hash of the request id; values are drawn for the arms in the order of their names.
Whoever knows a call's id and the parameters that are recorded with its decision gets the same values, bit for
bit (with the same NumPy: it may change its algorithms in a later version, NEP 19).
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from tokenhub_core.numeric import np
from tokenhub_core.types import Draw, Features, Need

if TYPE_CHECKING:
    from numpy.typing import NDArray

type Arm = tuple[str, str]
"""A model's id and its provider's."""

type Floats = NDArray[np.float64]

EVERYWHERE: Final = ""
"""The context that holds an arm's record over all contexts."""

_BORROWED: Final = 2.0
_MOST: Final = 1e6
_ARMS: Final = 4_096
"""Arms that are kept; the one longest without a reward goes first."""
_FEWEST: Final = 32
_COARSE: Final = 64
_FINE: Final = 512
_CELLS: Final = 40_000
"""Of a table of arms and points; with more arms the points become fewer."""
_SIGMAS: Final = 4.5


class Forgetting(msgspec.Struct, frozen=True):
    """How fast rewards are forgotten."""

    keep: float = 0.9995
    """What one later reward in the same context leaves of those before it: about 2,000 of them decide."""
    half_life: float = 86_400.0
    """Seconds."""


DEFAULT: Final = Forgetting()


class Kept(msgspec.Struct, frozen=True):
    """The record of one arm in one context, as it is stored. `won` and `lost` are as of `step` and `at`."""

    model: str
    provider: str
    context: str
    won: float
    lost: float
    step: int
    """How many rewards the context had seen when this arm had its last one."""
    at: int
    """When that was, in microseconds since the epoch."""


class Explorer(Protocol):
    """Who may put candidates into another order than that of their scores."""

    def draw(
        self, arms: Sequence[Arm], context: str, *, penalties: Sequence[float], seed: str, now: float
    ) -> Sequence[Draw]:
        """Return one draw an arm, in the order of `arms`.

        Candidates are to be ordered by sample less penalty; that is what the propensities are of. `now` is in
        seconds since the epoch.
        """
        ...


class Still:
    """The explorer of someone who does not explore."""

    def draw(
        self, arms: Sequence[Arm], context: str, *, penalties: Sequence[float], seed: str, now: float
    ) -> Sequence[Draw]:
        """Return nothing; it is never asked."""
        return ()


STILL: Final = Still()


def context(features: Features, tokens: int) -> str:
    """Return the kind of call: `small` below 1,000 estimated input tokens, `large` above 10,000, else `medium`.

    What it needs of a model beyond words follows: `small:tools`, `large:media`, `medium:tools+media`.
    """
    size = "small" if tokens < 1_000 else "medium" if tokens <= 10_000 else "large"
    needs = [
        name
        for name, wanted in (("tools", {Need.TOOLS}), ("media", {Need.VISION, Need.AUDIO, Need.FILES}))
        if features.needs & wanted
    ]
    return f"{size}:{'+'.join(needs)}" if needs else size


class _Records:
    """What was counted in one context, column by column; a row belongs to the same arm in every context.

    Rewards come with every answer and are counted in plain numbers; who explores computes with the same memory.
    """

    def __init__(self, rows: int) -> None:
        self.steps = 0
        self.won, self.lost, self.step = _zeros(rows), _zeros(rows), _zeros(rows)
        # Whole microseconds, which a double holds exactly.
        self.at = _zeros(rows)

    def decayed(self, rows: NDArray[np.intp], forgetting: Forgetting, now: float) -> tuple[Floats, Floats]:
        """Return what is left of the successes and failures in these rows; nothing of those without a record."""
        won, lost, step, at = (np.frombuffer(column).take(rows) for column in self._columns)
        age = np.maximum(0.0, now * 1e6 - at) / 1e6
        left = forgetting.keep ** (self.steps - step) * np.exp2(-age / forgetting.half_life)
        return won * left, lost * left

    def add(self, row: int, reward: float, forgetting: Forgetting, now: float) -> None:
        self.steps += 1
        micros = max(0, round(now * 1e6))
        left = forgetting.keep ** (self.steps - self.step[row])
        left *= 2.0 ** (-max(0.0, micros - self.at[row]) / 1e6 / forgetting.half_life)
        self.put(row, _held(self.won[row] * left + reward), _held(self.lost[row] * left + 1 - reward), micros)
        self.step[row] = self.steps

    def put(self, row: int, won: float, lost: float, at: int) -> None:
        self.won[row], self.lost[row], self.at[row] = won, lost, at

    def grow(self) -> None:
        for column in self._columns:
            column.extend(_zeros(len(column)))

    @property
    def _columns(self) -> tuple[array[float], ...]:
        return self.won, self.lost, self.step, self.at


def _zeros(size: int) -> array[float]:
    return array("d", bytes(8 * size))


class Bandit:
    """The posteriors of all arms. `draw` changes nothing; `reward` is the only thing that teaches."""

    def __init__(self, known: Iterable[Kept] = (), forgetting: Forgetting = DEFAULT) -> None:
        self._forgetting = forgetting
        self._rows: dict[Arm, int] = {}
        # The last row stays empty: it is what an unknown arm reads.
        self._width = 16
        self._contexts: dict[str, _Records] = {EVERYWHERE: _Records(self._width)}
        self._changed: set[tuple[str, Arm]] = set()
        for kept in known:
            row, records = self._row((kept.model, kept.provider)), self._in(kept.context)
            step, at = max(0, kept.step), max(0, kept.at)
            records.put(row, _held(kept.won), _held(kept.lost), at)
            records.step[row] = step
            records.steps = max(records.steps, step)

    def become(self, other: Bandit) -> None:
        """Know from now on what another one knows, which nobody else uses any more."""
        self._rows, self._width, self._contexts = other._rows, other._width, other._contexts
        self._changed = set()

    def reward(self, arm: Arm, context: str, reward: float, now: float) -> None:
        """Count one attempt's reward, from 0 to 1; `now` is in seconds since the epoch."""
        reward, row = min(1.0, _held(reward)), self._row(arm)
        for place in (context, EVERYWHERE):
            self._in(place).add(row, reward, self._forgetting, now)
            self._changed.add((place, arm))

    def _in(self, context: str) -> _Records:
        found = self._contexts.get(context)
        return found or self._contexts.setdefault(context, _Records(self._width))

    def _row(self, arm: Arm) -> int:
        """Return the row of an arm; made free, where there are too many, of the one longest without a reward."""
        row = self._rows.get(arm)
        if row is not None:
            return row
        row = len(self._rows)
        if row >= _ARMS:
            steps = self._contexts[EVERYWHERE].step
            row = self._rows.pop(min(self._rows, key=lambda one: steps[self._rows[one]]))
            for records in self._contexts.values():
                records.put(row, 0.0, 0.0, 0)
                records.step[row] = 0.0
        elif row + 1 >= self._width:
            self._width *= 2
            for records in self._contexts.values():
                records.grow()
        self._rows[arm] = row
        return row

    def posteriors(self, arms: Sequence[Arm], context: str, now: float) -> tuple[Floats, Floats]:
        """Return alpha and beta of each arm in this context; each is finite and at least 1."""
        rows = np.fromiter(map(self._rows.get, arms, repeat(-1)), np.intp, len(arms))
        all_won, all_lost = self._contexts[EVERYWHERE].decayed(rows, self._forgetting, now)
        seen = all_won + all_lost
        share = np.divide(all_won, seen, out=np.zeros_like(seen), where=seen > 0)
        lent = np.minimum(seen, _BORROWED)
        alpha, beta = 1 + lent * share, 1 + lent * (1 - share)
        if (records := self._contexts.get(context)) is None:
            return alpha, beta
        won, lost = records.decayed(rows, self._forgetting, now)
        return alpha + won, beta + lost

    def draw(
        self, arms: Sequence[Arm], context: str, *, penalties: Sequence[float], seed: str, now: float
    ) -> Sequence[Draw]:
        """Return one draw an arm, in the order of `arms`."""
        if not arms:
            return ()
        alpha, beta = self.posteriors(arms, context, now)
        samples = sampled(arms, alpha, beta, seed)
        first = propensities(alpha, beta, np.asarray(penalties, np.float64))
        return [
            Draw(*row)
            for row in zip(samples.tolist(), alpha.tolist(), beta.tolist(), first.tolist(), strict=True)
        ]

    def kept(self) -> list[Kept]:
        """Return every record there is."""
        return [
            self._kept(context, arm)
            for context, records in self._contexts.items()
            for arm, row in self._rows.items()
            if records.step[row]
        ]

    def changes(self) -> list[Kept]:
        """Return the records that have changed since this was last asked."""
        changed, self._changed = self._changed, set()
        return [self._kept(*place) for place in changed if place[1] in self._rows]

    def _kept(self, context: str, arm: Arm) -> Kept:
        records, row = self._contexts[context], self._rows[arm]
        step, at = int(records.step[row]), int(records.at[row])
        return Kept(*arm, context, records.won[row], records.lost[row], step, at)


def sampled(arms: Sequence[Arm], alpha: Floats, beta: Floats, seed: str) -> Floats:
    """Return one value an arm; the same for the same arms, parameters and seed, in whichever order the arms come."""
    generator = np.random.Generator(np.random.PCG64(_number(seed)))
    names = sorted(range(len(arms)), key=arms.__getitem__)
    order = np.fromiter(names, np.intp, len(arms))
    samples = np.empty(len(arms))
    samples[order] = generator.beta(alpha[order], beta[order])
    return samples


def propensities(alpha: Floats, beta: Floats, penalties: Floats) -> Floats:
    """Return for each arm the probability that its value less its penalty is the largest; alpha and beta are >= 1.

    P(i) = integral of f_i(v)·product of F_j(v) over all other j, summed over the midpoints of a grid that has four of
    them in the smallest standard deviation (fewer for hundreds of arms that all differ). Arms with the same parameters
    are worked out once. Left out, at 0, are arms that could hardly ever win: those whose mean plus 4.5 bounds on the
    standard deviation, 1/(2·sqrt(alpha+beta+1)) (Marchal and Arbel 2017), is below another's mean minus as much; such
    a tail holds less than 0.005 %. The sum is made 1. Up to a hundred arms of up to 2,000 observations each result is
    within 0.002 of the truth, up to a thousand within 0.005.
    """
    mean = alpha / (alpha + beta) - penalties
    reach = _SIGMAS / (2 * np.sqrt(alpha + beta + 1))
    alive = np.flatnonzero(mean + reach >= (mean - reach).max())
    low, high = float((mean - reach)[alive].min()), float((mean + reach)[alive].max())
    # One sortable number for what must be equal; a beta is at most about 1e6, so a penalty stands clear of it.
    alike = alpha[alive] + 1j * (beta[alive] + 1e8 * penalties[alive])
    _, ones, same, times = np.unique(alike, return_index=True, return_inverse=True, return_counts=True)
    chosen = alive[ones]
    found = np.zeros(len(alpha))
    found[alive] = _first(alpha[chosen], beta[chosen], penalties[chosen], times, (low, high))[same]
    result: Floats = found / found.sum()
    return result


def _first(
    alpha: Floats, beta: Floats, penalties: Floats, times: NDArray[np.intp], bounds: tuple[float, float]
) -> Floats:
    """Return how likely one arm of each kind comes first; next to nothing lies outside the bounds."""
    low, high = max(bounds[0], float(-penalties.max())), min(bounds[1], float(1 - penalties.min()))
    spread = np.sqrt(alpha * beta / (alpha + beta + 1)) / (alpha + beta)
    wanted = max(_COARSE, math.ceil(4 * (high - low) / float(spread.min())))
    points = max(_FEWEST, min(_FINE, wanted, _CELLS // len(alpha)))
    grid = low + (np.arange(points) + 0.5) * ((high - low) / points)
    # Where nobody is penalised all share one row of places, and of logarithms.
    if penalties.any():
        place = grid[None, :] + penalties[:, None]
        inside = (place > 0) & (place < 1)
        place = np.where(inside, place, 0.5)
        height = (alpha[:, None] - 1) * np.log(place) + (beta[:, None] - 1) * np.log1p(-place)
        height = np.where(inside, height, -np.inf)
    else:
        height = (alpha[:, None] - 1) * np.log(grid) + (beta[:, None] - 1) * np.log1p(-grid)
    density = np.exp(height - height.max(axis=1, keepdims=True))
    density /= density.sum(axis=1, keepdims=True)
    below = np.log(np.maximum(np.cumsum(density, axis=1) - density / 2, 1e-300))
    others = times @ below
    result: Floats = (density * np.exp(np.minimum(others - below, 0.0))).sum(axis=1)
    return np.maximum(result, 1e-12)


def _number(seed: str) -> int:
    return int.from_bytes(hashlib.blake2b(seed.encode(errors="replace"), digest_size=16).digest(), "big")


def _held(value: float) -> float:
    return max(0.0, min(_MOST, value)) if not math.isnan(value) else 0.0
