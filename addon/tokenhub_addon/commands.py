"""`tokenhub serve`: opens everything, tells what to do next, and leaves in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import msgspec
from rich.console import Console

from tokenhub_addon.listening import Served, Work, only_one, serving
from tokenhub_addon.loop import loop_factory, one_arena, settle
from tokenhub_addon.telling import next_steps
from tokenhub_addon.workers import SECRETS, Orders, supervising
from tokenhub_core import config, hostlist, sources
from tokenhub_core.cli.decision import explained
from tokenhub_core.config import Settings
from tokenhub_core.envfile import Given
from tokenhub_core.errors import ConfigError
from tokenhub_core.http.decisions import of_record
from tokenhub_core.launch.hardening import harden
from tokenhub_core.launch.notify import READY, STOPPING, notifier
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.ports import Secret
from tokenhub_core.siblings import Siblings, first
from tokenhub_core.telemetry import logs
from tokenhub_core.types import Json

SAMPLE: Final = "@@tokenhub mode=cheap\nSay in one sentence what an LLM gateway does."
"""The prompt of the first call. Its directive frees the router from the model that the program names."""

_log: Final = logging.getLogger(__name__)
_LOOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for each setting that is worth one; the others are set by their variables."""
    flags = (
        click.option("--host", help="Loopback address to bind."),
        click.option("--port", type=click.IntRange(0, 65535), help="Port of the proxy; 0 picks a free one."),
        click.option("--admin-port", type=click.IntRange(0, 65535), help="Port of the side server."),
        click.option(
            "--workers", type=click.IntRange(1, 64), help="Processes that serve the ports together."
        ),
        click.option("--mode", "modes", multiple=True, help="mitmproxy mode spec; may be repeated."),
        click.option("--lane", type=click.Choice(["auto", "handoff", "inspect"]), help="Who reads HTTP."),
        click.option("--simulate", is_flag=True, default=None, help="Answer from the built-in simulator."),
        click.option(
            "--vault-password-fd",
            type=click.IntRange(0),
            help="Open file descriptor that the vault password comes from.",
        ),
        click.option(
            "--env-file",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="NAME=value lines for what the environment does not say.",
        ),
        click.option(
            "--log-level", type=click.Choice(["debug", "info", "warn", "error"]), help="What is logged."
        ),
        click.option(
            "--data-dir",
            "data",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Where everything is kept.",
        ),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


@click.command()
@_options
@click.option("--simulate-if-empty", is_flag=True, hidden=True, help="Simulate when nothing is configured.")
@click.option("--demo", is_flag=True, help="Send one call through the whole path, show it, and exit.")
@click.option("--worker", type=int, hidden=True, help="The supervisor's socket.")
def serve(data: Path | None, simulate_if_empty: bool, demo: bool, worker: int | None, **flags: Any) -> None:
    """Start the proxy and the side server. Settings come from TOKENHUB_* variables; flags win."""
    environ = os.environ
    soft = harden()
    if worker is not None:
        sys.exit(_work(worker, environ))
    directory = data or data_dir(environ)
    flags["modes"] = flags.get("modes") or None
    given = Given(directory, environ, flags)
    variables = given.read()
    settings = given.settings(variables)
    everything = given.environment(variables)
    if simulate_if_empty and not settings.simulate and not sources.configured(settings, everything):
        flags["simulate"] = True
        settings = given.settings(variables)
    logs.configure(settings.log_level)
    for weakness in soft:
        _log.warning("%s", weakness)
    if settings.workers > 1 and not demo:
        with (
            only_one(directory),
            supervising(hostlist.merged(settings), flags, environ, variables) as supervisor,
        ):
            sys.exit(asyncio.run(supervisor.run()))
    one_arena()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_serve(hostlist.merged(settings), everything, given, demo=demo))
    sys.exit(code)


def _work(descriptor: int, environ: Mapping[str, str]) -> int:
    """Serve as one of several, as the supervisor at the other end of `descriptor` says."""
    end = socket.socket(fileno=descriptor)
    orders = msgspec.msgpack.decode(first(end).body, type=Orders)
    flags = {name: tuple(one) if isinstance(one, list) else one for name, one in orders.flags.items()}
    sys.argv[0] = orders.command
    firm = {
        **flags,
        "workers": orders.workers,
        "vault_password": Secret(orders.password),
        "vault_password_file": "",
    }
    given = Given(Path(orders.data_dir), environ, firm, without=SECRETS)
    settings = given.settings(orders.variables)
    everything = given.environment(orders.variables)
    logs.configure(settings.log_level)
    work = Work(orders, Siblings())
    one_arena()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(hostlist.merged(settings), everything, given, work=work, end=end))


async def _serve(
    settings: Settings,
    environ: Mapping[str, str],
    given: Given,
    *,
    demo: bool = False,
    work: Work | None = None,
    end: socket.socket | None = None,
) -> int:
    console = Console(stderr=False, highlight=False, soft_wrap=True)
    telling = work is None or work.orders.first
    if work is not None and end is not None:
        await work.siblings.join(end)
    for warning in config.unknown(environ) if telling else ():
        console.print(f"[yellow]warning[/]: {warning}")
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _LOOP_SIGNALS:
        loop.add_signal_handler(number, _asked, leave)
    # Until everything is open there is nothing to be read anew: it is being read.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    async with serving(settings, environ, work, given) as served:
        loop.add_signal_handler(signal.SIGHUP, served.app.reload)
        if work is not None:
            work.siblings.ready()
        for warning in served.app.warnings if telling else ():
            console.print(f"[yellow]note[/]: {warning}")
        if settings.simulate and telling:
            row = await first_call(served)
            console.print(explained(of_record(row)))
        if demo:
            return 0
        if telling:
            console.print(next_steps(served, terminal=console.is_terminal))
        settle()
        tell = notifier(environ if work is None else {})
        tell(READY)
        await (leave.wait() if work is None else _either(leave, work.siblings.lost))
        tell(STOPPING)
        for number in _LOOP_SIGNALS:
            loop.add_signal_handler(number, _hurried, served, loop, number)
        if work is None:
            console.print("leaving: waiting for calls to end (again to cut them short)")
    if work is not None:
        await work.siblings.leave()
    return 0


async def _either(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _hurried(served: Served, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    """Cut calls short, recorded as they are; whoever asks a third time leaves at once."""
    loop.add_signal_handler(number, os._exit, 130)
    served.hurry()


def _asked(leave: asyncio.Event) -> None:
    leave.set()


async def first_call(served: Served) -> Json:
    """Send one call as a program would, through the proxy and TLS, and return its line of the request log."""
    context = ssl.create_default_context(cafile=str(served.ca_file))
    body = {
        "model": "gpt-4o",
        "max_tokens": 60,
        "messages": [{"role": "user", "content": SAMPLE}],
    }
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(
            "https://api.openai.com/v1/chat/completions",
            json=body,
            headers={"authorization": "Bearer sk-not-a-key", "user-agent": "tokenhub-demo/1"},
            proxy=served.proxy_url,
            ssl=context,
        ) as response,
    ):
        name = response.headers.get("x-request-id", "")
        answer = await response.json()
    row = await asyncio.to_thread(served.app.requests.get, name)
    if row is None:
        raise ConfigError("the first call left no record")
    return {**row, "answer": answer}
