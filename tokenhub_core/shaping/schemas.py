"""JSON Schemas that callers bring: checked before anybody is asked, and answers held to them.

What is validated, and in which draft, is the library's affair (`jsonschema-rs`). Ours is that a schema costs no more
than it may: nothing is fetched, patterns are matched in linear time, and the work of one validation is known before it
is begun. A schema whose parts refer to each other can ask for work that doubles with every level, so the work is
counted beforehand, exactly, as the number of times that a part of the schema meets a part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from tokenhub_core.dialects import wire
from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.later import Later
from tokenhub_core.types import Dialect, Json

if TYPE_CHECKING:
    import jsonschema_rs
else:
    jsonschema_rs = Later("jsonschema_rs")

MAX_BYTES: Final = 65_536
"""Of a schema, as compact JSON."""
MAX_PARTS: Final = 4_000
"""Subschemas of one schema."""
MAX_PATTERNS: Final = 30
MAX_PATTERN_BYTES: Final = 1 << 19
"""Of one compiled pattern."""
MAX_SPREAD: Final = 10_000
"""Subschemas that one place of an answer may be held to, those counted twice that are reached twice."""
MAX_WORK: Final = 1_000_000
"""Times that a part of a schema may meet a part of one answer."""
_TOLD_WORK: Final = 500
"""Up to so much of it at any one place that of the error is looked for too: that costs far more than to know of it."""
_PLAIN_WORK: Final = 10_000_000
"""Parts times characters up to which nothing needs to be counted, where no part is referred to."""
_FEW_PATTERNS: Final = 4
_LONGEST_TOLD: Final = 300

OWN: Final[Mapping[Dialect, str]] = MappingProxyType(
    {
        Dialect.OPENAI_CHAT: "response_format.json_schema.schema",
        Dialect.OPENAI_RESPONSES: "text.format.schema",
        Dialect.OPENAI_COMPLETIONS: "response_format.json_schema.schema",
        Dialect.ANTHROPIC_MESSAGES: "output_config.format.schema",
        Dialect.GEMINI: "generationConfig.responseSchema",
        Dialect.OLLAMA_CHAT: "format",
        Dialect.OLLAMA_GENERATE: "format",
    }
)
"""Where a call of each dialect brings a schema of its own."""

type _Keys = tuple[str, ...]

_SAME: Final[_Keys] = ("not", "if", "then", "else")
_SAME_LISTS: Final[_Keys] = ("allOf", "anyOf", "oneOf")
_SAME_MAPS: Final[_Keys] = ("dependentSchemas", "dependencies")
_PATTERNS: Final[_Keys] = ("patternProperties",)
_MEMBERS: Final[_Keys] = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_ELEMENTS: Final[_Keys] = ("items", "additionalItems", "unevaluatedItems", "contains")
_ELEMENT_LISTS: Final[_Keys] = ("prefixItems", "items")
_UNTOLD: Final = frozenset({"additionalProperties", "unevaluatedProperties", "propertyNames"})
"""Kinds of errors whose messages quote names that the answer chose."""


class Failure(msgspec.Struct, frozen=True):
    """Why an answer does not fit, without its own words: values are left out, names that the schema lacks are `*`."""

    path: str
    """A JSON pointer (RFC 6901) to what does not fit; empty for the whole."""
    message: str

    def __str__(self) -> str:
        return f"at {self.path or '/'}: {self.message}"


class _Part:
    """One subschema: which others it holds the same place to, and which ones what lies below."""

    __slots__ = ("elements", "members", "named", "same")

    def __init__(self) -> None:
        self.same: list[int] = []
        self.named: dict[str, int] = {}
        self.members: list[int] = []
        self.elements: list[int] = []


class Schema:
    """A schema that answers can be held to. Made by `compiled`."""

    def __init__(self, validator: jsonschema_rs.Validator, graph: _Graph) -> None:
        self._validator = validator
        self._graph = graph

    def failure(self, value: Any, size: int) -> Failure | None:
        """Return why a decoded answer of `size` characters does not fit, None where it does."""
        if deep(value):
            return Failure("", f"more than {wire.DEPTH} levels of objects and arrays")
        work, peak = 0, 0
        if self._graph.refers or len(self._graph.parts) * size > _PLAIN_WORK:
            work, peak = self._graph.work(value, MAX_WORK)
        if work > MAX_WORK:
            return Failure("", "too large to be held to this schema")
        if self._validator.is_valid(value):
            return None
        if peak > _TOLD_WORK:
            return Failure("", "does not fit; to find the place would take too long")
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return self._told(error)
        raise AssertionError("what is not valid has an error")

    def _told(self, error: jsonschema_rs.ValidationError) -> Failure:
        message = error.message
        if error.schema_path and error.schema_path[-1] in _UNTOLD:
            message = f"holds what {error.schema_path[-1]} does not allow"
        return Failure(self._graph.pointer(error.instance_path), message[:_LONGEST_TOLD])


def compiled(raw: bytes, param: str) -> Schema:
    """Return the schema of this JSON text, which stands in the call at `param`.

    Raises `TokenHubError` (`INVALID`) that names the place of what is wrong.
    """
    if len(raw) > MAX_BYTES:
        raise _bad(f"a schema may have at most {MAX_BYTES} bytes", param)
    schema: Json = orjson.loads(raw)
    graph = _Graph(schema, param)
    try:
        validator = jsonschema_rs.validator_for(
            schema,
            validate_formats=True,
            offline=True,
            mask="the value",
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=MAX_PATTERN_BYTES, dfa_size_limit=MAX_PATTERN_BYTES
            ),
        )
    except jsonschema_rs.ValidationError as error:
        path = list(error.instance_path)
        if path and path[-1] == "pattern":
            raise _bad(
                "no pattern that matches in linear time, without look-around", _dotted(param, path)
            ) from None
        raise _bad(error.message[:_LONGEST_TOLD], _dotted(param, path)) from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise _bad(str(error).partition("\n")[0][:_LONGEST_TOLD], param) from None
    return Schema(validator, graph)


def light(raw: bytes) -> bool:
    """Tell whether a schema takes little memory, so that it may be kept ready: patterns are what takes much."""
    return raw.count(b'"pattern') <= _FEW_PATTERNS


def encoded(schema: Mapping[str, Any]) -> bytes:
    """Return what `compiled` takes."""
    return wire.encode(schema)


def deep(value: Any) -> bool:
    """Tell whether more objects and arrays stand inside each other than a call may have."""
    level = [value]
    for _ in range(wire.DEPTH + 1):
        level = [below for box in level for below in _below(box)]
        if not level:
            return False
    return True


def _below(box: Any) -> Iterable[Any]:
    return box.values() if isinstance(box, dict) else box if isinstance(box, list) else ()


class _Graph:
    """The parts of a schema, by number; 0 is the whole."""

    def __init__(self, schema: Json, param: str) -> None:
        self._root = schema
        self._param = param
        self._numbers: dict[int, int] = {}
        self._names: set[str] = set()
        self._patterns = 0
        self._waiting: list[tuple[Json, tuple[str | int, ...]]] = []
        self.parts: list[_Part] = []
        self.refers = False
        self._closures: dict[int, Mapping[int, int]] = {}
        if deep(schema):
            raise _bad(f"has more than {wire.DEPTH} levels of nested objects and arrays", param)
        self._number(schema, ())
        while self._waiting:
            self._read(*self._waiting.pop())
        self._bound()

    # --- reading

    def _number(self, schema: Any, path: tuple[str | int, ...]) -> int | None:
        """Return the number of a subschema; None for one that is no object and asks for no work."""
        if not isinstance(schema, dict):
            return None
        found = self._numbers.get(id(schema))
        if found is None:
            if len(self.parts) == MAX_PARTS:
                raise _bad(f"has more than {MAX_PARTS} subschemas", self._param)
            found = self._numbers[id(schema)] = len(self.parts)
            self.parts.append(_Part())
            self._waiting.append((schema, path))
        return found

    def _read(self, schema: Json, path: tuple[str | int, ...]) -> None:
        part = self.parts[self._numbers[id(schema)]]
        self._refuse(schema, path)
        for name, one in _keyed(schema, "properties"):
            self._names.add(name)
            if (number := self._number(one, (*path, "properties", name))) is not None:
                part.named[name] = number
        for found, keys in ((part.same, _SAME), (part.members, _MEMBERS), (part.elements, _ELEMENTS)):
            for key in keys:
                self._add(found, schema.get(key), (*path, key))
        for found, keys in ((part.same, _SAME_LISTS), (part.elements, _ELEMENT_LISTS)):
            for key in keys:
                for at, one in _listed(schema, key):
                    self._add(found, one, (*path, key, at))
        for found, keys in ((part.same, _SAME_MAPS), (part.members, _PATTERNS)):
            for key in keys:
                for name, one in _keyed(schema, key):
                    self._add(found, one, (*path, key, name))
        if "$ref" in schema:
            self.refers = True
            self._add(part.same, *self._target(schema["$ref"], (*path, "$ref")))

    def _refuse(self, schema: Json, path: tuple[str | int, ...]) -> None:
        """Refuse what would have to be followed elsewhere, and too many patterns."""
        for key in ("$dynamicRef", "$recursiveRef"):
            if key in schema:
                raise _bad("is not followed", _dotted(self._param, (*path, key)))
        for key in ("$id", "id"):
            # It would change what the references below it lead to.
            if path and isinstance(schema.get(key), str):
                raise _bad("a subschema has no name of its own", _dotted(self._param, (*path, key)))
        self._patterns += ("pattern" in schema) + sum(1 for _ in _keyed(schema, "patternProperties"))
        if self._patterns > MAX_PATTERNS:
            raise _bad(f"has more than {MAX_PATTERNS} patterns", self._param)

    def _add(self, found: list[int], schema: Any, path: tuple[str | int, ...]) -> None:
        if (number := self._number(schema, path)) is not None:
            found.append(number)

    def _target(self, ref: object, path: tuple[str | int, ...]) -> tuple[Any, tuple[str | int, ...]]:
        """Return what a reference leads to, and where that stands; only those within the schema are followed."""
        place = _dotted(self._param, path)
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise _bad("only references within the schema are followed, such as #/$defs/name", place)
        target: Any = self._root
        found: list[str | int] = []
        for step in ref[2:].split("/") if len(ref) > 2 else ():
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(target):
                target = target[int(name[:9])]
            elif isinstance(target, dict) and name in target:
                target = target[name]
            else:
                raise _bad("leads nowhere", place)
            found.append(name)
        return target, tuple(found)

    def _bound(self) -> None:
        """Refuse a schema that holds one place to itself again, or to too much."""
        spread: dict[int, int] = {}
        for start in range(len(self.parts)):
            path, open_ = [(start, iter(self.parts[start].same))], {start}
            while path:
                number, rest = path[-1]
                below = next((one for one in rest if one not in spread), None)
                if below is None:
                    path.pop()
                    open_.discard(number)
                    spread[number] = 1 + sum(spread[one] for one in self.parts[number].same)
                    if spread[number] > MAX_SPREAD:
                        raise _bad(f"holds one place to more than {MAX_SPREAD} subschemas", self._param)
                elif below in open_:
                    raise _bad("refers to itself without going deeper", self._param)
                else:
                    open_.add(below)
                    path.append((below, iter(self.parts[below].same)))

    # --- holding answers to it

    def work(self, value: Any, most: int) -> tuple[int, int]:
        """Return how often a part meets a part of `value`, in all and at one place at most.

        It is counted no further than beyond `most`.
        """
        work = peak = 0
        waiting: list[tuple[Any, Mapping[int, int]]] = [(value, {0: 1})]
        while waiting and work <= most:
            one, reached = waiting.pop()
            here = self._closed(reached)
            times = sum(here.values())
            work, peak = work + times, max(peak, times)
            if isinstance(one, dict):
                for name, below in one.items():
                    waiting.append((below, self._met(here, name)))
            elif isinstance(one, list):
                met = self._met(here, None)
                waiting += [(below, met) for below in one]
        return work, peak

    def _met(self, here: Mapping[int, int], name: str | None) -> Mapping[int, int]:
        """Return the parts that the member `name`, or an element, is held to."""
        met: dict[int, int] = {}
        for number, times in here.items():
            part = self.parts[number]
            below = part.elements if name is None else part.members
            for one in below:
                met[one] = met.get(one, 0) + times
            if name is not None and (one_more := part.named.get(name)) is not None:
                met[one_more] = met.get(one_more, 0) + times
        return met

    def _closed(self, reached: Mapping[int, int]) -> Mapping[int, int]:
        """Return these parts with all that hold the same place."""
        here: dict[int, int] = {}
        for number, times in reached.items():
            for one, count in self._closure(number).items():
                here[one] = here.get(one, 0) + times * count
        return here

    def _closure(self, number: int) -> Mapping[int, int]:
        found = self._closures.get(number)
        if found is None:
            counts = {number: 1}
            waiting = list(self.parts[number].same)
            while waiting:
                one = waiting.pop()
                counts[one] = counts.get(one, 0) + 1
                waiting += self.parts[one].same
            found = self._closures[number] = counts
        return found

    def pointer(self, path: Iterable[str | int]) -> str:
        """Return a JSON pointer in which names that the schema does not know are `*`."""
        steps = (str(one) if isinstance(one, int) or one in self._names else "*" for one in path)
        return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _keyed(schema: Json, key: str) -> Iterator[tuple[str, Any]]:
    value = schema.get(key)
    return iter(value.items() if isinstance(value, dict) else ())


def _listed(schema: Json, key: str) -> Iterator[tuple[int, Any]]:
    value = schema.get(key)
    return enumerate(value if isinstance(value, list) else ())


def _dotted(param: str, path: Iterable[str | int]) -> str:
    for step in path:
        param = wire.join(param, step)
    return param


def _bad(message: str, param: str) -> TokenHubError:
    return client_fault(f"Invalid '{param}': {message}.", cause="bad_schema", param=param)
