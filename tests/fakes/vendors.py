"""All simulated vendors on one loopback port: for SDKs, and for whoever needs real HTTP.

    async with Vendors() as vendors:
        client = openai.AsyncOpenAI(base_url=f"{vendors.url}/v1", api_key="sk-x")
        ...
        assert vendors.count("/v1/responses") == 1
        assert vendors.last.json["model"] == "gpt-5"

What they answer is the simulator's (`tokenhub_core.providers.simulator.Simulator`), by path. It is well-formed HTTP
but for the scripted faults; for HTTP that is broken below that there is `tests.fakes.provider`. The simulator's own
mark is left out: a real vendor has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import orjson
from aiohttp import web

from tokenhub_core.providers.simulator import MARK, Ending, Profile, Script, Simulator
from tokenhub_core.types import Headers, Json, header

_CREATED = 1_767_225_600
_KEPT = 200


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived. `target` is the path with its query."""

    method: str
    target: str
    headers: Headers
    body: bytes

    @property
    def json(self) -> Json:
        data: Json = orjson.loads(self.body)
        return data

    def header(self, name: str) -> str:
        return header(self.headers, name)


@dataclass(slots=True)
class Vendors:
    """See the module. `tls` makes it an https server; `any_model` serves models of every name.

    `pace` multiplies every delay: 1 is the models' own pace, 0 is without any delay.
    """

    tls: ssl.SSLContext | None = None
    profiles: Mapping[str, Profile] | None = None
    seed: int = 0
    any_model: bool = False
    pace: float = 0.0
    listen: int = 0
    requests: deque[Received] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """The last ones, the newest at the end."""
    statuses: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """What the last ones were answered with."""
    _counts: Counter[str] = field(default_factory=Counter)
    _simulator: Simulator | None = None
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self._simulator = Simulator(profiles=self.profiles, seed=self.seed, any_model=self.any_model)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.listen, ssl_context=self.tls).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    @property
    def url(self) -> str:
        """The base URL, without `/v1`."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        """The newest request."""
        return self.requests[-1]

    def count(self, path: str = "") -> int:
        """How many requests have arrived at a path, or at all."""
        return self._counts[path] if path else self._counts.total()

    def script(self, model: str, *faults: str, profile: Profile | None = None) -> None:
        """Say what the next calls of a model meet, from now on; `*` is every model without a script."""
        assert self._simulator is not None
        self._simulator.script(model, profile or Profile(faults=faults))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        assert self._simulator is not None
        body = await request.read()
        headers = tuple((name.lower(), value) for name, value in request.headers.items())
        self.requests.append(Received(request.method, request.raw_path, headers, body))
        self._counts[request.path] += 1
        script = self._simulator.respond(request.method, request.raw_path, body, created=_CREATED)
        self.statuses.append(script.status)
        return await _perform(request, script, self.pace)


async def _perform(request: web.Request, script: Script, pace: float) -> web.StreamResponse:
    response = web.StreamResponse(status=script.status or 200)
    for name, value in script.headers:
        if (name, value) != MARK:
            response.headers[name] = value
    if script.status:
        with contextlib.suppress(ConnectionError):
            for at, (delay, data) in enumerate(script.frames):
                await asyncio.sleep(delay * pace)
                if at == 0:
                    await response.prepare(request)
                await response.write(data)
            if not script.frames:
                await response.prepare(request)
    match script.ending:
        case Ending.CLEAN:
            with contextlib.suppress(ConnectionError):
                await response.write_eof()
        case Ending.HANG:
            await asyncio.Event().wait()
        case Ending.RESET | Ending.CLOSED:
            _leave(request, reset=script.ending is Ending.RESET)
    return response


def _leave(request: web.Request, *, reset: bool) -> None:
    transport = request.transport
    assert transport is not None
    if reset:
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
