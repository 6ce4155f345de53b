"""The small vocabularies of this dialect: stop reasons, token counts, log probabilities, ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.types import Json, Logprob, Stopped, StopReason, Usage

_INCOMPLETE: Final = {"max_output_tokens": StopReason.LENGTH, "content_filter": StopReason.FILTERED}

_OTHER_INCOMPLETE: Final = frozenset({"max_messages", "steered"})
"""Reasons that no other dialect has a word for."""

_COUNTED: Final[dict[str, tuple[str, ...]]] = {
    "input_tokens": (),
    "output_tokens": (),
    "total_tokens": (),
    "input_tokens_details": ("cached_tokens", "cache_write_tokens"),
    "output_tokens_details": ("reasoning_tokens",),
}

_NEVER: Final = 1 << 40

_NOT_IN_AN_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


# --- stop reasons ------------------------------------------------------------------------------------------


def stopped(response: Json, *, tools: bool, refused: bool) -> Stopped:
    """Return the canonical stop of a finished response: a status, a reason where it is cut short, and its items."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if isinstance(reason, str) and reason:
        return Stopped(_INCOMPLETE.get(reason, StopReason.OTHER), reason)
    status = response.get("status")
    raw = status if isinstance(status, str) else ""
    if raw == "incomplete":
        return Stopped(StopReason.OTHER, raw)
    if tools:
        return Stopped(StopReason.TOOL_USE, raw)
    return Stopped(StopReason.REFUSED if refused else StopReason.END, raw)


def incomplete_reason(stop: Stopped, *, refused: bool) -> str:
    """Return why the response is incomplete, empty where it is complete.

    `refused` says that the refusal stands in the response, in words; without them only the reason can tell it.
    """
    match stop.reason:
        case StopReason.LENGTH:
            return "max_output_tokens"
        case StopReason.FILTERED:
            return "content_filter"
        case StopReason.REFUSED:
            return "" if refused else "content_filter"
        case StopReason.OTHER if stop.raw in _OTHER_INCOMPLETE:
            return stop.raw
        case _:
            return ""


def stop_losses(stop: Stopped) -> tuple[str, ...]:
    """Return the loss of a stop reason that this dialect has no word for."""
    if stop.reason is StopReason.PAUSED:
        return (f"stop_reason:{stop.raw or 'pause_turn'}",)
    if stop.reason is StopReason.OTHER and stop.raw and stop.raw not in _OTHER_INCOMPLETE:
        return (f"stop_reason:{stop.raw}",)
    return ()


# --- token counts ------------------------------------------------------------------------------------------


def usage(raw: object) -> Usage:
    """Return the canonical usage of a wire `usage` object, zeros for what it does not tell.

    The wire's counts include the cache and the reasoning, as ours do.
    """
    if not isinstance(raw, dict):
        return Usage()
    given, made = (_object(raw.get(f"{side}_tokens_details")) for side in ("input", "output"))
    return Usage(
        input_tokens=_count(raw, "input_tokens"),
        output_tokens=_count(raw, "output_tokens"),
        cache_read_tokens=_count(given, "cached_tokens"),
        cache_write_tokens=_count(given, "cache_write_tokens"),
        reasoning_tokens=_count(made, "reasoning_tokens"),
    )


def usage_extras(raw: object) -> Json:
    """Return what a wire `usage` object tells besides `usage`, by its path."""
    return wire.usage_extras(raw, _COUNTED)


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _count(data: Json, key: str) -> int:
    return wire.tokens(data.get(key))


def usage_json(known: Usage) -> Json:
    """Return the wire's `usage` object."""
    return {
        "input_tokens": known.input_tokens,
        "input_tokens_details": {
            "cached_tokens": known.cache_read_tokens,
            "cache_write_tokens": known.cache_write_tokens,
        },
        "output_tokens": known.output_tokens,
        "output_tokens_details": {"reasoning_tokens": known.reasoning_tokens},
        "total_tokens": known.input_tokens + known.output_tokens,
    }


# --- times -------------------------------------------------------------------------------------------------


def seconds(created_at: object) -> int:
    """Return a time of the epoch in whole seconds, 0 for what is no time that an answer could be made at."""
    return int(created_at) if isinstance(created_at, int | float) and 0 <= created_at < _NEVER else 0


# --- log probabilities -------------------------------------------------------------------------------------


def logprobs(raw: object) -> tuple[Logprob, ...]:
    """Return the log probabilities of a wire list; what is no token with a number is left out."""
    return tuple(_logprob(each) for each in raw if _is_logprob(each)) if isinstance(raw, list) else ()


def _is_logprob(each: object) -> bool:
    if not isinstance(each, dict) or not isinstance(each.get("token"), str):
        return False
    number = each.get("logprob")
    return isinstance(number, int | float) and not isinstance(number, bool)


def _logprob(each: Json) -> Logprob:
    return Logprob(each["token"], each["logprob"], logprobs(each.get("top_logprobs")))


def logprobs_json(known: Iterable[Logprob]) -> list[Json]:
    """Return the wire's list of log probabilities. The bytes of a token are those of its text."""
    return [{**_token(each), "top_logprobs": [_token(top) for top in each.top]} for each in known]


def _token(each: Logprob) -> dict[str, Any]:
    return {"token": each.token, "bytes": list(each.token.encode()), "logprob": each.logprob}


# --- ids ---------------------------------------------------------------------------------------------------


def response_id(given: str) -> str:
    """Return an answer's id in this dialect's form: `resp_` and what the provider called it."""
    return given if given.startswith("resp_") else "resp_" + _NOT_IN_AN_ID.sub("_", given or "unnamed")


def item_id(kind: str, response: str, number: int) -> str:
    """Return the id of an item of a response: its prefix (`msg`, `rs`, `fc`, `ig`), the response's own, its place."""
    return f"{kind}_{response.removeprefix('resp_')}_{number}"


def made_up_call_id(response: str, number: int) -> str:
    """Return an id for a tool call that the provider gave none, unlike any other of the conversation."""
    return f"call_{response.removeprefix('resp_')}_{number}"
