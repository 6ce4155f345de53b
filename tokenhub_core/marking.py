"""Conversations that all processes know: what an answer leaves is told to the others a moment later.

A call may come to another process than the one before it. What is told are marks, hashes under the salt that all
processes have, and who served; each process saves what it has noted itself (`learning`).
"""

from __future__ import annotations

import asyncio
from itertools import batched
from typing import Final

import msgspec

from tokenhub_core.relay import Relay
from tokenhub_core.routing.affinity import Affinity, Noted

GATHER: Final = 0.1
"""Seconds that marks wait for others to be told with."""
_PIECE: Final = 500
"""Marks in one message."""
_TOPIC: Final = "marks"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Noted]).decode


class Marking:
    """One process's part. Belongs to one event loop."""

    def __init__(self, relay: Relay, affinity: Affinity) -> None:
        self._relay = relay
        self._affinity = affinity
        affinity.share()
        relay.hearing(_TOPIC, self._heard)

    async def keep(self) -> None:
        """Tell what was noted for as long as the service runs."""
        while True:
            for some in batched(self._affinity.fresh(), _PIECE, strict=False):
                self._relay.tell(_TOPIC, _encode(some))
            await asyncio.sleep(GATHER)

    def _heard(self, process: str, body: bytes) -> None:
        del process
        self._affinity.adopt(_decode(body))
