"""`tokenhub apikey`: keys that programs show to the running server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from tokenhub_core.admission.apikeys import duration
from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Capture, Json

_KEYS: Final = "/admin/v1/apikeys"
_PAGE: Final = 1000
_LISTS: Final = ("scopes", "models", "providers", "hosts", "tags")
_LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "concurrency", "max_output_tokens")
_CAPTURES: Final = (*(one.value for one in Capture), "default")
_TRUST: Final = {"directive_roles": "roles", "directives": "names"}

type _Command = Callable[..., None]

_key_id = click.argument("key_id", metavar="ID", shell_complete=Names("key"))


@click.group()
def apikey() -> None:
    """Give programs keys of their own, and say what each may do."""


def _fields(command: _Command) -> _Command:
    """Add the options that say what a key may do."""
    for option in (
        click.option(
            "--signed-directives/--unsigned-directives",
            "signed",
            default=None,
            help="Whether they have to be signed.",
        ),
        click.option(
            "--directive-budget", metavar="USD", help="The most they may set; none for the default."
        ),
        click.option(
            "--directive-latency", metavar="MS", help="The most they may set; none for the default."
        ),
        click.option(
            "--directive-steps",
            metavar="N",
            help="The most calls that a mode may make of one; none for the default.",
        ),
        click.option(
            "--capture",
            type=click.Choice(_CAPTURES),
            help="What is kept of its calls.",
        ),
        click.option("--retention-days", metavar="N", help="For how long; none for the default."),
        click.option("--directives", metavar="NAMES", help="Directives that are honoured: mode,tags."),
        click.option("--directive-roles", metavar="ROLES", help="Roles whose directives are read: user."),
        *(
            click.option(f"--{name.replace('_', '-')}", metavar="N", help="A limit; none for the default.")
            for name in reversed(_LIMITS)
        ),
        click.option("--rotation-days", type=int, metavar="N", help="Warn when a secret is older; 0: never."),
        click.option("--expires-in", metavar="TIME", help="90m, 12h, 30d; never takes an end away."),
        click.option("--tags", metavar="TAGS", help="Words that stand with its calls."),
        click.option("--project", metavar="NAME", help="Whose it is."),
        click.option("--hosts", metavar="PATTERNS", help="Hosts that intercepted calls may be meant for."),
        click.option("--providers", metavar="PATTERNS", help="Providers that may serve it."),
        click.option("--models", metavar="PATTERNS", help="Models and aliases: gpt-4o,claude-*."),
        click.option("--scopes", metavar="SCOPES", help="Some of chat,embeddings,plan,passthrough."),
    ):
        command = option(command)
    return command


@apikey.command()
@click.argument("name")
@_fields
@as_json
@data_option
def create(*, name: str, json: bool, data: Path | None, **given: Any) -> None:
    """Make a key called NAME and print it: the key alone on standard output, for `KEY=$(tokenhub apikey create …)`.

    Lists are separated by commas; an empty one allows nothing. Without options the key is good for chat and plan, with
    every model, provider and host.
    """
    made = admin_client(data).post(_KEYS, {"name": name, **body(**given)})
    if not shown(made, json=json):
        _tell_key(made, f"{made['id']} ({made['name']}) is made. Programs use it as their API key.")


@apikey.command("list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List keys, the newest first; never the keys themselves."""
    client, more = admin_client(data), ""
    items: list[Json] = []
    while True:
        page = client.get(f"{_KEYS}?limit={_PAGE}{more}")
        items += page["items"]
        if page["next"] is None:
            break
        more = f"&before={quote(page['next'], safe='')}"
    if shown(items, json=json):
        return
    if not items:
        tell("no API key is made")
        return
    table = listing("id", "name", "begins", "scopes", "used", "state")
    for item in items:
        used = "never" if item["last_used_at"] is None else f"{_at(item['last_used_at']):%Y-%m-%d}"
        told = (item["id"], item["name"], item["prefix"], ",".join(item["scopes"]), used, _state(item))
        table.add_row(*map(plain, told))
    tell(table)


@apikey.command()
@_key_id
@as_json
@data_option
def show(*, key_id: str, json: bool, data: Path | None) -> None:
    """Show what key ID may do."""
    item = admin_client(data).get(_path(key_id))
    if not shown(item, json=json):
        _tell(item)


@apikey.command()
@_key_id
@click.option("--name", metavar="NAME", help="What it is called.")
@click.option("--enable/--disable", "enabled", default=None, help="Let calls in with it, or keep them out.")
@_fields
@as_json
@data_option
def update(
    *, key_id: str, name: str | None, enabled: bool | None, json: bool, data: Path | None, **given: Any
) -> None:
    """Change what is given of key ID; the next call sees it."""
    fields = body(**given)
    if name is not None:
        fields["name"] = name
    if enabled is not None:
        fields["enabled"] = enabled
    if not fields:
        raise ConfigError("nothing to change: see `tokenhub apikey update --help`")
    item = admin_client(data).patch(_path(key_id), fields)
    if not shown(item, json=json):
        _tell(item)


@apikey.command()
@_key_id
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old secret goes on; 0s: not.",
)
@as_json
@data_option
def rotate(*, key_id: str, overlap: str, json: bool, data: Path | None) -> None:
    """Give key ID a new secret and print it as `create` does."""
    made = admin_client(data).post(
        f"{_path(key_id)}/rotate", {"overlap_secs": _seconds("--overlap", overlap)}
    )
    if not shown(made, json=json):
        ends = made["previous"][0]["expires_at"]
        _tell_key(made, f"{made['id']} ({made['name']}) has a new secret; the old one ends {_when(ends)}.")


@apikey.command()
@_key_id
@as_json
@data_option
def revoke(*, key_id: str, json: bool, data: Path | None) -> None:
    """Remove key ID: nobody is let in with it from now on. What it did stays in the log."""
    answer = admin_client(data).delete(_path(key_id))
    if not shown(answer, json=json):
        tell(plain(f"{key_id} is revoked"))


def body(
    *,
    expires_in: str | None,
    rotation_days: int | None,
    project: str | None,
    signed: bool | None,
    **lists: Any,
) -> dict[str, Any]:
    """Return what the options say of a key, in the fields of the API."""
    fields: dict[str, Any] = {name: _words(lists[name]) for name in _LISTS if lists[name] is not None}
    if project is not None:
        fields["project"] = project
    if rotation_days is not None:
        fields["rotation_days"] = rotation_days
    if expires_in == "never":
        fields["expires_at"] = None
    elif expires_in is not None:
        fields["expires_in"] = f"{_seconds('--expires-in', expires_in)}s"
    limits = {name: _limit(name, lists[name]) for name in _LIMITS if lists[name] is not None}
    trust: dict[str, Any] = {}
    for option, field in _TRUST.items():
        if (text := lists[option]) is not None:
            trust[field] = None if text == "default" else _words(text)
    if signed is not None:
        trust["signed"] = signed
    if (text := lists["directive_budget"]) is not None:
        trust["max_budget_usd"] = _dollars(text)
    if (text := lists["directive_latency"]) is not None:
        trust["max_latency_ms"] = _limit("directive_latency", text)
    if (text := lists["directive_steps"]) is not None:
        trust["max_steps"] = _limit("directive_steps", text)
    privacy: dict[str, Any] = {}
    if (text := lists["capture"]) is not None:
        privacy["capture"] = None if text == "default" else text
    if (text := lists["retention_days"]) is not None:
        privacy["retention_days"] = _limit("retention_days", text)
    groups = {"limits": limits, "trust": trust, "privacy": privacy}
    return {**fields, **{name: group for name, group in groups.items() if group}}


def _dollars(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--directive-budget {text}: dollars, or none") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _limit(name: str, text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 13):
        raise ConfigError(f"--{name.replace('_', '-')} {text}: a whole number, or none")
    return int(text)


def _seconds(option: str, text: str) -> int:
    try:
        return duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _tell_key(made: Json, words: str) -> None:
    """Print the secret for a variable or a pipe, and what to do with it for whoever reads."""
    click.echo(made["key"])
    told = plain(f"{words} Keep it now: it is not shown again.")
    click.echo(told.plain, err=True)


def _tell(item: Json) -> None:
    """Print what there is to say of a key, a line each."""
    told = {
        "id": item["id"],
        "name": item["name"],
        "begins with": item["prefix"],
        "state": _state(item),
        **{name: ", ".join(item[name]) or "none" for name in _LISTS},
        "project": item["project"],
        **{name.replace("_", " "): value for name, value in item["limits"].items()},
        **_trusted(item["trust"]),
        **{name.replace("_", " "): value for name, value in item["privacy"].items()},
        "made": _when(item["created_at"]),
        "last used": _when(item["last_used_at"]),
        "expires": _when(item["expires_at"]),
        "rotate": _when(item["rotate_at"]),
    }
    for one in item["previous"]:
        told[f"{one['prefix']} ends"] = _when(one["expires_at"])
    for title, text in told.items():
        if text not in {None, ""}:
            tell(plain(f"{title}: {text}"))


def _trusted(trust: Json) -> Json:
    """Return what a key says of directives; what is left to the default is None."""
    lists = {f"directive {name}": trust[name] for name in ("roles", "names")}
    told: Json = {title: None if one is None else ", ".join(one) or "none" for title, one in lists.items()}
    return {
        **told,
        "directives": "signed only" if trust["signed"] else None,
        "directive budget": trust["max_budget_usd"],
        "directive latency": trust["max_latency_ms"],
        "directive steps": trust["max_steps"],
    }


def _state(item: Json) -> str:
    if item["expired"]:
        return "expired"
    if not item["enabled"]:
        return "disabled"
    return "rotation due" if item["rotation_due"] else "ready"


def _path(key_id: str) -> str:
    return f"{_KEYS}/{quote(key_id, safe='')}"


def _at(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def _when(moment: float | None) -> str:
    return "never" if moment is None else f"{_at(moment):%Y-%m-%d %H:%M}Z"
