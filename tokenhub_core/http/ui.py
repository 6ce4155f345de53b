"""The first page and its assets, under a content security policy that lets nothing else in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from tokenhub_core.errors import Kind, client_fault

_TYPES: Final[Mapping[str, str]] = {
    "index.html": "text/html",
    "style.css": "text/css",
    "app.js": "text/javascript",
}

_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class Page:
    """The files of the first page, read once."""

    def __init__(self) -> None:
        here = Path(__file__).resolve()
        # A wheel carries the files beside this module; a checkout has them at its top.
        root = next(path for path in (here.parent / "web", here.parents[2] / "web") if path.is_dir())
        self._files = {name: (root / name).read_bytes() for name in _TYPES}
        self._tags = {
            name: f'"{hashlib.sha256(data).hexdigest()[:16]}"' for name, data in self._files.items()
        }

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the page."""
        return [
            web.get("/", self._index),
            web.get("/login", self._index),
            web.get("/assets/{name}", self._asset),
        ]

    async def _index(self, request: web.Request) -> web.Response:
        return self._file(request, "index.html")

    async def _asset(self, request: web.Request) -> web.Response:
        return self._file(request, request.match_info["name"])

    def _file(self, request: web.Request, name: str) -> web.Response:
        data = self._files.get(name)
        if data is None:
            raise client_fault(f"there is no file {name!r}", kind=Kind.NOT_FOUND, param="name")
        headers = {**_HEADERS, "etag": self._tags[name]}
        if request.headers.get("if-none-match") == self._tags[name]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=data, content_type=_TYPES[name], charset="utf-8", headers=headers)
