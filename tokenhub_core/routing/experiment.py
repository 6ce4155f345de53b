"""What an alias's variants came to, with how sure one can be of it.

Every interval is one of 95 %. Rates: Wilson's score interval (E. B. Wilson, "Probable inference, the law of succession,
and statistical inference", JASA 22, 1927). Means: Student's t with n - 1 degrees of freedom. Percentiles: the order
statistics around the rank, by the normal approximation of the binomial (W. J. Conover, Practical Nonparametric
Statistics, section 3.2). A bound that the data do not give is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from tokenhub_core.numeric import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z: Final = 1.959963984540054
"""The 97.5 % point of the normal distribution."""

_T: Final = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582),
    *(2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
)
"""The 97.5 % points of Student's t for 1 to 10 degrees of freedom."""

type Floats = NDArray[np.float64]


class Call(msgspec.Struct, frozen=True):
    """What the report takes from one record. Cost in nano-dollars, times in milliseconds."""

    variant: str
    """The target that the alias came to; for a pool the model that served."""
    outcome: str
    cost: int
    total_ms: float | None
    ttft_ms: float | None
    input_tokens: int
    output_tokens: int
    failed_over: bool = False
    """Another model than the variant's answered."""


class Figure(msgspec.Struct, frozen=True):
    """A figure and the interval that it lies in."""

    value: float
    low: float | None = None
    high: float | None = None


class Outcomes(msgspec.Struct, frozen=True):
    """One variant. A figure is None where nothing was seen that it could be made of."""

    variant: str
    requests: int
    succeeded: int
    failed: int
    cancelled: int
    """The caller left; counts for the requests and the cost, not for success."""
    failed_over: int
    share: Figure
    """Of the alias's requests."""
    success_rate: Figure | None
    cost_usd: Figure | None
    """Mean of a request, whatever came of it."""
    latency_ms: Figure | None
    """Mean to the end of the answer; this and what follows of those that succeeded."""
    latency_p50_ms: Figure | None
    latency_p95_ms: Figure | None
    ttft_ms: Figure | None
    input_tokens: Figure | None
    output_tokens: Figure | None


def report(calls: Sequence[Call], variants: Sequence[str] = ()) -> list[Outcomes]:
    """Return what each variant came to: those of `variants` first, in that order, then others that were seen."""
    by_variant: dict[str, list[Call]] = {name: [] for name in variants}
    for call in calls:
        by_variant.setdefault(call.variant, []).append(call)
    return [_outcomes(name, found, len(calls)) for name, found in by_variant.items()]


def rate(hits: int, tries: int) -> Figure | None:
    """Return a share with Wilson's interval, None for no tries."""
    if tries == 0:
        return None
    share, square = hits / tries, Z * Z
    middle = (share + square / (2 * tries)) / (1 + square / tries)
    half = Z / (1 + square / tries) * math.sqrt(share * (1 - share) / tries + square / (4 * tries * tries))
    # At the ends the interval closes in theory; rounding must not leave the point outside.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == tries else min(1.0, middle + half)
    return Figure(share, low, high)


def mean(values: Floats) -> Figure | None:
    """Return the mean with the interval of Student's t; one value alone has none."""
    if values.size == 0:
        return None
    middle = float(values.mean())
    if values.size == 1:
        return Figure(middle)
    half = student(values.size - 1) * float(values.std(ddof=1)) / math.sqrt(values.size)
    return Figure(middle, middle - half, middle + half)


def percentile(values: Floats, share: float) -> Figure | None:
    """Return the value that `share` of all lie at or below, between the order statistics that bound it."""
    if values.size == 0:
        return None
    ordered = np.sort(values)
    n = values.size
    spread = Z * math.sqrt(n * share * (1 - share))
    low, high = math.floor(n * share - spread), math.ceil(n * share + spread) + 1
    return Figure(
        float(ordered[max(math.ceil(n * share), 1) - 1]),
        float(ordered[low - 1]) if low >= 1 else None,
        float(ordered[high - 1]) if high <= n else None,
    )


def student(freedom: int) -> float:
    """Return the 97.5 % point of Student's t, to four decimals.

    Beyond ten degrees of freedom by the expansion around the normal point, Abramowitz and Stegun 26.7.5.
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, v = Z, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / v + second / v**2 + third / v**3 + fourth / v**4


def _outcomes(name: str, calls: Sequence[Call], everyone: int) -> Outcomes:
    served = [call for call in calls if call.outcome == "ok"]
    failed = sum(call.outcome == "error" for call in calls)
    latency = _floats([call.total_ms for call in served])
    return Outcomes(
        variant=name,
        requests=len(calls),
        succeeded=len(served),
        failed=failed,
        cancelled=len(calls) - len(served) - failed,
        failed_over=sum(call.failed_over for call in calls),
        share=rate(len(calls), everyone) or Figure(0.0),
        success_rate=rate(len(served), len(served) + failed),
        cost_usd=mean(_floats([call.cost / 1e9 for call in calls])),
        latency_ms=mean(latency),
        latency_p50_ms=percentile(latency, 0.5),
        latency_p95_ms=percentile(latency, 0.95),
        ttft_ms=mean(_floats([call.ttft_ms for call in served])),
        input_tokens=mean(_floats([call.input_tokens for call in served])),
        output_tokens=mean(_floats([call.output_tokens for call in served])),
    )


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([value for value in values if value is not None], dtype=np.float64)
