"""The small vocabularies of this dialect: stop reasons, token counts, ids."""

from __future__ import annotations

from typing import Final

from tokenhub_core.dialects import wire
from tokenhub_core.types import Json, Stopped, StopReason, Usage

_REASONS: Final = {
    "stop": StopReason.END,
    "length": StopReason.LENGTH,
    "tool_calls": StopReason.TOOL_USE,
    "function_call": StopReason.TOOL_USE,
    "content_filter": StopReason.FILTERED,
}

_WORDS: Final = {
    StopReason.END: "stop",
    StopReason.LENGTH: "length",
    StopReason.STOP_SEQUENCE: "stop",
    StopReason.TOOL_USE: "tool_calls",
    StopReason.FILTERED: "content_filter",
    StopReason.REFUSED: "content_filter",
    StopReason.PAUSED: "stop",
    StopReason.OTHER: "stop",
}


_COUNTED: Final[dict[str, tuple[str, ...]]] = {
    "prompt_tokens": (),
    "completion_tokens": (),
    "total_tokens": (),
    # How many were text is what the others leave of the sum.
    "prompt_tokens_details": ("cached_tokens", "cache_write_tokens", "text_tokens"),
    "completion_tokens_details": ("reasoning_tokens", "text_tokens"),
    "prompt_cache_hit_tokens": (),
    "prompt_cache_miss_tokens": (),
    **dict.fromkeys(("queue_time", "prompt_time", "completion_time", "total_time"), ()),
}
"""The members of a usage object that are read, or follow from those; and how long each step took at Groq."""

CHOICE: Final = frozenset(
    {"index", "message", "delta", "text", "finish_reason", "logprobs", "stop_reason", "native_finish_reason"}
)
"""The members of a choice that are read, or say a second time why it ended."""

USUAL_TIERS: Final = ("auto", "default")
"""What an answer says of its service where nothing out of the ordinary was done."""


def stopped(word: object, *, sequence: object, tools: bool, refused: bool) -> Stopped:
    """Return the canonical stop for the wire's `finish_reason`.

    Servers say `stop` too when a named tool was called and when the model refused, so what the answer holds
    decides then. `sequence` is the stop word that some name beside it.
    """
    raw = word if isinstance(word, str) else ""
    reason = _REASONS.get(raw, StopReason.OTHER)
    if reason is StopReason.END:
        if tools:
            return Stopped(StopReason.TOOL_USE, raw)
        if refused:
            return Stopped(StopReason.REFUSED, raw)
        if isinstance(sequence, str) and sequence:
            return Stopped(StopReason.STOP_SEQUENCE, raw, sequence)
    return Stopped(reason, raw)


def stop_word(stop: Stopped) -> str:
    """Return the wire's `finish_reason`."""
    return _WORDS[stop.reason]


def stop_losses(stop: Stopped) -> tuple[str, ...]:
    """Return the loss of a stop reason that this dialect has no word for."""
    if stop.reason is StopReason.PAUSED:
        return (f"stop_reason:{stop.raw or 'pause_turn'}",)
    if stop.reason is StopReason.OTHER and stop.raw:
        return (f"stop_reason:{stop.raw}",)
    return ()


def usage(raw: object) -> Usage:
    """Return the canonical usage of a wire `usage` object, zeros for what it does not tell.

    The wire's counts include the cache and the reasoning, as ours do. The cache is told in two ways: in
    `prompt_tokens_details`, or beside the counts (`prompt_cache_hit_tokens`).
    """
    if not isinstance(raw, dict):
        return Usage()
    prompt = raw.get("prompt_tokens_details")
    completion = raw.get("completion_tokens_details")
    prompt = prompt if isinstance(prompt, dict) else {}
    completion = completion if isinstance(completion, dict) else {}
    return Usage(
        input_tokens=_count(raw, "prompt_tokens"),
        output_tokens=_count(raw, "completion_tokens"),
        cache_read_tokens=_count(prompt, "cached_tokens") or _count(raw, "prompt_cache_hit_tokens"),
        cache_write_tokens=_count(prompt, "cache_write_tokens"),
        reasoning_tokens=_count(completion, "reasoning_tokens"),
    )


def usage_extras(raw: object) -> Json:
    """Return what a wire `usage` object tells besides `usage`, by its path."""
    return wire.usage_extras(raw, _COUNTED)


def _count(data: Json, key: str) -> int:
    return wire.tokens(data.get(key))


def usage_json(known: Usage) -> Json:
    """Return the wire's `usage` object."""
    prompt = {"cached_tokens": known.cache_read_tokens}
    if known.cache_write_tokens:
        prompt["cache_write_tokens"] = known.cache_write_tokens
    body: Json = {
        "prompt_tokens": known.input_tokens,
        "completion_tokens": known.output_tokens,
        "total_tokens": known.input_tokens + known.output_tokens,
        "prompt_tokens_details": prompt,
    }
    if known.reasoning_tokens:
        body["completion_tokens_details"] = {"reasoning_tokens": known.reasoning_tokens}
    return body


def completion_id(given: str) -> str:
    """Return an answer's id in this dialect's form: `chatcmpl-` and what the provider called it."""
    return given if given.startswith("chatcmpl-") else f"chatcmpl-{given or 'unnamed'}"


def made_up_audio_id(completion: str) -> str:
    """Return an id for sound that the provider gave none."""
    return f"audio_{completion.removeprefix('chatcmpl-')}"


def made_up_tool_id(completion: str, number: int) -> str:
    """Return an id for a tool call that the provider gave none, unlike any other of the conversation."""
    return f"call_{completion.removeprefix('chatcmpl-')}_{number}"
