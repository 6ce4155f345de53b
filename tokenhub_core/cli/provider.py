"""`tokenhub provider`: register, list and remove providers of the running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from tokenhub_core.cli.admin import AdminClient, admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.key import credential_fields, key
from tokenhub_core.cli.model import described
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.providers import vendors
from tokenhub_core.types import Json, OnDisconnect, ProviderType

_TYPES: Final = [t.value for t in ProviderType if t not in {ProviderType.ORIGIN, ProviderType.SIMULATOR}]


@click.group()
def provider() -> None:
    """Register and list providers."""


provider.add_command(key)


@provider.command()
@click.argument("id", shell_complete=Names("provider"))
@click.option("--type", "type_", type=click.Choice(_TYPES), help="Default: what the id says, else openai.")
@click.option(
    "--base-url", "urls", multiple=True, help="Endpoint; repeat it for several of the same provider."
)
@click.option("--model", "models", multiple=True, help="Register this model too; may be repeated.")
@click.option("--api-key-stdin", "stdin", is_flag=True, help="Read the key from standard input.")
@click.option(
    "--api-key-env",
    "variable",
    metavar="NAME",
    help="Let the server read the key from its own environment.",
)
@click.option(
    "--on-disconnect",
    type=click.Choice([one.value for one in OnDisconnect]),
    default=OnDisconnect.CANCEL.value,
    help="What is done with a stream whose caller has left: let go of it, or read on so that its usage is known.",
)
@click.option("--memory", is_flag=True, help="Keep the key until the server stops, not in the vault.")
@as_json
@data_option
def add(
    *,
    id: str,  # noqa: A002 - the argument's name in the help text
    urls: tuple[str, ...],
    models: tuple[str, ...],
    on_disconnect: str,
    json: bool,
    data: Path | None,
    **more: Any,
) -> None:
    """Register provider ID, or change it.

    A well-known ID (openai, anthropic, gemini, groq, mistral, ollama and others) needs no --type, and no --base-url
    unless every customer has another one, as with azure. Where a server has chat completions and no other of
    OpenAI's APIs, say --type openai_compatible: calls in the others are then translated.

    Without --model, a well-known vendor gets every model that its price list names.
    """
    wanted = more.pop("type_")
    vendor = vendors.named(id)
    type_, url = vendors.starting(id, ProviderType(wanted) if wanted else None)
    body: Json = {
        "id": id,
        "type": type_.value,
        "endpoints": list(urls) or [url],
        "on_disconnect": on_disconnect,
    }
    if not body["endpoints"][0]:
        raise ConfigError("--base-url is required")
    client = admin_client(data)
    added = client.post("/admin/v1/providers", {**body, **credential_fields(**more)})
    # What a server on this machine has loaded stands in no price list.
    listed = vendor is not None and not vendor.local and not models
    registered = _register(client, id, models, listed=listed)
    if shown({"provider": added, **registered}, json=json):
        return
    tell(plain(f"{added['id']}: {added['type']} at {', '.join(added['endpoints'])}, {_held(added)}"))
    for item in registered["models"]:
        tell(described(item))
    if registered["listed"]:
        tell(f"{registered['listed']} models registered from the price catalogue")
    if not added["enabled"]:
        tell("not in service: this server simulates; start it again without --simulate")


@provider.command("list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List providers."""
    items = admin_client(data).get("/admin/v1/providers")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("no provider is registered")
        return
    table = listing("id", "type", "endpoints", "credential", "models", "on", right=("models",))
    for item in items:
        table.add_row(
            plain(item["id"]),
            item["type"],
            plain(" ".join(item["endpoints"])),
            plain(_held(item)),
            str(item["models"]),
            "yes" if item["enabled"] else "no",
        )
    tell(table)


@provider.command("on-disconnect")
@click.argument("id", shell_complete=Names("provider"))
@click.argument("policy", type=click.Choice([one.value for one in OnDisconnect]))
@as_json
@data_option
def on_disconnect(*, id: str, policy: str, json: bool, data: Path | None) -> None:  # noqa: A002 - as above
    """Say what is done with streams of provider ID whose callers have left.

    cancel lets go of them at once, and what was used is an estimate. drain reads on, up to TOKENHUB_DRAIN_SECS and
    TOKENHUB_DRAIN_BYTES, so that the usage is known: for providers that bill an answer to its end anyway.
    """
    path = f"/admin/v1/providers/{quote(id, safe='')}"
    answer = admin_client(data).patch(path, {"on_disconnect": policy})
    if not shown(answer, json=json):
        tell(plain(f"{id}: {policy}"))


@provider.command()
@click.argument("id", shell_complete=Names("provider"))
@as_json
@data_option
def remove(*, id: str, json: bool, data: Path | None) -> None:  # noqa: A002 - the argument's name in the help text
    """Remove provider ID, its models and its credential."""
    answer = admin_client(data).delete(f"/admin/v1/providers/{quote(id, safe='')}")
    if not shown(answer, json=json):
        tell(plain(f"{id} is removed"))


def _register(client: AdminClient, id_: str, models: tuple[str, ...], *, listed: bool) -> Json:
    added = [client.post("/admin/v1/models", {"id": name, "provider_id": id_}) for name in models]
    if not listed:
        return {"models": added, "listed": 0}
    path = f"/admin/v1/providers/{quote(id_, safe='')}/catalogue"
    return {"models": added, "listed": client.post(path, {})["added"]}


def _held(item: Json) -> str:
    more = len(item["credentials"]) - (item["cred_store"] != "none")
    store = str(item["cred_store"])
    if store == "none" and not more:
        return "no credential"
    return f"{store}{f' + {more}' if more else ''}{'' if item['credential'] else ' (missing)'}"
