"""What a process has of others beside limits and nonces: providers, conversations, what happens there."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tokenhub_core.hearsay import hearsay
from tokenhub_core.lookout import Watched
from tokenhub_core.marking import Marking
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
    marking = Marking(relay, watched.learning.affinity)
    parts = {"relay": relay.keep, "hearsay": told.keep, "tidings": tidings.keep, "marking": marking.keep}
    for name, work in parts.items():
        stack.push_async_callback(cancelled, asyncio.create_task(work(), name=name))
