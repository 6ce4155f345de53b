"""The small vocabularies of this dialect: stop reasons, token counts, message ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.types import Json, Stopped, StopReason, Usage

_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": StopReason.END,
    "max_tokens": StopReason.LENGTH,
    "model_context_window_exceeded": StopReason.LENGTH,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "tool_use": StopReason.TOOL_USE,
    "refusal": StopReason.REFUSED,
    "pause_turn": StopReason.PAUSED,
}

_WORDS: Final[dict[StopReason, str]] = {
    StopReason.END: "end_turn",
    StopReason.LENGTH: "max_tokens",
    StopReason.STOP_SEQUENCE: "stop_sequence",
    StopReason.TOOL_USE: "tool_use",
    StopReason.FILTERED: "refusal",
    StopReason.REFUSED: "refusal",
    StopReason.PAUSED: "pause_turn",
    StopReason.OTHER: "end_turn",
}

_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")

_COUNTED: Final = {**dict.fromkeys(_COUNTS, ()), "output_tokens_details": ("thinking_tokens",)}

_USUAL: Final[Mapping[str, tuple[object, ...]]] = {
    "usage.service_tier": ("standard",),
    "usage.speed": ("standard",),
    "usage.inference_geo": ("global", "not_available"),
}
"""What a usage object says where nothing out of the ordinary was done."""

_NOT_IN_AN_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


def stopped(word: object, sequence: object) -> Stopped:
    """Return the canonical stop for the wire's `stop_reason` and `stop_sequence`."""
    raw = word if isinstance(word, str) else ""
    reason = _REASONS.get(raw, StopReason.OTHER)
    return Stopped(reason, raw, sequence if isinstance(sequence, str) else "")


def stop_word(stop: Stopped) -> str:
    """Return the wire's `stop_reason`: the provider's own word where it is one of this dialect's."""
    return stop.raw if _REASONS.get(stop.raw) is stop.reason else _WORDS[stop.reason]


def stop_loss(stop: Stopped) -> tuple[str, ...]:
    """Return the loss of a stop reason that this dialect has no word for."""
    return (f"stop_reason:{stop.raw}",) if stop.reason is StopReason.OTHER and stop.raw else ()


def counts(raw: Mapping[str, Any]) -> dict[str, int]:
    """Return the non-zero token counts of a wire `usage` object, by their wire names."""
    found = {name: count for name in _COUNTS if (count := wire.tokens(raw.get(name)))}
    details = raw.get("output_tokens_details")
    if isinstance(details, dict) and (count := wire.tokens(details.get("thinking_tokens"))):
        found["thinking_tokens"] = count
    return found


def usage_extras(raw: object) -> Json:
    """Return what a wire `usage` object tells besides `counts`, by its path; what is usual or zero tells nothing.

    How long what was written is kept matters only where some of it is kept longer than the five minutes that are usual.
    """
    found = wire.usage_extras(raw, _COUNTED)
    kept = found.get("usage.cache_creation")
    if isinstance(kept, dict) and not wire.telling({**kept, "ephemeral_5m_input_tokens": 0}):
        del found["usage.cache_creation"]
    return {path: value for path, value in found.items() if value not in _USUAL.get(path, ())}


def usage(found: Mapping[str, int]) -> Usage:
    """Return the canonical usage of `counts`: the wire's input count leaves the cache out, ours includes it."""
    read = found.get("cache_read_input_tokens", 0)
    written = found.get("cache_creation_input_tokens", 0)
    return Usage(
        input_tokens=found.get("input_tokens", 0) + read + written,
        output_tokens=found.get("output_tokens", 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=found.get("thinking_tokens", 0),
    )


def usage_json(known: Usage) -> Json:
    """Return the wire's `usage` object."""
    uncached = known.input_tokens - known.cache_read_tokens - known.cache_write_tokens
    body: Json = {
        "input_tokens": max(0, uncached),
        "cache_creation_input_tokens": known.cache_write_tokens,
        "cache_read_input_tokens": known.cache_read_tokens,
        "output_tokens": known.output_tokens,
    }
    if known.reasoning_tokens:
        body["output_tokens_details"] = {"thinking_tokens": known.reasoning_tokens}
    return body


def message_id(given: str) -> str:
    """Return a message id in this dialect's form: `msg_` and what the provider called the answer."""
    return given if given.startswith("msg_") else "msg_" + _NOT_IN_AN_ID.sub("_", given or "unnamed")


def is_tool_id(given: str) -> bool:
    """Tell whether this dialect takes the id of a tool call as it is."""
    return bool(given) and _NOT_IN_AN_ID.search(given) is None


def plain(given: str) -> str:
    """Return `given` with every character that an id must not hold replaced."""
    return _NOT_IN_AN_ID.sub("_", given)


def made_up_tool_id(message: str, number: int) -> str:
    """Return an id for a tool call that the provider gave none, unlike any other of the conversation."""
    return f"toolu_{message.removeprefix('msg_')}_{number}"
