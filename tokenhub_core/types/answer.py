"""What was produced: whole answers, and the deltas of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from tokenhub_core.types.conversation import Audio, File, Image, Logprob, Part


class Usage(msgspec.Struct, frozen=True):
    """Token counts. `input_tokens` includes what was read from and written to a cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    """Includes reasoning."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def merge(self, other: Usage) -> Usage:
        """Return the per-field maximum: providers repeat and accumulate counts, so a sum counts twice."""
        return Usage(
            max(self.input_tokens, other.input_tokens),
            max(self.output_tokens, other.output_tokens),
            max(self.cache_read_tokens, other.cache_read_tokens),
            max(self.cache_write_tokens, other.cache_write_tokens),
            max(self.reasoning_tokens, other.reasoning_tokens),
        )

    def plus(self, other: Usage) -> Usage:
        """Return the sum of two counts of different work."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def __bool__(self) -> bool:
        return bool(self.input_tokens or self.output_tokens)


class StopReason(StrEnum):
    """Why a model stopped."""

    END = "end"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_USE = "tool_use"
    FILTERED = "filtered"
    REFUSED = "refused"
    PAUSED = "paused"
    OTHER = "other"


class Started(msgspec.Struct, frozen=True):
    """A stream's first word: the provider's id and model name."""

    id: str = ""
    model: str = ""
    created: int = 0


class TextDelta(msgspec.Struct, frozen=True):
    """More text."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True):
    """More reasoning; `signature` and `redacted` come whole, in the form of `dialects.seals`.

    A delta with another `part` than the one before it begins a new block of thinking.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""
    id: str = ""
    part: int = 0
    summary: bool = False


class RefusalDelta(msgspec.Struct, frozen=True):
    """More of a refusal."""

    text: str


class ToolStarted(msgspec.Struct, frozen=True):
    """The model begins to call a tool. `index` tells parallel calls apart, from 0."""

    index: int
    id: str
    name: str
    signature: str = ""


class ToolArguments(msgspec.Struct, frozen=True):
    """A fragment of the JSON text of a tool call's arguments."""

    index: int
    fragment: str


class MediaDelta(msgspec.Struct, frozen=True):
    """A whole image, file or piece of sound that the model made."""

    part: Image | File | Audio


class Stopped(msgspec.Struct, frozen=True):
    """The model stopped. `raw` is the wire's own word, `sequence` the stop sequence it met."""

    reason: StopReason
    raw: str = ""
    sequence: str = ""


class UsageSeen(msgspec.Struct, frozen=True):
    """Token counts so far."""

    usage: Usage


class Finished(msgspec.Struct, frozen=True):
    """The dialect's terminal event. A stream without it was cut short."""


class Failed(msgspec.Struct, frozen=True):
    """The provider reported an error inside its stream; `status` is what it would have been as a response."""

    status: int
    code: str
    message: str


class Unread(msgspec.Struct, frozen=True):
    """Something in the stream that has no canonical form; `kind` goes to the list of losses."""

    kind: str
    beside: bool = False
    """It is told about the answer and is no part of it: nothing has been said yet."""


type Delta = (
    Started
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolStarted
    | ToolArguments
    | MediaDelta
    | Stopped
    | UsageSeen
    | Finished
    | Failed
    | Unread
)

type Content = TextDelta | ReasoningDelta | RefusalDelta | ToolStarted | ToolArguments | MediaDelta
"""The deltas that a user can see: the first of them commits the answer."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer in no dialect."""

    id: str
    model: str
    parts: tuple[Part, ...]
    stop: Stopped
    usage: Usage
    created: int = 0
    rest: Mapping[str, Any] = msgspec.field(default_factory=dict)
