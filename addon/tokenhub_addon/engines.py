"""The addon with a real engine behind it: its own (console, web, plain `-s`), or the one that `serve` runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tokenhub_addon.addon import TokenHub
from tokenhub_addon.host import AddonOptions
from tokenhub_core import app, config
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import Fault
from tokenhub_core.ids import request_id
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.ports import Engine
from tokenhub_core.types import Dialect


def beside(engine: Engine, settings: Settings, *, side_port: int) -> TokenHub:
    """Return the addon in front of an engine that somebody else runs and closes."""

    @asynccontextmanager
    async def borrowed(options: AddonOptions) -> AsyncIterator[Engine]:
        del options
        yield engine

    return TokenHub(
        borrowed,
        errors=told,
        clock=SystemClock(),
        new_id=fresh_id,
        defaults=AddonOptions(
            max_body=settings.max_body_bytes,
            extra_hosts=settings.extra_hosts,
            allow_private=settings.allow_private,
        ),
        own_ports=(side_port,),
    )


def alone() -> TokenHub:
    """Return the addon with an engine of its own, set by the environment and the addon's options."""
    return TokenHub(_own, errors=told, clock=SystemClock(), new_id=fresh_id)


@asynccontextmanager
async def _own(options: AddonOptions) -> AsyncIterator[Engine]:
    directory = Path(options.data_dir).expanduser() if options.data_dir else data_dir(os.environ)
    settings = config.parse(
        os.environ,
        data_dir=directory,
        overrides={
            "simulate": options.simulate or None,
            "extra_hosts": options.extra_hosts or None,
            "allow_private": options.allow_private or None,
            "max_body_bytes": options.max_body,
        },
    )
    async with app.running(settings, os.environ) as running:
        yield running.engine


def told(dialect: Dialect | None, fault: Fault, request_id: str) -> ErrorReply:
    """Return a fault in the caller's dialect, in OpenAI's where that is unknown."""
    return DIALECTS[dialect or Dialect.OPENAI_CHAT].error(fault, request_id=request_id)


def fresh_id() -> str:
    """Return a new request id."""
    return request_id(SystemClock().now(), secrets.token_bytes(10))
