"""Which tests `scripts/test` leaves out where no lane is named: mostly scenes of whole programs, and a few tests that
compute for long. They take most of the time.

CI runs all of them (`scripts/test unit`).
"""

from __future__ import annotations

from typing import Final

_LONG: Final = (
    "tests/addon/",
    "tests/bad_inputs/",
    "tests/cli/",
    "tests/dialects/test_bad_inputs.py",
    "tests/dialects/test_linear.py",
    "tests/documents/",
    "tests/e2e/",
    "tests/fuzz/",
    "tests/http/",
    "tests/launch/test_clients.py",
    "tests/launch/test_node.py",
    "tests/otel/",
    "tests/privacy/",
    "tests/store/test_crash.py",
    "tests/store/test_outage.py",
    "tests/store/test_postgresql.py",
    "tests/test_changes.py",
    "tests/test_drawing.py",
    "tests/test_fellowship.py",
    "tests/test_mutation.py",
    "tests/vault/test_rotation.py",
    "tests/vault/test_traffic.py",
    "tests/webhooks/",
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
