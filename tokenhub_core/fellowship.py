"""What a process has of others beside limits and nonces: what they have seen of providers, and what happens there."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tokenhub_core.hearsay import hearsay
from tokenhub_core.lookout import Watched
from tokenhub_core.opening import cancelled
from tokenhub_core.pooling import Common
from tokenhub_core.ports import Clock
from tokenhub_core.tidings import Tidings


def fellowship(stack: AsyncExitStack, shared: Common | None, watched: Watched, clock: Clock) -> None:
    """Tell and hear until the stack unwinds; nothing is made where a process is alone."""
    if shared is None:
        return
    relay = shared.relay
    told = hearsay(
        relay, shared.source, watched.health, watched.keyring, watched.parkings, now=clock.monotonic
    )
    tidings = Tidings(relay, watched.bus, clock.monotonic)
    stack.callback(tidings.close)
    for name, work in {"relay": relay.keep, "hearsay": told.keep, "tidings": tidings.keep}.items():
        stack.push_async_callback(cancelled, asyncio.create_task(work(), name=name))
