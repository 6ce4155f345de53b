"""Where limits on callers are counted together: in Redis, by the supervisor of several workers, or nowhere.

What else processes have in common goes the same ways: see `relay`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from tokenhub_core.admission.drawing import Drawing, Pool
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.admission.vetting import Nonces, Vetting
from tokenhub_core.changes import Changes
from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.ports import Clock, Engine, Reply
from tokenhub_core.relay import Relay
from tokenhub_core.siblings import Siblings
from tokenhub_core.signing import Signatures
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Snapshot

_log = logging.getLogger(__name__)


class Source(Pool, Nonces, Protocol):
    """What all processes draw from, and know of nonces."""


@dataclass(frozen=True, slots=True)
class Common:
    """What several processes have in common."""

    source: Source
    relay: Relay
    redis: Any = None
    """A `redispool.RedisPool`, None where it is their supervisor that they have."""


class Drawn:
    """The engine where limits and nonces are shared: what a call needs of both is asked before it is looked at."""

    def __init__(self, engine: Engine, throttle: Throttle, drawing: Drawing, vetting: Vetting) -> None:
        self._engine = engine
        self._throttle = throttle
        self._drawing = drawing
        self._vetting = vetting

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one call. Raises nothing but cancellation."""
        who = self._throttle.subject(snapshot.caller, snapshot.headers)
        if who is not None:
            await self._drawing.arrive(*who, len(snapshot.body))
        if snapshot.caller.key is not None:
            await self._vetting.vet(snapshot.caller.key.id, snapshot.body)
        return await self._engine.exchange(snapshot)


async def common(
    stack: AsyncExitStack, settings: Settings, siblings: Siblings, process: str
) -> Common | None:
    """Return what this process has in common with others, None where it is alone; `stack` closes it.

    Raises `ConfigError` where Redis is named and its package is not there.
    """
    if url := settings.redis_url.reveal():
        redis = _redis(url, process)
        stack.push_async_callback(redis.close)
        return Common(redis, Relay(process, siblings, redis), redis)
    return Common(siblings, Relay(process, siblings)) if siblings.joined else None


async def pooled(
    stack: AsyncExitStack,
    settings: Settings,
    shared: Common | None,
    alone: tuple[Throttle, Signatures],
    *,
    clock: Clock,
    changes: Changes,
    told: tuple[Bus, Metrics],
) -> Callable[[Engine], Engine]:
    """Let limits and nonces be known to all processes until the stack unwinds, and return what an engine needs for it.

    `alone` are those of this process. `told` has who hears of it.
    """
    if shared is None:
        return lambda engine: engine
    (throttle, signatures), (bus, metrics), source = alone, told, shared.source
    if shared.redis is not None:
        changes.also(shared.redis.announce)
        _beside(stack, shared.redis.listen(lambda: _looked(changes)), "changes by Redis")
    vetting = Vetting(source, signatures, shared.relay.process, now=clock.now)
    stack.push_async_callback(vetting.close)

    def became(up: bool) -> None:
        if up:
            vetting.publish()
        metrics.limits_shared(shared=up)
        bus.publish("limits_shared", {"timestamp": clock.now(), "shared": up})

    drawing = Drawing(source, clock.monotonic, others=max(settings.workers, 2), told=became)
    await drawing.renew()
    metrics.limits_shared(shared=drawing.stocks.up)
    throttle.share(drawing.stocks)
    stack.push_async_callback(drawing.close)
    _beside(stack, drawing.keep(), "limits")
    return lambda engine: Drawn(engine, throttle, drawing, vetting)


def _redis(url: str, process: str) -> Any:
    try:
        module = import_module("tokenhub_core.redispool")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise ConfigError(
            "TOKENHUB_REDIS_URL needs what is not installed: pip install 'tokenhub[redis]'"
        ) from None
    return module.RedisPool.at(url, process)


async def _looked(changes: Changes) -> None:
    try:
        await changes.look()
    except TokenHubError as error:
        _log.warning("a change elsewhere could not be read: %s", error.fault.message)


def _beside(stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
    task = asyncio.create_task(work, name=name)

    async def cancelled() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(cancelled)
