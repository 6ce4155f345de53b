"""Instances of JSON Schema, checked against what each schema says."""

from __future__ import annotations

from typing import Any

import pytest

from tokenhub_core.providers.instances import instance

BOTH = {"a": 1, "b": "Paris"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Paris"),
        ({}, "Paris"),
        ({"type": "string", "minLength": 8}, "Parisxxx"),
        ({"type": "string", "maxLength": 3}, "Par"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 5}, 5),
        ({"type": "integer", "default": 9}, 9),
        ({"type": "string", "examples": ["x"]}, "x"),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 7}, 7),
        ({"type": "integer", "exclusiveMinimum": 7}, 8),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "multipleOf": 5, "minimum": 6}, 10),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "a"),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"prefixItems": [{"type": "boolean"}], "minItems": 2}, [True, "Paris"]),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 1}),
        ({"properties": {"a": {"type": "integer"}}}, {}),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"required": ["b"]}]}, BOTH),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": 3}}}, 3),
        (True, None),
        ("nonsense", None),
        ({"type": "object", "required": 5, "properties": 7}, {}),
    ],
)  # fmt: skip
def test_the_instance_fits_the_schema(schema: Any, value: object) -> None:
    """Small and valid, or nothing where there is no schema."""
    assert instance(schema, hint="Paris") == value


def test_a_schema_that_contains_itself_ends() -> None:
    """Optional recursion is left out, required recursion is cut off, in depth and in width."""
    tree: dict[str, Any] = {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}},
        "$ref": "#/$defs/node",
    }  # fmt: skip
    assert isinstance(instance(tree), dict)
    loop = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    instance(loop)
    for key in ("anyOf", "allOf", "oneOf"):
        instance({key: [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]})
    wide: dict[str, Any] = {"type": "array", "minItems": 100, "items": {"$ref": "#"}}
    instance(wide)
