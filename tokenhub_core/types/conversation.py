"""What a call asks for: its features for routing, and its canonical form, which is no dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from tokenhub_core.types.wire import Dialect, Json


class Need(StrEnum):
    """A capability without which a model cannot serve a call."""

    CHAT = "chat"
    """It answers in words; models that make vectors do not."""
    TOOLS = "tools"
    VISION = "vision"
    FILES = "files"
    AUDIO = "audio"
    JSON_SCHEMA = "json_schema"


class Features(msgspec.Struct, frozen=True):
    """What routing has to know of a call; read in one walk over the decoded body."""

    model: str
    stream: bool = False
    max_output_tokens: int | None = None
    """The caller's cap; None where it set none."""
    needs: frozenset[Need] = frozenset()
    text_bytes: int = 0
    """UTF-8 bytes of everything that becomes input tokens, images and other media left out."""
    media: int = 0
    """How many images, files and audio parts."""
    turns: int = 0


class Request(msgspec.Struct, frozen=True):
    """A call as its own dialect reads it. `data` is `body` decoded: never changed in place."""

    dialect: Dialect
    body: bytes
    data: Json
    features: Features
    path: str = ""
    """The request target, query included: some dialects name the model, or the wish for a stream, in it."""

    def __repr__(self) -> str:
        # What callers say is not for logs.
        return f"Request({self.dialect}, {len(self.body)} bytes)"


class TextSlot(msgspec.Struct, frozen=True):
    """One piece of text that a directive may stand in, and where it stands in the body."""

    role: str
    """`user`, `assistant`, `system`, `developer`. Tool results and documents are never slots."""
    path: tuple[str | int, ...]
    text: str


class Role(StrEnum):
    """Whose turn it is, in the canonical conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token and its log probability; `top` holds the likeliest tokens at its place, itself included or not."""

    token: str
    logprob: float
    top: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text."""

    text: str
    rest: Mapping[str, Any] = field(default_factory=dict)
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """An image by URL or by value (`media_type` and base64 `data`)."""

    url: str = ""
    media_type: str = ""
    data: str = field(default="", repr=False)
    detail: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model calls a tool. `arguments` is JSON text, as it was produced."""

    id: str
    name: str
    arguments: str
    rest: Mapping[str, Any] = field(default_factory=dict)
    signature: str = field(default="", repr=False)
    """A proof of the thinking that led to the call, sealed: see `Reasoning`."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer to one tool call."""

    id: str
    content: tuple[Part, ...]
    is_error: bool = False
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought.

    `signature` and `redacted` (thinking that is sent encrypted) are valid only in the dialect that made them:
    both are in the form of `dialects.seals`, which names it.
    """

    text: str = ""
    signature: str = field(default="", repr=False)
    redacted: str = field(default="", repr=False)
    rest: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    """The provider's own name for it, where it has one."""
    summary: bool = False
    """The text is a summary of the thinking, not the thinking."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model declined, in its own words."""

    text: str


@dataclass(frozen=True, slots=True)
class File:
    """A document by URL, by value (`media_type` and base64 `data`), or by the provider's own `file_id`."""

    url: str = ""
    media_type: str = ""
    data: str = field(default="", repr=False)
    file_id: str = ""
    name: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound by value: `media_type` like `audio/wav`, base64 `data`; or by the provider's own `id`."""

    media_type: str = ""
    data: str = field(default="", repr=False)
    id: str = ""
    transcript: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opaque:
    """A part that only its own dialect understands: kept there, listed as a loss elsewhere."""

    dialect: Dialect
    kind: str
    raw: Json = field(repr=False)


type Part = Text | Image | File | Audio | ToolUse | ToolResult | Reasoning | Refusal | Opaque


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `schema` is JSON Schema."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    strict: bool | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)


class Choice(StrEnum):
    """How free the model is to call tools."""

    AUTO = "auto"
    REQUIRED = "required"
    NONE = "none"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The tool choice; `name` with `Choice.NAMED`. `parallel` None means the caller did not say."""

    kind: Choice = Choice.AUTO
    name: str = ""
    parallel: bool | None = None


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Structured output: any JSON object, or one that fits `schema`."""

    schema: Mapping[str, Any] | None = None
    name: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """How much the model is to think. `enabled` None means the caller did not say, nor does any other field."""

    enabled: bool | None = None
    effort: str = ""
    """`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, or the wire's own word."""
    budget_tokens: int | None = None
    """-1 leaves it to the model."""
    show: bool | None = None
    """Whether the caller wants to see the thoughts, or a summary of them."""


@dataclass(frozen=True, slots=True)
class Call:
    """A chat call in no dialect: what a writer needs to say it in another one.

    `rest` keeps the fields that the reader knew no canonical place for, by their wire names; a writer of the
    same dialect puts them back, a writer of another lists them as losses.
    """

    dialect: Dialect
    model: str
    turns: tuple[Turn, ...]
    stream: bool = False
    tools: tuple[Tool | Opaque, ...] = ()
    tool_choice: ToolChoice | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    output: OutputFormat | None = None
    top_k: int | None = None
    seed: int | None = None
    n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: int | None = None
    """How many likely tokens to tell at each place, 0 for only the one that was chosen; None for no logprobs."""
    thinking: Thinking = Thinking()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    service_tier: str = ""
    user: str = ""
    include_usage: bool = False
    """The caller of a stream wants to see the usage (dialects that always send it set True)."""
    rest: Mapping[str, Any] = field(default_factory=dict)
