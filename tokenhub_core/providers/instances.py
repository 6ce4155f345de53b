"""A small valid instance of a JSON Schema: what a simulated model puts into a tool call or a structured answer.

Covers what programs send to models: objects, arrays, the scalar types with their bounds, enumerations, unions,
`allOf`, and references inside the schema. A `pattern` is not solved: text that fits an arbitrary expression
is beyond a simulator. Depth and size are bounded: a schema that demands
more gets nulls where it goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_DEPTH: Final = 12
_REFERENCES: Final = 16
# Depth alone is no bound: a list of a hundred lists of a hundred lists is not deep.
_NODES: Final = 10_000
_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "date-time": "2026-01-01T12:00:00Z",
        "date": "2026-01-01",
        "time": "12:00:00Z",
        "duration": "PT1H",
        "email": "someone@example.com",
        "hostname": "example.com",
        "ipv4": "192.0.2.1",
        "ipv6": "2001:db8::1",
        "uri": "https://example.com/",
        "uuid": "00000000-0000-4000-8000-000000000000",
    }
)


def instance(schema: object, *, hint: str = "example") -> Any:
    """Return a small instance of `schema`; `hint` fills texts that nothing else determines."""
    return _Maker(schema, hint).make(schema, 0)


class _Maker:
    def __init__(self, root: object, hint: str) -> None:
        self._root = root
        self._hint = hint
        self._left = _NODES

    def make(self, schema: object, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > _DEPTH or self._left < 0:
            return None
        schema = self._resolved(schema, depth)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        for key in ("enum", "examples"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return self.make(self._merged(schema, self._branch(schema[key]), key), depth + 1)
        return self._typed(_type(schema), schema, depth)

    def _typed(self, kind: str, schema: Mapping[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer":
                return int(_number(schema, whole=True))
            case "number":
                return _number(schema, whole=False)
            case "boolean":
                return True
            case _:
                return None

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        known = _dict(schema.get("properties"))
        names = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        return {name: self.make(known.get(name, {"type": "string"}), depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        fixed = [self.make(item, depth + 1) for item in _list(schema.get("prefixItems"))]
        minimum = schema.get("minItems")
        count = min(minimum, 100) if isinstance(minimum, int) else 0
        item = schema.get("items", {"type": "string"})
        return fixed + [self.make(item, depth + 1) for _ in range(count - len(fixed))]

    def _string(self, schema: Mapping[str, Any]) -> str:
        text = _FORMATS.get(str(schema.get("format", "")), self._hint)
        minimum, maximum = schema.get("minLength"), schema.get("maxLength")
        if isinstance(minimum, int):
            text = text.ljust(min(minimum, 10_000), "x")
        return text[:maximum] if isinstance(maximum, int) and maximum >= 0 else text

    def _resolved(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """Follow references and fold `allOf` in."""
        for _ in range(_REFERENCES):
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                break
            schema = self._merged(schema, self._target(reference), "$ref")
        parts = schema.get("allOf")
        if isinstance(parts, list) and depth <= _DEPTH:
            for part in parts:
                self._left -= 1
                if isinstance(part, Mapping) and self._left > 0:
                    schema = self._merged(schema, self._resolved(part, depth + 1), "allOf")
        return schema

    def _target(self, reference: str) -> object:
        found: object = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            if not isinstance(found, Mapping):
                return {}
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {})
        return found

    def _branch(self, branches: list[Any]) -> object:
        """Return the first branch that is not null: `anyOf: [null, X]` is how optional values are written."""
        for branch in branches:
            if isinstance(branch, Mapping) and branch.get("type") != "null":
                return branch
        return branches[0]

    def _merged(self, schema: Mapping[str, Any], part: object, without: str) -> Mapping[str, Any]:
        rest = {key: value for key, value in schema.items() if key != without}
        if not isinstance(part, Mapping):
            return rest
        merged = {**part, **rest}
        for key in ("properties", "required"):
            if key in part and key in rest:
                merged[key] = (
                    {**_dict(part[key]), **_dict(rest[key])}
                    if key == "properties"
                    else [*_list(part[key]), *_list(rest[key])]
                )
        return merged


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((item for item in kind if item != "null"), "null")
    if isinstance(kind, str):
        return kind
    for key, implied in (("properties", "object"), ("items", "array"), ("prefixItems", "array")):
        if key in schema:
            return implied
    return "string"


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    def bound(name: str) -> float | None:
        value = schema.get(name)
        usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if usable else None

    step = bound("multipleOf") or (1.0 if whole else 0.0)
    low, above = bound("minimum"), bound("exclusiveMinimum")
    high, below = bound("maximum"), bound("exclusiveMaximum")
    value = 1.0
    if low is not None and value < low:
        value = low
    if above is not None and value <= above:
        value = above + (step or 1.0)
    if high is not None and value > high:
        value = high
    if below is not None and value >= below:
        value = below - (step or 1.0)
    if step:
        value = math.ceil(value / step) * step
        if (high is not None and value > high) or (below is not None and value >= below):
            value -= step
    if above is not None and value <= above and (below is not None or high is not None):
        limit = below if below is not None else high
        value = (above + (limit or 0.0)) / 2
    return value
