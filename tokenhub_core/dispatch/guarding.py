"""A guarded stream: its beginning is held, so that a break in it can be made good by somebody else, unseen.

What is held is bounded in bytes and in seconds; from there on the stream flows as every other one does, and a break is
an error event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.ports import Clock, UpstreamResponse


async def held(
    gate: Gate,
    first: bytes,
    response: UpstreamResponse,
    chunks: AsyncIterator[bytes],
    *,
    patience: Patience,
    clock: Clock,
) -> tuple[bytes, bool]:
    """Return what the caller gets at once, and whether the stream has come to its end, whatever that was.

    Raises `TokenHubError` where reading it does.
    """
    guard, kept = patience.guard, bytearray(first)
    until = clock.monotonic() + guard.seconds
    while not gate.ended() and len(kept) < guard.size and (left := until - clock.monotonic()) > 0:
        response.ease(gather=patience.gather, tick=left)
        chunk = await anext(chunks, None)
        if chunk is None:
            gate.flush()
            return bytes(kept), True
        kept += gate.feed(chunk)
    return bytes(kept), gate.ended()
