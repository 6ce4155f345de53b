"""Bad requests, the same ones for every dialect: refused with a place, or read well and carried to every other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest

from tests.fuzz import corpus
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.types import Dialect, Json, Request

PLAIN: Final[dict[Dialect, Json]] = {
    Dialect.OPENAI_CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    Dialect.ANTHROPIC_MESSAGES: {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    },
    Dialect.OPENAI_RESPONSES: {"model": "m", "input": [{"role": "user", "content": "Hi"}]},
    Dialect.OPENAI_COMPLETIONS: {"model": "m", "prompt": "Hi"},
    Dialect.OPENAI_EMBEDDINGS: {"model": "m", "input": "Hi"},
    Dialect.ANTHROPIC_COUNT_TOKENS: {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    Dialect.GEMINI: {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    Dialect.OLLAMA_CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    Dialect.OLLAMA_GENERATE: {"model": "m", "prompt": "Hi"},
}
TURNS: Final = {
    Dialect.OPENAI_CHAT: "messages",
    Dialect.ANTHROPIC_MESSAGES: "messages",
    Dialect.OPENAI_RESPONSES: "input",
    Dialect.ANTHROPIC_COUNT_TOKENS: "messages",
    Dialect.GEMINI: "contents",
    Dialect.OLLAMA_CHAT: "messages",
}
"""Where a conversation stands."""

CHATS: Final = tuple(name for name in Dialect if name.translates)

EXTRA: Final = {
    "100,000 levels": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "unclosed levels": b"[" * 100_000,
    "65 levels": b"[" * 64 + b"]" * 64,
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e999": b"1e999",
    "a number of 5,000 digits": b"9" * 5000,
    "a lone surrogate": b'"\\ud800"',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "a byte that is no UTF-8": b'"\xff"',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "an overlong encoding": b'"\xc0\xaf"',
    "a bare NUL": b'"\x00"',
    "a bare line end": b'"\n"',
    "a leading zero": b"01",
    "a single quote": b"'a'",
    "nothing": b"",
    "a comment": b"/* x */ 1",
    "two values": b"1 2",
}
"""Values that no body may hold, whichever field holds them."""

BODIES: Final = {
    "empty": b"",
    "blank": b" \r\n\t ",
    "no JSON": b"model=m&prompt=Hi",
    "HTML": b"<html>",
    "a string": b'"Hi"',
    "a number": b"1",
    "null": b"null",
    "an array": b"[{}]",
    "gzip": b"\x1f\x8b\x08\x00",
}
"""Bodies that are no request in any dialect."""

WELL: Final = {
    "64 levels": b"[" * 63 + b"]" * 63,
    "an escaped NUL": b'"\\u0000"',
    "a pair of surrogates": b'"\\ud83d\\ude00"',
    "a number of 40 digits": b"9" * 40,
    "the largest integer": b"18446744073709551615",
    "the smallest integer": b"-9223372036854775808",
    "a tiny number": b"1e-999",
    "an empty name": b'{"":{"":[]}}',
    "a long name": b'{"' + b"a" * 1_000_000 + b'":1}',
    "a text of quotes": b'"' + b'\\"' * 100_000 + b'"',
    "a text of brackets": b'"' + b"[{" * 100_000 + b'"',
}
"""Values that a field without a meaning may have."""


def body_with(name: Dialect, value: bytes) -> bytes:
    """Return a plain request with one more field of this value."""
    return orjson.dumps(PLAIN[name])[:-1] + b',"x_extra":' + value + b"}"


def opened(name: Dialect, body: bytes) -> Request:
    return DIALECTS[name].open(body, corpus.PATHS[name])


def refused(name: Dialect, body: bytes) -> str:
    """Check that a body is refused as it should be; return where the fault is said to be."""
    with pytest.raises(TokenHubError) as caught:
        opened(name, body)
    return told(name, caught.value)


def told(name: Dialect, error: TokenHubError) -> str:
    """Check what the caller gets for a fault; return the place that it names."""
    fault = error.fault
    reply = DIALECTS[name].error(fault, request_id="req_1")
    said = orjson.loads(reply.body)
    message = said["error"] if isinstance(said["error"], str) else said["error"]["message"]
    assert (fault.kind, reply.status) == (Kind.INVALID, 400)
    assert message.startswith(fault.message[:40])
    assert len(message) < 500
    assert fault.param or fault.cause == "bad_json", "a fault has a place"
    return fault.param or fault.message


def served(name: Dialect, body: bytes) -> None:
    """Check that a request that was taken can go to its own dialect's providers and to every other's."""
    request = opened(name, body)
    module = DIALECTS[name]
    patched = module.patch(request, model="served", max_output_tokens=None)
    opened(name, patched)
    if not name.translates:
        return
    try:
        call = module.parse(request)
    except TokenHubError as error:
        told(name, error)
        return
    for other in CHATS:
        try:
            rendered = DIALECTS[other].render(call, model="served", max_output_tokens=None)
        except TokenHubError as error:
            told(name, error)
            continue
        opened(other, orjson.dumps(rendered.data))


@pytest.mark.parametrize("name", Dialect)
@pytest.mark.parametrize("value", EXTRA.values(), ids=EXTRA.keys())
def test_what_no_json_holds_is_refused_with_its_place(name: Dialect, value: bytes) -> None:
    """Nesting, numbers and texts that no parser should take are told by line and column, byte, or level."""
    place = refused(name, body_with(name, value))

    assert any(word in place for word in ("column", "byte", "levels")), place


@pytest.mark.parametrize("name", Dialect)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_what_is_no_request_is_refused(name: Dialect, body: bytes) -> None:
    """An empty body, another format, or another kind of JSON value is told for what it is."""
    refused(name, body)


@pytest.mark.parametrize("name", Dialect)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_another_encoding_is_refused(name: Dialect, encoding: str) -> None:
    """JSON is UTF-8 without a mark before it (RFC 8259, 8.1)."""
    refused(name, orjson.dumps(PLAIN[name]).decode().encode(encoding))


@pytest.mark.parametrize("name", Dialect)
def test_a_body_that_was_cut_short_is_refused(name: Dialect) -> None:
    """Wherever it was cut."""
    body = orjson.dumps(PLAIN[name])
    for end in range(1, len(body)):
        refused(name, body[:end])


@pytest.mark.parametrize("name", Dialect)
@pytest.mark.parametrize("value", WELL.values(), ids=WELL.keys())
def test_what_is_only_strange_is_served(name: Dialect, value: bytes) -> None:
    """A field that nobody knows is kept or told, whatever it holds, and stops no call."""
    served(name, body_with(name, value))


@pytest.mark.parametrize("name", Dialect)
def test_a_name_that_stands_twice_is_refused(name: Dialect) -> None:
    """Readers differ in which of two they take: what was checked here might not be what a provider reads."""
    plain = orjson.dumps(PLAIN[name] | {"x": "last"})
    assert "'x' twice" in refused(name, b'{"x":"first",' + plain[1:])


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("turn", [b"null", b"1", b"[]", b'"Hi"', b"true"])
def test_a_hundred_thousand_wrong_turns_cost_little(name: Dialect, turn: bytes) -> None:
    """The first of them is told, by its place, and the others are not looked at."""
    plain = {key: value for key, value in PLAIN[name].items() if key != TURNS[name]}
    turns = b'"' + TURNS[name].encode() + b'":[' + b",".join([turn] * 100_000) + b"]}"
    body = (orjson.dumps(plain)[:-1] + b"," if plain else b"{") + turns

    assert refused(name, body).startswith(f"{TURNS[name]}[0]")


@pytest.mark.parametrize("name", Dialect)
@pytest.mark.parametrize(
    "model", ["m" * 65_536, "../../etc/passwd", "*", "gpt\u20114", "a\nb", "a\x00b", "?x=1#y"]
)
def test_a_strange_model_is_a_name_like_any_other(name: Dialect, model: str) -> None:
    """Nobody reads more into it than a text; whether there is such a model is for the catalogue to say."""
    served(name, orjson.dumps(PLAIN[name] | {"model": model}))


def _replaced(document: Any, value: object) -> Iterator[Any]:
    """Yield copies of a JSON document, each with another of its members or elements replaced."""
    for key in list(document) if isinstance(document, dict) else range(len(document)):
        kept = document[key]
        document[key] = value
        yield document
        if isinstance(kept, dict | list):
            document[key] = kept
            for _ in _replaced(kept, value):
                yield document
        document[key] = kept


@pytest.mark.parametrize("name", Dialect)
@pytest.mark.parametrize(
    "value", [None, True, -1, 10**18, 1e300, "", "x", [], {}, [[]], [{}], {"type": "x"}], ids=repr
)
def test_every_member_may_be_of_the_wrong_type(name: Dialect, value: object) -> None:
    """Each member of a full request in its turn, at any depth, holds this value: refused with a place, or served."""
    full = max(corpus.requests(name), key=len)
    for document in _replaced(orjson.loads(full), value):
        body = orjson.dumps(document)
        try:
            opened(name, body)
        except TokenHubError as error:
            told(name, error)
        else:
            served(name, body)
