"""Google's own schema objects, as JSON Schema.

A `Schema` (https://ai.google.dev/api/caching#Schema) is a subset of OpenAPI 3.0: type names in capitals,
`nullable` beside the type, whole numbers in quotes, and an order of the properties of its own.
"""

from __future__ import annotations

from typing import Any, Final

from tokenhub_core.dialects.gemini.names import camel, whole
from tokenhub_core.types import Json

_COUNTS: Final = frozenset(
    {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
)
_MAPS: Final = frozenset({"properties", "$defs", "defs", "definitions", "patternProperties"})
_SCHEMAS: Final = frozenset(
    {"items", "anyOf", "oneOf", "allOf", "prefixItems", "additionalProperties", "not"}
)


def json_schema(given: Any) -> Any:
    """Return the JSON Schema that says the same; a schema that is one already comes back equal."""
    if isinstance(given, list):
        return [json_schema(item) for item in given]
    if not isinstance(given, dict):
        return given
    said: Json = {}
    for key, value in given.items():
        name = camel(key)
        if name in _MAPS and isinstance(value, dict):
            said[name] = {inner: json_schema(schema) for inner, schema in value.items()}
        elif name in _SCHEMAS:
            said[name] = json_schema(value)
        elif name in _COUNTS:
            said[name] = value if (count := whole(value)) is None else count
        elif name == "type":
            said |= _type(value)
        elif name == "example":
            said["examples"] = [value]
        elif name not in {"nullable", "propertyOrdering", "format"}:
            said[key if key.startswith("$") else name] = value
    return _settled(said, {camel(key): value for key, value in given.items()})


def _type(value: Any) -> Json:
    """Return the member for a type; the word for "unspecified" says nothing."""
    if value == "TYPE_UNSPECIFIED":
        return {}
    if isinstance(value, list):
        return {"type": [item.lower() if isinstance(item, str) else item for item in value]}
    return {"type": value.lower() if isinstance(value, str) else value}


def _settled(said: Json, given: Json) -> Json:
    """Apply what says something about other members."""
    # "enum" is only Google's word for a string with an `enum` beside it.
    kind_of = given.get("format")
    if kind_of is not None and kind_of != "enum":
        said["format"] = kind_of
    if given.get("nullable") is True:
        kind = said.get("type")
        if isinstance(kind, str) and kind != "null":
            said["type"] = [kind, "null"]
        if isinstance(said.get("enum"), list) and None not in said["enum"]:
            said["enum"] = [*said["enum"], None]
        if isinstance(said.get("anyOf"), list) and {"type": "null"} not in said["anyOf"]:
            said["anyOf"] = [*said["anyOf"], {"type": "null"}]
    order = given.get("propertyOrdering")
    inner = said.get("properties")
    if isinstance(order, list) and isinstance(inner, dict):
        first = {name: inner[name] for name in order if isinstance(name, str) and name in inner}
        said["properties"] = first | inner
    return said
