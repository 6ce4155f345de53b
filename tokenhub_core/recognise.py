"""Which hosts are LLM APIs, and what a request to one of them asks for.

One table holds the public hosts with the dialect that each speaks; one more the operations that are routed in
each dialect. Everything else on a listed host is passed through. A path is compared in normal form, so that
another spelling of a routed path is not a way around the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Dialect, Origin

CHAT: Final = "chat"
"""The operation that the engine answers."""

PASSTHROUGH: Final = "passthrough"
"""Everything on a listed host that is not routed: forwarded as it came."""

HOSTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        "api.openai.com": Dialect.OPENAI_CHAT,
        "api.anthropic.com": Dialect.ANTHROPIC_MESSAGES,
    }
)
"""The public hosts. They speak TLS only."""


@dataclass(frozen=True, slots=True)
class Route:
    """One routed operation of a dialect; `path` is in normal form."""

    dialect: Dialect
    method: str
    path: str
    operation: str


ROUTES: Final = (
    Route(Dialect.OPENAI_CHAT, "POST", "/v1/chat/completions", CHAT),
    Route(Dialect.ANTHROPIC_MESSAGES, "POST", "/v1/messages", CHAT),
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a request to a listed host asks for. `dialect` is the one that errors are told in."""

    dialect: Dialect
    operation: str


class Recogniser:
    """The public hosts and `extra` ones. Immutable: a change of the list makes a new one."""

    __slots__ = ("_hosts",)

    def __init__(self, extra: Mapping[str, Dialect] = MappingProxyType({})) -> None:
        self._hosts = {**HOSTS, **{bare_host(host): dialect for host, dialect in extra.items()}}

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return every listed host, sorted."""
        return tuple(sorted(self._hosts))

    def is_llm_host(self, host: str) -> bool:
        """Tell whether `host`, with or without a port, is listed."""
        return bare_host(host) in self._hosts

    def recognise(self, host: str, method: str, path: str) -> Recognised | None:
        """Return what the request asks for, None where the host is not listed. `path` may hold a query."""
        dialect = self._hosts.get(bare_host(host))
        if dialect is None:
            return None
        where = (dialect, method.upper(), normal_path(path))
        for route in ROUTES:
            if (route.dialect, route.method, route.path) == where:
                return Recognised(dialect, route.operation)
        return Recognised(dialect, PASSTHROUGH)

    def origin(self, scheme: str, host: str, port: int) -> Origin:
        """Return where a call to a listed host was going.

        A public host is always meant with TLS: a caller that spoke plain http did so with the proxy, and its
        credential must not travel on in the clear.
        """
        name = bare_host(host)
        if name in HOSTS and scheme == "http":
            return Origin("https", name, 443 if port == 80 else port)
        return Origin(scheme, name, port)


_PUBLIC: Final = Recogniser()


def is_llm_host(host: str) -> bool:
    """Tell whether `host`, with or without a port, is one of the public ones."""
    return _PUBLIC.is_llm_host(host)


def recognise(host: str, method: str, path: str) -> Recognised | None:
    """Return what a request to a public host asks for, None for every other host."""
    return _PUBLIC.recognise(host, method, path)


def extra_hosts(items: Iterable[str]) -> dict[str, Dialect]:
    """Return the hosts of `host=dialect` items; raises ConfigError that names the item and what is allowed."""
    hosts: dict[str, Dialect] = {}
    for item in items:
        host, _, name = item.partition("=")
        try:
            dialect = Dialect(name.strip())
        except ValueError:
            allowed = ", ".join(Dialect)
            raise ConfigError(
                f"extra host {item!r}: must be host=dialect, dialect one of {allowed}"
            ) from None
        if not bare_host(host):
            raise ConfigError(f"extra host {item!r}: the host is empty")
        hosts[bare_host(host)] = dialect
    return hosts


_PORT: Final = re.compile(r":\d*\Z")


def bare_host(host: str) -> str:
    """Return the host in lower case, without port, brackets and the root's trailing dot."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    if name.count(":") == 1:
        name = _PORT.sub("", name)
    return name.rstrip(".")


_UNRESERVED: Final = re.compile(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")


def normal_path(path: str) -> str:
    """Return the path without query and fragment, in one spelling.

    Percent-encoded unreserved characters are decoded and dot segments removed (RFC 3986, 6.2.2); repeated and
    trailing slashes go away, because servers commonly do not mind them.
    """
    bare = re.split(r"[?#]", path, maxsplit=1)[0]
    decoded = _UNRESERVED.sub(lambda match: chr(int(match[1], 16)), bare)
    segments: list[str] = []
    for segment in decoded.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in {"", "."}:
            segments.append(segment)
    return "/" + "/".join(segments)
