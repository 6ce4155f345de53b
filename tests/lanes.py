"""Which tests `scripts/test` leaves out where no lane is named: scenes of whole programs, which take most of the time.

CI runs all of them (`scripts/test unit`).
"""

from __future__ import annotations

from typing import Final

_LONG: Final = (
    "tests/addon/",
    "tests/bad_inputs/",
    "tests/cli/",
    "tests/e2e/",
    "tests/fuzz/",
    "tests/http/",
    "tests/workflows/",
)
_SHORT: Final = (
    "tests/addon/test_conformance.py",
    "tests/cli/test_main.py",
    "tests/e2e/test_streaming.py",
    "tests/http/test_side.py",
)
"""A little of each, for what everybody would notice first."""


def is_long(nodeid: str) -> bool:
    """Tell whether a test is one that can wait for CI."""
    return nodeid.startswith(_LONG) and not nodeid.startswith(_SHORT)
