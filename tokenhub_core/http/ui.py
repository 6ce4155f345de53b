"""The admin pages: files that `scripts/web` has built, under a content security policy that lets nothing else in."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from tokenhub_core.errors import Kind, client_fault

_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}

_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_FOREVER: Final = "public, max-age=31536000, immutable"
"""Of files whose name holds their hash: another content has another name."""


class _File(msgspec.Struct, frozen=True):
    data: bytes
    packed: bytes
    type: str
    tag: str
    cache: str


class Page:
    """The files of the pages, read once."""

    def __init__(self) -> None:
        here = Path(__file__).resolve()
        # A wheel carries the files beside this module; a checkout has them at its top.
        places = (here.parent / "web", here.parents[2] / "web" / "dist")
        root = next(path for path in places if path.is_dir())
        self._index = _read(root / "index.html", "no-cache")
        self._assets = {path.name: _read(path, _FOREVER) for path in sorted((root / "assets").iterdir())}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the pages: which one is shown is the browser's affair."""
        return [
            web.get("/", self._page),
            web.get("/login", self._page),
            web.get("/ui/{page}", self._page),
            web.get("/assets/{name}", self._asset),
        ]

    async def _page(self, request: web.Request) -> web.Response:
        return _answer(request, self._index)

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        file = self._assets.get(name)
        if file is None:
            raise client_fault(f"there is no file {name!r}", kind=Kind.NOT_FOUND, param="name")
        return _answer(request, file)


def _read(path: Path, cache: str) -> _File:
    data = path.read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    return _File(data, gzip.compress(data, mtime=0), _TYPES[path.suffix], tag, cache)


def _answer(request: web.Request, file: _File) -> web.Response:
    headers = {**_HEADERS, "etag": file.tag, "cache-control": file.cache, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == file.tag:
        return web.Response(status=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return web.Response(body=file.data, content_type=file.type, charset="utf-8", headers=headers)
    headers["content-encoding"] = "gzip"
    return web.Response(body=file.packed, content_type=file.type, charset="utf-8", headers=headers)
