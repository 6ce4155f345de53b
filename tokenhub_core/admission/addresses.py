"""Which address a call counts for: the peer's or, behind proxies that the operator trusts, the one that they tell.

Whoever sends a request can write any address into its headers. So they are read only where the peer is a trusted
proxy, and from the right: each proxy appends the address that it saw, and the first one from the right that is no
trusted proxy's was seen by one that is. What stands further left anybody may have written.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from tokenhub_core.types import Headers

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

_MOST_HOPS: Final = 32
_PREFIX: Final = 64
"""Bits of an IPv6 address that name a network of one subscriber, who has all addresses in it."""


def networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of a list in CIDR notation; raises ValueError for what is none."""
    return tuple(ip_network(word, strict=False) for word in words)


class Addresses:
    """Finds the address that a call counts for."""

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted)
        self._subject = lru_cache(maxsize=4096)(_subject)

    def subject(self, peer: str, headers: Headers) -> str:
        """Return the address, IPv6 as its /64; names of `headers` in lower case.

        A peer that is no address counts under its own name.
        """
        if not self._trusted:
            return self._subject(peer)
        address = _parsed(peer)
        if address is None or not self._trusts(address):
            return self._subject(peer)
        told = [
            self._first(hops, address)
            for hops in (_forwarded_for(headers), _forwarded(headers))
            if hops is not None
        ]
        # A proxy appends to one of the two fields and lets pass what the other one holds: where they differ,
        # one of them is the sender's own word.
        return _shown(told[0] if told and told[0] == told[-1] else address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _first(self, hops: list[str], peer: Address) -> Address:
        """Return the first address from the right that is no trusted proxy's, or the last one that could be read."""
        known = peer
        for hop in reversed(hops[-_MOST_HOPS:]):
            address = _parsed(hop)
            if address is None:
                break
            known = address
            if not self._trusts(address):
                break
        return known


def _subject(peer: str) -> str:
    address = _parsed(peer)
    return peer[:100] if address is None else _shown(address)


def _shown(address: Address) -> str:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, _PREFIX), strict=False))
    return str(address)


def _forwarded_for(headers: Headers) -> list[str] | None:
    """Return the addresses of `X-Forwarded-For`, None where there is no such field."""
    lines = [value for name, value in headers if name == "x-forwarded-for"]
    return ",".join(lines).split(",") if lines else None


def _forwarded(headers: Headers) -> list[str] | None:
    """Return the `for` of each element of `Forwarded` (RFC 7239), empty where one has none."""
    lines = [value for name, value in headers if name == "forwarded"]
    return [_for(element) for element in ",".join(lines).split(",")] if lines else None


def _for(element: str) -> str:
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _parsed(text: str) -> Address | None:
    """Return the address of a hop: with or without a port, in brackets, with a zone; None where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
