"""`tokenhub prices`: what models cost, and what another price list would change."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, build_opener

import click

from tokenhub_core.cli.admin import admin_client, running_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.http.shapes import prices_json
from tokenhub_core.providers import catalogue
from tokenhub_core.providers.pricelist import MAX_BYTES, digest
from tokenhub_core.types import Json

_SECONDS: Final = 60.0
_NAMES: Final = {
    "input_per_1k": "in",
    "output_per_1k": "out",
    "cache_read_per_1k": "cached",
    "cache_write_per_1k": "to cache",
    "reasoning_per_1k": "thoughts",
}


@click.group(short_help="Show what models cost, and compare with another list.")
def prices() -> None:
    """Show what models cost, and compare with another list. Nothing is ever fetched unless you name a URL."""


@prices.command()
@click.argument("model", shell_complete=Names("model"))
@as_json
@data_option
def show(*, model: str, json: bool, data: Path | None) -> None:
    """Show what MODEL costs: at each provider where it is registered, and by the installed list."""
    client = running_client(data)
    items = client.get("/admin/v1/models")["items"] if client else []
    told = [item for item in items if item["id"] == model]
    entry = catalogue.load().lookup(model)
    listed = entry and {"vendor": entry.vendor, **(prices_json(entry.prices) if entry.prices else {})}
    if not told and entry is None:
        raise ConfigError(f"nothing is known of the price of {model!r}")
    if shown({"registered": told, "listed": listed}, json=json):
        return
    table = listing("where", "source", "dollars per million tokens")
    for item in told:
        unknown = item["pricing_source"] == "unknown"
        words = "unknown" if unknown else "\n".join(_lines(item))
        table.add_row(plain(item["provider_id"]), plain(item["pricing_source"]), words)
    if listed:
        words = "\n".join(_lines(listed)) if "input_per_1k" in listed else "unknown"
        table.add_row(plain(f"listed: {listed['vendor']}"), catalogue.SOURCE, words)
    tell(table)


@prices.command()
@click.option(
    "--from",
    "place",
    metavar="FILE|URL",
    help="A list in the form of models.dev. Default: the installed one.",
)
@click.option(
    "--sha256", "pin", metavar="HEX", help="What the list must have; needed to apply one from a URL."
)
@click.option("--apply", is_flag=True, help="Take the prices. Without it they are only shown.")
@as_json
@data_option
def refresh(*, place: str | None, pin: str | None, apply: bool, json: bool, data: Path | None) -> None:
    """Show what a price list would change, model by model. Prices that were set by hand stay.

    A list from a URL is applied only with the SHA-256 that was shown before: what is looked at is what is taken.
    """
    remote = place is not None and "://" in place
    if remote and apply and not pin:
        raise ConfigError("--apply of a URL needs --sha256: run it without --apply first, which shows it")
    client = admin_client(data)
    content = b"" if place is None else _fetched(place) if remote else _file(Path(place))
    if pin and pin.lower() != digest(content):
        raise ConfigError(f"the list has the SHA-256 {digest(content)}, not the one given")
    query = {"sha256": digest(content) if content else "", "apply": "true" if apply else ""}
    path = "/admin/v1/prices/refresh?" + urlencode({name: value for name, value in query.items() if value})
    told = client.upload(path, content)
    if not shown(told, json=json):
        _tell(told)


def _tell(told: Json) -> None:
    if told["sha256"]:
        tell(plain(f"the list has the SHA-256 {told['sha256']}"))
    if told["changes"]:
        table = listing("model", "what", "was", "now", "%", right=("was", "now", "%"))
        for change in told["changes"]:
            name = f"{change['model_id']} @ {change['provider_id']}"
            for at, (what, was, now, by) in enumerate(_differences(change)):
                table.add_row(plain(name if at == 0 else ""), what, was, now, by)
        tell(table)
        tell("in dollars per million tokens")
    skipped = [change for change in told["changes"] if told["applied"] and not change["applied"]]
    count = len(told["changes"]) - len(skipped)
    models = "model" if count == 1 else "models"
    done = f"{count} {models} changed" if told["applied"] else f"{count} {models} would change"
    tell(f"{done}, {told['same']} the same, {told['manual']} set by hand, {told['unlisted']} not in the list")
    for change in skipped:
        tell(plain(f"{change['model_id']} @ {change['provider_id']} was changed by somebody else meanwhile"))
    if told["changes"] and not told["applied"]:
        tell("nothing was changed; --apply takes these prices")


def _differences(change: Json) -> Iterator[tuple[str, str, str, str]]:
    """Yield what is different: its name, both prices, and by how much."""
    was, now = change["was"], change["now"]
    if change["pricing_source"] == "unknown":
        was = dict.fromkeys(was)
    for field, name in _NAMES.items():
        if was[field] != now[field]:
            yield name, _money(was[field]), _money(now[field]), _percent(was[field], now[field])
    if was["batch_share"] != now["batch_share"]:
        yield "batch share", str(was["batch_share"] or "-"), str(now["batch_share"] or "-"), ""
    before = {tier["above_tokens"]: tier for tier in was["price_tiers"] or ()}
    after = {tier["above_tokens"]: tier for tier in now["price_tiers"]}
    for above in sorted(before.keys() | after.keys()):
        old, new = before.get(above, {}), after.get(above, {})
        for field, name in _NAMES.items():
            if old.get(field) != new.get(field):
                both = old.get(field), new.get(field)
                yield f"{name} > {above:,}", _money(both[0]), _money(both[1]), _percent(*both)


def _lines(item: Json) -> Iterator[str]:
    """Yield the prices of a model in words, a line for each size of call."""
    yield ", ".join(_said(item))
    for tier in item["price_tiers"]:
        yield f"above {tier['above_tokens']:,} tokens: {', '.join(_said(tier))}"
    if item["batch_share"]:
        yield f"batches pay {item['batch_share']:.0%}"


def _said(rates: Json) -> list[str]:
    return [
        f"{_money(rates[field])} {name}" for field, name in _NAMES.items() if rates.get(field) is not None
    ]


def _money(per_1k: float | None) -> str:
    return "-" if per_1k is None else f"{per_1k * 1000:g}"


def _percent(was: float | None, now: float | None) -> str:
    return f"{(now - was) / was:+.0%}" if was and now is not None else ""


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _capped(file.read(MAX_BYTES + 1), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect what it is: no price list."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetched(url: str, context: ssl.SSLContext | None = None) -> bytes:
    """Return what is at a URL, at most `MAX_BYTES` of it."""
    if urlsplit(url).scheme != "https":
        raise ConfigError(f"{url}: a price list comes from a file or by https")
    opener = build_opener(_NoRedirects(), HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=_SECONDS) as response:
            return _capped(response.read(MAX_BYTES + 1), url)
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(f"{url}: {getattr(error, 'reason', None) or error}") from None


def _capped(content: bytes, place: str) -> bytes:
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{place} is larger than {MAX_BYTES >> 20} MiB")
    if not content:
        raise ConfigError(f"{place} is empty")
    return content
