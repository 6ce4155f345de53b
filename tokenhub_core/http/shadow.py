"""The admin API's part about modes of hosts, `/admin/v1/modes`, and what shadow came to, `/admin/v1/shadow/report`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from tokenhub_core.catalog import Catalog
from tokenhub_core.errors import ConfigError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.aliases import MAX_CALLS
from tokenhub_core.http.shapes import moment
from tokenhub_core.http.side import answer
from tokenhub_core.modes import ANY_HOST, HostMode, Match, Rule, checked
from tokenhub_core.recognise import Recogniser
from tokenhub_core.routing import savings
from tokenhub_core.store.log import RequestLog, Shadowed
from tokenhub_core.types import Json

BASE: Final = "/admin/v1"

type _Name = Annotated[str, Meta(max_length=256)]


class ModeBody(msgspec.Struct, forbid_unknown_fields=True):
    """`PUT /modes`; `host` is a listed one, a listed pattern, or `*`."""

    mode: HostMode
    host: _Name = ANY_HOST
    user: _Name = ""
    alias: _Name = ""


class Modal:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, catalog: Catalog, requests: RequestLog, recogniser: Recogniser) -> None:
        self._catalog = catalog
        self._requests = requests
        self._recogniser = recogniser

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(f"{BASE}/modes", self._list),
            web.put(f"{BASE}/modes", self._put),
            web.delete(f"{BASE}/modes", self._delete),
            web.get(f"{BASE}/shadow/report", self._report),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        """Show the rules, the most specific first: of those that match a call the first one decides."""
        del request
        items = [self._shown(rule) for rule in self._catalog.modes.rules]
        return answer({"items": items, "total": len(items)})

    async def _put(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, ModeBody)
        rule = self.checked(Rule(Match(body.host, body.user, body.alias), body.mode))
        await self._catalog.put_mode(rule)
        return answer(self._shown(rule))

    async def _delete(self, request: web.Request) -> web.Response:
        query = request.query
        match = Match(query.get("host", ANY_HOST), query.get("user", ""), query.get("alias", ""))
        await self._catalog.delete_mode(self.checked(Rule(match, HostMode.ROUTE), listed=False).match)
        return answer({"ok": True})

    async def _report(self, request: web.Request) -> web.Response:
        """Say what calls in shadow cost, and would have cost."""
        among = Shadowed(**{name: request.query.get(name, "") for name in ("host", "user", "alias")})
        since, until = moment(request, "since"), moment(request, "until")

        def made() -> Json:
            calls = self._requests.shadows(among, limit=MAX_CALLS + 1, since=since, until=until)
            return {
                "host": among.host,
                "user": among.user,
                "alias": among.alias,
                "since": since,
                "until": until,
                "confidence": 0.95,
                "complete": len(calls) <= MAX_CALLS,
                **msgspec.to_builtins(savings.report(calls[:MAX_CALLS])),
            }

        return answer(await asyncio.to_thread(made))

    def checked(self, rule: Rule, *, listed: bool = True) -> Rule:
        """Return the rule with its host in plain form; raises `TokenHubError` where it can never hold."""
        try:
            return checked(rule, self._recogniser if listed else None)
        except ConfigError as error:
            raise client_fault(str(error), param="host") from None

    def _shown(self, rule: Rule) -> Json:
        source = "stored" if self._catalog.is_stored(rule) else "setting"
        return {**msgspec.to_builtins(rule.match), "mode": rule.mode.value, "source": source}
