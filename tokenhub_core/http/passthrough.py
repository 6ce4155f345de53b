"""What is not routed, handed through to the host it was meant for: streamed both ways, WebSockets included.

Only listed LLM hosts come here, always over TLS, always with the caller's own credential. Nothing is read,
changed or kept; one record says that it happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import web

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.http.connection import Connection
from tokenhub_core.http.consumer import Door
from tokenhub_core.ids import request_id
from tokenhub_core.pipeline import without_secrets
from tokenhub_core.ports import Recorder
from tokenhub_core.recognise import Recognised
from tokenhub_core.types import Caller, Dialect, Lane, Outcome, Record, Timings

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110, 7.6.1."""

_WEBSOCKET: Final = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-accept"}
)
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)


class Passthrough:
    """A streaming reverse proxy to the host of a handed-off connection."""

    def __init__(
        self,
        door: Door,
        recorder: Recorder,
        session: aiohttp.ClientSession,
        *,
        allowed: bool,
        base_url: Callable[[Connection], str] = lambda connection: (
            f"https://{connection.host}:{connection.port}"
        ),
    ) -> None:
        self._door = door
        self._recorder = recorder
        self._session = session
        self._allowed = allowed
        self._base_url = base_url

    async def __call__(
        self, request: web.BaseRequest, connection: Connection, found: Recognised
    ) -> web.StreamResponse:
        """Hand one request through."""
        door = self._door
        at, started = door.clock.now(), door.clock.monotonic()
        name = request_id(at, door.entropy())
        response: web.StreamResponse | None = None
        fault: Fault | None = None
        outcome = Outcome.CANCELLED
        try:
            response = await self._pass(request, connection, found)
            outcome = Outcome.PASSED
            return response
        except TokenHubError as error:
            fault, outcome = error.fault, Outcome.ERROR
            refusal = door.dialects[found.dialect or Dialect.OPENAI_CHAT].error(fault, request_id=name)
            headers = [*refusal.headers, ("x-request-id", name), ("server", "tokenhub")]
            return web.Response(status=refusal.status, body=refusal.body, headers=headers)
        finally:
            self._recorder.post(
                Record(
                    id=name,
                    at=at,
                    outcome=outcome,
                    status=response.status if response else fault.http_status if fault else 499,
                    caller=Caller(connection.peer, Lane.HANDOFF, connection.mode, connection.proxy_user),
                    method=request.method,
                    path=without_secrets(request.path_qs),
                    dialect=found.dialect,
                    origin_host=connection.host,
                    timings=Timings(total_ms=round((door.clock.monotonic() - started) * 1000, 3)),
                    fault=fault.label if fault else "",
                    message=fault.message if fault else "",
                )
            )

    async def _pass(
        self, request: web.BaseRequest, connection: Connection, found: Recognised
    ) -> web.StreamResponse:
        upgrade = request.headers.get("upgrade", "").lower() == "websocket"
        if not self._allowed:
            message = f"{found.operation} calls are not simulated, and {connection.host} may not be reached"
            status = 426 if upgrade else 403
            raise TokenHubError(Fault(Kind.FORBIDDEN, Blame.US, message, cause="origin_off", status=status))
        url = self._base_url(connection) + request.path_qs
        try:
            if upgrade:
                return await self._websocket(request, url)
            return await self._http(request, connection, url)
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            message = f"{connection.host} cannot be reached: {type(error).__name__}"
            raise TokenHubError(
                Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause="origin_unreachable")
            ) from None

    async def _http(self, request: web.BaseRequest, connection: Connection, url: str) -> web.StreamResponse:
        headers = _forwarded(request)
        headers.append(("host", connection.host))
        upstream = await self._session.request(
            request.method,
            url,
            headers=headers,
            data=request.content if request.body_exists else None,
            allow_redirects=False,
            timeout=_TIMEOUT,
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
        )
        async with upstream:
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            for key, value in upstream.headers.items():
                if key.lower() not in _HOP_BY_HOP:
                    response.headers.add(key, value)
            await response.prepare(request)
            async for piece in upstream.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    async def _websocket(self, request: web.BaseRequest, url: str) -> web.StreamResponse:
        headers = [(key, value) for key, value in _forwarded(request) if key not in _WEBSOCKET]
        protocols = [p.strip() for p in request.headers.get("sec-websocket-protocol", "").split(",") if p]
        try:
            upstream = await self._session.ws_connect(
                url, headers=headers, protocols=protocols, autoclose=True, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status, text=error.message)
        async with upstream:
            chosen = (upstream.protocol,) if upstream.protocol else ()
            downstream = web.WebSocketResponse(protocols=chosen, max_msg_size=0)
            await downstream.prepare(request)
            pumps = [
                asyncio.create_task(_pump(downstream, upstream), name="websocket up"),
                asyncio.create_task(_pump(upstream, downstream), name="websocket down"),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            await downstream.close(code=upstream.close_code or 1000)
            return downstream


type _Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: _Socket, sink: _Socket) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)


def _forwarded(request: web.BaseRequest) -> list[tuple[str, str]]:
    """Return the caller's fields without those that belong to its connection."""
    named = {name.strip().lower() for name in request.headers.get("connection", "").split(",")}
    return [
        (key.lower(), value)
        for key, value in request.headers.items()
        if key.lower() not in _HOP_BY_HOP and key.lower() not in named and key.lower() != "host"
    ]
