"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import orjson
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tokenhub_core.errors import ConfigError

type _Command = Callable[..., None]

data_option: Final = click.option(
    "--data-dir",
    "data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where `tokenhub serve` keeps its files. Default: TOKENHUB_DATA_DIR, or the platform's place.",
)
"""Which installation a command is about."""

as_json: Final = click.option("--json", "json", is_flag=True, help="Print JSON.")
"""Machine-readable output."""

_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}
_CLIENT: Final = (
    click.option("--proxy", metavar="URL", help="The proxy to use, instead of the one that is serving here."),
    click.option(
        "--ca",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="The certificate of the CA that the proxy signs with.",
    ),
    click.option("--include-localhost", is_flag=True, help="Also calls to loopback: a local Ollama or vLLM."),
    click.option(
        "--key-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="An API key of TokenHub that says to the proxy who the program is. Default: TOKENHUB_KEY.",
    ),
    data_option,
)


def client_options(command: _Command) -> _Command:
    """Add the options that say which TokenHub a program is put behind."""
    for option in reversed(_CLIENT):
        command = option(command)
    return command


def ago(text: str, option: str = "--since") -> float:
    """Return the seconds of `90m`, `12h` or `7d`; raises `ConfigError` that names `option` for anything else."""
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found is None:
        raise ConfigError(f"{option} {text}: minutes, hours or days, as in 90m, 12h, 7d")
    return float(int(found[1]) * _SECONDS[found[2]])


def shown(data: object, *, json: bool) -> bool:
    """Print `data` as JSON where that was asked for, and tell whether it was."""
    if json:
        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2))
    return json


def plain(text: str) -> Text:
    """Return text from outside as a terminal may see it: no markup, no codes, one line."""
    return Text("".join(char if char.isprintable() else "\ufffd" for char in text))


def listing(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table that wastes no width; the columns named in `right` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def tell(what: RenderableType) -> None:
    """Print for people."""
    Console(highlight=False, emoji=False).print(what)
