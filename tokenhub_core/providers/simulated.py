"""Plays the simulator inside the process: `ports.Transport` without a network, and the switch beside the real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import urlsplit

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Timeouts, Transport, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.endpoints import SIMULATED_SCHEME
from tokenhub_core.providers.simulator import Ending, Profile, Script, Simulator
from tokenhub_core.types import Headers


class SimulatedTransport:
    """Answers every request by the simulator. `profiles` overrides how the named models behave.

    `speed` divides every delay: 1 is the models' own pace, 10 is ten times as fast, 0 is without any delay.
    """

    def __init__(
        self,
        *,
        profiles: Mapping[str, Profile] | None = None,
        seed: int = 0,
        speed: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._simulator = Simulator(profiles=profiles, seed=seed)
        self._speed = speed
        self._now = now

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Answer as `ports.Transport` promises, with the same typed faults as a real provider's."""
        host = urlsplit(request.url).hostname or "simulator"
        script = self._script(request)
        if script.status:
            first = self._scaled(script.frames[0][0]) if script.frames else 0.0
            # A stream's head comes with its first byte here, as it does from real providers.
            if timeouts.ttft is None or first <= timeouts.ttft:
                await asyncio.sleep(first)
                return _SimulatedResponse(script, host, timeouts.stall, self._scaled)
        elif script.ending is Ending.CLOSED:
            raise _fault(
                Kind.TRANSIENT, "disconnected", f"{host}: the connection was closed without an answer"
            )
        await _hang(timeouts.ttft)
        raise _fault(Kind.TIMEOUT, "ttft_timeout", f"{host}: no answer began within {timeouts.ttft:g} s")

    def _script(self, request: UpstreamRequest) -> Script:
        url = urlsplit(request.url)
        target = f"{url.path}?{url.query}" if url.query else url.path
        return self._simulator.respond(
            request.method, target, request.body, host=url.hostname or "", created=int(self._now())
        )

    def _scaled(self, delay: float) -> float:
        return delay / self._speed if self._speed else 0.0


class RoutingTransport:
    """Sends requests with a `sim:` URL to the simulator and all others to the network."""

    def __init__(self, network: Transport, simulator: Transport) -> None:
        self._network = network
        self._simulator = simulator

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send by whoever is in charge of the URL."""
        simulated = request.url.startswith(SIMULATED_SCHEME + ":")
        return await (self._simulator if simulated else self._network).send(request, timeouts)


class _SimulatedResponse:
    """One script being played: `ports.UpstreamResponse`."""

    def __init__(
        self, script: Script, host: str, stall: float | None, scaled: Callable[[float], float]
    ) -> None:
        self.status = script.status
        self.headers: Headers = script.headers
        self._script = script
        self._host = host
        self._stall = stall
        self._scaled = scaled

    async def read(self, limit: int) -> bytes:
        """Return the whole body."""
        body = b"".join([chunk async for chunk in self.chunks()])
        if len(body) > limit:
            message = f"{self._host}: the answer is larger than {limit} bytes"
            raise _fault(
                Kind.TOO_LARGE, "response_too_large", message, status=502, upstream_status=self.status
            )
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the frames, each after its delay."""
        for at, (delay, data) in enumerate(self._script.frames):
            pause = self._scaled(delay) if at else 0.0  # the first delay passed before the head
            if self._stall is not None and pause > self._stall:
                break
            await asyncio.sleep(pause)
            yield data
        else:
            match self._script.ending:
                case Ending.CLEAN:
                    return
                case Ending.RESET:
                    raise self._broken("reset", "the connection was reset in the middle of the answer")
                case Ending.CLOSED:
                    raise self._broken("truncated", "the answer ended before its end")
                case Ending.HANG:
                    pass
        await _hang(self._stall)
        message = f"{self._host}: no more of the answer came for {self._stall:g} s"
        raise _fault(Kind.TIMEOUT, "stall_timeout", message, upstream_status=self.status)

    def ease(self, *, gather: float, tick: float) -> None:
        """Change nothing: what is simulated costs next to nothing to hand over."""

    async def close(self) -> None:
        """Nothing is held."""

    def _broken(self, cause: str, words: str) -> TokenHubError:
        return _fault(Kind.TRUNCATED, cause, f"{self._host}: {words}", upstream_status=self.status)


async def _hang(limit: float | None) -> None:
    """Wait as long as a real silence would last before its limit ends it; for ever without a limit."""
    if limit is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(limit)


def _fault(
    kind: Kind, cause: str, message: str, *, status: int = 0, upstream_status: int = 0
) -> TokenHubError:
    return TokenHubError(
        Fault(kind, Blame.PROVIDER, message, cause=cause, status=status, upstream_status=upstream_status)
    )
