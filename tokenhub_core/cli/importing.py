"""`tokenhub import`: brings the configuration of another gateway over, and says what became of every setting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import orjson
from rich.text import Text
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tokenhub_core.cli import rivals
from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.cli.rivals import Fate, Import
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json

_STYLES = {Fate.CARRIED: "green", Fate.CHANGED: "yellow", Fate.LEFT: "dim"}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.argument("file", type=click.Path(path_type=Path, dir_okay=False)),
            click.option("--dry-run", is_flag=True, help="Only say what would be done."),
            as_json,
            data_option,
        )
    ):
        command = option(command)
    return command


@click.group("import")
def import_() -> None:
    """Bring the configuration of another gateway over.

    Says of every setting whether it was carried, is something else here, or was left, and why. What is there already
    under the same name is replaced. The running server does it, or refuses it as it would refuse a person.
    """


@import_.command()
@_options
def litellm(*, file: Path, dry_run: bool, json: bool, data: Path | None) -> None:
    """Read a config.yaml of LiteLLM: models with their providers, names, prices, weights, the budget.

    A key that is `os.environ/NAME` is read by the server from its own environment; others go to the vault.
    """
    try:
        found = YAML(typ="safe", pure=True).load(_text(file))
    except YAMLError as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from None
    _bring(file, lambda: rivals.litellm(_object(found), os.environ), dry_run=dry_run, json=json, data=data)


@import_.command()
@_options
def original(*, file: Path, dry_run: bool, json: bool, data: Path | None) -> None:
    """Read the original TokenHub's file of variables (NAME=value), or its credentials file (JSON)."""
    text = _text(file)
    if not text.lstrip().startswith("{"):
        _bring(file, lambda: rivals.variables(text), dry_run=dry_run, json=json, data=data)
        return
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{file}: {error}") from None
    _bring(file, lambda: rivals.credentials(_object(found)), dry_run=dry_run, json=json, data=data)


def _bring(file: Path, read: Callable[[], Import], *, dry_run: bool, json: bool, data: Path | None) -> None:
    try:
        found = read()
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not dry_run:
        client = admin_client(data)
        for step in found.steps:
            send = client.put if step.path == "/routing-config" else client.post
            try:
                send(f"/admin/v1{step.path}", step.body)
            except ConfigError as error:
                name = step.body.get("id") or step.body.get("name") or step.path
                raise ConfigError(f"{name}: {error}; what came before it was brought over") from None
    told: Json = {
        "dry_run": dry_run,
        "steps": [{"path": step.path, "body": step.shown()} for step in found.steps],
        "notes": msgspec.to_builtins(found.notes),
    }
    if not shown(told, json=json):
        _tell(found, dry_run=dry_run)


def _tell(found: Import, *, dry_run: bool) -> None:
    table = listing("", "setting", "here")
    for note in found.notes:
        table.add_row(Text(note.fate.value, style=_STYLES[note.fate]), plain(note.what), plain(note.words))
    tell(table)
    done = "would be registered" if dry_run else "registered"
    kinds: dict[str, int] = {}
    for step in found.steps:
        name = step.path.strip("/")
        kinds[name] = kinds.get(name, 0) + 1
    counts = ", ".join(f"{count} {name}" for name, count in kinds.items()) or "nothing"
    tell(plain(f"{done}: {counts}"))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{file}: {reason}") from None


def _object(found: object) -> Json:
    if not isinstance(found, dict):
        raise ValueError("expected an object with settings")
    return {str(name): value for name, value in found.items()}
