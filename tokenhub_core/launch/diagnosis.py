"""What a program did at the proxy, told to somebody who wants it captured: what was found, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from tokenhub_core.launch.bypass import exempts
from tokenhub_core.launch.environment import BUNDLE_VARIABLES, EXTRA_VARIABLES


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    SKIPPED = "skipped"
    """It could not be made here."""
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """The outcome of one check."""

    check: str
    state: State
    words: str
    fix: str = ""
    """What to do, in one line; empty where nothing is to be done."""


class Saw(StrEnum):
    """What can be seen at the proxy."""

    CONNECTION = "connection"
    TUNNEL = "tunnel"
    """A CONNECT, or what SOCKS has in its place."""
    HELLO = "hello"
    """The first words of TLS."""
    REFUSED = "refused"
    """The client ended the handshake: it does not believe our certificate."""
    REQUEST = "request"
    LOOP = "loop"
    """It was meant for the proxy or the side server themselves."""


class Sighting(msgspec.Struct, frozen=True):
    """One thing that was seen."""

    saw: Saw
    host: str = ""
    listed: bool = False
    """The host is one whose calls are taken in."""
    http: str = ""
    """`HTTP/1.1`, `HTTP/2.0`."""
    alpn: tuple[str, ...] = ()
    """What a hello offers."""
    encodings: tuple[str, ...] = ()
    """What a request accepts, and how its body is encoded."""
    websocket: bool = False
    plain: bool = False
    """Not encrypted."""
    words: str = ""
    """What the client said when it refused."""


_TRUST: Final = "it pins certificates or brings roots of its own: set its base URL to {side} instead"
_CAPTURE: Final = (
    "set its base URL to {side}, or capture it whatever it does: `tokenhub serve --mode local:{name}`"
)
_ADD: Final = "if one of them serves models: `tokenhub ca add-host HOST=DIALECT`"
_LOOP: Final = "point it at the provider, or at no proxy: its base URL and its proxy are both TokenHub"


def of_program(seen: Sequence[Sighting], *, name: str, side: str) -> list[Finding]:
    """Return what is to be said of a program that ran behind the proxy; `side` is the URL for clients without one."""
    places = {"name": name, "side": side}
    if not seen:
        words = "it never came to the proxy: it reads no proxy variables, or made no call"
        return [Finding("proxy", State.PROBLEM, words, _CAPTURE.format(**places))]
    found = [Finding("proxy", State.OK, "it comes to the proxy")]
    if any(one.saw is Saw.LOOP for one in seen):
        words = "it calls TokenHub itself through the proxy, which is refused: that would go round in a ring"
        found.append(Finding("loop", State.PROBLEM, words, _LOOP))
    listed = dict.fromkeys(one.host for one in seen if one.listed)
    others = dict.fromkeys(
        one.host for one in seen if one.host and not one.listed and one.saw is not Saw.LOOP
    )
    for host in listed:
        found += _of_host(host, [one for one in seen if one.host == host], places)
    if others:
        told = ", ".join(list(others)[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        state, fix = (State.OK, "") if listed else (State.WARNING, _ADD)
        found.append(Finding("other hosts", state, f"tunnelled, unread: {told}", fix))
    elif not listed and len(found) == 1:
        words = "it opened a connection to the proxy and asked for nothing"
        found.append(Finding("calls", State.WARNING, words, "run it for longer, or let it make a call"))
    return found


def _of_host(host: str, seen: Sequence[Sighting], places: Mapping[str, str]) -> list[Finding]:
    requests = [one for one in seen if one.saw is Saw.REQUEST]
    refused = next((one for one in seen if one.saw is Saw.REFUSED), None)
    if not requests and refused is not None:
        words = f"it does not trust the CA of TokenHub ({refused.words or 'it hung up'})"
        return [Finding(host, State.PROBLEM, words, _TRUST.format(**places))]
    if not requests:
        words = "it opened a tunnel and made no request"
        return [Finding(host, State.WARNING, words, "run it for longer, or let it make a call")]
    found = [Finding(host, State.OK, f"{_counted(requests)}; {lane(seen)}")]
    if refused is not None:
        words = f"another of its connections did not trust the CA ({refused.words or 'it hung up'})"
        found.append(Finding(host, State.WARNING, words, _TRUST.format(**places)))
    if any(one.websocket for one in requests):
        words = "it opens WebSockets: those pass through where they are not refused, and are not routed"
        found.append(Finding(host, State.WARNING, words, "use its HTTP transport, so that calls are routed"))
    return found


def _counted(requests: Sequence[Sighting]) -> str:
    versions = ", ".join(dict.fromkeys(one.http for one in requests))
    encodings = dict.fromkeys(name for one in requests for name in one.encodings)
    count = f"{len(requests)} request{'' if len(requests) == 1 else 's'}"
    return f"captured: {count} over {versions}{f', takes {chr(32).join(encodings)}' if encodings else ''}"


def lane(seen: Iterable[Sighting]) -> str:
    """Say which lane takes such a client in, and why."""
    if any(one.plain for one in seen if one.saw is Saw.REQUEST):
        return "inspect lane: it speaks plain http"
    hello = next((one for one in seen if one.saw is Saw.HELLO), None)
    if hello is not None and hello.alpn and "http/1.1" not in hello.alpn:
        return f"inspect lane: its TLS offers {' '.join(hello.alpn)} and no http/1.1"
    if hello is not None and "h2" in hello.alpn:
        return "hand-off lane: its TLS offers h2 and http/1.1, and gets the latter"
    return "hand-off lane: its TLS speaks http/1.1"


def of_probe(check: str, seen: Sequence[Sighting], *, code: int | None, said: str, want: str = "") -> Finding:
    """Return how a client of our own fared. `code` None: it did not end in time; `want`: a version it had to speak."""
    requests = [one for one in seen if one.saw is Saw.REQUEST and one.listed]
    refused = next((one for one in seen if one.saw is Saw.REFUSED), None)
    line = (said.strip().splitlines() or [""])[-1][:160]
    if requests and code == 0:
        version = requests[-1].http
        if want and version != want:
            return Finding(check, State.WARNING, f"captured, but over {version}")
        return Finding(check, State.OK, f"captured over {version}")
    if refused is not None:
        fix = "see that no variable of your own names other roots for it"
        return Finding(check, State.PROBLEM, f"refused our certificate: {refused.words or line}", fix)
    if not seen:
        fix = "see that no configuration of its own overrides the proxy variables"
        return Finding(check, State.PROBLEM, f"never came to the proxy{f': {line}' if line else ''}", fix)
    ending = "did not end in time" if code is None else f"ended with {code}"
    return Finding(
        check, State.PROBLEM, f"{ending}{f': {line}' if line else ''}", "run it by hand to see more"
    )


def of_variables(environ: Mapping[str, str], missing: Iterable[str], hosts: Sequence[str]) -> list[Finding]:
    """Return what in an environment would be in the way. `missing` are variables whose file cannot be read."""
    found = []
    for name in missing:
        words = f"{name} names {environ[name]}, which cannot be read"
        found.append(Finding("environment", State.WARNING, words, f"unset {name}, or make the file"))
    for name in ("no_proxy", "NO_PROXY"):
        exempt = [host for host in hosts if exempts(environ.get(name, ""), host)]
        if exempt:
            words = f"{name} takes {', '.join(exempt[:3])} out; `tokenhub run` puts that right, other programs go past"
            found.append(Finding("environment", State.WARNING, words, f"take them out of {name}"))
    return found or [Finding("environment", State.OK, "no variable is in the way")]


TRUST_VARIABLES: Final = (*BUNDLE_VARIABLES, *EXTRA_VARIABLES)
"""Variables that name files of certificates."""
