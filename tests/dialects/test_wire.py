from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects import wire
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.types import Json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", '\\"', "}{][,:"]
)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS | st.sampled_from(["model", "max_tokens", "stream"]), VALUES, max_size=6)
EDITS = st.dictionaries(st.sampled_from(["model", "max_tokens", "stream", 'o"dd']), VALUES, max_size=3)


def fault(body: bytes) -> Fault:
    with pytest.raises(TokenHubError) as caught:
        wire.decode(body)
    assert (caught.value.fault.kind, caught.value.fault.blame) == (Kind.INVALID, Blame.CLIENT)
    return caught.value.fault


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[1]", "an array"),
        (b"null", "null"),
        (b"true", "a boolean"),
        (b'"x"', "a string"),
        (b"1", "a number"),
        (b'{\n "a": 1,\n}', "line 2, column 8"),
        (b'{"a":1', "unexpected end of data at line 1, column 7"),
        (b'{"a":NaN}', "line 1, column 6"),
        (b'{"a":Infinity}', "line 1, column 6"),
        (b'{"a":"\xff"}', "not valid UTF-8: byte 6"),
        (nested(65), "more than 64 levels"),
        (nested(5000), "line 1"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_the_place(body: bytes, said: str) -> None:
    """Every fault is the caller's, and its message says what is wrong and where."""
    assert said in fault(body).message


def test_as_many_levels_as_allowed_are_read() -> None:
    """The bound counts nesting, not brackets."""
    assert wire.decode(nested(64))["a"] == [orjson.loads(b"[" * 62 + b"]" * 62)]
    assert len(wire.decode(b'{"a":[' + b"{}," * 500 + b"{}]}")["a"]) == 501


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"model":"a","model":"b"}', "model"),
        (b'{"model" : "a", "model" : "b"}', "model"),
        (b'{"messages":[{"role":"user","content":"x","role":"system"}]}', "role"),
        (b'{"m\\u006fdel":"a","model":"b"}', "model"),
        (b'{"a\\\\":1,"a\\\\":1}', "a\\"),
        (b'{"a":{"b":[{"":0,"":0}]}}', ""),
    ],
)
def test_a_name_that_stands_twice_in_one_object_is_refused(body: bytes, name: str) -> None:
    """Who reads the first one and who reads the last would not have read the same call."""
    assert f"'{name}' twice" in fault(body).message
    assert wire.decode(body, repeats=True)


@given(OBJECTS, st.booleans(), st.booleans())
def test_no_text_looks_like_a_name_that_stands_twice(data: Json, spaced: bool, ascii_only: bool) -> None:
    """Quotes, colons and backslashes in names and values, compact or not, are read as they are."""
    separators = (" , ", " : ") if spaced else (",", ":")
    body = json.dumps(data, separators=separators, ensure_ascii=ascii_only).encode()
    assert wire.decode(body) == data


def test_single_fields_are_checked_by_hand() -> None:
    """A field of the wrong type is named by its dotted path; null and absent give the default."""
    assert wire.text({"a": "x"}, "a") == "x"
    assert wire.text({"a": None}, "a", default="d") == "d"
    assert wire.flag({"a": True}, "a")
    assert not wire.flag({}, "a")
    assert wire.count({"a": 3}, "a") == 3
    assert wire.count({}, "a") is None
    assert wire.count({"a": 0}, "a", least=0) == 0
    assert wire.array({}, "a") == []
    assert wire.array({"a": [1]}, "a") == [1]
    assert wire.record({"b": 1}, "a") == {"b": 1}
    assert wire.one_of("x", frozenset({"x"}), "a") == "x"


@pytest.mark.parametrize(
    ("read", "param", "said"),
    [
        (
            lambda: wire.text({"type": 1}, "type", "messages[2].content[0]"),
            "messages[2].content[0].type",
            "a number",
        ),
        (lambda: wire.flag({"stream": 1}, "stream"), "stream", "a number"),
        (lambda: wire.count({"n": True}, "n", "x"), "x.n", "a boolean"),
        (lambda: wire.count({"n": 1.5}, "n"), "n", "a number"),
        (lambda: wire.count({"n": 0}, "n"), "n", "at least 1"),
        (lambda: wire.array({"m": {}}, "m"), "m", "an object"),
        (lambda: wire.record([], wire.join("m", 3)), "m[3]", "an array"),
        (lambda: wire.one_of("z", frozenset("ab"), "role"), "role", "'z' is none of a, b"),
        (lambda: wire.one_of(None, frozenset("ab"), "role"), "role", "missing"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(read: Any, param: str, said: str) -> None:
    """The caller learns which field, what was expected and what was found."""
    with pytest.raises(TokenHubError) as caught:
        read()
    assert caught.value.fault.param == param
    assert param in caught.value.fault.message
    assert said in caught.value.fault.message


@given(OBJECTS, EDITS, st.sampled_from([0, orjson.OPT_INDENT_2]), st.sampled_from([b"", b" \n"]))
@settings(max_examples=120, deadline=None)
def test_a_splice_says_what_the_edited_object_says(data: Json, edits: Json, style: int, edge: bytes) -> None:
    """Read again, the result is the object with its edits; and a second splice finds nothing to do."""
    body = edge + orjson.dumps(data, option=style) + edge

    done = wire.splice(body, data, edits)

    assert orjson.loads(done) == data | edits
    assert wire.splice(done, data | edits, edits) is done
    if all(key in data and orjson.dumps(data[key]) == orjson.dumps(edits[key]) for key in edits):
        assert done is body


@given(st.lists(st.tuples(TEXTS, VALUES), max_size=5), VALUES, VALUES)
@settings(max_examples=80, deadline=None)
def test_untouched_bytes_stay_identical(around: list[tuple[str, Any]], old: Any, new: Any) -> None:
    """Between the edited values not one byte moves, however the caller wrote them."""
    members = [orjson.dumps(f"_{key}") + b" :\t" + orjson.dumps(value) for key, value in around]
    head = b" {\n" + b"".join(member + b" , " for member in members) + b'"mo\\u0064el": '
    foot = b"\n, " + b" , ".join([*members, b'"z":0.10']) + b"\r\n} "
    body = head + orjson.dumps(old) + foot

    done = wire.splice(body, orjson.loads(body), {"model": new, "extra": 1})

    assert done == head + orjson.dumps(new) + foot[: -len(b"\r\n} ")] + b',"extra":1' + b"\r\n} "


def test_every_repeat_of_a_member_is_edited() -> None:
    """Parsers differ in which of two equal keys they take; after an edit they all read the same."""
    body = b'{"model":"a","x":{"model":"in"},"model":"b"}'
    data = wire.decode(body, repeats=True)
    assert wire.splice(body, data, {"model": "c"}) == b'{"model":"c","x":{"model":"in"},"model":"c"}'
    assert wire.splice(body, data, {"model": "b"}) == b'{"model":"b","x":{"model":"in"},"model":"b"}'


def test_a_repeat_that_is_spelled_with_escapes_is_edited_too() -> None:
    """Otherwise a provider that takes the first of two would serve another model than the one we decided on."""
    for body in (b'{"model":"a","mod\\u0065l":"z"}', b'{"mod\\u0065l":"z","model":"a"}'):
        done = wire.splice(body, wire.decode(body, repeats=True), {"model": "b"})
        assert done == body.replace(b'"a"', b'"b"').replace(b'"z"', b'"b"')


@pytest.mark.parametrize(
    "inner",
    [
        b'"x":"say \\"model","model":"a"',
        b'"x":{"model":"in"},"model":"a"',
        b'"x":["model"],"model":"a"',
        b'"x":"model","mod\\u0065l":"a"',
        b'"model":"a","x":"\\"model\\""',
        b'"x":"}\\\\","model":"a","y":"\\u00e9"',
    ],
)
def test_only_a_top_level_key_is_taken_for_one(inner: bytes) -> None:
    """The same word in a text, in an inner object or as a value stays."""
    body = b"{" + inner + b"}"
    wanted = body.replace(b':"a"', b':"b"')
    assert wire.splice(body, wire.decode(body), {"model": "b"}) == wanted


def test_a_member_goes_into_an_empty_object() -> None:
    """There is no comma to write then."""
    assert wire.splice(b" { } ", {}, {"a": 1, "b": None}) == b' {"a":1,"b":null } '
    body = b"{}"
    assert wire.splice(body, {}, {}) is body


def test_the_deepest_body_that_is_decoded_can_be_edited() -> None:
    """The scanner goes as deep as the decoder."""
    body = nested(wire.DEPTH)
    assert wire.splice(body, wire.decode(body), {"b": 1}) == body[:-1] + b',"b":1}'


def test_json_keeps_its_type_through_an_edit() -> None:
    """One, true and 1.0 are equal in Python, and are not on the wire."""
    assert wire.splice(b'{"a":1}', {"a": 1}, {"a": True}) == b'{"a":true}'
    assert wire.splice(b'{"a":1.0}', {"a": 1.0}, {"a": 1}) == b'{"a":1}'


@pytest.mark.parametrize(
    ("value", "count"),
    [(7, 7), (10**12, 10**12), (10**12 + 1, 0), (-1, 0), (True, 0), (1.5, 0), ("7", 0), (None, 0)],
)
def test_an_absurd_count_of_tokens_is_none(value: object, count: int) -> None:
    """Sums of counts are stored and written as 64-bit integers, whatever a provider says."""
    assert wire.tokens(value) == count
