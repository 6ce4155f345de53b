"""All cases, in order."""

from __future__ import annotations

from typing import Final

from tests.faults import callers, herds, reaching, refusals, selves, sizes, stores, streams
from tests.faults.case import Case

CASES: Final[tuple[Case, ...]] = tuple(
    sorted(
        (
            *reaching.CASES,
            *streams.CASES,
            *refusals.CASES,
            *sizes.CASES,
            *herds.CASES,
            *callers.CASES,
            *stores.CASES,
            *selves.CASES,
        ),
        key=lambda case: case.id,
    )
)
