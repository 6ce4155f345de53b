"""Clients' keys over the admin API: `/admin/v1/apikeys`. A secret is in the answer that made it, and in no other."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from tokenhub_core.admission.apikeys import (
    LONGEST_OVERLAP,
    OVERLAP,
    Kept,
    KeyBody,
    described,
    rotation_due,
    seconds,
)
from tokenhub_core.apikeys import ApiKeys
from tokenhub_core.errors import client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store.rows import micros
from tokenhub_core.types import Json

PATH: Final = "/admin/v1/apikeys"
WARNING: Final = "keep the key now: it is not shown again"


class RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /apikeys/{id}/rotate`; the body may be left out."""

    overlap_secs: Annotated[int, Meta(ge=0, le=LONGEST_OVERLAP)] = OVERLAP
    """How long the older secrets go on."""


class ApiKeyPages:
    """The handlers. Every route needs the admin token; the side server sees to that."""

    def __init__(self, keys: ApiKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._list),
            web.post(PATH, self._create),
            web.get(PATH + "/{id}", self._one),
            web.patch(PATH + "/{id}", self._patch),
            web.delete(PATH + "/{id}", self._revoke),
            web.post(PATH + "/{id}/rotate", self._rotate),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        limit = shapes.whole(request, "limit", 100, 1, 1000)
        page = await self._keys.page(limit=limit, before=_place(request))
        items = [self._shown(kept) for kept in page.items]
        onward = page.next and f"{page.next[0]}.{page.next[1]}"
        return answer({"items": items, "total": page.total, "next": onward})

    async def _one(self, request: web.Request) -> web.Response:
        return answer(self._shown(await self._keys.one(request.match_info["id"])))

    async def _create(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, KeyBody)
        return self._told(*await self._keys.create(body), status=201)

    async def _patch(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, KeyBody)
        return answer(self._shown(await self._keys.change(request.match_info["id"], body)))

    async def _rotate(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, RotateBody) if request.body_exists else RotateBody()
        rotated = await self._keys.rotate(request.match_info["id"], overlap=body.overlap_secs)
        return self._told(*rotated, status=200)

    async def _revoke(self, request: web.Request) -> web.Response:
        await self._keys.revoke(request.match_info["id"])
        return answer({"ok": True})

    def _told(self, kept: Kept, secret: Secret, *, status: int) -> web.Response:
        return answer({**self._shown(kept), "key": secret.reveal(), "warning": WARNING}, status)

    def _shown(self, kept: Kept) -> Json:
        now = micros(self._clock.now())
        return {
            **described(kept),
            "created_at": seconds(kept.key.created_at),
            "updated_at": seconds(kept.updated_at),
            "last_used_at": seconds(kept.last_used_at),
            "rotation_due": rotation_due(kept, now=now),
            "expired": 0 < kept.key.expires_at <= now,
        }


def _place(request: web.Request) -> tuple[int, str] | None:
    """Return the place that a page begins behind, as the page before it said; None for the first."""
    text = request.query.get("before")
    if text is None:
        return None
    at, mark, key_id = text.partition(".")
    if not (mark and at.isascii() and at.isdigit() and len(at) < 19):
        raise client_fault("before must be the next of another page", param="before")
    return int(at), key_id
