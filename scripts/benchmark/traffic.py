"""The bytes of the benchmark: what is asked, and what the upstream answers. The same for every subject."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Final

HOST: Final = "api.openai.com"
PATH: Final = "/v1/chat/completions"
MODEL: Final = "gpt-bench"
FOREIGN_MODEL: Final = "claude-bench"
"""Of the provider that speaks another dialect than the caller."""
FOREIGN_PATH: Final = "/v1/messages"
PROMPT_BYTES: Final = 1024
ANSWER_CHARS: Final = 400
CHUNKS: Final = 100

_ASKED: Final = re.compile(rb"chunks=(\d+) gap=(\d+) stamped=(\d) ")
STAMP: Final = re.compile(rb" at(\d+\.\d+);")
"""When a piece of a stamped answer was written, by the clock that all processes of a machine share."""
_WORDS: Final = "All happy families are alike; each unhappy family is unhappy in its own way. "


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of exchange."""

    chunks: int = 0
    """Content events of a streamed answer; 0 asks for a whole one."""
    gap_ms: int = 0
    """Milliseconds between two of them; 0 sends them as fast as they go."""
    prompt: int = PROMPT_BYTES
    """Bytes of the prompt."""
    foreign: bool = False
    """Answered by a provider of Anthropic's dialect: what the caller gets is translated."""
    stamped: bool = False
    """Each content event says when it was written, and is compared with nothing."""


def request_body(traffic: Traffic) -> bytes:
    """Return the JSON of a chat call whose prompt tells the upstream what to answer.

    A streamed call does not ask for usage, as SDKs do not by default: whoever wants to bill it has to add that,
    and to take the event out of the answer again.
    """
    told = f"chunks={traffic.chunks} gap={traffic.gap_ms} stamped={traffic.stamped:d} "
    prompt = (told + _WORDS * (traffic.prompt // len(_WORDS) + 1))[: traffic.prompt]
    call = {
        "model": FOREIGN_MODEL if traffic.foreign else MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": prompt},
        ],
        "temperature": 0.7,
        "max_tokens": 512,
        "stream": traffic.chunks > 0,
    }
    return json.dumps(call, separators=(",", ":")).encode()


def asked(body: bytes) -> Traffic:
    """Return what a request body asks for; raises `ValueError` where it is not one of ours."""
    found = _ASKED.search(body)
    if found is None:
        raise ValueError("the request says nothing of chunks")
    return Traffic(int(found[1]), int(found[2]), stamped=found[3] == b"1")


def wants_usage(body: bytes) -> bool:
    """Tell whether a streamed call asks for a last event with usage."""
    return re.search(rb'"include_usage"\s*:\s*true', body) is not None


def text(traffic: Traffic) -> str:
    """Return what an answer says, in whatever dialect."""
    if traffic.chunks:
        return "".join(f" word{n:03d}" for n in range(traffic.chunks - 2))
    return (_WORDS * (ANSWER_CHARS // len(_WORDS) + 1))[:ANSWER_CHARS]


def said(body: bytes, *, streamed: bool) -> str:
    """Return what an answer in the caller's dialect says; raises `ValueError` where it is none or not whole."""
    try:
        if not streamed:
            return str(json.loads(body)["choices"][0]["message"]["content"])
        events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        if not events or events[-1].strip() != b"[DONE]":
            raise ValueError("the stream does not end with [DONE]")
        deltas = [choice["delta"] for event in events[:-1] for choice in json.loads(event)["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)
    except (LookupError, TypeError) as error:
        raise ValueError(f"not an answer: {error!r}") from None


def whole_answer() -> bytes:
    """Return the JSON of an answer that is not streamed."""
    message = {"role": "assistant", "content": text(Traffic()), "refusal": None}
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 230, "completion_tokens": 90, "total_tokens": 320},
    }
    return json.dumps(answer, separators=(",", ":")).encode()


def events(traffic: Traffic) -> list[bytes]:
    """Return the server-sent events of a streamed answer, the last one being `[DONE]`; without usage."""
    choices = [{"role": "assistant", "content": ""}]
    choices += [{"content": f" word{n:03d}"} for n in range(traffic.chunks - 2)]
    told = [_event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in choices]
    return [*told, _event([{"index": 0, "delta": {}, "finish_reason": "stop"}]), b"data: [DONE]\n\n"]


def usage_event() -> bytes:
    """Return the event that stands before `[DONE]` where usage was asked for."""
    return _event([], usage={"prompt_tokens": 230, "completion_tokens": 98, "total_tokens": 328})


def expected(traffic: Traffic) -> bytes:
    """Return the body that every caller must get, whichever way it came."""
    return b"".join(events(traffic)) if traffic.chunks else whole_answer()


def first_content(traffic: Traffic) -> bytes:
    """Return what an answer's body holds as soon as it says something: a stream's first event does not."""
    if traffic.stamped:
        return b" at"
    return b"word000" if traffic.chunks else b"{"


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def stamped_event() -> bytes:
    """Return a content event that says when it was made."""
    return _event([{"index": 0, "delta": {"content": f" at{time.monotonic():.6f};"}, "finish_reason": None}])


# --- the other dialect


def foreign_answer() -> bytes:
    """Return the same answer as Anthropic would write it."""
    answer = {
        **_message(),
        "content": [{"type": "text", "text": text(Traffic())}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 230, "output_tokens": 90},
    }
    return json.dumps(answer, separators=(",", ":")).encode()


def foreign_events(traffic: Traffic) -> list[bytes]:
    """Return the server-sent events of the same stream as Anthropic would write them."""
    words = [f" word{n:03d}" for n in range(traffic.chunks - 2)]
    begun = {
        **_message(),
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 230, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    return [
        _named("message_start", message=begun),
        _named("content_block_start", index=0, content_block=block),
        *(
            _named("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
            for word in words
        ),
        _named("content_block_stop", index=0),
        _named(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 98},
        ),
        _named("message_stop"),
    ]


def _message() -> dict[str, object]:
    return {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": FOREIGN_MODEL,
        "stop_sequence": None,
    }


def _named(kind: str, **more: object) -> bytes:
    data = json.dumps({"type": kind, **more}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()
