"""Keyed marks of what opens the admin API: what is stored, and looked up by. Pure.

    root --HKDF-SHA256, one label a use--> subkeys
    HMAC-SHA256(subkey of the use, value) → mark

The values are random and of 256 bits, so a fast hash is enough (a slow one would be work that strangers can order). The
key is not in the database: who has only that can neither check a guess nor put in a mark of his own. A label a use
means that what is good in one place says nothing in any other. HKDF: RFC 5869. HMAC: RFC 2104.
"""

from __future__ import annotations

import hmac
from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Use(StrEnum):
    """What a mark is for."""

    TOKEN = "admin token"  # noqa: S105 - no secret, a label
    BOOTSTRAP = "bootstrap token"
    SESSION = "admin session"
    TICKET = "login link"
    CSRF = "csrf"
    ATTEMPT = "login attempt"


class Marks:
    """The subkeys of one root."""

    def __init__(self, root: bytes) -> None:
        self._keys = {use: _subkey(root, use) for use in Use}

    def __repr__(self) -> str:
        return "Marks(…)"

    def of(self, use: Use, value: str) -> bytes:
        """Return the mark of a value, 32 bytes."""
        # aiohttp keeps bytes that are no UTF-8 as surrogates.
        return hmac.digest(self._keys[use], value.encode(errors="surrogatepass"), "sha256")


def _subkey(root: bytes, use: Use) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=f"tokenhub/access/{use}".encode()).derive(root)
