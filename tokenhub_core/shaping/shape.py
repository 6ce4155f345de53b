"""What a policy asks of an answer: its shape, and the check that it has to pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import orjson

from tokenhub_core.quirks.base import Scanner, Station
from tokenhub_core.routing import estimate
from tokenhub_core.shaping import xml
from tokenhub_core.shaping.cutting import Cut
from tokenhub_core.shaping.forms import Plain, Trimmed, body_of_json, body_of_xml
from tokenhub_core.shaping.schemas import Failure, Schema
from tokenhub_core.shaping.think import ThinkScanner
from tokenhub_core.types import (
    Answer,
    Delta,
    Form,
    Policy,
    Refusal,
    RefusalDelta,
    Request,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    ToolStarted,
    ToolUse,
)

STRUCTURED: Final = frozenset({Form.JSON, Form.XML})
"""Forms that are checked, and never cut."""
_EXEMPT: Final = frozenset({StopReason.TOOL_USE, StopReason.REFUSED, StopReason.FILTERED, StopReason.PAUSED})
"""How a model stops before it has given the answer that was asked for."""


def _reader(form: Form) -> Callable[[], Scanner]:
    match form:
        case Form.JSON:
            return body_of_json
        case Form.XML:
            return body_of_xml
        case Form.MARKDOWN:
            return Trimmed
        case Form.TEXT:
            return Plain


class Shape(msgspec.Struct, frozen=True):
    """What is done to the text of an answer; reasoning, tool calls, usage and media pass."""

    scanners: tuple[Callable[[], Scanner], ...] = ()
    """In the order in which the text meets them."""
    stations: tuple[Callable[[], Station], ...] = ()
    """Behind those."""


def shape_of(request: Request, policy: Policy) -> Shape | None:
    """Return the shape that a policy asks for, None where answers are left as they are.

    What answers in one model's own way (vectors, counts) has no text.
    """
    form, most = policy.output_format, policy.output_max_tokens
    if not request.dialect.translates:
        return None
    scanners: list[Callable[[], Scanner]] = [ThinkScanner] if policy.strip_think else []
    if form is not None:
        scanners.append(_reader(form))
    stations: tuple[Callable[[], Station], ...] = ()
    if most is not None and form not in STRUCTURED:
        stations = (lambda: Cut(most * estimate.BYTES_PER_TOKEN),)
    return Shape(tuple(scanners), stations) if scanners or stations else None


class Check(msgspec.Struct, frozen=True):
    """What the text of an answer has to be."""

    form: Form | None = None
    schema: Schema | None = None

    def failure(self, said: Said) -> Failure | None:
        """Return why an answer does not fit, None where it does or where it is no answer yet."""
        if said.exempt:
            return None
        text = said.text
        if self.form is Form.XML:
            wrong = xml.fault(text)
            return Failure("", f"no XML: {wrong}") if wrong else None
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            return Failure("", f"no JSON: {error.msg}, {place}" if text.strip() else "empty")
        return None if self.schema is None else self.schema.failure(value, len(text))


class Said:
    """What was said in an answer, as far as it is checked."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self.exempt = False
        """The model has called a tool, or declined: there is nothing to be held to a schema."""

    @property
    def text(self) -> str:
        """Return the answer's words."""
        return "".join(self._words)

    def hear(self, delta: Delta) -> None:
        """Take in one delta of what the caller gets."""
        match delta:
            case TextDelta(text):
                self._words.append(text)
            case ToolStarted() | RefusalDelta():
                self.exempt = True
            case Stopped(reason):
                self.exempt = self.exempt or reason in _EXEMPT
            case _:
                pass


def said(answer: Answer) -> Said:
    """Return what was said in a whole answer."""
    heard = Said()
    for part in answer.parts:
        match part:
            case Text(text):
                heard.hear(TextDelta(text))
            case ToolUse() | Refusal():
                heard.exempt = True
            case _:
                pass
    heard.hear(answer.stop)
    return heard
