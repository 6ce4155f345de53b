"""The seals of simulated thinking: texts that only the simulated vendor makes, and that it knows again.

Real vendors sign or encrypt what a model thought and refuse a conversation that brings back anything else. A
seal here holds a nonce and two hashes: one proves that the vendor made it, one that the visible text is the
one it was made for. The key is no secret; it keeps apart what nobody would forge by mistake.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b


def seal(vendor: str, nonce: str, text: str = "") -> str:
    """Return a vendor's seal over a text, in base64. The same arguments give the same seal."""
    seed = blake2b(nonce.encode(), digest_size=16).digest()
    return base64.b64encode(seed + _hash(vendor, seed, "") + _hash(vendor, seed, text)).decode()


def genuine(vendor: str, value: object, text: str = "") -> bool:
    """Tell whether a vendor made this seal, and for this text; no text fits every seal (it was not shown)."""
    if not isinstance(value, str):
        return False
    try:
        raw = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return False
    seed, made, shown = raw[:16], raw[16:32], raw[32:]
    if len(raw) != 48 or made != _hash(vendor, seed, ""):
        return False
    return not text or shown == _hash(vendor, seed, text)


def name(vendor: str, nonce: str) -> str:
    """Return an id of 32 hex digits that the vendor knows again by `named`."""
    first = blake2b(nonce.encode(), digest_size=12).hexdigest()
    return first + _hash(vendor, first.encode(), "")[:4].hex()


def named(vendor: str, value: str) -> bool:
    """Tell whether the vendor gave this id."""
    return len(value) == 32 and value[24:] == _hash(vendor, value[:24].encode(), "")[:4].hex()


def _hash(vendor: str, seed: bytes, text: str) -> bytes:
    return blake2b(
        seed + text.encode(errors="replace"), digest_size=16, key=b"simulated/" + vendor.encode()
    ).digest()
