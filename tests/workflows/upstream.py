"""A provider that counts what it is sent, and answers when a scene lets it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tokenhub_core.ports import Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.simulated import SimulatedTransport
from tokenhub_core.providers.simulator import Profile


class Counting:
    """The simulator, with a count of what was sent to it. Implements `ports.Transport`."""

    def __init__(self, profiles: Mapping[str, Profile] | None = None, *, held: bool = False) -> None:
        self._simulator = SimulatedTransport(profiles=profiles, speed=0)
        self.sent = 0
        self.cancelled = 0
        self.reached = asyncio.Event()
        """Something was sent."""
        self.go = asyncio.Event()
        """Answers may be given."""
        if not held:
            self.go.set()

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        self.sent += 1
        self.reached.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self._simulator.send(request, timeouts)
