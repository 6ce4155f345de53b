"""Base URLs of providers: which are allowed, and how a base and an operation become one URL.

The rules answer two needs. People paste bases in every form that vendors print (`https://api.openai.com`,
`…/v1`, `…/openai/v1`, `…/api/v1/`, even the whole operation's URL), and all of them must come out right. And a
base is where a credential is sent, so what it may name is narrow: https to any named host or public address;
http only to loopback and private addresses, or where the operator said so; never the link-local range, where
clouds keep their instance credentials.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tokenhub_core.errors import ConfigError

SIMULATED_SCHEME: Final = "sim"
"""The scheme of endpoints that are played inside the process."""

_PORTS: Final = {"https": 443, "http": 80}
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*")
_VERSION: Final = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?")
_OPERATION: Final = re.compile(
    "(?<!/)/(?:(?:chat/)?completions|responses|embeddings|messages(?:/count_tokens)?|models(?:/[^/]+:[a-zA-Z]+)?"
    r"|api/(?:chat|generate))\Z"
)
_API_VERSION: Final = re.compile("api-version=[A-Za-z0-9.-]+")
_PRIVATE: Final = tuple(
    ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)

type _Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_endpoint(url: str, *, allow_http: bool = False, versioned: bool = False) -> str:
    """Return `url` as a clean base URL; raises `ConfigError` where it cannot be one.

    Clean means: scheme and host in lower case, no default port, no trailing slash. `allow_http` lets plain http
    reach any host; without it only `localhost` and loopback or private addresses written as numbers. `versioned`
    allows one query, Azure's `?api-version=…`, which stays.
    """
    parts = _split(url)
    if parts.scheme == SIMULATED_SCHEME:
        return f"{SIMULATED_SCHEME}://{parts.netloc.lower()}"
    if parts.scheme not in _PORTS:
        raise ConfigError(f"endpoint {url!r}: the scheme must be https (or http for a local server)")
    if "@" in parts.netloc:
        raise ConfigError(
            "endpoint: a user name or password in the URL is not allowed; use a credential store"
        )
    query = parts.query if versioned and _API_VERSION.fullmatch(parts.query) else ""
    if parts.query != query or parts.fragment or "#" in url or ("?" in url and not query):
        raise ConfigError(f"endpoint {parts.netloc!r}: a base URL has no query and no fragment")
    host = (parts.hostname or "").removesuffix(".")
    address = _address(host, url)
    if parts.scheme == "http" and not (allow_http or _is_local(host, address)):
        raise ConfigError(f"endpoint {url!r}: plain http would show the credential to the network; use https")
    shown = f"[{host}]" if address is not None and address.version == 6 else host
    port = _port(parts, url)
    netloc = shown if port in (None, _PORTS[parts.scheme]) else f"{shown}:{port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}{'?' if query else ''}{query}"


def join(base: str, operation: str) -> str:
    """Return the URL of an operation (`/chat/completions`, `/models/m:generateContent`, …) under a base URL.

    `/v1` (`/v1beta` for Gemini's) goes between the two unless the base's path names a version already, wherever
    it stands in it (`/openai/v1`, `/v1beta/openai`). Ollama's `/api/…` stands beside a version, not below it. A
    base that ends in an operation is taken as that operation's parent.
    """
    root = _parent(base)
    if operation.startswith("/api/"):
        return root.removesuffix("/v1").removesuffix("/api") + operation
    segments = root.partition("://")[2].split("/")[1:]
    if any(_VERSION.fullmatch(segment) for segment in segments):
        return root + operation
    return f"{root}{'/v1beta' if ':' in operation.partition('?')[0] else '/v1'}{operation}"


def mount(base: str, prefixes: Iterable[str]) -> tuple[str, str] | None:
    """Return what stands before one of these path prefixes in a base URL, and the one that it is.

    The second is empty where the base names none of them, or only the beginning of one. None where its path is
    another one altogether.
    """
    root = _parent(base)
    where = site(root)
    path = root.removeprefix(where)
    known = sorted(prefixes, key=len, reverse=True)
    for prefix in known:
        if prefix and path.endswith(prefix):
            return where + path.removesuffix(prefix), prefix
    return (where, "") if any(f"{prefix}/".startswith(f"{path}/") for prefix in known) else None


def site(base: str) -> str:
    """Return scheme, host and port of a base URL."""
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{re.split('[/?]', rest, maxsplit=1)[0]}"


def _parent(base: str) -> str:
    """Return a base without the operation that it may end in."""
    return _OPERATION.sub("", base.rstrip("/"))


def forbidden(address: str) -> bool:
    """Tell whether nothing may ever connect to this address: link-local, multicast, unspecified, broadcast.

    The transport asks again for what a name resolved to, since a check of the name alone can be evaded by DNS.
    """
    ip: _Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    metadata = ip == ipaddress.ip_address(
        "fd00:ec2::254"
    )  # the EC2 metadata service, inside the private range
    zero = ip.version == 4 and int(ip) >> 24 == 0
    return (
        metadata
        or zero
        or ip.is_link_local
        or ip.is_multicast
        or ip.is_unspecified
        or str(ip) == "255.255.255.255"
    )


def _split(url: str) -> SplitResult:
    # urlsplit drops tabs and line breaks without a word, so a look at the text has to come first.
    if any(char <= " " or char == "\\" or not char.isascii() or char == "\x7f" for char in url):
        raise ConfigError(
            f"endpoint {url!r}: only plain ASCII without spaces is allowed (write a host as xn--…)"
        )
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise ConfigError(f"endpoint {url!r}: {exc}") from exc
    if not parts.netloc:
        raise ConfigError(f"endpoint {url!r}: a full URL is needed, like https://api.example.com")
    return parts


def _port(parts: SplitResult, url: str) -> int | None:
    try:
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"endpoint {url!r}: the port must be a number from 1 to 65535") from exc
    if port == 0:
        raise ConfigError(f"endpoint {url!r}: the port must be a number from 1 to 65535")
    return port


def _address(host: str, url: str) -> _Address | None:
    """Return the host's address where it is written as one, None for a name; odd spellings are refused."""
    try:
        address: _Address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        # Resolvers read `127.1`, `0x7f.1` and `2130706433` as addresses: nobody writes those by honest mistake.
        if not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER.fullmatch(labels[-1]):
            raise ConfigError(f"endpoint {url!r}: {host!r} is not a host name") from None
        return None
    if forbidden(host):
        raise ConfigError(f"endpoint {url!r}: this address is never a provider")
    return address


def _is_local(host: str, address: _Address | None) -> bool:
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or any(address in network for network in _PRIVATE)
