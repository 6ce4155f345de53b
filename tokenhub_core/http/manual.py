"""The manual at /docs: pages that `scripts/web` has built of docs/. They are read when they are asked for, not kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.http import files

PATHS: Final = ("/docs", "/docs/{page}", "/docs/files/{name}")

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Manual:
    """Knows which files there are: nothing else is ever opened."""

    def __init__(self) -> None:
        root = files.built("manual")
        self._pages = {path.stem: path for path in root.glob("*.html")}
        self._files = {path.name: path for path in (root / "files").iterdir()}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the manual."""
        return [web.get(path, self._file if "{name}" in path else self._page) for path in PATHS]

    async def _page(self, request: web.Request) -> web.Response:
        page = request.match_info.get("page", "index")
        return await self._sent(request, self._pages, page, files.ANEW)

    async def _file(self, request: web.Request) -> web.Response:
        return await self._sent(request, self._files, request.match_info["name"], files.FOREVER)

    async def _sent(
        self, request: web.Request, there: Mapping[str, Path], name: str, cache: str
    ) -> web.Response:
        path = there.get(name)
        if path is None:
            raise client_fault(f"the manual has no {name!r}", kind=Kind.NOT_FOUND, param="name")
        file = await asyncio.to_thread(files.read, path, cache)
        return files.sent(request, file, _POLICY)
