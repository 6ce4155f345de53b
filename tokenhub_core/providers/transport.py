"""The pooled way to providers over HTTP/1.1 and TLS: the shell around one aiohttp session.

What it promises beyond a client library: every failure is a typed fault, decided from exception types and
error numbers; connecting, waiting for the head and waiting for more of a body each have their own limit; nothing
that a provider sends can grow memory past a fixed bound; and whoever lets go of an unfinished answer closes the
socket in the same moment, so that the provider stops producing.

No redirects (a credential is bound to its host), no cookies, no proxy or netrc from the environment.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import certifi
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from yarl import URL

from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError
from tokenhub_core.ports import Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.decoding import (
    BombError,
    BrokenBodyError,
    Decoder,
    UnknownEncodingError,
    decoder,
)
from tokenhub_core.providers.endpoints import forbidden
from tokenhub_core.types import Headers, header

MAX_FIELD: Final = 32 * 1024
"""The longest status line or header field, in bytes."""
MAX_FIELDS: Final = 128
MAX_HEAD: Final = 256 * 1024
"""The most bytes of a whole response head."""

_ONE_PIECE: Final = 1 << 20
_READ_BUFFER: Final = 64 * 1024
_SKIP: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

_CONNECT_CAUSES: Final[Mapping[int, tuple[Kind, str, str]]] = MappingProxyType(
    {
        errno.ECONNREFUSED: (Kind.TRANSIENT, "connect_refused", "the connection was refused"),
        errno.ETIMEDOUT: (Kind.TIMEOUT, "connect_timeout", "connecting took too long"),
        errno.EHOSTUNREACH: (Kind.TRANSIENT, "connect_unreachable", "the host cannot be reached"),
        errno.ENETUNREACH: (Kind.TRANSIENT, "connect_unreachable", "the network cannot be reached"),
        errno.EACCES: (
            Kind.TRANSIENT,
            "address_denied",
            "the name resolves to an address that is never allowed",
        ),
    }
)

# OpenSSL's X509_V_ERR_* numbers, by what an operator would have to mend.
_CERTIFICATE_CAUSES: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
    {
        9: ("tls_expired", "the certificate is not valid yet"),
        10: ("tls_expired", "the certificate has expired"),
        18: ("tls_untrusted", "the certificate is self-signed"),
        19: ("tls_untrusted", "the certificate chain ends in an unknown authority"),
        20: ("tls_untrusted", "the certificate's issuer is unknown"),
        21: ("tls_untrusted", "the certificate's issuer is unknown"),
        62: ("tls_wrong_name", "the certificate is for another name"),
        64: ("tls_wrong_name", "the certificate is for another address"),
    }
)


class _Watch:
    """One timer for all of an exchange's limits.

    A timer per limit and per read would cost more than the read. This one is armed once and looks at the
    deadline when it fires: moving the deadline away is an assignment, and the timer follows by itself.
    """

    __slots__ = ("_act", "_deadline", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
        self._loop = loop
        self._act = act
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, seconds: float) -> None:
        """Act once `seconds` from now have passed without another word."""
        deadline = self._deadline = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._fire)
        elif self._timer.when() > deadline:
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._fire)

    def rest(self) -> None:
        """Act no more until there is another limit."""
        self._deadline = math.inf

    def then(self, act: Callable[[], None]) -> None:
        """Do something else from now on, and rest."""
        self._act = act
        self._deadline = math.inf

    def stop(self) -> None:
        """Let the timer go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            self._act()
        elif self._deadline < math.inf:
            self._timer = self._loop.call_at(self._deadline, self._fire)


@dataclass(slots=True)
class _Phase:
    """Where one send stands: its watch, and the socket once there is one."""

    watch: _Watch
    ttft: float | None
    wire: asyncio.Transport | None = None

    def connected(self, wire: asyncio.Transport | None) -> None:
        self.wire = wire
        if self.ttft is None:
            self.watch.rest()
        else:
            self.watch.limit(self.ttft)


_PHASE: Final[ContextVar[_Phase | None]] = ContextVar("tokenhub_transport_phase", default=None)
"""Carries the phase of the running send through aiohttp to the connector, which alone knows when it is connected."""


class _Connector(aiohttp.TCPConnector):
    """A connector that tells the send that waits for it when it is connected."""

    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(*args, **kwargs)
        phase = _PHASE.get()
        if phase is not None:
            phase.connected(connection.transport)
        return connection


class HttpTransport:
    """One connection pool for all providers: `ports.Transport` over HTTP. Use it as an async context manager."""

    def __init__(
        self, *, ca_file: Path | None = None, max_connections: int = 1024, keepalive: float = 15.0
    ) -> None:
        """`ca_file` (PEM) is trusted besides the system's and the usual public authorities.

        `keepalive` is how long an idle connection is kept, in seconds. Beyond `max_connections` answers in
        flight a send fails at once: admission is where callers wait.
        """
        self._ca_file = ca_file
        self._max = max_connections
        self._keepalive = keepalive
        self._session: aiohttp.ClientSession | None = None
        self._open: set[_HttpResponse] = set()
        self._sending = 0

    async def start(self) -> None:
        """Make the pool; raises `ConfigError` where the CA file cannot be used."""
        connector = _Connector(
            ssl=tls_context(self._ca_file),
            limit=0,
            keepalive_timeout=self._keepalive,
            ttl_dns_cache=10,
            socket_factory=_guarded_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            skip_auto_headers=_SKIP,
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BUFFER,
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
        )

    async def close(self) -> None:
        """Close every connection, answers in flight included. A closed transport may be started again."""
        session, self._session = self._session, None
        for response in tuple(self._open):
            response.drop()
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send and return once the head is here; see `ports.Transport`.

        A cancelled send closes its socket at once.
        """
        session = self._session
        if session is None:
            raise TokenHubError(
                Fault(Kind.INTERNAL, Blame.US, "the transport is not running", cause="stopped")
            )
        if len(self._open) + self._sending >= self._max:
            message = f"more than {self._max} provider connections are in use"
            raise TokenHubError(Fault(Kind.OVERLOADED, Blame.US, message, cause="connection_limit"))
        self._sending += 1
        try:
            reply, watch = await _head(session, request, timeouts)
        finally:
            self._sending -= 1
        response = _HttpResponse(reply, _host(request.url), timeouts.stall, watch, self._open)
        self._open.add(response)
        response.check()
        return response


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return the context for provider connections: verification on, TLS 1.2 or newer.

    Trusted are the system's authorities, the public ones that `certifi` ships (slim images have no store of
    their own) and those in `ca_file`. Raises `ConfigError` where that file cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(certifi.where())
    if ca_file is not None:
        try:
            context.load_verify_locations(str(ca_file))
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                f"CA file {ca_file}: {exc.strerror or 'not a PEM file of certificates'}"
            ) from exc
    return context


async def _head(
    session: aiohttp.ClientSession, request: UpstreamRequest, timeouts: Timeouts
) -> tuple[aiohttp.ClientResponse, _Watch]:
    """Send and return the response with its head read, and the watch to go on with."""
    loop = asyncio.get_running_loop()
    # A scope without a time of its own: it only turns the watch's word into an exception at the right place.
    scope = asyncio.timeout(None)
    watch = _Watch(loop, lambda: scope.reschedule(loop.time()))
    phase = _Phase(watch, timeouts.ttft)
    token = _PHASE.set(phase)
    try:
        async with scope:
            watch.limit(timeouts.connect)
            reply = await session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=_payload(request.body),
                allow_redirects=False,
            )
            watch.rest()
            return reply, watch
    except BaseException as exc:
        watch.stop()
        # aiohttp closes politely: it flushes first and waits for TLS's goodbye, which a hanging peer never says.
        if phase.wire is not None:
            phase.wire.abort()
        if isinstance(exc, TimeoutError) and scope.expired():
            raise TokenHubError(_late(request.url, timeouts, connected=phase.wire is not None)) from exc
        if isinstance(exc, aiohttp.ClientError | OSError | ValueError):
            raise TokenHubError(_send_fault(exc, request.url)) from exc
        raise
    finally:
        _PHASE.reset(token)


class _HttpResponse:
    """One answer in flight: `ports.UpstreamResponse`."""

    __slots__ = (
        "__weakref__",
        "_content",
        "_decoder",
        "_host",
        "_open",
        "_protocol",
        "_reply",
        "_stall",
        "_until_eof",
        "_watch",
        "headers",
        "status",
    )

    def __init__(
        self,
        reply: aiohttp.ClientResponse,
        host: str,
        stall: float | None,
        watch: _Watch,
        registry: set[_HttpResponse],
    ) -> None:
        self.status = reply.status
        self.headers: Headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in reply.raw_headers
        )
        self._reply = reply
        self._host = host
        self._stall = stall
        self._open = registry
        self._content = reply.content
        # Kept past the body's end: it remembers how the connection was lost.
        self._protocol = reply.connection.protocol if reply.connection is not None else None
        self._until_eof = not header(self.headers, "content-length") and not header(
            self.headers, "transfer-encoding"
        )
        self._decoder: Decoder | None = None
        self._watch = watch
        watch.then(self._stalled)

    def check(self) -> None:
        """Refuse a head that is too large or a body that cannot be decoded."""
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD:
            raise self._fail(Kind.TRANSIENT, "header_too_large", "the response's header is too large")
        encodings = [value for name, value in self.headers if name == "content-encoding"]
        if not encodings:
            return
        try:
            self._decoder = decoder(", ".join(encodings))
        except UnknownEncodingError as exc:
            raise self._fail(Kind.TRANSIENT, "bad_encoding", str(exc)) from exc
        if self._decoder is not None:
            # What they say is true of the encoded body only.
            self.headers = tuple(
                item for item in self.headers if item[0] not in ("content-encoding", "content-length")
            )

    async def read(self, limit: int) -> bytes:
        """Return the whole decoded body; a longer one than `limit` bytes is a `TOO_LARGE` fault."""
        announced = header(self.headers, "content-length")
        parts: list[bytes] = []
        size = int(announced) if announced.isdecimal() else 0
        if size <= limit:
            size = 0
            async for chunk in self.chunks():
                size += len(chunk)
                if size > limit:
                    break
                parts.append(chunk)
        if size > limit:
            message = f"the answer is larger than {limit} bytes"
            raise self._fail(Kind.TOO_LARGE, "response_too_large", message, status=502)
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the decoded body as it arrives."""
        content, engine, watch, stall = self._content, self._decoder, self._watch, self._stall
        while True:
            if stall is not None and not content.is_eof():
                watch.limit(stall)
            try:
                data = await content.readany()
            except (aiohttp.ClientError, OSError, RuntimeError, HttpProcessingError) as exc:
                raise self._lost(exc) from exc
            except TokenHubError:
                self.drop()
                raise
            finally:
                watch.rest()
            if not data:
                break
            if engine is None:
                yield data
                continue
            try:
                for piece in engine.feed(data):
                    yield piece
            except (BombError, BrokenBodyError) as exc:
                raise self._undecodable(exc) from exc
        self._finish()

    async def close(self) -> None:
        """Let go of the connection: back to the pool when the body was read to its end, else closed."""
        self.drop()

    def drop(self) -> None:
        """Close without waiting; any number of times."""
        self._open.discard(self)
        self._watch.stop()
        connection = self._reply.connection
        wire = connection.transport if connection is not None else None
        self._reply.close()
        if wire is not None:
            wire.abort()

    def _stalled(self) -> None:
        message = f"{self._host}: no more of the answer came for {self._stall:g} s"
        fault = Fault(
            Kind.TIMEOUT, Blame.PROVIDER, message, cause="stall_timeout", upstream_status=self.status
        )
        self._content.set_exception(TokenHubError(fault))

    def _finish(self) -> None:
        """Check, at the body's end, that it is one."""
        lost = self._protocol.exception() if self._protocol is not None else None
        if self._until_eof and isinstance(lost, OSError):
            # Without a length a lost connection looks like an end; only the way it was lost tells.
            raise self._fail(Kind.TRUNCATED, "reset", "the connection was reset in the middle of the answer")
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except BrokenBodyError as exc:
                raise self._fail(Kind.TRUNCATED, "truncated", str(exc)) from exc
        self._watch.stop()

    def _lost(self, exc: Exception) -> TokenHubError:
        lost = self._protocol.exception() if self._protocol is not None else None
        if isinstance(exc, OSError) or isinstance(lost, OSError):
            return self._fail(Kind.TRUNCATED, "reset", "the connection was reset in the middle of the answer")
        if isinstance(lost, HttpProcessingError):
            return self._fail(Kind.TRANSIENT, "bad_http", "the answer's body is not valid HTTP")
        return self._fail(Kind.TRUNCATED, "truncated", "the answer ended before its end")

    def _undecodable(self, exc: Exception) -> TokenHubError:
        if isinstance(exc, BombError):
            return self._fail(Kind.TOO_LARGE, "decompression_bomb", str(exc), status=502)
        return self._fail(Kind.TRANSIENT, "bad_encoding", str(exc))

    def _fail(self, kind: Kind, cause: str, message: str, *, status: int = 0) -> TokenHubError:
        self.drop()
        return TokenHubError(
            Fault(
                kind,
                Blame.PROVIDER,
                f"{self._host}: {message}",
                cause=cause,
                status=status,
                upstream_status=self.status,
            )
        )


def _payload(body: bytes) -> bytes | BytesIO | None:
    # aiohttp writes bytes in one piece, and warns above its own limit; a file is written bit by bit.
    return BytesIO(body) if len(body) > _ONE_PIECE else body or None


def _late(url: str, timeouts: Timeouts, *, connected: bool) -> Fault:
    if not connected:
        message = f"{_host(url)}: connecting took longer than {timeouts.connect:g} s"
        return Fault(Kind.TIMEOUT, Blame.PROVIDER, message, cause="connect_timeout")
    message = f"{_host(url)}: no answer began within {timeouts.ttft:g} s"
    return Fault(Kind.TIMEOUT, Blame.PROVIDER, message, cause="ttft_timeout")


def _send_fault(exc: Exception, url: str) -> Fault:
    """Return the fault behind an exception that came before the head. First match wins; types and numbers only."""
    host = _host(url)
    match exc:
        case aiohttp.ClientConnectorDNSError():
            kind, cause, words = Kind.TRANSIENT, "dns", "the name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            kind, (cause, words) = Kind.TRANSIENT, _certificate(exc.certificate_error)
        case aiohttp.ClientConnectorError():
            kind, cause, words = _connecting(exc.os_error, tls=url.startswith("https:"))
        case aiohttp.ClientResponseError():
            kind, (cause, words) = Kind.TRANSIENT, _bad_head(exc)
        case aiohttp.ServerDisconnectedError():
            kind, cause, words = Kind.TRANSIENT, "disconnected", "the connection was closed without an answer"
        case aiohttp.ClientOSError() | ConnectionError() | aiohttp.ClientConnectionError():
            kind, cause, words = Kind.TRANSIENT, "reset", "the connection was reset before the answer"
            if isinstance(exc.__cause__, ssl.SSLError):
                cause, words = "tls_protocol", "the TLS connection failed"
        case aiohttp.InvalidURL() | ValueError():
            return Fault(Kind.INTERNAL, Blame.US, f"{host}: the request cannot be sent", cause="bad_request")
        case _:
            kind, cause, words = Kind.TRANSIENT, "connection", "the connection failed"
    return Fault(kind, Blame.PROVIDER, f"{host}: {words}", cause=cause)


def _certificate(exc: Exception) -> tuple[str, str]:
    code = exc.verify_code if isinstance(exc, ssl.SSLCertVerificationError) else 0
    return _CERTIFICATE_CAUSES.get(code, ("tls_certificate", "the certificate was refused"))


def _connecting(exc: OSError, *, tls: bool) -> tuple[Kind, str, str]:
    if isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError) or (
        tls and isinstance(exc, ConnectionResetError)
    ):
        return Kind.TRANSIENT, "tls_truncated", "the TLS handshake was cut off"
    if isinstance(exc, ssl.SSLError):
        return Kind.TRANSIENT, "tls_protocol", "the TLS handshake failed"
    known = _CONNECT_CAUSES.get(exc.errno or 0)
    return known or (Kind.TRANSIENT, "connect_failed", "the connection could not be made")


def _bad_head(exc: aiohttp.ClientResponseError) -> tuple[str, str]:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, LineTooLong):
            return "header_too_large", "the response's header is too large"
        cause = cause.__cause__
    return "bad_http", "the answer is not valid HTTP"


def _guarded_socket(address: aiohttp.connector.AddrInfoType) -> socket.socket:
    """Return a socket for an address that a name resolved to, unless it is one that nothing may connect to."""
    family, kind, protocol, _, target = address
    if forbidden(str(target[0])):
        raise PermissionError(errno.EACCES, "the address is never allowed")
    return socket.socket(family, kind, protocol)


def _host(url: str) -> str:
    return urlsplit(url).hostname or "provider"
