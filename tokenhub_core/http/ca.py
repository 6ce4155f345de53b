"""The admin API's part about what is intercepted, and the CA that vouches for it.

    GET    /admin/v1/ca                fingerprint, end, hosts, files, alarms
    POST   /admin/v1/ca/rotate         a new key and a new root
    POST   /admin/v1/ca/hosts          {host, dialect}
    DELETE /admin/v1/ca/hosts/{host}

Each answers with what there is then. A running proxy follows within a second.
"""

from __future__ import annotations

from collections.abc import Awaitable

from aiohttp import web

from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.interception import Interception, Shown


class CaPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, interception: Interception) -> None:
        self._interception = interception

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/admin/v1/ca", self._show),
            web.post("/admin/v1/ca/rotate", self._rotate),
            web.post("/admin/v1/ca/hosts", self._add),
            web.delete("/admin/v1/ca/hosts/{host}", self._remove),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        del request
        try:
            return answer((await self._interception.show()).told())
        except ConfigError as error:
            raise client_fault(str(error), kind=Kind.NOT_FOUND, cause="no_ca") from None

    async def _rotate(self, request: web.Request) -> web.Response:
        del request
        return await _told(self._interception.rotate())

    async def _add(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.HostBody)
        return await _told(self._interception.add(body.host, body.dialect))

    async def _remove(self, request: web.Request) -> web.Response:
        return await _told(self._interception.remove(request.match_info["host"]))


async def _told(shown: Awaitable[Shown]) -> web.Response:
    try:
        return answer((await shown).told())
    except ConfigError as error:
        fault = Fault(Kind.INTERNAL, Blame.US, str(error), cause="ca_unusable", status=503)
        raise TokenHubError(fault) from None
