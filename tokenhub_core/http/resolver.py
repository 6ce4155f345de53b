"""Names for what passes through: aiohttp connects to the very addresses that are returned here."""

from __future__ import annotations

import asyncio
import errno
import socket

from aiohttp import abc

from tokenhub_core.addresses import Guard


class GuardedResolver(abc.AbstractResolver):
    """The system's resolver, without the addresses that a name may not lead to."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[abc.ResolveResult]:
        """Return the addresses that are left; raises `OSError` where none is."""
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
        left = [
            abc.ResolveResult(
                hostname=host,
                host=str(target[0]),
                port=port,
                family=of,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of, _, protocol, _, target in found
            if self._guard.permits(host, str(target[0]), port)
        ]
        if not left:
            raise OSError(errno.EACCES, f"{host} leads to no address that is allowed")
        return left

    async def close(self) -> None:
        """Do nothing: nothing is open."""
