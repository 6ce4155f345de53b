"""The addon with a real engine behind it: its own (console, web, plain `-s`), or the one that `serve` runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mitmproxy import ctx

from tokenhub_addon.addon import TokenHub
from tokenhub_addon.guard import addon
from tokenhub_addon.host import AddonOptions, Office, Running
from tokenhub_core import app, envfile, hostlist
from tokenhub_core.app import App
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.envfile import Given
from tokenhub_core.errors import Fault
from tokenhub_core.ids import request_id
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.types import Dialect


def beside(running: Running, settings: Settings, *, side_port: int) -> TokenHub:
    """Return the addon in front of an engine that somebody else runs and closes."""

    @asynccontextmanager
    async def borrowed(options: AddonOptions) -> AsyncIterator[Running]:
        del options
        yield running

    return TokenHub(
        borrowed,
        errors=told,
        clock=SystemClock(),
        new_id=fresh_id,
        defaults=_options(settings),
        own_ports=(side_port,),
    )


def of(running: App) -> Running:
    """Return what the addon needs of an application that runs, and let it follow what is intercepted."""
    running.follow(followed)
    return Running(
        running.engine,
        running.recorder,
        running.overheard,
        running.watcher,
        running.keeper,
        running.foreign,
        running.throttle,
        running.prover,
        running.refused,
    )


def followed(items: tuple[str, ...]) -> None:
    """Let the inspect lane open the hosts that are listed now, with the CA that is there now, and no leaf of before.

    Before mitmproxy runs there is nothing to tell: it reads both when it starts.
    """
    if addon("tokenhub") is not None:
        ctx.options.update(tokenhub_extra_hosts=list(items))  # type: ignore[no-untyped-call] # mitmproxy's
        addon("tlsconfig").configure({"confdir"})


def alone() -> TokenHub:
    """Return the addon with an engine of its own, set by the addon's options and, below them, the environment.

    Raises `ConfigError` where a setting of the environment cannot be used.
    """
    settings = hostlist.merged(envfile.settings(os.environ, data_dir(os.environ)))
    return TokenHub(_own, errors=told, clock=SystemClock(), new_id=fresh_id, defaults=_options(settings))


def _options(settings: Settings) -> AddonOptions:
    """Return the settings that the addon needs itself, not only its engine."""
    return AddonOptions(
        simulate=settings.simulate,
        origin=settings.origin,
        max_body=settings.max_body_bytes,
        extra_hosts=settings.extra_hosts,
        anonymous=settings.anonymous,
        allow_private=settings.allow_private,
    )


@asynccontextmanager
async def _own(options: AddonOptions) -> AsyncIterator[Running]:
    flags = {
        "simulate": options.simulate,
        "origin": options.origin,
        "extra_hosts": options.extra_hosts,
        "anonymous": options.anonymous,
        "allow_private": options.allow_private,
        "max_body_bytes": options.max_body,
    }
    given = Given(_directory(options), os.environ, flags)
    variables = given.read()
    settings, environ = given.settings(variables), given.environment(variables)
    async with app.running(settings, environ, given=given) as running:
        office = Office(running.requests.get, running.catalog.put_mode)
        yield replace(of(running), office=office)


def _directory(options: AddonOptions) -> Path:
    return Path(options.data_dir).expanduser() if options.data_dir else data_dir(os.environ)


def told(dialect: Dialect | None, fault: Fault, request_id: str) -> ErrorReply:
    """Return a fault in the caller's dialect, in OpenAI's where that is unknown.

    Without `x-request-id`, which the lane adds to every reply: OpenAI's dialect has it, too, and SDKs join the two.
    """
    error = DIALECTS[dialect or Dialect.OPENAI_CHAT].error(fault, request_id=request_id)
    return replace(error, headers=tuple(field for field in error.headers if field[0] != "x-request-id"))


def fresh_id() -> str:
    """Return a new request id."""
    return request_id(SystemClock().now(), secrets.token_bytes(10))
