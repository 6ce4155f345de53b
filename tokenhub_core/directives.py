"""The grammar of `@@tokenhub`: wishes that travel inside a prompt.

    @@tokenhub mode=cheap budget=0.02 tags=nightly,eval

    @@tokenhub
    mode=high_confidence
    output_schema={"type": "object"}
    @@end

A directive begins on a line of its own (at most three spaces may precede it, as in Markdown: more is code), the
marker is followed by white space or the end of the line, or first by a signature in brackets (`signing`). A value is
a run of visible characters, or a JSON string or object, which may hold spaces. Anything else is malformed and says
where. White space is what ASCII has of it, a line ends with a line feed, and nothing is folded: what only looks like
a directive is none. One pass over the text, no backtracking: the time is linear in its length whatever it holds.

Only words of whom the operator and the key give leave are read (`leave`), and of the user's only the last message:
never those of models and tools, of documents, of earlier turns, nor what stands in a code fence or a quotation. What
is not honoured stays in its text, byte for byte.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from tokenhub_core.dialects import wire
from tokenhub_core.errors import TokenHubError
from tokenhub_core.leave import NAMES, PARTS, ROLES, Leave, granted
from tokenhub_core.orchestration import asked
from tokenhub_core.orchestration.asks import MAX_ITERATIONS, MAX_VOTERS, Way
from tokenhub_core.signing import Signature, signature
from tokenhub_core.types import Form, Mode, TextSlot

MARKER: Final = "@@tokenhub"
END: Final = "@@end"
MAX_LENGTH: Final = 16_384
"""Characters of one directive, schema included."""

_MARKERS: Final = re.compile(rf"^ {{0,3}}{MARKER}(?:\[([^\]\s]{{0,200}})\])?(?=[ \t\r\n]|\Z)", re.MULTILINE)
_ENDS: Final = re.compile(rf"^ {{0,3}}{END}[ \t\r]*$", re.MULTILINE)
_FENCES: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)", re.MULTILINE)
_SPACE: Final = " \t\r\n"
_KEY: Final = re.compile(r"([a-z][a-z_]{0,31})=")
_BARE: Final = re.compile(r"[^ \t\r\n]+")
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_JSON: Final = json.JSONDecoder()
_MARKER_BYTES: Final = MARKER.encode()
_USERS: Final = Leave()
_NO_LIMITS: Final[Mapping[str, Any]] = MappingProxyType({})


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
    signed: Signature | None = None


class Reading(msgspec.Struct, frozen=True):
    """All directives of a call: the wishes to apply, what became of them, and the texts without them."""

    outcome: str = ""
    """`honoured`, `denied` (no leave), `invalid`, `ignored` (where none can stand), or empty where there was none."""
    why: str = ""
    """What was denied, or why a signature is not good: words of a closed list, comma separated."""
    values: Mapping[str, Any] = msgspec.field(default_factory=dict)
    fault: str = ""
    """For `invalid`: what is wrong and where."""
    stripped: tuple[tuple[tuple[str | int, ...], str], ...] = ()
    """The changed texts by their paths in the body."""


class _BadError(Exception):
    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message, self.at = message, at


def may_stand_in(body: bytes) -> bool:
    """Tell whether a body can hold a directive at all; a marker may be written with JSON's escapes."""
    return _MARKER_BYTES in body or b"\\u" in body


def _unsigned(one: Signature, within: str) -> str:
    return "signature-key"


class _Reader:
    """Reads the directives of a conversation, one after the other, and knows what became of them so far."""

    def __init__(
        self, leave: Leave, limits: Mapping[str, Any], refusal: Callable[[Signature, str], str]
    ) -> None:
        self._leave = leave
        self._limits = limits
        self._refusal = refusal
        self._values: Mapping[str, Any] = {}
        self._honoured = False
        self._denied: dict[str, None] = {}
        self._fault = ""
        self._word = ""

    def read(self, slot: TextSlot) -> list[Found]:
        """Return the directives of one text that are honoured."""
        found = scan(slot.text)
        if found and slot.role not in self._leave.roles:
            self._denied["role"] = None
            return []
        return [one for one in found if self._honours(one, slot)]

    def reading(self, stripped: Sequence[tuple[tuple[str | int, ...], str]]) -> Reading:
        """Return what it comes to."""
        why = ",".join(self._denied)
        if self._fault:
            return Reading("invalid", self._word, self._values, self._fault, tuple(stripped))
        if self._honoured:
            return Reading("honoured", f"denied={why}" if why else "", self._values, "", tuple(stripped))
        return Reading("denied" if why else "ignored", why)

    def _honours(self, one: Found, slot: TextSlot) -> bool:
        if one.fault is not None:
            self._blame(slot, one.fault.at, one.fault.message)
            return False
        if one.signed is None and self._leave.signed:
            self._denied["unsigned"] = None
            return False
        if one.signed is not None and (refused := self._refusal(one.signed, slot.text)):
            self._blame(slot, one.start, f"the signature is not good ({refused})", refused)
            return False
        kept, denied = granted(one.values, self._leave, self._limits)
        self._denied.update(dict.fromkeys(denied))
        if kept:
            self._values, self._honoured = kept, True
        return bool(kept)

    def _blame(self, slot: TextSlot, at: int, message: str, word: str = "") -> None:
        # The first only: to find the place of each would take a walk through the text for each.
        if not self._fault:
            self._fault = f"{_dotted(slot.path)}, {_position(slot.text, at)}: {message}"
            self._word = word


def read(
    slots: Iterable[TextSlot],
    leave: Leave = _USERS,
    *,
    limits: Mapping[str, Any] = _NO_LIMITS,
    refusal: Callable[[Signature, str], str] = _unsigned,
) -> Reading:
    """Find the directives of a conversation. The last one that may be honoured wins, whole.

    `limits` is the operator's policy, by its field names: nothing that is asked for goes beyond it. `refusal` says
    why a signature that stands in a text is not good, empty where it is. A malformed directive makes the reading
    `invalid`, even where a later one is well formed: nobody should have to guess which was meant.
    """
    marked, last = [], None
    for slot in slots:
        if slot.role == "user":
            last = _turn(slot)
        if MARKER in slot.text:
            marked.append(slot)
    if not marked:
        return Reading()
    reader, stripped = _Reader(leave, limits, refusal), []
    for slot in marked:
        if slot.role not in ROLES or (slot.role == "user" and _turn(slot) != last):
            continue
        if taken := reader.read(slot):
            stripped.append((slot.path, strip(slot.text, taken)))
    return reader.reading(stripped)


def _turn(slot: TextSlot) -> tuple[str | int, ...]:
    """Return what the texts of one message have in common: the prompts of a batch are one turn."""
    return slot.path[:1] if slot.path[0] == "prompt" else slot.path[:2]


def scan(text: str) -> list[Found]:
    """Return the directives of one text in order; what stands in a code fence is none."""
    markers = list(_MARKERS.finditer(text))
    if not markers:
        return []
    fences = _fenced(text)
    opens = [start for start, _ in fences]
    ends = [(match.start(), match.end()) for match in _ENDS.finditer(text)]
    starts = [start for start, _ in ends]
    found: list[Found] = []
    last = -1
    for number, marker in enumerate(markers):
        start, after = marker.span()
        fence = bisect.bisect_right(opens, start) - 1
        if start < last or (fence >= 0 and start < fences[fence][1]):
            continue  # inside the block before it, or inside a fence
        line_end = _line_end(text, after)
        if text[after:line_end].strip(_SPACE):
            one = _directive(text, marker, body_end=line_end, end=line_end)
        else:
            nearest = bisect.bisect_left(starts, line_end)
            limit = markers[number + 1].start() if number + 1 < len(markers) else len(text)
            if nearest < len(ends) and ends[nearest][0] < limit:
                one = _directive(text, marker, body_end=ends[nearest][0], end=ends[nearest][1])
            else:
                fault = Malformed(f"a block needs a line {END}", start)
                one = Found(start, min(line_end + 1, len(text)), {}, fault)
        found.append(one)
        last = one.end
    return found


def _fenced(text: str) -> list[tuple[int, int]]:
    """Return where code fences begin and end (CommonMark, 4.5); one that is never closed ends with the text."""
    spans: list[tuple[int, int]] = []
    fence, begun = "", 0
    for match in _FENCES.finditer(text):
        run, rest = match.groups()
        if not fence:
            if run[0] == "~" or "`" not in rest:
                fence, begun = run, match.start()
        elif run.startswith(fence) and not rest.strip(_SPACE):
            spans.append((begun, match.end()))
            fence = ""
    if fence:
        spans.append((begun, len(text)))
    return spans


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


def _directive(text: str, marker: re.Match[str], *, body_end: int, end: int) -> Found:
    (start, after), tag = marker.span(), marker.group(1)
    stop = min(end + 1, len(text))
    if end - start > MAX_LENGTH:
        return Found(
            start, stop, {}, Malformed(f"a directive may have at most {MAX_LENGTH} characters", start)
        )
    body = text[after:body_end]
    try:
        values = _fields(body)
        return Found(start, stop, values, None, None if tag is None else signature(tag, body))
    except _BadError as bad:
        return Found(start, stop, {}, Malformed(bad.message, after + bad.at))
    except ValueError as error:
        return Found(start, stop, {}, Malformed(str(error), start))


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
    if wrong := asked.misplaced(values):
        raise _BadError(wrong, 0)
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
        if stop < len(body) and body[stop] not in _SPACE:
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
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _position(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _mode(raw: Any) -> Mode | Way:
    try:
        return Way(raw) if isinstance(raw, str) and raw in asked.WAYS else Mode(raw)
    except ValueError:
        known = dict.fromkeys([*map(str, Mode), *sorted(asked.WAYS)])
        raise ValueError(f"must be one of {', '.join(known)}") from None


def _count(low: int, high: int, what: str = "a whole number", end: str = "") -> Callable[[Any], int]:
    def read(raw: Any) -> int:
        if not isinstance(raw, str) or not _WHOLE.fullmatch(raw) or not low <= int(raw) <= high:
            raise ValueError(f"must be {what} from {low} to {high}{end}")
        return int(raw)

    return read


_milliseconds: Final = _count(1, 3_600_000, "milliseconds", ", or none")


def _budget(raw: Any) -> float | None:
    if raw == "none":
        return None
    if not isinstance(raw, str) or not _NUMBER.fullmatch(raw) or float(raw) > 100:
        raise ValueError("must be dollars from 0 to 100, or none")
    return float(raw)


def _latency(raw: Any) -> int | None:
    return None if raw == "none" else _milliseconds(raw)


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


def _durable(raw: Any) -> bool:
    if raw not in ("true", "false"):
        raise ValueError("must be true or false")
    return bool(raw == "true")


def _tags(raw: Any) -> tuple[str, ...]:
    tags = tuple(raw.split(",")) if isinstance(raw, str) else ()
    if not tags or len(tags) > 16 or not all(TAG.fullmatch(tag) for tag in tags):
        raise ValueError("must be up to 16 comma-separated words of letters, digits and . _ : / -")
    return tags


def _form(raw: Any) -> Form:
    try:
        return Form(raw)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Form)}") from None


def _flag(raw: Any) -> bool:
    if raw not in ("on", "off"):
        raise ValueError("must be on or off")
    return bool(raw == "on")


_BY_FIELD: Final[dict[str, Callable[[Any], Any]]] = {
    "mode": _mode,
    "max_budget_usd": _budget,
    "max_latency_ms": _latency,
    "min_weight": _count(0, 10),
    "output_schema": _schema,
    "model": _model,
    "provider": _name,
    "durable": _durable,
    "tags": _tags,
    "output_format": _form,
    "strip_think": _flag,
    "output_max_tokens": _count(1, 1_000_000),
    "validate": _flag,
    "buffered": _flag,
    "guarded": _flag,
    "resume": _flag,
    "voters": _count(2, MAX_VOTERS),
    "iterations": _count(1, MAX_ITERATIONS),
}
_READERS: Final = {
    **{name: (field, _BY_FIELD[field]) for field, name in NAMES.items()},
    **{name: (name, _BY_FIELD[name]) for name in PARTS},
}
