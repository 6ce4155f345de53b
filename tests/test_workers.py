"""How a run is shared out among workers."""

from __future__ import annotations

import pytest

from tests.workers import unit


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("tests/store/test_log.py::test_a", "tests/store/test_log.py"),
        ("tests/dialects/test_sse.py::test_a[inspect-x::y]", "tests/dialects/test_sse.py"),
        ("tests/workflows/test_once.py::test_a[False]", "tests/workflows/"),
        ("tests/e2e/test_island.py::test_a", "tests/e2e/test_island.py"),
        ("tests/e2e/test_sdks.py::test_a[handoff-openai]", "tests/e2e handoff"),
        ("tests/e2e/test_failover.py::test_a[503-openai-inspect]", "tests/e2e inspect"),
    ],
)
def test_what_is_shared_is_used_on_one_worker(nodeid: str, name: str) -> None:
    """A file's tests stay together, and so do all scenes of one `tokenhub serve`, whatever file they are in."""
    assert unit(nodeid) == name
