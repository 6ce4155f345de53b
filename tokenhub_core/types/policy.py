"""What is allowed and wanted."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec


class Mode(StrEnum):
    """Which weights score the candidates."""

    CHEAP = "cheap"
    NORMAL = "normal"
    HIGH_CONFIDENCE = "high_confidence"
    PLANNING = "planning"
    ADVERSARIAL = "adversarial"


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
    why: Mapping[str, str] = msgspec.field(default_factory=dict)
