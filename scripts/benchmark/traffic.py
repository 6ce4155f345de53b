"""The bytes of the benchmark: what is asked, and what the upstream answers. The same for every subject."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

HOST: Final = "api.openai.com"
PATH: Final = "/v1/chat/completions"
MODEL: Final = "gpt-bench"
PROMPT_BYTES: Final = 1024
ANSWER_CHARS: Final = 400
CHUNKS: Final = 100

_ASKED: Final = re.compile(rb"chunks=(\d+) gap=(\d+) ")
_WORDS: Final = "All happy families are alike; each unhappy family is unhappy in its own way. "


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of exchange."""

    chunks: int = 0
    """Content events of a streamed answer; 0 asks for a whole one."""
    gap_ms: int = 0
    """Milliseconds between two of them; 0 sends them as fast as they go."""


def request_body(traffic: Traffic) -> bytes:
    """Return the JSON of a chat call whose prompt tells the upstream what to answer.

    A streamed call does not ask for usage, as SDKs do not by default: whoever wants to bill it has to add that,
    and to take the event out of the answer again.
    """
    told = f"chunks={traffic.chunks} gap={traffic.gap_ms} "
    prompt = (told + _WORDS * (PROMPT_BYTES // len(_WORDS) + 1))[:PROMPT_BYTES]
    call = {
        "model": MODEL,
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
    return Traffic(int(found[1]), int(found[2]))


def wants_usage(body: bytes) -> bool:
    """Tell whether a streamed call asks for a last event with usage."""
    return re.search(rb'"include_usage"\s*:\s*true', body) is not None


def whole_answer() -> bytes:
    """Return the JSON of an answer that is not streamed."""
    text = (_WORDS * (ANSWER_CHARS // len(_WORDS) + 1))[:ANSWER_CHARS]
    message = {"role": "assistant", "content": text, "refusal": None}
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
