"""The admin pages: files that `scripts/web` has built, under a content security policy that lets nothing else in."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.http import files

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Page:
    """The files of the pages, read once."""

    def __init__(self) -> None:
        self._index = files.read(files.built("index.html"), files.ANEW)
        assets = sorted(files.built("assets").iterdir())
        self._assets = {path.name: files.read(path, files.FOREVER) for path in assets}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the pages: which one is shown is the browser's affair."""
        return [
            web.get("/", self._page),
            web.get("/login", self._page),
            web.get("/ui/{page}", self._page),
            web.get("/assets/{name}", self._asset),
        ]

    async def _page(self, request: web.Request) -> web.Response:
        return files.sent(request, self._index, _POLICY)

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        file = self._assets.get(name)
        if file is None:
            raise client_fault(f"there is no file {name!r}", kind=Kind.NOT_FOUND, param="name")
        return files.sent(request, file, _POLICY)
