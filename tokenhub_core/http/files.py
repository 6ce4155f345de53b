"""Built files as they are served: with a tag, packed for those who can unpack, under a content security policy."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}

FOREVER: Final = "public, max-age=31536000, immutable"
"""Of files whose name holds their hash: another content has another name."""
ANEW: Final = "no-cache"
"""Of files that are asked for again each time; their tag says whether they changed."""


class File(msgspec.Struct, frozen=True):
    """A file, read."""

    data: bytes
    packed: bytes
    """The same by gzip; empty where that brings nothing."""
    type: str
    tag: str
    cache: str


def built(beside: str) -> Path:
    """Return the folder `beside` among the built files: a wheel carries them here, a checkout at its top."""
    here = Path(__file__).resolve()
    places = (here.parent / "web", here.parents[2] / "web" / "dist")
    return next(path for path in places if path.is_dir()) / beside


def read(path: Path, cache: str) -> File:
    """Read a file; `cache` is what browsers are told of keeping it."""
    data = path.read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    packed = b"" if path.suffix == ".png" else gzip.compress(data, mtime=0)
    return File(data, packed, _TYPES[path.suffix], tag, cache)


def sent(request: web.Request, file: File, policy: str) -> web.Response:
    """Return the answer that a file is; `policy` is the content security policy of what it belongs to."""
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "etag": file.tag,
        "cache-control": file.cache,
        "vary": "accept-encoding",
    }
    if request.headers.get("if-none-match") == file.tag:
        return web.Response(status=304, headers=headers)
    charset = "utf-8" if file.type.startswith("text/") else None
    if not file.packed or "gzip" not in request.headers.get("accept-encoding", ""):
        return web.Response(body=file.data, content_type=file.type, charset=charset, headers=headers)
    headers["content-encoding"] = "gzip"
    return web.Response(body=file.packed, content_type=file.type, charset=charset, headers=headers)
