"""The commit gate."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.gate import MAX_HELD, Gate
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.types import Dialect, StopReason, Usage

OPENAI, ANTHROPIC = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES


def chunk(**delta: object) -> bytes:
    data = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
    return b"data: " + orjson.dumps(data) + b"\n\n"


ROLE = chunk(index=0, delta={"role": "assistant", "content": ""}, finish_reason=None)
HEL = chunk(index=0, delta={"content": "Hel"}, finish_reason=None)
LO = chunk(index=0, delta={"content": "lo"}, finish_reason=None)
STOP = chunk(index=0, delta={}, finish_reason="stop")
USAGE = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
)
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n'
STREAM = (ROLE, HEL, LO, STOP, USAGE, DONE)


def gate(*, target: Dialect = OPENAI, include_usage: bool = False) -> Gate:
    body: dict[str, object] = {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "messages": [{"role": "user", "content": "x"}],
    }
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    request = DIALECTS[target].open(orjson.dumps(body))
    return Gate(
        source=DIALECTS[OPENAI],
        target=DIALECTS[target],
        request=request,
        parser=sse.Parser(),
        created=1,
        fallback_id="f",
    )


def fed(one: Gate, pieces: Iterable[bytes]) -> bytes:
    return b"".join([one.feed(piece) for piece in pieces])


def test_lifecycle_events_are_held_until_content() -> None:
    """The role chunk alone shows the caller nothing; with the first text both leave."""
    one = gate()
    assert (one.feed(ROLE), one.committed) == (b"", False)
    assert (one.feed(HEL), one.committed) == (ROLE + HEL, True)
    assert one.feed(LO) == LO


def test_the_terminal_event_is_held_for_whoever_records() -> None:
    """Everything up to the last event has left; that one comes from `tail`."""
    one = gate(include_usage=True)
    sent = fed(one, STREAM)
    assert not sent.endswith(DONE)
    assert sent + one.tail() == b"".join(STREAM)
    assert (one.finished, one.cut(), one.identical) == (True, None, True)


def test_usage_that_only_we_asked_for_is_read_and_not_shown() -> None:
    """The caller did not ask for usage: the chunk is dropped, and the reply is no longer the provider's own."""
    one = gate()
    sent = fed(one, STREAM) + one.tail()
    assert sent == ROLE + HEL + LO + STOP + DONE
    assert one.usage == Usage(3, 2)
    assert not one.identical


@given(st.lists(st.integers(1, 60), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_bytes(sizes: list[int]) -> None:
    """Where the network cuts does not matter."""
    whole, one, at = b"".join(STREAM), gate(), 0
    out = b""
    for size in sizes:
        out += one.feed(whole[at : at + size])
        at += size
    out += one.feed(whole[at:]) + one.tail()
    assert out == ROLE + HEL + LO + STOP + DONE


def test_an_error_before_content_leaves_nothing_behind() -> None:
    """What the provider said is known; the caller has seen nothing of it."""
    one = gate()
    assert fed(one, [ROLE, ERROR]) == b""
    assert not one.committed
    assert one.failed is not None
    assert one.failed.status == 503


def test_nothing_is_read_behind_an_error_or_the_end() -> None:
    """A provider that goes on after its last word is not listened to."""
    for last in (ERROR, DONE):
        one = gate()
        fed(one, [HEL, STOP, last, LO])
        assert LO not in one.tail()
        assert one.output_chars == 3


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([ROLE], "truncated"),
        ([HEL], "truncated"),
        ([HEL, STOP], "truncated"),
        ([DONE], "empty_answer"),
        ([ROLE, DONE], "empty_answer"),
    ],
)
def test_a_stream_without_its_last_event_or_without_content_was_cut(events: list[bytes], cause: str) -> None:
    """However cleanly the connection ended."""
    one = gate()
    fed(one, events)
    fault = one.cut()
    assert fault is not None
    assert (fault.kind, fault.cause) == (Kind.TRUNCATED, cause)


def test_an_empty_answer_with_a_stop_reason_is_an_answer() -> None:
    """A model may have nothing to say."""
    one = gate()
    assert fed(one, [ROLE, STOP, DONE]) + one.tail() == ROLE + STOP + DONE
    assert one.cut() is None
    assert one.stop is not None
    assert one.stop.reason is StopReason.END


def test_what_comes_before_content_is_bounded() -> None:
    """A megabyte of keep-alive comments is no answer."""
    with pytest.raises(TokenHubError) as raised:
        fed(gate(), [b": still here\n\n" * 1000] * (MAX_HELD // 13_000 + 2))
    assert raised.value.fault.cause == "no_content"


def test_another_dialect_is_written_anew() -> None:
    """OpenAI chunks in, Anthropic events out; the terminal event is held all the same."""
    one = gate(target=ANTHROPIC)
    sent = fed(one, STREAM)
    assert sent.startswith(b"event: message_start")
    assert b"message_stop" not in sent
    assert one.tail().endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert not one.identical
