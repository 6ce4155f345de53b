"""JSON as it travels: bounded decoding, hand-checked fields, and edits that leave other bytes alone.

Every fault that is found here is the caller's: `INVALID`, with `param` set to the dotted path of the field
(`messages[2].content[0].type`) where there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from tokenhub_core.errors import Fault, Kind, TokenHubError, client_fault
from tokenhub_core.types import Json, Request

DEPTH: Final = 64
"""How many objects and arrays may stand inside each other, the outermost included."""


# --- whole bodies ------------------------------------------------------------------------------------------


def decode(body: bytes, *, repeats: bool = False) -> Json:
    """Return the JSON object that `body` holds; raises `TokenHubError` that names the fault and its position.

    A name that one object holds twice is a fault, unless `repeats` says that the last one counts: that is for what
    models and providers wrote, which nobody reads a second time.
    """
    if not body.strip():
        raise _bad("The request body is empty; a JSON object is expected.")
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise _undecodable(body, exc) from None
    if not isinstance(data, dict):
        raise _bad(f"The request body is {_kind(data)}; a JSON object is expected.")
    members = _members(data, DEPTH)
    if members is None:
        raise _bad(f"The request body has more than {DEPTH} levels of nested objects and arrays.")
    # The quote that ends a name has a colon behind it, as no other one has; inside of texts quotes are escaped. So
    # the bytes tell how many members there should be, unless a name ends in a backslash or a space follows it.
    if not repeats and body.count(b'":') - body.count(b'\\":') != members:
        json.loads(body, object_pairs_hook=_once)
    return data


def encode(data: object) -> bytes:
    """Return `data` as compact JSON."""
    return orjson.dumps(data)


def worded(fault: Fault, overflow: str) -> str:
    """Return the fault's message, that of an overflow with the words by which this dialect's programs know one.

    For dialects that have no code for it: agents that shorten a conversation which has become too long look for words.
    """
    told = fault.kind is not Kind.OVERFLOW or overflow.lower() in fault.message.lower()
    return fault.message if told else f"{overflow}: {fault.message}"


def _bad(message: str) -> TokenHubError:
    return client_fault(message, cause="bad_json")


def _undecodable(body: bytes, exc: orjson.JSONDecodeError) -> TokenHubError:
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return _bad(f"The request body is not valid UTF-8: byte {wrong.start} starts no character.")
    place = f"line {exc.lineno}, column {exc.colno}"
    return _bad(f"The request body is not valid JSON: {exc.msg} at {place}.")


def _members(data: Json, limit: int) -> int | None:
    """Return how many members all objects have together; None where anything stands below `limit` levels."""
    level: list[Any] = [data]
    members = 0
    for _ in range(limit):
        below: list[Any] = []
        for box in level:
            if type(box) is dict:
                members += len(box)
            items = box.values() if type(box) is dict else box
            below += [item for item in items if type(item) is dict or type(item) is list]
        if not below:
            return members
        level = below
    return None


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Raise where a name occurs twice: readers differ in which of the two they take, and a limit must hold for both."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _bad(f"The request body has the member '{name[:80]}' twice in one object.")
        seen.add(name)


# --- single fields -----------------------------------------------------------------------------------------
# `path` is that of the object that holds the field, empty for the body itself. A field that is absent or null
# gives the default: no dialect tells the two apart.


def join(path: str, key: str | int) -> str:
    """Return the dotted path of a member or an element of what stands at `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def wrong(param: str, expected: str, value: object) -> TokenHubError:
    """Return the error for a field that is not what it must be; `expected` is like "a string"."""
    found = "missing" if value is None else _kind(value)
    return client_fault(
        f"Invalid '{param}': {expected} is expected, but it is {found}.", cause="bad_field", param=param
    )


def text(data: Json, key: str, path: str = "", *, default: str = "") -> str:
    """Return a string field."""
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise wrong(join(path, key), "a string", value)
    return value


def flag(data: Json, key: str, path: str = "") -> bool:
    """Return a boolean field, False by default."""
    value = data.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong(join(path, key), "true or false", value)
    return value


def count(data: Json, key: str, path: str = "", *, least: int = 1) -> int | None:
    """Return an integer field of at least `least`, None by default."""
    value = data.get(key)
    if value is None:
        return None
    if type(value) is not int:
        raise wrong(join(path, key), f"an integer of at least {least}", value)
    if value < least:
        param = join(path, key)
        message = f"Invalid '{param}': an integer of at least {least} is expected, but it is {value}."
        raise client_fault(message, cause="bad_field", param=param)
    return value


def array(data: Json, key: str, path: str = "") -> list[Any]:
    """Return an array field, an empty one by default."""
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(join(path, key), "an array", value)
    return value


def record(value: object, param: str) -> Json:
    """Return `value` where it is an object; `param` is its own path."""
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    return value


def one_of(value: object, choices: frozenset[str], param: str) -> str:
    """Return `value` where it is one of these strings; `param` is its own path."""
    if not isinstance(value, str):
        raise wrong(param, "a string", value)
    if value not in choices:
        known = ", ".join(sorted(choices))
        message = f"Invalid '{param}': {value[:64]!r} is none of {known}."
        raise client_fault(message, cause="bad_field", param=param)
    return value


def _kind(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return "null"


# --- counts of an answer -----------------------------------------------------------------------------------

_MOST: Final = 10**12


def tokens(value: object) -> int:
    """Return a provider's count of tokens, 0 for what is none: nobody sends a trillion, and sums must fit."""
    return value if type(value) is int and 0 < value <= _MOST else 0


def usage_extras(raw: object, known: Mapping[str, Collection[str]]) -> Json:
    """Return what a usage object tells besides the `known` counts, by its path; zeros tell nothing.

    Each known member has the names that are known in it, where it is an object.
    """
    found: Json = {}
    for name, value in raw.items() if isinstance(raw, dict) else ():
        if name not in known:
            found[f"usage.{name}"] = value
        elif isinstance(value, dict):
            found |= {f"usage.{name}.{key}": each for key, each in value.items() if key not in known[name]}
    return {path: value for path, value in found.items() if telling(value)}


def telling(value: Any, depth: int = 3) -> bool:
    """Tell whether a value says anything: nulls, zeros and what holds nothing else do not, as far down as `depth`."""
    if depth and isinstance(value, dict):
        return any(telling(each, depth - 1) for each in value.values())
    return bool(value)


# --- edits -------------------------------------------------------------------------------------------------

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _nested(depth: int) -> bytes:
    """Return a pattern for an array or object of at most `depth` levels.

    The body was decoded before, so it is enough to count brackets outside strings. All repeats are
    possessive: nothing is tried twice, and a value is passed in one sweep of the pattern engine.
    """
    pattern = rb"[\[{](?:[^\"\[\]{}]++|" + _STRING + rb")*+[\]}]"
    for _ in range(depth - 1):
        pattern = rb"[\[{](?:[^\"\[\]{}]++|" + _STRING + rb"|" + pattern + rb")*+[\]}]"
    return pattern


_WHITE: Final = b" \t\r\n"
_OPEN: Final = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*")
_MEMBER: Final = (
    rb"(" + _STRING + rb")[ \t\r\n]*:[ \t\r\n]*"
    rb"(" + _STRING + rb"|" + _nested(DEPTH - 1) + rb"|[^ \t\r\n,\]}]++)"
    rb"[ \t\r\n]*(?:,[ \t\r\n]*|\})"
)
"""Key and value. Compiled where it is used, because that takes milliseconds; `re` remembers it."""


def named(request: Request, model: str) -> Json:
    """Return the edit that names the model, none where the path names it already and the body does not."""
    return {} if "model" not in request.data and model == request.features.model else {"model": model}


def splice(body: bytes, data: Json, edits: Mapping[str, object]) -> bytes:
    """Return `body` with these top-level members set, every other byte as it was.

    `data` is `decode(body)`. A member that is there gets its new value in its old place (every time it is
    there: parsers differ in which of two they take), a new one is put after the last. Where nothing changes,
    the very same bytes object comes back.
    """
    wanted = {key: encode(value) for key, value in edits.items()}
    present = frozenset(key for key in wanted if key in data)
    same = {key for key in present if encode(data[key]) == wanted[key]}
    if (
        len(same) == len(wanted)
        and b"\\u00" not in body
        and all(body.count(encode(key)) == 1 for key in same)
    ):
        return body
    places = _places(body, present)
    last = {key: start for key, start, _ in places}
    pieces: list[bytes] = []
    kept = 0
    for key, start, stop in places:
        if key in same and start == last[key]:
            continue
        pieces += (body[kept:start], wanted[key])
        kept = stop
    added = [encode(key) + b":" + new for key, new in wanted.items() if key not in present]
    if added:
        end = len(body.rstrip(_WHITE)[:-1].rstrip(_WHITE))
        pieces += (body[kept:end], b"," if data else b"", b",".join(added))
        kept = end
    if not pieces:
        return body
    pieces.append(body[kept:])
    return b"".join(pieces)


def _places(body: bytes, keys: frozenset[str]) -> list[tuple[str, int, int]]:
    """Return where the values of these members, all known to be there, begin and end; in the body's order.

    The usual key is found by a plain search: as it is known to be there, what stands in the body only once is
    the key itself. Where it may be spelled with escapes, or is seen more often (tools have a `model`, too, and
    texts talk of one), the members are gone through one by one.
    """
    member = re.compile(_MEMBER, re.DOTALL)
    if b"\\u00" in body or not all(key.isidentifier() and key.isascii() for key in keys):
        return _walked(body, keys, member)
    places: list[tuple[str, int, int]] = []
    for key in keys:
        quoted = encode(key)
        first = body.find(quoted)
        if body.find(quoted, first + 1) >= 0 or not (found := member.match(body, first)):
            return _walked(body, keys, member)
        places.append((key, *found.span(2)))
    return sorted(places, key=lambda place: place[1])


def _walked(body: bytes, keys: frozenset[str], member: re.Pattern[bytes]) -> list[tuple[str, int, int]]:
    opened = _OPEN.match(body)
    position = opened.end() if opened else 0
    places: list[tuple[str, int, int]] = []
    while found := member.match(body, position):
        position = found.end()
        key = orjson.loads(found[1])
        if key in keys:
            places.append((key, *found.span(2)))
    return places
