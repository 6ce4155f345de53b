"""`tokenhub top`: the traffic of this minute, live on a terminal.

One thread hears the server's events and takes up where it was when they break off, one asks for health and budgets;
both put what they learn into a queue, and the loop that draws is the only one that reads it.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.live import Live

from tokenhub_core.cli.admin import AdminClient, admin_client
from tokenhub_core.cli.dashboard import View, pressed, screen
from tokenhub_core.cli.gauges import Gauges
from tokenhub_core.cli.options import as_json, data_option, shown
from tokenhub_core.errors import ConfigError

_TURN: Final = 0.25
"""Seconds between two looks at the keyboard and the queue."""
_POLL: Final = 2.0
_LOGGED: Final = "/admin/v1/logs?limit=1000"
_PATIENCE: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the first and each further attempt to hear the server again."""
_LINES: Final = 24

type _Told = Callable[[Gauges, View], View]
"""Puts what was learned into the gauges, and returns the view as it is then."""


@click.command(short_help="Watch calls, costs, health and budgets as they are.")
@click.option("--once", is_flag=True, help="Print what there is to see now, and end.")
@as_json
@data_option
def top(*, once: bool, json: bool, data: Path | None) -> None:
    """Watch calls, costs, health and budgets as they are.

    Figures are those of the last minute, by model and provider; a call counts when it ends. Those that are under way
    stand below, the longest first.
    Keys: q quits, p pauses, s changes the order, / shows only rows whose names hold a text.
    """
    client, gauges = admin_client(data), Gauges()
    told: queue.SimpleQueue[_Told] = queue.SimpleQueue()
    if once or json:
        gauges.logged(client.get(_LOGGED)["logs"])
        _asked(client)(gauges, View())
        figures = gauges.look(time.time())
        if not shown(msgspec.to_builtins(figures), json=json):
            console = Console(highlight=False, emoji=False)
            console.print(screen(figures, View(url=client.url), width=console.width, height=_LINES))
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top draws on a terminal, and this is none: say --once")
    for work in (_hear, _poll):
        threading.Thread(target=work, args=(data, told), daemon=True).start()
    _draw(gauges, View(url=client.url), told)


def _draw(gauges: Gauges, view: View, told: queue.SimpleQueue[_Told]) -> None:
    """Draw until the user has seen enough."""
    console = Console(highlight=False, emoji=False)
    figures = gauges.look(time.time())
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            for key in keys():
                after = pressed(view, key)
                if after is None:
                    return
                view = after
            while not told.empty():
                view = told.get_nowait()(gauges, view)
            if not view.paused:
                figures = gauges.look(time.time(), sort=view.sort, only=view.only)
            width, height = console.size
            live.update(screen(figures, view, width=width, height=height), refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Take keys from the terminal one by one, unechoed; what is yielded waits a turn for some."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    tty.setcbreak(handle)
    # Of a program that is stopped from the keyboard the terminal would stay as it is.
    settings = termios.tcgetattr(handle)
    settings[3] &= ~termios.ISIG
    termios.tcsetattr(handle, termios.TCSADRAIN, settings)

    def read() -> str:
        ready, _, _ = select.select([handle], [], [], _TURN)
        typed = os.read(handle, 64).decode("utf-8", "replace") if ready else ""
        # A key that is more than one character (an arrow) begins like the one that ends typing, and means nothing.
        return "" if len(typed) > 1 and typed.startswith("\x1b") else typed

    try:
        yield read
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


# --- what is heard -------------------------------------------------------------------------------------------


def _hear(data: Path | None, told: queue.SimpleQueue[_Told]) -> None:
    """Hear events for ever. After a break the server is looked for anew: it may have another port."""
    last, tries = "", 0
    while True:
        try:
            client = admin_client(data)
            for name, kind, event in client.events(last):
                tries = 0
                if kind == "connected":
                    told.put(_connected(client))
                else:
                    last = name or last
                    told.put(_event(kind, event))
            reason = "the server ends"
        except ConfigError as error:
            reason = str(error)
        told.put(_broken(reason))
        time.sleep(_PATIENCE[min(tries, len(_PATIENCE) - 1)])
        tries += 1


def _poll(data: Path | None, told: queue.SimpleQueue[_Told]) -> None:
    """Ask for what no event tells, every few seconds."""
    while True:
        try:
            told.put(_asked(admin_client(data)))
        except ConfigError as error:
            told.put(_broken(str(error)))
        time.sleep(_POLL)


def _connected(client: AdminClient) -> _Told:
    """Return the calls that were over before events were heard; those that are told twice count once."""
    rows = client.get(_LOGGED)["logs"]

    def put(gauges: Gauges, view: View) -> View:
        gauges.logged(rows)
        return msgspec.structs.replace(view, url=client.url, broken="")

    return put


def _event(kind: str, event: dict[str, Any]) -> _Told:
    def put(gauges: Gauges, view: View) -> View:
        gauges.event(kind, event)
        return view

    return put


def _asked(client: AdminClient) -> _Told:
    underway = client.get("/admin/v1/underway")
    info = client.get("/admin/v1/info") | {"underway": underway["calls"]}
    health = client.get("/admin/v1/health")["providers"]
    budgets = client.get("/admin/v1/budgets")["items"]

    def put(gauges: Gauges, view: View) -> View:
        gauges.info, gauges.underway = info, tuple(underway["items"])
        gauges.health, gauges.budgets = tuple(health), tuple(budgets)
        return view

    return put


def _broken(reason: str) -> _Told:
    def put(gauges: Gauges, view: View) -> View:
        del gauges
        return msgspec.structs.replace(view, broken=f"{reason}; trying again")

    return put
