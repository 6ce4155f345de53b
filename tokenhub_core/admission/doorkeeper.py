"""Who comes in, and what for: asked at every front door, of every request. Pure; the book that knows keys is asked.

Default deny. A request without a key of ours comes in only from this machine, and only while the operator lets
anonymous callers in. A key that is shown has to be right: a wrong one never makes its caller anonymous. And whatever
goes wrong while a key is looked up is a refusal.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from tokenhub_core.admission import identity
from tokenhub_core.admission.identity import Found
from tokenhub_core.admission.tenures import Tenures
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.ports import KeyBook, Secret
from tokenhub_core.types import ANY, ApiKey, Dialect, Headers, Scope

CHALLENGE: Final = ("proxy-authenticate", 'Basic realm="tokenhub"')
"""The field of a 407 (RFC 9110, 11.7.1): many clients show the credentials of their proxy's URL only when asked."""

ASKING: Final = ("www-authenticate", 'Bearer realm="tokenhub"')
"""The field of a 401 (RFC 9110, 11.6.1)."""


class NoKeys:
    """A book in which no key stands. Implements `KeyBook`."""

    def look_up(self, secret: str, now: float) -> ApiKey:
        """Raise `TokenHubError` (`AUTH`)."""
        del secret, now
        raise client_fault("this API key is not known", kind=Kind.AUTH, cause="key_unknown")

    def named(self, key_id: str, now: float) -> ApiKey:
        """Raise `TokenHubError` (`AUTH`)."""
        return self.look_up(key_id, now)


_NO_SECRET: Final = Secret("")


class Entry(msgspec.Struct, frozen=True):
    """A request that may come in, without its key."""

    headers: Headers
    path: str
    key: ApiKey | None = None
    user: str = ""
    """Who showed the proxy a key: that key's name, its id where it has none."""
    stripped: bool = False
    """The credential that it brought for its host was dropped."""
    replaced: bool = False
    """And the credential of the provider that is registered for that host takes its place."""
    shown: Secret = _NO_SECRET
    """The key's secret, for what stays open by it: see `Tenures`."""

    def __repr__(self) -> str:
        return f"Entry({self.key.id if self.key else 'anonymous'})"


class Doorkeeper:
    """What every front door asks. `anonymous` lets callers without a key in, from this machine."""

    def __init__(self, book: KeyBook, *, anonymous: bool = True) -> None:
        self._book = book
        self._anonymous = anonymous
        self.tenures = Tenures(book)
        """What is open by keys that were let in."""

    def admit(self, found: Found, *, near: bool, now: float) -> Entry:
        """Return the request as it may come in; raises `TokenHubError` (`AUTH`), or one with status 503.

        `near` says that it comes from this machine, `now` is in seconds since the epoch.
        """
        if not found.secret:
            self._without(near)
            return Entry(found.headers, found.path)
        key = self.known(found.secret, now)
        user = ""
        if found.proxy:
            user = called(key if found.proxy == found.secret else self.known(found.proxy, now))
        return Entry(found.headers, found.path, key, user, shown=Secret(found.secret))

    def enter(self, secret: str, *, near: bool, now: float) -> ApiKey | None:
        """Return the key that a connection is opened with, None for somebody anonymous; raises like `admit`."""
        if secret:
            return self.known(secret, now)
        self._without(near)
        return None

    def asks(self, *, near: bool) -> bool:
        """Tell whether a caller has to show a key."""
        return not (near and self._anonymous)

    def known(self, secret: str, now: float) -> ApiKey:
        """Return the key with this secret; raises like `admit`."""
        return self._found(self._book.look_up, secret, now)

    def again(self, key_id: str, now: float) -> ApiKey:
        """Return the key with this id, for a caller who has shown it before; raises like `admit`."""
        return self._found(self._book.named, key_id, now)

    @staticmethod
    def _found(look: Callable[[str, float], ApiKey], what: str, now: float) -> ApiKey:
        try:
            key: object = look(what, now)
        except TokenHubError as error:
            if error.fault.kind is Kind.AUTH:
                raise
            raise _cannot_tell() from None
        except Exception:  # noqa: BLE001 -- whatever it is, nobody was recognised
            raise _cannot_tell() from None
        if not isinstance(key, ApiKey):
            raise _cannot_tell()
        return key

    def _without(self, near: bool) -> None:
        if self.asks(near=near):
            message = "an API key is required: send it as `Authorization: Bearer`, or in the proxy's URL"
            raise client_fault(message, kind=Kind.AUTH, cause="key_required")


KEYLESS: Final = Doorkeeper(NoKeys())
"""Knows no key, and lets this machine in."""


def called(key: ApiKey | None) -> str:
    """Return what a key is called where callers are told apart: its name, its id where it has none."""
    return (key.name or key.id) if key is not None else ""


def scope_of(dialect: Dialect) -> Scope:
    """Return what a routed call of a dialect needs."""
    return Scope.EMBEDDINGS if dialect is Dialect.OPENAI_EMBEDDINGS else Scope.CHAT


def allow(key: ApiKey | None, scope: Scope, *, host: str = "") -> None:
    """Return where the key is good for this kind of call, and for the host that it was meant for, if for any.

    Raises `TokenHubError` (`FORBIDDEN`): `insufficient_scope`, `host_not_allowed`. Who is anonymous may do everything.
    """
    if key is None:
        return
    if scope not in key.scopes:
        raise TokenHubError(
            Fault(
                Kind.FORBIDDEN,
                Blame.CLIENT,
                f"this API key is not good for {scope.value}",
                cause="insufficient_scope",
                code="insufficient_scope",
            )
        )
    if host and not matches(key.hosts, host):
        message = f"this API key is not good for {host}"
        raise client_fault(message, kind=Kind.FORBIDDEN, cause="host_not_allowed")


def let_pass(entry: Entry, host: str, *, call: bool = False) -> None:
    """Return where a request may go on to the host that it was meant for, past the engine.

    Raises `TokenHubError` (`FORBIDDEN`): for a key that is not good for this host as a provider, for a `call` by a key
    that is good for some models only (nobody reads which one is asked for), and where the key of ours was all that the
    request had to show: it opens nothing there.
    """
    key = entry.key
    if entry.stripped:
        message = f"{host} gets no credentials of clients here, and what is not routed has no other one"
        raise client_fault(message, kind=Kind.FORBIDDEN, cause="no_credential")
    if key is None:
        return
    provider = f"origin:{host}"
    if not matches(key.providers, provider):
        message = f"this API key is not good for {provider}"
        raise client_fault(message, kind=Kind.FORBIDDEN, cause="provider_not_allowed")
    if call and ANY not in key.models:
        message = "this API key is good for some models only, and calls to this host pass unread"
        raise client_fault(message, kind=Kind.FORBIDDEN, cause="model_not_allowed")
    if not identity.carries_credential(entry.headers, entry.path):
        message = (
            f"an API key of ours opens nothing at {host}: send the host's own, and ours in the proxy's URL"
        )
        raise client_fault(message, kind=Kind.FORBIDDEN, cause="no_credential")


def matches(patterns: Iterable[str], name: str) -> bool:
    """Tell whether one of the patterns (`fnmatch`, case counts) is for this name; of none, none is."""
    return any(pattern == ANY or fnmatchcase(name, pattern) for pattern in patterns)


def loopback(address: str) -> bool:
    """Tell whether an address is this machine's own; `localhost` is, no other name."""
    if address in {"127.0.0.1", "localhost"}:
        return True
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _cannot_tell() -> TokenHubError:
    message = "API keys cannot be checked now"
    return TokenHubError(Fault(Kind.OVERLOADED, Blame.US, message, cause="keys_unavailable", status=503))
