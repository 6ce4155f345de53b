"""Where the durable way comes from, if it is on: what it is made of is an extra."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from importlib import import_module

from tokenhub_core.config import Settings
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.errors import ConfigError
from tokenhub_core.ports import Recorder
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.workflows.way import Durability, Framing


def joined(
    stack: AsyncExitStack,
    settings: Settings,
    recorder: Recorder,
    holder: KeyHolder,
    *,
    engine: tuple[Executor, Framing],
    store: tuple[Database, Writer],
    metrics: Metrics,
) -> Durability | None:
    """Return the durable way for calls, kept until the stack unwinds; None where it is off.

    Raises `ConfigError` where it is on and its packages are not there.
    """
    if not settings.temporal_enabled:
        return None
    try:
        client = import_module("tokenhub_core.workflows.client")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "temporalio":
            raise
        message = "TOKENHUB_TEMPORAL_ENABLED needs what is not installed: pip install 'tokenhub[temporal]'"
        raise ConfigError(message) from None
    executor, framed = engine
    made = client.made(
        settings, executor, recorder, store=store, sealer=holder.durable, metrics=metrics, framed=framed
    )
    stack.push_async_callback(made.close)
    stack.push_async_callback(_cancelled, asyncio.create_task(made.keep(), name="temporal"))
    durable: Durability = made
    return durable


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
