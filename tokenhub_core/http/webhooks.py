"""The admin API's part about webhooks: `/admin/v1/webhooks`. Moments are seconds since the epoch."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta, structs

from tokenhub_core.addresses import Guard
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import ConfigError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.outgoing import outgoing
from tokenhub_core.http.side import answer
from tokenhub_core.ports import Clock
from tokenhub_core.providers import endpoints
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import Json
from tokenhub_core.vault.vault import Vault
from tokenhub_core.webhooks.outbox import Outbox
from tokenhub_core.webhooks.values import Delivery, Webhook

PATH: Final = "/admin/v1/webhooks"
LONGEST_URL: Final = 2000

type Url = Annotated[str, Meta(max_length=LONGEST_URL)]


class WebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /webhooks`: who is told, and of which kinds of events."""

    url: Url
    kinds: list[str]


class WebhookPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /webhooks/{id}`: what is absent stays."""

    url: Url | None = None
    kinds: list[str] | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Hooked:
    """What webhooks are told with."""

    writer: Writer
    audit: Audit
    vault: Vault
    bus: Bus
    clock: Clock


@asynccontextmanager
async def hooked(
    parts: Hooked, guard: Guard, tls: ssl.SSLContext, *, allow_http: bool
) -> AsyncIterator[list[web.RouteDef]]:
    """Tell webhooks of events for as long as the block lasts; its value are the routes of who says which."""
    async with outgoing(guard, tls) as post:
        outbox = Outbox(
            parts.writer,
            parts.audit,
            parts.vault,
            parts.bus,
            clock=parts.clock,
            post=post,
            entropy=secrets.token_bytes,
        )
        await outbox.load()
        parts.bus.follow(outbox.hear)
        sending = asyncio.create_task(outbox.keep(), name="webhook sender")
        try:
            yield WebhookPages(outbox, allow_http=allow_http).routes()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await outbox.close()


class WebhookPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, outbox: Outbox, *, allow_http: bool) -> None:
        self._outbox = outbox
        self._allow_http = allow_http

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._list),
            web.post(PATH, self._add),
            web.patch(PATH + "/{id}", self._patch),
            web.delete(PATH + "/{id}", self._delete),
            web.post(PATH + "/{id}/secret", self._secret),
            web.post(PATH + "/{id}/test", self._test),
            web.get(PATH + "/{id}/deliveries", self._deliveries),
            web.post(PATH + "/{id}/retry", self._retry),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        del request
        await self._outbox.load()  # another process, or a file, may have changed them
        items = [webhook_json(hook) for hook in self._outbox.hooks.values()]
        return answer({"items": items, "total": len(items)})

    async def _add(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, WebhookBody)
        hook, secret = await self._outbox.add(self._checked(body.url), body.kinds)
        return answer({**webhook_json(hook), "secret": secret}, 201)

    async def _patch(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, WebhookPatch)
        changed = await self._outbox.change(
            request.match_info["id"],
            url=None if body.url is None else self._checked(body.url),
            kinds=body.kinds,
            enabled=body.enabled,
        )
        return answer(webhook_json(changed))

    async def _delete(self, request: web.Request) -> web.Response:
        await self._outbox.remove(request.match_info["id"])
        return answer({"ok": True})

    async def _secret(self, request: web.Request) -> web.Response:
        return answer({"secret": await self._outbox.renew(request.match_info["id"])})

    async def _test(self, request: web.Request) -> web.Response:
        reply = await self._outbox.probe(request.match_info["id"])
        return answer({"told": reply.told, "status": reply.status, "cause": reply.cause})

    async def _deliveries(self, request: web.Request) -> web.Response:
        state = request.query.get("state", "waiting")
        if state not in {"waiting", "dead"}:
            raise client_fault("state must be waiting or dead", param="state")
        before = shapes.place(request, "before") or None
        found = await self._outbox.deliveries(request.match_info["id"], dead=state == "dead", before=before)
        items = [delivery_json(one) for one in found]
        return answer({"items": items, "next": found[-1].seq if found else None})

    async def _retry(self, request: web.Request) -> web.Response:
        return answer({"retried": await self._outbox.retry(request.match_info["id"])})

    def _checked(self, url: str) -> str:
        return checked_url(url, allow_http=self._allow_http)


def checked_url(url: str, *, allow_http: bool) -> str:
    """Return a URL that may be posted to; raises `TokenHubError`."""
    try:
        return endpoints.check_endpoint(url, allow_http=allow_http)
    except ConfigError as error:
        raise client_fault(str(error).replace("endpoint", "url", 1), param="url") from None


def webhook_json(hook: Webhook) -> Json:
    """Return a webhook as the API shows it; never its secret."""
    return {**structs.asdict(hook), "kinds": list(hook.kinds)}


def delivery_json(one: Delivery) -> Json:
    """Return an event that waits, or was given up, with all that is sent of it."""
    told = structs.asdict(one)
    return {**told, "body": msgspec.json.decode(one.body)}
