"""Which addresses may be connected to, on behalf of whom. Pure: the addresses are those that a name resolved to.

Whoever connects asks about the very address that it will use, and uses no other: a name that leads elsewhere a
moment later gains nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import Final

from tokenhub_core.providers.endpoints import forbidden
from tokenhub_core.recognise import bare_host

type Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_LOCALHOST: Final = "localhost"


def parsed(address: str) -> Ip:
    """Return an address without its zone, as the IPv4 one that it stands for, if it stands for one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
    if embedded is None and (ip in _NAT64 or ip in _COMPATIBLE) and int(ip) > 0xFFFF:
        embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return embedded or ip


def is_public(ip: Ip) -> bool:
    """Tell whether an address (of `parsed`) is one of the world's, and one host's."""
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and ip not in _LOCAL_NAT64


def is_written(host: str) -> bool:
    """Tell whether who wrote this bare host said by it where it leads: an address, or this machine."""
    if host == _LOCALHOST or host.endswith(f".{_LOCALHOST}"):
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class Allowed:
    """Names, addresses and networks that are not public and may be reached all the same."""

    __slots__ = ("_names", "_networks")

    def __init__(self, items: Iterable[str] = ()) -> None:
        names, networks = set(), []
        for item in items:
            try:
                networks.append(ipaddress.ip_network(item.strip(), strict=False))
            except ValueError:
                names.add(bare_host(item))
        self._names = frozenset(names)
        self._networks = tuple(networks)

    def covers(self, host: str, ip: Ip) -> bool:
        """Tell whether a bare host, or this address of it, is listed."""
        return host in self._names or any(ip in network for network in self._networks)


class Guard:
    """Decides for connections to providers and to the hosts that calls were meant for.

    Their names must lead to public addresses, unless they are listed. Where the base URL itself is a private or a
    loopback address, or `localhost`, the administrator who registered it has said where it leads, and for that
    provider alone it may. Our own ports, and what is never a provider (`endpoints.forbidden`), nothing opens.
    """

    __slots__ = ("_allowed", "_own")

    def __init__(self, allowed: Iterable[str] = (), *, own_ports: Collection[int] = ()) -> None:
        self._allowed = Allowed(allowed)
        self._own = frozenset(own_ports)

    def permits(self, host: str, address: str, port: int) -> bool:
        """Tell whether a connection that is meant for `host` may be made to this address of it."""
        ip = parsed(address)
        if forbidden(address) or forbidden(str(ip)) or (ip.is_loopback and port in self._own):
            return False
        if is_public(ip):
            return True
        name = bare_host(host)
        if self._allowed.covers(name, ip):
            return True
        if name == _LOCALHOST or name.endswith(f".{_LOCALHOST}"):
            return ip.is_loopback
        return is_written(name)
