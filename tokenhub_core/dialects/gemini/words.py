"""The small vocabularies of this dialect: finish reasons, token counts, error statuses, signatures."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from tokenhub_core.dialects import seals, wire
from tokenhub_core.dialects.gemini.names import many, whole
from tokenhub_core.types import Dialect, Json, Stopped, StopReason, Usage

_REASONS: Final[dict[str, StopReason]] = {
    "STOP": StopReason.END,
    "MAX_TOKENS": StopReason.LENGTH,
    "CONTINUATION": StopReason.PAUSED,
    "SAFETY": StopReason.FILTERED,
    "RECITATION": StopReason.FILTERED,
    "BLOCKLIST": StopReason.FILTERED,
    "PROHIBITED_CONTENT": StopReason.FILTERED,
    "SPII": StopReason.FILTERED,
    "LANGUAGE": StopReason.FILTERED,
    "IMAGE_SAFETY": StopReason.FILTERED,
    "IMAGE_PROHIBITED_CONTENT": StopReason.FILTERED,
    "IMAGE_RECITATION": StopReason.FILTERED,
}
_OTHER: Final = frozenset(
    {
        "OTHER",
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "NO_IMAGE",
        "IMAGE_OTHER",
    }
)
"""This dialect's own words for ends that no other one tells apart."""

_WORDS: Final[dict[StopReason, str]] = {
    StopReason.END: "STOP",
    StopReason.LENGTH: "MAX_TOKENS",
    StopReason.STOP_SEQUENCE: "STOP",
    StopReason.TOOL_USE: "STOP",
    StopReason.FILTERED: "SAFETY",
    StopReason.REFUSED: "SAFETY",
    StopReason.PAUSED: "STOP",
    StopReason.OTHER: "OTHER",
}

UNSPECIFIED: Final = frozenset({"", "FINISH_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})
"""Words that say that nothing was said."""

COUNTED: Final = "usageMetadata."

COUNTS: Final = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
)


# --- ends --------------------------------------------------------------------------------------------------


def stopped(word: str, *, tools: bool) -> Stopped:
    """Return the canonical stop; the wire says `STOP` for tool calls, too, so `tools` decides."""
    reason = _REASONS.get(word, StopReason.OTHER)
    if reason is StopReason.END and tools:
        return Stopped(StopReason.TOOL_USE, word)
    return Stopped(reason, word)


def blocked(feedback: object) -> Stopped | None:
    """Return the stop of a prompt that was blocked, None where `promptFeedback` tells of no block."""
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if not isinstance(reason, str) or reason in UNSPECIFIED:
        return None
    return Stopped(StopReason.FILTERED, reason)


def stop_word(stop: Stopped) -> str:
    """Return the wire's `finishReason`: the provider's own word where it is one of this dialect's."""
    own = _REASONS.get(stop.raw) is stop.reason or (stop.reason is StopReason.OTHER and stop.raw in _OTHER)
    return stop.raw if own else _WORDS[stop.reason]


def stop_losses(stop: Stopped) -> tuple[str, ...]:
    """Return the loss of a stop reason that this dialect has no word for."""
    if stop.reason is StopReason.PAUSED and stop.raw != "CONTINUATION":
        return (f"stop_reason:{stop.raw or 'pause_turn'}",)
    if stop.reason is StopReason.OTHER and stop.raw and stop.raw not in _OTHER:
        return (f"stop_reason:{stop.raw}",)
    return ()


# --- tokens ------------------------------------------------------------------------------------------------


def counts(raw: object) -> dict[str, int]:
    """Return the token counts of a wire `usageMetadata`, by their wire names; absurd ones count as none."""
    if not isinstance(raw, dict):
        return {}
    return {name: count for name in COUNTS if (count := wire.tokens(whole(raw.get(name))))}


def media_counts(raw: object) -> Json:
    """Return the counts by kind of medium that tell of more than text, by their path: a price may depend on it."""
    return {
        f"{COUNTED}{name}": value
        for name, value in (raw.items() if isinstance(raw, dict) else ())
        if name.endswith("TokensDetails")
        and any(isinstance(each, dict) and each.get("modality") != "TEXT" for each in many(value))
    }


def usage(found: Mapping[str, int]) -> Usage:
    """Return the canonical usage of `counts`.

    The wire's prompt count includes what was read from the cache, as ours does, but not what tools put into
    the prompt; its count of candidates leaves the thoughts out.
    """
    thoughts = found.get("thoughtsTokenCount", 0)
    return Usage(
        input_tokens=found.get("promptTokenCount", 0) + found.get("toolUsePromptTokenCount", 0),
        output_tokens=found.get("candidatesTokenCount", 0) + thoughts,
        cache_read_tokens=found.get("cachedContentTokenCount", 0),
        reasoning_tokens=thoughts,
    )


def usage_json(known: Usage) -> Json:
    """Return the wire's `usageMetadata`; it has no place for what was written to a cache."""
    body: Json = {
        "promptTokenCount": known.input_tokens,
        "candidatesTokenCount": max(0, known.output_tokens - known.reasoning_tokens),
        "totalTokenCount": known.input_tokens + known.output_tokens,
    }
    if known.cache_read_tokens:
        body["cachedContentTokenCount"] = known.cache_read_tokens
    if known.reasoning_tokens:
        body["thoughtsTokenCount"] = known.reasoning_tokens
    return body


# --- signatures --------------------------------------------------------------------------------------------

UNSIGNED: Final = "skip_thought_signature_validator"
"""What Google documents for a function call that another model made: it stands where a signature has to be
(https://ai.google.dev/gemini-api/docs/thought-signatures, the questions at its end)."""

_LEAD: Final = base64.b64encode(seals.MARK.encode()).rstrip(b"=").decode()[:18]
"""How every mark begins in base64."""
_REDACTED: Final = "redacted:"
_UNCHECKED: Final = re.compile(r"gemini-[12]\b")


def wants_signatures(model: str) -> bool:
    """Tell whether this model refuses function calls without a signature: all since Gemini 3 do."""
    return "gemini-" in model and _UNCHECKED.search(model) is None


def signature(sealed: str, *, redacted: bool = False) -> str:
    """Return a seal as a client of this dialect gets it.

    Its SDKs take nothing but base64 there, so a marked seal is put into it, and is told apart from thinking
    that is encrypted whole.
    """
    value = seals.shown(Dialect.GEMINI, sealed)
    if value.startswith(seals.MARK):
        inner = value.removeprefix(seals.MARK)
        value = seals.MARK + (_REDACTED if redacted else "") + inner
        return base64.b64encode(value.encode()).decode()
    return value


def sealed(value: object) -> tuple[str, bool]:
    """Return the seal of a `thoughtSignature` on the wire, and whether it is thinking that is encrypted whole."""
    if not isinstance(value, str):
        return "", False
    if value.startswith(_LEAD):
        try:
            text = base64.b64decode(standard(value), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            text = ""
        if text.startswith(seals.MARK):
            inner = seals.seal(Dialect.GEMINI, text)
            return inner.removeprefix(_REDACTED), inner.startswith(_REDACTED)
    return seals.seal(Dialect.GEMINI, value), False


def standard(data: str) -> str:
    """Return base64 in its usual alphabet and with its padding: SDKs of this dialect write the one for URLs."""
    if "-" in data or "_" in data:
        data = data.replace("-", "+").replace("_", "/")
    return data + "=" * (-len(data) % 4)


def text_of(data: Mapping[str, Any], key: str) -> str:
    """Return a text member, empty where it is anything else."""
    value = data.get(key)
    return value if isinstance(value, str) else ""
