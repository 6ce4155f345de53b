"""What the scenes of providers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.trust import trust_is_read_once


@pytest.fixture(scope="session", autouse=True)
def _trust() -> Iterator[None]:
    with trust_is_read_once():
        yield
