"""Finds the key of ours in a request, wherever an SDK can put one, and takes it out. Pure.

A key of ours may stand where a provider's would: in `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or
`api-key`, in `?key=` of a Gemini path, in the subprotocol by which OpenAI's browser clients show a key
(`openai-insecure-api-key.…`), and in the credentials of the proxy's URL (RFC 7617; `Bearer` as well). A key in the
request comes before that of the proxy, which is there for programs that cannot change theirs.

Whatever is found goes no further than here. A key of ours in any other place is refused, and not merely overlooked:
headers and addresses end up in logs, and at hosts that it is no business of.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

import msgspec

from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.types import KEY_PREFIX, Headers

_CREDENTIALS: Final = "authorization"
_PLAIN: Final = frozenset({"x-api-key", "x-goog-api-key", "api-key"})
_PROXY: Final = "proxy-authorization"
_PROTOCOLS: Final = "sec-websocket-protocol"
_PROTOCOL: Final = "openai-insecure-api-key."
_QUERY: Final = "key"

_OURS: Final = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{32,}}")
"""What a key of ours looks like; the names of our own parts are shorter."""
_MASK: Final = f"{KEY_PREFIX}***"


class Found(msgspec.Struct, frozen=True):
    """A request without any key of ours, and the key."""

    headers: Headers
    """Without the credentials for the proxy, too: they are for this hop."""
    path: str
    secret: str = ""
    """The key that counts; empty where there is none."""
    proxy: str = ""
    """The key that was shown to the proxy, whether it counts or not."""

    def __repr__(self) -> str:
        return f"Found({'a key' if self.secret else 'no key'})"


def find(headers: Headers, path: str, *, gemini: bool = False, proxy: str = "") -> Found:
    """Return the request without its key, and the key.

    `gemini` says that the path is one of Gemini's; `proxy` is the key that its connection was opened with, which one
    in the request's own `Proxy-Authorization` takes the place of. Raises `TokenHubError` (`AUTH`) for two different
    keys of ours, and for one in a place that is none: `key_ambiguous`, `key_in_query`, `key_misplaced`.
    """
    shown: list[str] = []
    kept: list[tuple[str, str]] = []
    for field in headers:
        name, value = field
        if name == _PROXY:
            proxy = from_credentials(value) or proxy
        elif name == _CREDENTIALS and (secret := from_credentials(value)):
            shown.append(secret)
        elif KEY_PREFIX not in value:
            kept.append(field)
        elif rest := _taken(name, value, shown):
            kept.append((name, rest))
    path = _without_key(path, shown, gemini=gemini)
    secret = _one(shown)
    return Found(tuple(kept), path, secret or proxy, proxy)


def from_credentials(value: str) -> str:
    """Return the key of ours in an `Authorization` or a `Proxy-Authorization`, empty where it holds none.

    In `Basic` it is the password or the user name: of `http://x:KEY@…` and `http://KEY@…` both are common. Raises like
    `find`.
    """
    scheme, _, rest = value.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return _ours(rest)
        case "basic":
            user, password = _basic(rest)
            return pair(user, password)
        case _:
            return ""


def pair(user: str, password: str) -> str:
    """Return the key of ours in a user name and a password, as SOCKS has them (RFC 1929); raises like `find`."""
    return _one([one for one in (_ours(password), _ours(user)) if one])


def mentions(text: str) -> bool:
    """Tell whether there is something like a key of ours in a text, percent-encoded or not."""
    return _OURS.search(unquote(text) if "%" in text else text) is not None


def masked(path: str) -> str:
    """Return the path of a request that was refused, as it may be shown: without a key of ours."""
    return _OURS.sub(_MASK, unquote(path)) if mentions(path) else path


def carries_credential(headers: Headers, path: str) -> bool:
    """Tell whether a request carries a credential of its caller's for the host that it was meant for."""
    return next(credentials(headers, path), None) is not None


def credentials(headers: Headers, path: str) -> Iterator[str]:
    """Yield the credentials that a request carries for its host, the word before them left out; none is empty."""
    for name, value in headers:
        if name == _CREDENTIALS or name in _PLAIN:
            scheme, _, rest = value.strip().partition(" ")
            if scheme:
                yield rest.strip() or scheme
        elif name == _PROTOCOLS and _PROTOCOL in value:
            yield value.partition(_PROTOCOL)[2].partition(",")[0].strip()
    for field in path.partition("?")[2].split("&"):
        name, _, value = field.partition("=")
        if unquote(name) == _QUERY:
            yield unquote(value)


def without_credentials(headers: Headers, path: str) -> tuple[Headers, str]:
    """Return a request without the credentials that it carries for its host."""
    kept = []
    for name, value in headers:
        if name == _PROTOCOLS and _PROTOCOL in value:
            items = [item.strip() for item in value.split(",") if _PROTOCOL not in item]
            kept += [(name, ", ".join(items))] if items else []
        elif name != _CREDENTIALS and name not in _PLAIN:
            kept.append((name, value))
    bare, _, query = path.partition("?")
    left = [field for field in query.split("&") if field and unquote(field.partition("=")[0]) != _QUERY]
    return tuple(kept), f"{bare}?{'&'.join(left)}" if left else bare


def _taken(name: str, value: str, shown: list[str]) -> str:
    """Return what is left of a field without its key of ours, which is `shown`."""
    if name == _PROTOCOLS:
        keys = [item.strip().removeprefix(_PROTOCOL) for item in value.split(",")]
        shown += filter(_ours, keys)
        value = ", ".join(
            item.strip() for item, key in zip(value.split(","), keys, strict=True) if not _ours(key)
        )
    elif name in _PLAIN and (secret := _ours(value)):
        shown.append(secret)
        return ""
    if mentions(value):
        raise _misplaced(f"the field {name}")
    return value


def _without_key(path: str, shown: list[str], *, gemini: bool) -> str:
    """Return an address without its `key` where that is one of ours, which is `shown`."""
    if "%" not in path and KEY_PREFIX not in path:
        return path
    bare, _, query = path.partition("?")
    if mentions(bare):
        raise _misplaced("the address")
    left = []
    for field in query.split("&"):
        name, _, value = field.partition("=")
        if gemini and unquote(name) == _QUERY and (secret := _ours(unquote(value))):
            shown.append(secret)
        elif mentions(field):
            message = "an API key in an address ends up in logs: send it in a header"
            raise client_fault(message, kind=Kind.AUTH, cause="key_in_query")
        else:
            left.append(field)
    return path if len(left) > query.count("&") else f"{bare}?{'&'.join(left)}" if left else bare


def _ours(text: str) -> str:
    """Return a credential where it is a key of ours, right or wrong, else nothing."""
    text = text.strip()
    return text if text.startswith(KEY_PREFIX) else ""


def _basic(text: str) -> tuple[str, str]:
    """Return user name and password, both empty where they cannot be read."""
    try:
        user, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password


def _one(shown: list[str]) -> str:
    """Return the key where there is just one, shown once or more often."""
    if len(set(shown)) > 1:
        message = "two different API keys of ours are in this request: send one"
        raise client_fault(message, kind=Kind.AUTH, cause="key_ambiguous")
    return shown[0] if shown else ""


def _misplaced(where: str) -> TokenHubError:
    message = f"an API key of ours is in {where}, where none belongs: send it as `Authorization: Bearer`"
    return client_fault(message, kind=Kind.AUTH, cause="key_misplaced")
