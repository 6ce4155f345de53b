"""Which hosts are LLM APIs, and what a request to one of them asks for.

The hosts and their paths are those of the vendors' table. What is routed is answered by the engine; everything
else on a listed host is passed through. A path is compared in normal form, so that another spelling of a routed
path is not a way around the engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from tokenhub_core.errors import ConfigError
from tokenhub_core.providers import vendors
from tokenhub_core.providers.vendors import ANY, OPERATIONS, PASSED, VENDORS, Way
from tokenhub_core.types import Dialect, Origin

CHAT: Final = "chat"
"""What the engine answers. Which operation it is says the dialect."""

PASSTHROUGH: Final = "passthrough"
"""Everything on a listed host that is not routed: forwarded as it came."""

type _Routes = tuple[tuple[re.Pattern[str], Dialect], ...]


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a request to a listed host asks for. `dialect` is the one that errors are told in."""

    dialect: Dialect
    operation: str


@dataclass(frozen=True, slots=True)
class _Host:
    """The main dialect of a host, and what is routed there: whole paths, and patterns of paths."""

    dialect: Dialect
    paths: Mapping[str, Dialect]
    routes: _Routes

    def routed(self, path: str) -> Dialect | None:
        """Return the dialect of a routed path in normal form, None for any other."""
        found = self.paths.get(path)
        if found is not None:
            return found
        return next((dialect for pattern, dialect in self.routes if pattern.fullmatch(path)), None)


def _host(dialect: Dialect, ways: Iterable[Way]) -> _Host:
    spoken = [
        (way.prefix + operation, dialect)
        for way in ways
        for dialect in way.dialects
        for operation in OPERATIONS[dialect]
    ]
    return _Host(
        dialect,
        {path: dialect for path, dialect in spoken if ANY not in path},
        tuple((_pattern(path), dialect) for path, dialect in spoken if ANY in path),
    )


def _pattern(path: str) -> re.Pattern[str]:
    """Return what a path in normal form must match; a colon may come percent-encoded."""
    fixed = (re.escape(part).replace(":", "(?::|%3[aA])") for part in path.split(ANY))
    return re.compile("[^/]+".join(fixed))


_PUBLIC: Final[Mapping[str, _Host]] = MappingProxyType(
    {
        **{name: _host(dialect, ()) for name, dialect in PASSED.items()},
        **{
            name: _host(vendor.ways[0].dialects[0], vendor.ways)
            for vendor in VENDORS
            if not vendor.local
            for name in vendor.hosts
        },
    }
)

HOSTS: Final = tuple(sorted(_PUBLIC))
"""The public hosts; `*.` before a name stands for exactly one label. They speak TLS only."""

_LABEL: Final = re.compile("[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def _found(hosts: Mapping[str, _Host], name: str) -> _Host | None:
    """Return what is listed for a bare name: the name itself, or a pattern that has a `*` for its first label."""
    exact = hosts.get(name)
    if exact is not None and not name.startswith("*"):
        return exact
    label, _, rest = name.partition(".")
    wide = hosts.get(f"*.{rest}")
    return wide if wide is not None and _LABEL.fullmatch(label) else None


class Recogniser:
    """The public hosts and `extra` ones. Immutable: a change of the list makes a new one."""

    __slots__ = ("_hosts",)

    def __init__(self, extra: Mapping[str, Dialect] = MappingProxyType({})) -> None:
        own = {bare_host(name): _host(dialect, vendors.family(dialect)) for name, dialect in extra.items()}
        self._hosts = {**_PUBLIC, **own}

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return every listed host, sorted; some are patterns, as in `HOSTS`."""
        return tuple(sorted(self._hosts))

    def is_llm_host(self, host: str) -> bool:
        """Tell whether `host`, with or without a port, is listed."""
        return _found(self._hosts, bare_host(host)) is not None

    def recognise(self, host: str, method: str, path: str) -> Recognised | None:
        """Return what the request asks for, None where the host is not listed. `path` may hold a query."""
        found = _found(self._hosts, bare_host(host))
        if found is None:
            return None
        routed = found.routed(normal_path(path)) if method.upper() == "POST" else None
        return Recognised(found.dialect, PASSTHROUGH) if routed is None else Recognised(routed, CHAT)

    def origin(self, scheme: str, host: str, port: int) -> Origin:
        """Return where a call to a listed host was going.

        A public host is always meant with TLS: a caller that spoke plain http did so with the proxy, and its
        credential must not travel on in the clear.
        """
        name = bare_host(host)
        if scheme == "http" and _found(_PUBLIC, name) is not None:
            return Origin("https", name, 443 if port == 80 else port)
        return Origin(scheme, name, port)


class Current(Recogniser):
    """The list of now: whoever holds it sees each change. Belongs to one event loop."""

    __slots__ = ("_heard",)

    def __init__(self, extra: Mapping[str, Dialect] = MappingProxyType({})) -> None:
        super().__init__(extra)
        self._heard: list[Callable[[], None]] = []

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` after each change: for those who remember what it told them."""
        self._heard.append(heard)

    def become(self, extra: Mapping[str, Dialect]) -> None:
        """List other `extra` hosts from now on."""
        self._hosts = Recogniser(extra)._hosts
        for heard in self._heard:
            heard()


_RECOGNISER: Final = Recogniser()


def is_llm_host(host: str) -> bool:
    """Tell whether `host`, with or without a port, is one of the public ones."""
    return _RECOGNISER.is_llm_host(host)


def recognise(host: str, method: str, path: str) -> Recognised | None:
    """Return what a request to a public host asks for, None for every other host."""
    return _RECOGNISER.recognise(host, method, path)


_DEPLOYMENT: Final = re.compile(r"/openai/deployments/([^/]+)/.+")


def deployment(path: str) -> str:
    """Return the deployment that a request's path names, as Azure's do; empty where it names none.

    It is the model of a call whose body has none. `path` may hold a query.
    """
    found = _DEPLOYMENT.fullmatch(normal_path(path))
    return unquote(found[1]) if found else ""


def extra_hosts(items: Iterable[str]) -> dict[str, Dialect]:
    """Return the hosts of `host=dialect` items; raises ConfigError that names the item and what is allowed.

    `*.` before a host stands for exactly one label.
    """
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


_MASKED_QUERY: Final = ("key=", "api_key=", "api-key=", "access_token=")


def without_secrets(path: str) -> str:
    """Return the path with the values of query parameters that hold keys left out."""
    bare, mark, query = path.partition("?")
    if not mark:
        return bare
    fields = (
        f"{name}=***" if any(f"{name.lower()}=".endswith(key) for key in _MASKED_QUERY) else field
        for field in query.split("&")
        for name in (field.partition("=")[0],)
    )
    return f"{bare}?{'&'.join(fields)}"
