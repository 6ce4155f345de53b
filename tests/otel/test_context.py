"""What callers say of their traces: read strictly, believed as far as it does no harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.otel import context
from tokenhub_core.otel.context import Joined, Parent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
HEX = st.text("0123456789abcdef", min_size=32, max_size=32).filter(lambda one: int(one, 16) > 0)


@pytest.mark.parametrize(
    ("field", "sampled"),
    [
        (GOOD, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        # A later version may say more; what it says first is what it said before.
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
        (f" {GOOD} ", True),
    ],
)
def test_a_well_formed_parent_is_taken(field: str, sampled: bool) -> None:
    """With the caller's ids, and whether it keeps the trace."""
    assert context.parent((("traceparent", field),)) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "x",
        GOOD.upper(),
        GOOD[:-1],
        f"{GOOD}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE[:-1]}\n-{SPAN}-01",
        "\uff11" * 55,
    ],
)
def test_a_malformed_parent_is_none(field: str) -> None:
    """Such a call begins a trace of its own, and no character of it goes anywhere."""
    assert context.parent((("traceparent", field),)) is None


def test_a_parent_that_is_told_twice_is_none() -> None:
    """Two readers could take one each."""
    assert context.parent((("traceparent", GOOD), ("traceparent", GOOD))) is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (["a=1,b=2"], "a=1,b=2"),
        (["a=1", " b=2 "], "a=1,b=2"),
        (["tenant@system=x"], "tenant@system=x"),
        (["a=1,B=2"], ""),
        (["a=1,b"], ""),
        (["a=\x01"], ""),
        ([f"a={'x' * 257}"], ""),
        ([",".join(f"k{n}=1" for n in range(33))], ""),
        ([",".join(f"k{n}={'x' * 100}" for n in range(6))], ""),
    ],
)
def test_a_state_goes_on_whole_or_not_at_all(states: list[str], kept: str) -> None:
    """What is malformed or too long is dropped; the parent counts all the same."""
    headers = (("traceparent", GOOD), *(("tracestate", state) for state in states))
    assert context.parent(headers) == Parent(TRACE, SPAN, sampled=True, state=kept)


@given(HEX)
def test_what_is_told_is_read_back(trace_id: str) -> None:
    """By the next server, with our span as its parent."""
    joined = Joined(trace_id, SPAN, state="a=1")
    assert context.parent(context.told(joined, sampled=True)) == Parent(
        trace_id, SPAN, sampled=True, state="a=1"
    )


@given(HEX, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_what_a_smaller_one_keeps(trace_id: str, one: float, other: float) -> None:
    """All of it at 1, nothing at 0; whoever asks with the same share is told the same."""
    small, large = sorted((one, other))
    assert context.kept(trace_id, large) or not context.kept(trace_id, small)
    assert context.kept(trace_id, 1)
    assert not context.kept(trace_id, 0)
