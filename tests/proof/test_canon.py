"""What makes two tool calls the same call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.proof.canon import body_hash, call_hash, form, hashing, text_hash

KEY = bytes(range(32))

_NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(_TEXTS, VALUES, max_size=5)


def shuffled(value: Any) -> Any:
    """Return the same value with its members the other way round."""
    if isinstance(value, dict):
        return {name: shuffled(inner) for name, inner in reversed(value.items())}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@given(OBJECTS)
def test_order_spacing_and_escapes_mean_nothing(value: dict[str, Any]) -> None:
    """However it is written, it is the same call."""
    written = {
        json.dumps(value),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(shuffled(value), indent=1),
    }
    assert len({form(one) for one in written}) == 1


@given(OBJECTS, OBJECTS)
def test_another_value_is_another_call(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Nothing that says something else has the same form; true is not 1, and null is not absent."""
    assert (form(json.dumps(one)) == form(json.dumps(other))) == (_exact(one) == _exact(other))


def _exact(value: Any) -> Any:
    """Return a value by which nothing is equal that JSON tells apart: Python has 1 == True."""
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return type(value).__name__, repr(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "{}"),
        (" \n", "{ }"),
        ('{"n":1}', '{"n":1.0}'),
        ('{"n":1e2}', '{"n":100}'),
        ('{"n":0.1}', '{"n":0.10}'),
        ('{"n":-0.0}', '{"n":0}'),
        ('{"t":"\\u00fc"}', '{"t":"ü"}'),
        ('{"a":', '{"_raw":"{\\"a\\":"}'),
        ("select 1", '{"_raw":"select 1"}'),
        ("[1]", '{"_raw":"[1]"}'),
    ],
)
def test_what_dialects_write_differently_is_the_same(one: str, other: str) -> None:
    """Numbers are values, nothing is the empty object, and what is no object is its text."""
    assert form(one) == form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"a":2}', '{"a":2}'),  # readers differ in which of the two they take
        ('{"a":1,"a":2}', '{"a":1}'),
        ('{"n":1}', '{"n":"1"}'),
        ('{"n":12345678901234567890123}', '{"n":12345678901234567890124}'),
        ('{"n":9007199254740993}', '{"n":9007199254740992.0}'),
        ('{"a":null}', "{}"),
        ('{"_raw":"{}"}', "{}"),
        ('{"_raw":"x","a":1}', "x"),
        ('{"a":NaN}', '{"a":null}'),
        ("x", "x "),
    ],
)
def test_what_could_be_read_differently_is_not_the_same(one: str, other: str) -> None:
    """Where two readers could disagree, only the same text is the same."""
    assert form(one) != form(other)


def test_arguments_that_are_too_deep_are_text() -> None:
    """Nobody reads them, and nobody falls over them."""
    deep = '{"a":' * 100_000
    assert form(deep) == b"text\n" + deep.encode()


def test_a_name_does_not_run_into_its_arguments() -> None:
    """Nor is a call a text, or a body."""
    assert call_hash(KEY, "f", "1:x") != call_hash(KEY, "f1", ":x")
    body = body_hash(KEY)
    body.update(b"x")
    assert len({call_hash(KEY, "", "x"), text_hash(KEY, "x"), body.digest()}) == 3


def test_every_request_has_a_key_of_its_own() -> None:
    """The same call of two requests cannot be told to be the same without the key."""
    made = hashing(b"secret")
    assert made.of("req_1") != made.of("req_2")
    assert made == hashing(b"secret")
    assert made.name != hashing(b"another").name
    assert made.key.hex() not in repr(made)
    assert made.key != b"secret"
