"""Calls and answers as people read them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tokenhub_core.errors import TokenHubError
from tokenhub_core.transcript import answered, asked
from tokenhub_core.types import Dialect, Json

GOLDEN = Path(__file__).parent / "golden"
_TOOL = {
    "name": "weather",
    "description": "Tells\nthe weather. " + "x" * 200,
    "input_schema": {"properties": {"city": {}}},
}


def test_a_request_shows_who_said_what() -> None:
    """The settings first, then every turn with its tools and media, then the tools that there are."""
    body: Json = {
        "model": "claude-x",
        "max_tokens": 50,
        "stream": True,
        "system": "Be brief.",
        "tools": [_TOOL],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?\nNow."}, _image()]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "They ask.", "signature": "s"},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ulm"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "Rain", "is_error": True}
                ],
            },
        ],
    }
    lines = asked(Dialect.ANTHROPIC_MESSAGES, orjson.dumps(body)).splitlines()
    assert lines[:4] == ["claude-x, streamed, at most 50 tokens", "", "system:", "    Be brief."]
    text = "\n".join(lines)
    assert "user:\n    Weather?\n    Now.\n    [image image/png 3 bytes]" in text
    assert '    [thought]\n    | They ask.\n    → weather  [t1]\n      {\n        "city": "Ulm"' in text
    assert "    ← failed  [t1]\n      Rain" in text
    assert lines[-2] == "tools:"
    assert lines[-1].startswith("    weather(city): Tells the weather. xxx")
    assert lines[-1].endswith("x…")


def _image() -> Json:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def test_a_stream_reads_like_the_answer_in_one_piece() -> None:
    """Its pieces are put together: text, thoughts, and the arguments of a tool; usage and the stop come last."""
    events: list[Json] = [
        {
            "id": "c",
            "model": "m",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}],
        },
        {"choices": [{"index": 0, "delta": {"content": "lo"}}]},
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [_call({"name": "f", "arguments": '{"a"'}, id="t")]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {"tool_calls": [_call({"arguments": ":1}"})]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
    ]
    stream = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    message = {
        "role": "assistant",
        "content": "Hello",
        "tool_calls": [_call({"name": "f", "arguments": '{"a":1}'}, id="t")],
    }
    whole = {
        "id": "c",
        "model": "m",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": events[-1]["usage"],
    }
    streamed = answered(Dialect.OPENAI_CHAT, "text/event-stream; charset=utf-8", stream)
    assert streamed == answered(Dialect.OPENAI_CHAT, "application/json", orjson.dumps(whole))
    assert streamed.splitlines() == [
        "assistant (m):",
        "    Hello",
        "    → f  [t]",
        "      {",
        '        "a": 1',
        "      }",
        "",
        "stopped: tool_use (tool_calls)",
        "tokens: 3 in, 4 out",
    ]
    cut = answered(Dialect.OPENAI_CHAT, "text/event-stream", stream[: stream.index(b"data: ", 300)])
    assert "broken off" in cut
    assert "Hello" in cut


def _call(function: Json, **more: object) -> Json:
    return {"index": 0, "type": "function", "function": function, **more}


@pytest.mark.parametrize("dialect", sorted(Dialect, key=str))
def test_what_each_dialect_can_say_can_be_read(dialect: Dialect) -> None:
    """Every recorded request, answer and stream becomes lines, and none of them does anything to a terminal."""
    folder = GOLDEN / dialect.value
    found = [path for path in sorted(folder.glob("requests/*.json")) if path.name.count(".") == 1]
    shown = [asked(dialect, path.read_bytes(), _path(dialect)) for path in found]
    whole = [path for path in sorted(folder.glob("answers/*.json")) if path.name.count(".") == 1]
    shown += [answered(dialect, "application/json", path.read_bytes()) for path in whole]
    for path in sorted(folder.glob("streams/*.sse")):
        if path.name.count(".") == 1:
            shown.append(answered(dialect, "text/event-stream", path.read_bytes()))
    assert not folder.exists() or shown
    for text in shown:
        assert all(char.isprintable() or char in "\n\t" for char in text)


def _path(dialect: Dialect) -> str:
    return "/v1beta/models/gemini-2.5-pro:generateContent" if dialect is Dialect.GEMINI else ""


def test_codes_in_what_is_said_are_shown_and_not_obeyed() -> None:
    """Whatever a caller writes, the terminal of whoever reads it stays as it is."""
    body = {"model": "m\x1b[2J", "messages": [{"role": "user", "content": "\x1b]0;owned\x07\r\u202ehidden"}]}
    text = asked(Dialect.OPENAI_CHAT, orjson.dumps(body))
    assert not {"\x1b", "\x07", "\r", "\u202e"} & {*text}


@pytest.mark.parametrize(
    ("kind", "body"), [("application/json", b"[]"), ("application/json", b"{"), ("", b"")]
)
def test_what_is_no_answer_is_an_error(kind: str, body: bytes) -> None:
    """A ValueError, by which mitmproxy shows it in another way; a request that is none says what is wrong with it."""
    for dialect in (Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES):
        with pytest.raises(ValueError, match=r"."):
            answered(dialect, kind, body)
    with pytest.raises(TokenHubError):
        asked(Dialect.OPENAI_CHAT, body)
