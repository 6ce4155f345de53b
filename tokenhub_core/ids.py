"""Ids that sort by time and can be guessed by nobody."""

from __future__ import annotations


def request_id(now: float, entropy: bytes) -> str:
    """Return a request id: `req_`, 12 hex digits of milliseconds since the epoch, and `entropy` in hex."""
    return f"req_{int(now * 1000) & 0xFFFFFFFFFFFF:012x}{entropy.hex()}"
