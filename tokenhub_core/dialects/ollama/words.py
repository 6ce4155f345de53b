"""The small vocabularies of this dialect: stop reasons, token counts, times, log probabilities, media."""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import orjson

from tokenhub_core.dialects import wire
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Audio, Image, Json, Logprob, Stopped, StopReason, Usage

UNMEASURED: Final[tuple[str, ...]] = (
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
)
"""Durations in nanoseconds; clients divide by them and format them, so they are always there as integers."""

_REASONS: Final = {"": StopReason.END, "stop": StopReason.END, "length": StopReason.LENGTH}

_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999."""

_HEAD: Final = 16
"""Base64 characters that hold the first 12 bytes of a file."""


def stopped(word: object, *, tools: bool) -> Stopped:
    """Return the canonical stop for `done_reason`. Old servers say none, and none says that a tool was called."""
    raw = word if isinstance(word, str) else ""
    reason = _REASONS.get(raw, StopReason.OTHER)
    return Stopped(StopReason.TOOL_USE if tools and reason is StopReason.END else reason, raw)


def stop_word(stop: Stopped) -> str:
    """Return the wire's `done_reason`."""
    return "length" if stop.reason is StopReason.LENGTH else "stop"


def stop_losses(stop: Stopped) -> tuple[str, ...]:
    """Return the loss of a stop reason that this dialect has no word for."""
    lost = {StopReason.FILTERED, StopReason.REFUSED, StopReason.PAUSED}
    if stop.reason in lost or (stop.reason is StopReason.OTHER and stop.raw):
        return (f"stop_reason:{stop.raw or stop.reason.value}",)
    return ()


def usage(data: Json) -> Usage:
    """Return the token counts of an answer or a last line. A prompt that was in the cache may have no count."""
    return Usage(_count(data, "prompt_eval_count"), _count(data, "eval_count"))


def _count(data: Json, key: str) -> int:
    return wire.tokens(data.get(key))


def measures(known: Usage) -> Json:
    """Return the counts as an answer has them, with durations of nothing."""
    return {
        **dict.fromkeys(UNMEASURED, 0),
        "prompt_eval_count": known.input_tokens,
        "eval_count": known.output_tokens,
    }


def timestamp(seconds: int) -> str:
    """Return a time of the epoch in the form of RFC 3339; one that no calendar has becomes the epoch's first."""
    known = seconds if 0 <= seconds <= _LAST_SECOND else 0
    return datetime.fromtimestamp(known, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(created_at: object) -> int:
    """Return the time of an RFC 3339 text in seconds since the epoch, 0 where it is none."""
    if not isinstance(created_at, str):
        return 0
    try:
        moment = datetime.fromisoformat(created_at)
    except ValueError:
        return 0
    return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))


def logprobs(raw: object) -> tuple[Logprob, ...]:
    """Return the log probabilities of a list as the wire has it; what is none is left out."""
    if not isinstance(raw, list):
        return ()
    found: list[Logprob] = []
    for each in raw:
        match each:
            case {"token": str(token), "logprob": int() | float() as value}:
                found.append(Logprob(token, value, logprobs(each.get("top_logprobs"))))
    return tuple(found)


def logprobs_json(known: Iterable[Logprob]) -> list[Json]:
    """Return log probabilities as the wire has them."""
    found: list[Json] = []
    for each in known:
        # A token may be half a character; its text then holds what stands for a broken one.
        data: Json = {"token": each.token, "logprob": each.logprob, "bytes": list(each.token.encode())}
        if each.top:
            data["top_logprobs"] = logprobs_json(each.top)
        found.append(data)
    return found


def media(data: str) -> Image | Audio:
    """Return what `images` holds: base64 without a type, so its first bytes tell it."""
    try:
        head = binascii.a2b_base64(data[:_HEAD])
    except ValueError:
        head = b""
    if head.startswith(b"RIFF") and head[8:] == b"WAVE":
        return Audio("audio/wav", data)
    return Image(media_type=_image_type(head), data=data)


def _image_type(head: bytes) -> str:
    if head.startswith(b"\x89PNG"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"GIF8"):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"


def arguments_text(arguments: object) -> str:
    """Return a tool call's arguments as JSON text. They are an object here; some servers send its text."""
    if isinstance(arguments, str):
        return arguments
    return orjson.dumps(arguments if arguments is not None else {}).decode()


def arguments_object(arguments: str, losses: list[str]) -> Json:
    """Return a tool call's arguments as the object that they must be here.

    Text that is none is kept whole under `_raw`, so that whoever runs the tool sees what the model wrote.
    """
    if not arguments.strip():
        return {}
    try:
        return wire.decode(arguments.encode(), repeats=True)
    except TokenHubError:
        losses.append("tool_calls.arguments")
        return {"_raw": arguments}
