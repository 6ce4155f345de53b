"""`tokenhub config`: what is configured as one file, what a file would change, and that change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.text import Text
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tokenhub_core.cli.admin import AdminClient, admin_client
from tokenhub_core.cli.options import as_json, data_option, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json

_PATH: Final = "/admin/v1/config"
_MOST: Final = 1 << 20
_SIGNS: Final = {"add": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}

_file: Final = click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
_prune: Final = click.option("--prune", is_flag=True, help="Remove what is not in the file.")


@click.group()
def config() -> None:
    """Keep what is configured in a file.

    Providers, models, aliases, modes, routing, budgets and webhooks; no secret. A part that is left out is not touched.
    """


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@data_option
def export(*, file: Path | None, data: Path | None) -> None:
    """Write what is configured to FILE, else to the terminal: JSON where its name ends in .json, else YAML."""
    told = admin_client(data).get(_PATH)
    if file is None:
        _yaml().dump(told, sys.stdout)
        return
    try:
        with file.open("w", encoding="utf-8") as out:
            if file.suffix == ".json":
                out.write(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
            else:
                _yaml().dump(told, out)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None


@config.command()
@_file
@_prune
@as_json
@data_option
def plan(*, file: Path, prune: bool, json: bool, data: Path | None) -> None:
    """Show what FILE would change. `apply --fingerprint` takes this very plan."""
    told = _planned(admin_client(data), _read(file), prune=prune)
    if not shown(told, json=json):
        _tell(told)


@config.command()
@_file
@_prune
@click.option("--fingerprint", metavar="HEX", help="Of the plan that was looked at.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@data_option
def apply(
    *, file: Path, prune: bool, fingerprint: str | None, yes: bool, json: bool, data: Path | None
) -> None:
    """Make what is configured what FILE says, all of it or nothing.

    Without --fingerprint the plan is shown, and asked about. It is refused where anything was changed since the plan.
    """
    client, wanted = admin_client(data), _read(file)
    if fingerprint is None:
        told = _planned(client, wanted, prune=prune)
        if not json:
            _tell(told)
        if not told["changes"]:
            shown(told, json=json)
            return
        if not yes:
            click.confirm("Apply this?", abort=True, err=True)
        fingerprint = str(told["fingerprint"])
    told = client.post(f"{_PATH}/apply", {"config": wanted, "prune": prune, "fingerprint": fingerprint})
    if not shown(told, json=json):
        tell(f"applied: {len(told['changes'])} changes")


def _planned(client: AdminClient, wanted: Json, *, prune: bool) -> Json:
    return client.post(f"{_PATH}/plan", {"config": wanted, "prune": prune})


def _read(file: Path) -> Json:
    """Return a file's document; raises `ConfigError`. JSON is YAML."""
    try:
        data = sys.stdin.buffer.read(_MOST + 1) if str(file) == "-" else _bytes(file)
        if len(data) > _MOST:
            raise ConfigError(f"{file}: more than {_MOST} bytes")
        found = orjson.loads(data) if file.suffix == ".json" else _yaml().load(data.decode())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file}: {reason}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: no document of what is configured")
    return found


def _bytes(file: Path) -> bytes:
    with file.open("rb") as source:
        return source.read(_MOST + 1)


def _yaml() -> YAML:
    made = YAML(typ="safe", pure=True)
    made.default_flow_style = False
    made.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return made


def _tell(told: Json) -> None:
    for change in told["changes"]:
        sign, colour = _SIGNS[change["action"]]
        tell(Text(f"{sign} ", style=colour).append(plain(f"{change['part']} {change['name']}".strip())))
        for one in change["fields"]:
            tell(plain(f"    {one['field']}: {_short(one['before'])} -> {_short(one['after'])}"))
    tell(f"{len(told['changes'])} changes, fingerprint:" if told["changes"] else "nothing would change")
    if told["changes"]:
        click.echo(told["fingerprint"])


def _short(value: Any) -> str:
    return orjson.dumps(value).decode()
