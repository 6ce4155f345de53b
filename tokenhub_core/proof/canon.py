"""What a tool call is, whoever wrote it down, and the keyed hashes of it. Pure.

    call   its name, and its arguments by value: members sorted, no white space, numbers as values. Ids, order of
           members, escapes and spacing differ between dialects and mean nothing; none at all is the empty object.
    text   the words of the answer, refusals included, one behind the other. A dialect without sound may have what was
           said in the place of it, or nothing, so an answer with sound has two texts.
    body   the bytes themselves.

Arguments that are no JSON object, that name a member twice in one object, or whose numbers nobody can hold are taken as
the text that they are: two readers could understand them differently, so nothing but the same text is the same call.
Dialects whose arguments must be an object carry such text under `_raw`, which therefore is that text.

Integers are exact, of any size. What is written with a point or an exponent is an IEEE 754 double, as every reader of
JSON takes it, and one that is a whole number below 2^53 is that integer (1.0 is 1; RFC 8785 writes both alike).

Every hash is HMAC-SHA256 with a key of its request: whoever has the key of one request can check that one and cannot
try out what others said.
"""

from __future__ import annotations

import hmac
import json
import math
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from tokenhub_core.dialects import wire
from tokenhub_core.errors import TokenHubError

_ROOT: Final = b"tokenhub proof 1"
_EXACT: Final = 2.0**53
_RAW: Final = "_raw"


class Hashing(Struct, frozen=True):
    """Makes the hashes of every request. `name` tells two such keys apart and says nothing of either."""

    key: bytes
    name: str

    def __repr__(self) -> str:
        return f"Hashing({self.name})"

    def of(self, request_id: str) -> bytes:
        """Return the key of one request."""
        return _mac(self.key, b"request", request_id.encode())


def hashing(secret: bytes) -> Hashing:
    """Return what hashes with a key that is made of this secret, and of nothing else that it is used for."""
    key = hmac.digest(secret, _ROOT, sha256)
    return Hashing(key, _mac(key, b"name", b"")[:8].hex())


def call_hash(key: bytes, name: str, arguments: str) -> bytes:
    """Return the hash of a tool call; `arguments` is JSON text."""
    named = name.encode("utf-8", "surrogatepass")
    return _mac(key, b"call", b"%d:%b" % (len(named), named) + form(arguments))


def text_hash(key: bytes, text: str) -> bytes:
    """Return the hash of an answer's words."""
    return _mac(key, b"text", text.encode("utf-8", "surrogatepass"))


def body_hash(key: bytes) -> hmac.HMAC:
    """Return the hash of bytes that come one after the other."""
    return hmac.new(key, b"body\n", sha256)


def form(arguments: str) -> bytes:
    """Return the canonical form of a call's arguments."""
    found = _object(arguments if arguments.strip() else "{}")
    if found is None:
        return _text(arguments)
    if found.keys() == {_RAW} and isinstance(raw := found[_RAW], str) and _object(raw) is None:
        return _text(raw)
    told = json.dumps(found, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return b"json\n" + told.encode()


def _object(arguments: str) -> dict[str, Any] | None:
    """Return the object that everybody reads in this text, None where there is no such one."""
    try:
        wire.decode(arguments.encode(), repeats=True)
        found = json.loads(arguments, parse_float=_number, object_pairs_hook=_once)
    except (ValueError, TokenHubError):
        return None
    return found if isinstance(found, dict) else None


def _text(arguments: str) -> bytes:
    return b"text\n" + arguments.encode("utf-8", "surrogatepass")


def _mac(key: bytes, what: bytes, data: bytes) -> bytes:
    return hmac.digest(key, what + b"\n" + data, sha256)


def _number(text: str) -> float | int:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands there twice")
    return found
