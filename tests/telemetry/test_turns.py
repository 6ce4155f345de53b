"""Why each attempt was made, as the record of its call tells."""

from __future__ import annotations

import pytest

from tokenhub_core.routing.spread import LOST
from tokenhub_core.telemetry.turns import Turn, turns
from tokenhub_core.types import Attempt


def tried(n: int, begun: float, ended: float, provider: str = "p", **more: str) -> Attempt:
    return Attempt(n, "m", provider, begun, ended, **more)  # type: ignore[arg-type] # words only


@pytest.mark.parametrize(
    ("attempts", "told"),
    [
        ([], []),
        ([tried(1, 0, 5)], ["first"]),
        ([tried(1, 0, 5, cause="http_500"), tried(2, 5, 9)], ["first", "retry"]),
        ([tried(1, 0, 5, cause="http_500"), tried(2, 5, 9, "q")], ["first", "failover"]),
        ([tried(1, 0, 9, cause=LOST), tried(2, 4, 8, "q")], ["first", "hedge"]),
        # Those that end first stand first.
        ([tried(2, 4, 8, "q"), tried(1, 0, 9, cause=LOST)], ["hedge", "first"]),
        (
            [tried(1, 0, 9, step="voter 1"), tried(2, 0, 8, step="voter 2"), tried(3, 9, 12, step="judge")],
            ["first", "first", "first"],
        ),
        (
            [
                tried(1, 0, 4, cause="reset", step="voter 1"),
                tried(2, 0, 8, step="voter 2"),
                tried(3, 5, 9, step="voter 1"),
            ],
            ["first", "first", "retry"],
        ),
    ],
)
def test_a_record_tells_why_each_attempt_was_made(attempts: list[Attempt], told: list[str]) -> None:
    """Again, elsewhere, or beside; steps of one call run beside each other and are no hedges."""
    assert [*turns(attempts)] == [Turn(one) for one in told]
