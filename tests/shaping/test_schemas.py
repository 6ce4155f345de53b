"""Schemas that callers bring, and answers held to them."""

from __future__ import annotations

from typing import Any
from unittest import mock

import orjson
import pytest

from tokenhub_core.errors import TokenHubError
from tokenhub_core.shaping import schemas
from tokenhub_core.shaping.schemas import Failure, Schema, compiled
from tokenhub_core.types import Json

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z]"},
        "born": {"type": "string", "format": "date"},
        "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}},
    },
    "required": ["name"],
    "additionalProperties": {"type": "integer"},
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "l": {"$ref": "#/$defs/node"},
                "r": {"$ref": "#/$defs/node"},
                "v": {"type": "integer"},
            },
            "required": ["v"],
        }
    },
    "$ref": "#/$defs/node",
}
TWICE = {
    "$defs": {
        "a": {
            "type": "object",
            "properties": {"x": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}},
        }
    },
    "$ref": "#/$defs/a",
}


def schema(data: Json) -> Schema:
    return compiled(orjson.dumps(data), "output_schema")


def failure(data: Json, value: Any) -> Failure | None:
    return schema(data).failure(value, len(orjson.dumps(value)))


def chain(length: int) -> Json:
    """Return a schema each of whose parts refers to the next one twice."""
    parts: Json = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(length)}
    return {"$defs": {**parts, f"a{length}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


def nested(depth: int, leaf: Any) -> Any:
    return {"x": nested(depth - 1, leaf)} if depth else leaf


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"name": "Ada"}, None),
        ({"name": "Ada", "born": "1815-12-10", "pets": ["cat"], "age": 36}, None),
        ({"name": "ada"}, "/name"),
        ({"name": "Ada", "born": "yesterday"}, "/born"),
        ({"name": "Ada", "pets": ["cat", "cow"]}, "/pets/1"),
        ({"name": "Ada", "secret": "x"}, "/*"),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_an_answer_is_held_to_all_of_its_schema(value: Any, path: str | None) -> None:
    """Patterns, formats, items and members; the path leads to what does not fit."""
    found = failure(PERSON, value)
    assert (None if found is None else found.path) == path


def test_what_is_told_of_a_failure_does_not_quote_the_answer() -> None:
    """Neither values nor names that the model chose: it is told in records and logs."""
    for value in (
        {"name": "s3cret"},
        {"name": "Ada", "s3cret": "s3cret"},
        {"name": "Ada", "pets": ["s3cret"]},
    ):
        assert "s3cret" not in str(failure(PERSON, value))
    closed = {"type": "object", "additionalProperties": False, "propertyNames": {"maxLength": 3}}
    assert "s3cret" not in str(failure(closed, {"s3cret": 1}))


@pytest.mark.parametrize(
    ("data", "param", "told"),
    [
        ({"type": "strin"}, "output_schema.type", "not valid"),
        ({"properties": {"a": {"minimum": "b"}}}, "output_schema.properties.a.minimum", "number"),
        ({"items": {"pattern": "(?=a)b"}}, "output_schema.items.pattern", "linear time"),
        ({"pattern": "(a{1000}){1000}"}, "output_schema.pattern", "linear time"),
        ({"$ref": "https://example.com/s"}, "output_schema.$ref", "only references within"),
        (
            {"allOf": [{"$ref": "file:///etc/passwd"}]},
            "output_schema.allOf[0].$ref",
            "only references within",
        ),
        ({"$ref": "#/$defs/none"}, "output_schema.$ref", "leads nowhere"),
        ({"$dynamicRef": "#a"}, "output_schema.$dynamicRef", "not followed"),
        ({"properties": {"a": {"$id": "b"}}}, "output_schema.properties.a.$id", "no name of its own"),
        ({"$schema": "https://example.com/s"}, "output_schema", "meta-schema"),
        ({"allOf": [{"$ref": "#"}]}, "output_schema", "refers to itself"),
        (chain(20), "output_schema", "holds one place to more than"),
        ({"patternProperties": {f"a{n}": {} for n in range(31)}}, "output_schema", "patterns"),
        ({"anyOf": [{"title": "a"}] * 4001}, "output_schema", "subschemas"),
        ({"enum": ["x" * schemas.MAX_BYTES]}, "output_schema", "bytes"),
        (nested(70, {}), "output_schema", "levels"),
    ],
)
def test_a_bad_schema_is_refused_with_its_place(data: Json, param: str, told: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(TokenHubError) as raised:
        schema(data)
    fault = raised.value.fault
    assert (fault.http_status, fault.param, fault.cause) == (400, param, "bad_schema")
    assert told in fault.message


def test_nothing_is_ever_fetched() -> None:
    """Not even where a reference stands in a place that is not looked at."""
    with mock.patch("socket.socket.connect", side_effect=AssertionError("somebody was asked")):
        hidden = {"x-mine": {"$ref": "http://127.0.0.1:9/s"}, "const": {"$ref": "http://127.0.0.1:9/s"}}
        assert failure(hidden, 1) is not None


def test_members_that_are_called_like_keywords_are_members() -> None:
    """`$ref` is a fine name for a property."""
    data = {
        "properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}},
        "enum": [{"$ref": "a"}],
    }
    assert failure(data, {"$ref": "a"}) is None


def test_a_recursive_schema_is_followed_as_deep_as_the_answer_is() -> None:
    """Trees are what recursion is for."""

    def tree(depth: int, last: Any) -> Any:
        below = {"l": tree(depth - 1, last), "r": tree(depth - 1, 1)} if depth else {}
        return {"v": 1 if depth else last, **below}

    assert failure(TREE, tree(8, 1)) is None
    assert failure(TREE, tree(8, "x")) == Failure("/l" * 8 + "/v", 'the value is not of type "integer"')


def test_work_that_doubles_with_every_level_is_not_begun() -> None:
    """It is counted, exactly, before the answer is looked at."""
    graph = schema(TWICE)._graph
    assert [graph.work(nested(depth, {}), 10**6)[1] for depth in (0, 1, 2, 3)] == [2, 5, 10, 20]
    found = failure(TWICE, nested(40, 3))
    assert found is not None
    assert "too large" in found.message


def test_the_place_of_an_error_is_not_looked_for_at_any_price() -> None:
    """That there is one is known at once; where it is costs more with every level."""
    found = failure(TWICE, nested(12, 3))
    assert found == Failure("", "does not fit; to find the place would take too long")


def test_counting_ends_once_it_is_too_much() -> None:
    """The count itself is no more work than what it bounds."""
    work, _ = schema(TWICE)._graph.work(nested(60, {}), 1000)
    assert work < 10_000


def test_an_answer_that_is_nested_too_deeply_is_no_answer() -> None:
    """Whatever the schema says."""
    found = failure({}, nested(80, 1))
    assert found is not None
    assert "levels" in found.message
