"""PEM text in, one bundle out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def certificates(pem: str) -> Iterator[str]:
    """Yield the base64 body of each certificate, without white space. Keys and comments are not read."""
    for match in _BLOCK.finditer(pem):
        yield "".join(match[1].split())


def merged(pems: Iterable[str]) -> str:
    """Return one PEM text with each certificate once, in order of first appearance.

    Roots appear in several of the sources, and every TLS context of every program pays for each one.
    """
    bodies = dict.fromkeys(body for pem in pems for body in certificates(pem))
    return "".join(_block(body) for body in bodies)


def _block(body: str) -> str:
    lines = "\n".join(body[start : start + 64] for start in range(0, len(body), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
