"""The admin API's part about prices: what another price list would change, and changing it.

    POST /admin/v1/prices/refresh[?sha256=…][&apply=true]

The body is a list in the form of models.dev; without a body it is the one that is installed. Nothing is ever fetched
from here. `sha256` is what the body must have. Without `apply` nothing changes. Prices that were set by hand stay.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from tokenhub_core.catalog import Catalog
from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.providers import pricelist
from tokenhub_core.providers.catalogue import SOURCE, Catalogue
from tokenhub_core.providers.pricelist import Change, Difference
from tokenhub_core.types import Json, Model

PATH: Final = "/admin/v1/prices/refresh"


class Prices:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post(PATH, self._refresh)]

    async def _refresh(self, request: web.Request) -> web.Response:
        data = await shapes.raw(request, pricelist.MAX_BYTES)
        digest = pricelist.digest(data) if data else ""
        pinned = request.query.get("sha256", "").lower()
        if pinned and pinned != digest:
            raise client_fault(
                f"the list has the SHA-256 {digest or 'of nothing'}, not the one given", param="sha256"
            )
        source = pricelist.source(data) if data else SOURCE
        given = await asyncio.to_thread(_read, data) if data else None
        applied = request.query.get("apply") == "true"
        difference, done = await self._catalog.reprice(given, source=source, apply=applied)
        return answer({**_told(difference, done), "source": source, "sha256": digest, "applied": applied})


def _read(data: bytes) -> Catalogue:
    try:
        return Catalogue(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise client_fault(
            f"this is no price list in the form of models.dev: {error}", kind=Kind.INVALID
        ) from None


def _told(difference: Difference, done: frozenset[tuple[str, str]]) -> Json:
    return {
        "changes": [_change(change, done) for change in difference.changes],
        "same": difference.same,
        "manual": difference.manual,
        "unlisted": difference.unlisted,
    }


def _change(change: Change, done: frozenset[tuple[str, str]]) -> Json:
    model = change.model
    return {
        "model_id": model.id,
        "provider_id": model.provider_id,
        "pricing_source": model.pricing_source,
        "was": shapes.prices_json(model.prices),
        "now": shapes.prices_json(change.prices),
        "applied": _key(model) in done,
    }


def _key(model: Model) -> tuple[str, str]:
    return model.id, model.provider_id
