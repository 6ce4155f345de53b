"""The OpenAPI document at the side server.

It is open: it says what the source says, and nothing of what is configured. Whoever writes a client of the consumer
API needs it and has no admin token.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from tokenhub_core.http.side import DESCRIPTION, answer
from tokenhub_core.later import Later
from tokenhub_core.types import Json

if TYPE_CHECKING:
    from tokenhub_core.http import operations
else:
    operations = Later("tokenhub_core.http.operations")


class Description:
    """The document, loaded and made when it is first asked for: that takes a fifth of a second."""

    def __init__(self) -> None:
        self._document: Json | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get(DESCRIPTION, self._show)]

    async def _show(self, request: web.Request) -> web.Response:
        del request
        if self._document is None:
            self._document = await asyncio.to_thread(operations.document)
        return answer(self._document)
