"""What is allowed and wanted."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from tokenhub_core.types.conversation import Need


class Mode(StrEnum):
    """Which weights score the candidates."""

    CHEAP = "cheap"
    NORMAL = "normal"
    HIGH_CONFIDENCE = "high_confidence"
    PLANNING = "planning"
    ADVERSARIAL = "adversarial"


class Form(StrEnum):
    """What the text of an answer is to be."""

    JSON = "json"
    MARKDOWN = "markdown"
    TEXT = "text"
    """Without Markdown's marks."""
    XML = "xml"


class Policy(msgspec.Struct, frozen=True):
    """The merged wishes and limits for one call. None means no limit. `why` names each field's source."""

    mode: Mode = Mode.NORMAL
    max_budget_usd: float | None = None
    max_latency_ms: int | None = None
    min_weight: int = 0
    model: str | None = None
    """The model to serve; None leaves the choice to the scores."""
    models: frozenset[str] | None = None
    """Only models of these ids may serve; None for all."""
    provider: str | None = None
    """Only this provider may serve."""
    fallback: bool = True
    """Whether another model may stand in when the named one fails."""
    output_schema: Mapping[str, Any] | None = None
    allowed_models: tuple[str, ...] | None = None
    """Patterns of ids that the caller's key may use, and of aliases that it may ask for; None for all."""
    allowed_providers: tuple[str, ...] | None = None
    """The same of providers."""
    lossy: bool = True
    """Whether a provider may serve whose dialect cannot carry all of the call."""
    hedge: float | None = None
    """Of a model's streams this share begins in time; the others get a second attempt beside them. None: never."""
    durable: bool = False
    """Whether the call goes on when the process that took it dies."""
    tags: tuple[str, ...] = ()
    needs: frozenset[Need] = frozenset()
    """Capabilities that the caller names beside those that its call shows."""
    input_tokens: int = 0
    """The least that the input is taken for."""
    output_format: Form | None = None
    """None: the answer's text is left as it is."""
    strip_think: bool = False
    """Whether thoughts between tags are taken out of the answer's text."""
    output_max_tokens: int | None = None
    """Text is cut at four times so many bytes; JSON and XML are not."""
    validate: bool = False
    """Whether answers are held to the schema that the call itself brings."""
    buffered: bool = False
    """Whether a stream that is checked is held until it has passed."""
    guarded: bool = False
    """Whether the beginning of a stream is held, so that another provider can make a break in it good."""
    resume: bool = False
    """Whether a stream that breaks is gone on with by a model that goes on from what was said."""
    why: Mapping[str, str] = msgspec.field(default_factory=dict)
