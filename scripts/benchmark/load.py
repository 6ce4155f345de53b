"""The load: keep-alive connections that send one request after the other and check every byte that comes back.

A wrong answer ends the whole run: what costs little because it did not work is no result.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from scripts.benchmark.traffic import HOST, PATH, Traffic, expected, request_body

_PATIENCE: Final = 30.0
"""Seconds that one answer may take."""
_END: Final = b"0\r\n\r\n"


class LoadError(Exception):
    """An answer that is not the one that was expected, or none."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a subject is reached. A name of its own for CONNECT; without TLS the request is plain http."""

    port: int
    connect: str = ""
    """`host:port` for CONNECT; empty for a connection straight to the subject."""
    trust: str = ""
    """The PEM file of the authority behind the subject's certificates; empty for plain http."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How one measurement loads its subject."""

    connections: int
    seconds: float
    warm: int = 2
    """Requests on each connection before it counts."""


@dataclass(slots=True)
class Tally:
    """What one measurement saw: a pair of seconds for each answer, to its body's first byte and to its end."""

    answers: list[tuple[float, float]] = field(default_factory=list)
    warmed: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    """What `clock` went forward by while the answers came."""


async def measure(
    route: Route, traffic: Traffic, pace: Pace, *, clock: Callable[[], float] = lambda: 0.0
) -> Tally:
    """Load the subject for `pace.seconds`. Raises `LoadError` on the first answer that is not as expected."""
    tally = Tally()
    request, body = _request(traffic), expected(traffic)
    async with asyncio.timeout(_PATIENCE):
        clients = await asyncio.gather(*(_connect(route) for _ in range(pace.connections)))
    try:
        for client in clients:
            client.expect(request, body)
        await _all([_times(client, pace.warm) for client in clients])
        tally.warmed = pace.warm * len(clients)
        before, began = clock(), time.perf_counter()
        await _all([_until(client, began + pace.seconds, tally.answers) for client in clients])
        tally.seconds = time.perf_counter() - began
        tally.cpu = clock() - before
    finally:
        for client in clients:
            client.close()
        # The subject sees the connections end before the next measurement begins.
        await asyncio.sleep(0.01)
    return tally


async def _all(work: list[asyncio.Future[None]] | list) -> None:  # type: ignore[type-arg]
    async with asyncio.TaskGroup() as group:
        for item in work:
            group.create_task(item)


async def _times(client: _Client, number: int) -> None:
    for _ in range(number):
        await client.ask()


async def _until(client: _Client, deadline: float, answers: list[tuple[float, float]]) -> None:
    while time.perf_counter() < deadline:
        answers.append(await client.ask())


def _request(traffic: Traffic) -> bytes:
    body = request_body(traffic)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {{host}}\r\nAuthorization: Bearer sk-caller\r\n"
        "Accept: application/json\r\nUser-Agent: bench/1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
