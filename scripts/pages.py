"""What the built pages were made of: `python -m scripts.pages stamp|document`.

The stamp lies beside them, and a test compares it with the sources: pages that are older than those do not pass.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

import orjson

from tokenhub_core.http.operations import document

ROOT: Final = Path(__file__).parents[1]
WEB: Final = ROOT / "web"
_FILES: Final = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")


def described() -> bytes:
    """Return the server's OpenAPI document, as the types of the pages are made of it."""
    return orjson.dumps(document(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)


def stamp() -> str:
    """Return two lines: the hash of the sources, and that of the document."""
    sources = hashlib.sha256()
    for path in sorted([*(WEB / name for name in _FILES), *(WEB / "src").rglob("*.*")]):
        data = path.read_bytes()
        sources.update(f"{path.relative_to(WEB).as_posix()} {len(data)}\n".encode())
        sources.update(data)
    return f"sources {sources.hexdigest()}\ndocument {hashlib.sha256(described()).hexdigest()}\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(described() if sys.argv[1:] == ["document"] else stamp().encode())
