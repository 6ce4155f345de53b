"""The admin API's part about settings that are read anew.

POST /admin/v1/reload    read the sources, check them, go on with them; what was changed, or why nothing was
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from tokenhub_core.errors import ConfigError, client_fault
from tokenhub_core.http.side import answer
from tokenhub_core.types import Json

PATH: Final = "/admin/v1/reload"


class ReloadPages:
    """The handler. `reload` returns what came of it as JSON tells it; raises `ConfigError` where nothing did."""

    def __init__(self, reload: Callable[[], Awaitable[Json]]) -> None:
        self._reload = reload

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post(PATH, self._post)]

    async def _post(self, request: web.Request) -> web.Response:
        del request
        try:
            return answer(await self._reload())
        except ConfigError as error:
            raise client_fault(str(error), cause="settings_unusable") from None
