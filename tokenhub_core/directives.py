"""The grammar of `@@tokenhub`: wishes that travel inside a prompt.

    @@tokenhub mode=cheap budget=0.02 tags=nightly,eval

    @@tokenhub
    mode=high_confidence
    output_schema={"type": "object"}
    @@end

A directive begins on a line of its own (spaces and tabs may precede it), the marker is followed by white space
or the end of the line. A value is a run of visible characters, or a JSON string or object, which may hold
spaces. Anything else is malformed and says where. One pass over the text, no backtracking: the time is linear
in its length whatever it holds.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tokenhub_core.dialects import wire
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Mode, TextSlot

MARKER: Final = "@@tokenhub"
END: Final = "@@end"
MAX_LENGTH: Final = 16_384
"""Characters of one directive, schema included."""

_MARKERS: Final = re.compile(rf"^[ \t]*{MARKER}(?=\s|\Z)", re.MULTILINE)
_ENDS: Final = re.compile(rf"^[ \t]*{END}[ \t\r]*$", re.MULTILINE)
_KEY: Final = re.compile(r"([a-z][a-z_]{0,31})=")
_BARE: Final = re.compile(r"[^\s]+")
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_JSON: Final = json.JSONDecoder()


class Malformed(msgspec.Struct, frozen=True):
    """What is wrong with a directive, and at which character of its text."""

    message: str
    at: int


class Found(msgspec.Struct, frozen=True):
    """One directive in one text: the span to strip, and its wishes or its fault.

    `values` uses the field names of `types.Policy`; a None lifts the limit.
    """

    start: int
    end: int
    values: Mapping[str, Any] = msgspec.field(default_factory=dict)
    fault: Malformed | None = None


class Reading(msgspec.Struct, frozen=True):
    """All directives of a call: the wishes to apply, what became of them, and the texts without them."""

    outcome: str = ""
    """`honoured`, `denied`, `invalid`, or empty where there was none."""
    values: Mapping[str, Any] = msgspec.field(default_factory=dict)
    fault: str = ""
    """For `invalid`: what is wrong and where."""
    stripped: tuple[tuple[tuple[str | int, ...], str], ...] = ()
    """The changed texts by their paths in the body."""


class _BadError(Exception):
    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message, self.at = message, at


def read(slots: Iterable[TextSlot], *, roles: frozenset[str] = frozenset({"user"})) -> Reading:
    """Find the directives of a conversation. The last one that stands in one of `roles` wins, whole.

    Directives in other roles are stripped and denied. A malformed one in `roles` makes the reading `invalid`,
    even where a later one is well formed: nobody should have to guess which was meant.
    """
    outcome, fault = "", ""
    values: Mapping[str, Any] = {}
    stripped = []
    for slot in slots:
        if MARKER not in slot.text:
            continue
        found = scan(slot.text)
        if not found:
            continue
        stripped.append((slot.path, strip(slot.text, found)))
        if slot.role not in roles:
            outcome = outcome or "denied"
            continue
        for one in found:
            if one.fault is None:
                outcome, values = "honoured", one.values
            elif not fault:
                fault = f"{_dotted(slot.path)}, {_position(slot.text, one.fault.at)}: {one.fault.message}"
    if fault:
        return Reading("invalid", values, fault, tuple(stripped))
    return Reading(outcome, values, "", tuple(stripped))


def scan(text: str) -> list[Found]:
    """Return the directives of one text in order."""
    markers = [(match.start(), match.end()) for match in _MARKERS.finditer(text)]
    if not markers:
        return []
    ends = [(match.start(), match.end()) for match in _ENDS.finditer(text)]
    starts = [start for start, _ in ends]
    found: list[Found] = []
    last = -1
    for number, (start, after) in enumerate(markers):
        if start < last:
            continue  # inside the block before it
        line_end = _line_end(text, after)
        if text[after:line_end].strip():
            one = _directive(text, start, after, body_end=line_end, end=line_end)
        else:
            nearest = bisect.bisect_left(starts, line_end)
            limit = markers[number + 1][0] if number + 1 < len(markers) else len(text)
            if nearest < len(ends) and ends[nearest][0] < limit:
                one = _directive(text, start, after, body_end=ends[nearest][0], end=ends[nearest][1])
            else:
                fault = Malformed(f"a block needs a line {END}", start)
                one = Found(start, min(line_end + 1, len(text)), {}, fault)
        found.append(one)
        last = one.end
    return found


def strip(text: str, found: Sequence[Found]) -> str:
    """Return the text without these directives and the line ends that belong to them."""
    pieces, at = [], 0
    for one in found:
        pieces.append(text[at : one.start])
        at = one.end
    rest = text[at:]
    head = "".join(pieces)
    # A directive on the last line takes the line break before it along.
    return head.removesuffix("\n").removesuffix("\r") if not rest else head + rest


def _directive(text: str, start: int, after: int, *, body_end: int, end: int) -> Found:
    stop = min(end + 1, len(text))
    if end - start > MAX_LENGTH:
        return Found(
            start, stop, {}, Malformed(f"a directive may have at most {MAX_LENGTH} characters", start)
        )
    try:
        return Found(start, stop, _fields(text[after:body_end]))
    except _BadError as bad:
        return Found(start, stop, {}, Malformed(bad.message, after + bad.at))


def _fields(body: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    at = 0
    while (at := _skip_space(body, at)) < len(body):
        match = _KEY.match(body, at)
        if match is None:
            raise _BadError("expected key=value", at)
        key = match.group(1)
        if key not in _READERS:
            raise _BadError(f"unknown key {key!r}; known are {', '.join(_READERS)}", at)
        name, reader = _READERS[key]
        if name in values:
            raise _BadError(f"{key} is given twice", at)
        raw, at = _value(body, match.end())
        try:
            values[name] = reader(raw)
        except ValueError as error:
            raise _BadError(f"{key}: {error}", match.end()) from None
    if not values:
        raise _BadError("a directive needs at least one key=value", 0)
    return values


def _value(body: str, at: int) -> tuple[Any, int]:
    if body[at : at + 1] in {"{", "[", '"'}:
        try:
            value, stop = _JSON.raw_decode(body, at)
            if isinstance(value, dict):
                # It is sent on, and Python takes what nobody else does: NaN, half a character, any depth.
                value = wire.decode(body[at:stop].encode())
        except (ValueError, RecursionError, TokenHubError):
            raise _BadError("the JSON value does not parse", at) from None
        if stop < len(body) and not body[stop].isspace():
            raise _BadError("white space must follow the value", stop)
        return value, stop
    match = _BARE.match(body, at)
    if match is None:
        raise _BadError("expected a value after =", at)
    return match.group(), match.end()


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _position(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _mode(raw: Any) -> Mode:
    try:
        return Mode(raw)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Mode)}") from None


def _budget(raw: Any) -> float | None:
    if raw == "none":
        return None
    if not isinstance(raw, str) or not _NUMBER.fullmatch(raw) or float(raw) > 100:
        raise ValueError("must be dollars from 0 to 100, or none")
    return float(raw)


def _latency(raw: Any) -> int | None:
    if raw == "none":
        return None
    if (
        not isinstance(raw, str)
        or not raw.isascii()
        or not raw.isdigit()
        or not 1 <= int(raw[:9]) <= 3_600_000
    ):
        raise ValueError("must be milliseconds from 1 to 3600000, or none")
    return int(raw)


def _weight(raw: Any) -> int:
    if not isinstance(raw, str) or not raw.isascii() or not raw.isdigit() or int(raw[:9]) > 10:
        raise ValueError("must be a whole number from 0 to 10")
    return int(raw)


def _name(raw: Any) -> str:
    if not isinstance(raw, str) or not _NAME.fullmatch(raw):
        raise ValueError("must be a name of letters, digits and . _ : / @ + -")
    return raw


def _model(raw: Any) -> str:
    return raw if raw == "*" else _name(raw)


def _schema(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError("must be a JSON object")
    return raw


def _tags(raw: Any) -> tuple[str, ...]:
    tags = tuple(raw.split(",")) if isinstance(raw, str) else ()
    if not tags or len(tags) > 16 or not all(_TAG.fullmatch(tag) for tag in tags):
        raise ValueError("must be up to 16 comma-separated words of letters, digits and . _ : / -")
    return tags


_READERS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "mode": ("mode", _mode),
    "budget": ("max_budget_usd", _budget),
    "latency": ("max_latency_ms", _latency),
    "min_weight": ("min_weight", _weight),
    "output_schema": ("output_schema", _schema),
    "model": ("model", _model),
    "provider": ("provider", _name),
    "tags": ("tags", _tags),
}

NAMES: Final = frozenset(_READERS)
"""The keys that a directive may have."""
