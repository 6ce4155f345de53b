"""The OpenAPI document at the side server.

It is open: it says what the source says, and nothing of what is configured. Whoever writes a client of the consumer
API needs it and has no admin token.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from tokenhub_core.http.operations import document
from tokenhub_core.http.operations.service import PATH
from tokenhub_core.http.side import answer
from tokenhub_core.types import Json


class Description:
    """The document, made when it is first asked for: that takes a tenth of a second."""

    def __init__(self) -> None:
        self._document: Json | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get(PATH, self._show)]

    async def _show(self, request: web.Request) -> web.Response:
        del request
        if self._document is None:
            self._document = await asyncio.to_thread(document)
        return answer(self._document)
