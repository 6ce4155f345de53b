"""What is not routed, handed through to the host it was meant for: streamed both ways, WebSockets included.

Only listed LLM hosts come here, always over TLS, always with the caller's own credential. Nothing is read,
changed or kept; one record says that it happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.http.connection import Connection
from tokenhub_core.http.consumer import Door, caller
from tokenhub_core.ids import request_id
from tokenhub_core.pipeline import without_secrets
from tokenhub_core.ports import Recorder
from tokenhub_core.recognise import Recognised
from tokenhub_core.types import Outcome, Record, Timings

_HOP_BY_HOP: Final = frozenset(
    {
        "alt-svc",
        "connection",
        "http2-settings",
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
"""RFC 9110, 7.6.1, what older proxies and h2c add, and what would lead a client past us."""

_WEBSOCKET: Final = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-accept"}
)
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
_GOING_AWAY: Final = 1001
_AUTOMATIC: Final = ("user-agent", "accept", "accept-encoding", "content-type")
"""What aiohttp would add of its own."""


@dataclass(slots=True)
class _Course:
    """How one exchange goes; as long as nothing else is known, its client has left."""

    outcome: Outcome = Outcome.CANCELLED
    status: int = 499
    fault: Fault | None = None


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
        course = _Course()
        try:
            response = await self._pass(request, connection, course)
            course.outcome, course.status = Outcome.PASSED, response.status
            return response
        except TokenHubError as error:
            course.outcome, course.fault = Outcome.ERROR, error.fault
            course.status = error.fault.http_status
            if request.writer.output_size:
                _cut(request)
            return self._refusal(error.fault, found, name)
        finally:
            fault = course.fault
            self._recorder.post(
                Record(
                    id=name,
                    at=at,
                    outcome=course.outcome,
                    status=course.status,
                    caller=caller(request, connection),
                    method=request.method,
                    path=without_secrets(request.path_qs),
                    dialect=found.dialect,
                    origin_host=connection.host,
                    timings=Timings(total_ms=round((door.clock.monotonic() - started) * 1000, 3)),
                    fault=fault.label if fault else "",
                    message=fault.message if fault else "",
                )
            )

    def _refusal(self, fault: Fault, found: Recognised, name: str) -> web.Response:
        error = self._door.dialects[found.dialect].error(fault, request_id=name)
        others = [field for field in error.headers if field[0] != "x-request-id"]
        headers = [*others, ("x-request-id", name), ("server", "tokenhub")]
        return web.Response(status=error.status, body=error.body, headers=headers)

    async def _pass(
        self, request: web.BaseRequest, connection: Connection, course: _Course
    ) -> web.StreamResponse:
        upgrade = request.headers.get("upgrade", "").lower() == "websocket"
        if not self._allowed:
            message = (
                f"{request.method} {request.path} is not routed, and {connection.host} may not be reached"
            )
            status = 426 if upgrade else 403
            raise TokenHubError(Fault(Kind.FORBIDDEN, Blame.US, message, cause="origin_off", status=status))
        # Encoded: what the client wrote is what the host gets.
        url = URL(self._base_url(connection) + request.path_qs, encoded=True)
        if upgrade:
            return await self._websocket(request, connection, url, course)
        return await self._http(request, connection, url)

    async def _http(self, request: web.BaseRequest, connection: Connection, url: URL) -> web.StreamResponse:
        port = "" if connection.port == 443 else f":{connection.port}"
        try:
            upstream = await self._session.request(
                request.method,
                url,
                headers=[*_forwarded(request), ("host", f"{connection.host}{port}")],
                data=request.content if request.body_exists else None,
                allow_redirects=False,
                timeout=_TIMEOUT,
                skip_auto_headers=_AUTOMATIC,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(connection, error) from None
        async with upstream:
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            response.headers.extend(_end_to_end(upstream.headers))
            await response.prepare(request)
            async for piece in _pieces(upstream, connection):
                await response.write(piece)
            await response.write_eof()
            return response

    async def _websocket(
        self, request: web.BaseRequest, connection: Connection, url: URL, course: _Course
    ) -> web.StreamResponse:
        asked = request.headers.get("sec-websocket-protocol", "").split(",")
        protocols = [name.strip() for name in asked if name.strip()]
        if not web.WebSocketResponse(protocols=protocols).can_prepare(request).ok:
            raise client_fault("this is no WebSocket handshake", cause="bad_handshake")
        headers = [(key, value) for key, value in _forwarded(request) if key not in _WEBSOCKET]
        try:
            upstream = await self._session.ws_connect(
                url, headers=headers, protocols=protocols, autoclose=False, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            raise _no_websocket(connection, error) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(connection, error) from None
        chosen = (upstream.protocol,) if upstream.protocol else ()
        downstream = web.WebSocketResponse(protocols=chosen, autoclose=False, max_msg_size=0)
        try:
            await downstream.prepare(request)
            code = await _talk(downstream, upstream)
        except asyncio.CancelledError:
            await upstream.close(code=_GOING_AWAY)
            raise
        # From here on a client that goes away is one that has ended its conversation.
        course.outcome, course.status = Outcome.PASSED, downstream.status
        await upstream.close(code=code)
        await downstream.close(code=code)
        return downstream


type _Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _talk(downstream: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse) -> int:
    """Pass messages both ways until one side ends; return the code to tell the other one."""
    pumps = [
        asyncio.create_task(_pump(downstream, upstream), name="websocket up"),
        asyncio.create_task(_pump(upstream, downstream), name="websocket down"),
    ]
    try:
        ended, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        return _close_code(max(pump.result() for pump in ended))
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: _Socket, sink: _Socket) -> int:
    """Pass messages on; return the code that the source ended with, or that says the sink is gone."""
    try:
        async for message in source:
            if message.type is aiohttp.WSMsgType.TEXT:
                await sink.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await sink.send_bytes(message.data)
    except ConnectionError:
        return _GOING_AWAY
    return source.close_code or 1005


async def _pieces(upstream: aiohttp.ClientResponse, connection: Connection) -> AsyncIterator[bytes]:
    try:
        async for piece in upstream.content.iter_any():
            yield piece
    except (aiohttp.ClientError, TimeoutError) as error:
        message = f"{connection.host} broke its answer off: {type(error).__name__}"
        raise TokenHubError(
            Fault(Kind.TRUNCATED, Blame.PROVIDER, message, cause="origin_broke_off")
        ) from None


def _cut(request: web.BaseRequest) -> NoReturn:
    """End a connection whose answer has begun: only a cut tells the client that the rest will not come."""
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError


def _unreachable(connection: Connection, error: Exception) -> TokenHubError:
    message = f"{connection.host} cannot be reached: {type(error).__name__}"
    return TokenHubError(Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause="origin_unreachable"))


def _no_websocket(connection: Connection, error: aiohttp.WSServerHandshakeError) -> TokenHubError:
    message = f"{connection.host} refused the WebSocket with status {error.status}"
    status = error.status if error.status >= 400 else 502
    fault = Fault(Kind.INVALID, Blame.PROVIDER, message, cause="websocket_refused", status=status)
    return TokenHubError(fault)


def _close_code(code: int) -> int:
    """Return what may be sent for a code that was seen; some only say that none was (RFC 6455, 7.4.1)."""
    return {1005: 1000, 1006: 1011, 1015: 1011}.get(code, code)


def _forwarded(request: web.BaseRequest) -> list[tuple[str, str]]:
    """Return the caller's fields for the origin, but for those that aiohttp or we write anew."""
    passed = ((key.lower(), value) for key, value in _end_to_end(request.headers))
    return [(key, value) for key, value in passed if key not in {"host", "expect"}]


def _end_to_end(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    """Return the fields that do not belong to one connection, neither by name nor by `Connection`."""
    named = {name.strip().lower() for line in headers.getall("connection", []) for name in line.split(",")}
    hop = _HOP_BY_HOP | named
    return [(key, value) for key, value in headers.items() if key.lower() not in hop]
