"""Ids that sort by time and that nobody guesses."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.ids import request_id


def test_an_id_says_when_and_hides_the_rest() -> None:
    """`req_`, twelve digits of milliseconds, and the entropy as it is."""
    assert request_id(1_700_000_000.123, b"\x00\xff" * 5) == "req_018bcfe5687b00ff00ff00ff00ff00ff"


@given(st.floats(0, 2**37), st.floats(0, 2**37), st.binary(min_size=10, max_size=10))
def test_ids_sort_as_their_times_do(one: float, other: float, entropy: bytes) -> None:
    """To the millisecond, for thousands of years, and always in the same safe characters."""
    first, second = sorted((one, other))
    early, late = request_id(first, entropy), request_id(second, entropy)
    assert early <= late
    assert re.fullmatch(r"req_[0-9a-f]{32}", early)
