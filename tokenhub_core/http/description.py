"""The OpenAPI document at the side server.

It is open: it says what the source says, and nothing of what is configured. Whoever writes a client of the consumer
API needs it and has no admin token.
"""

from __future__ import annotations

from functools import cached_property

from aiohttp import web

from tokenhub_core.http.operations import document
from tokenhub_core.http.operations.service import PATH
from tokenhub_core.http.side import answer
from tokenhub_core.types import Json


class Description:
    """The document, made when it is first asked for."""

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get(PATH, self._show)]

    @cached_property
    def _document(self) -> Json:
        return document()

    async def _show(self, request: web.Request) -> web.Response:
        del request
        return answer(self._document)
