"""The pooled way to providers over HTTP/1.1 and TLS: the shell around `http1` and `pool`.

What it promises beyond speaking HTTP: every failure is a typed fault, decided from exception types and error
numbers; connecting, waiting for the head and waiting for more of a body each have their own limit; nothing that
a provider sends can grow memory past a fixed bound; and whoever lets go of an unfinished answer closes the
socket in the same moment, so that the provider stops producing.

No redirects (a credential is bound to its host), no cookies, no proxy or netrc from the environment.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import urlsplit

import certifi
import msgspec

from tokenhub_core.addresses import Guard
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError
from tokenhub_core.ports import Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.decoding import (
    BombError,
    BrokenBodyError,
    Decoder,
    UnknownEncodingError,
    decoder,
)
from tokenhub_core.providers.http1 import (
    BrokenResponseError,
    CutOffError,
    Head,
    HeadTooLargeError,
    request_head,
)
from tokenhub_core.providers.pool import OverdueError, Pool, Site, UnresolvedError, Wire
from tokenhub_core.types import Headers, header

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})
_MAX_SITES: Final = 1024

_CONNECT_CAUSES: Final[Mapping[int, tuple[Kind, str, str]]] = MappingProxyType(
    {
        errno.ECONNREFUSED: (Kind.TRANSIENT, "connect_refused", "the connection was refused"),
        errno.ETIMEDOUT: (Kind.TIMEOUT, "connect_timeout", "connecting took too long"),
        errno.EHOSTUNREACH: (Kind.TRANSIENT, "connect_unreachable", "the host cannot be reached"),
        errno.ENETUNREACH: (Kind.TRANSIENT, "connect_unreachable", "the network cannot be reached"),
        errno.EACCES: (
            Kind.TRANSIENT,
            "address_denied",
            "the name resolves to an address that is not public, and not in TOKENHUB_ALLOW_PRIVATE",
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


class Traffic(msgspec.Struct, frozen=True):
    """How many connections are in use and idle; how many were made, and how often one was used again."""

    active: int = 0
    idle: int = 0
    opened: int = 0
    reused: int = 0


class HttpTransport:
    """One connection pool for all providers: `ports.Transport` over HTTP. Use it as an async context manager."""

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        max_connections: int = 1024,
        keepalive: float = 15.0,
        guard: Guard | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`ca_file` (PEM) is trusted besides the system's and the usual public authorities.

        `context` is what `tls_context` has made of that file, for whoever has it already: it takes 50 to 100 ms.

        `guard` decides which addresses may be connected to; without one, names lead to public ones only.

        `keepalive` is how long an idle connection is kept, in seconds. Beyond `max_connections` answers in
        flight a send fails at once: admission is where callers wait.
        """
        self._ca_file = ca_file
        self._trusted = b""
        self._context = context
        self._guard = guard
        self._max = max_connections
        self._keepalive = keepalive
        self._pool: Pool | None = None
        self._sites: dict[str, tuple[Site, str]] = {}
        self._open: set[_HttpResponse] = set()
        self._sending = 0

    @property
    def traffic(self) -> Traffic:
        """Return what the connections do at this moment, and did since the start."""
        active, pool = len(self._open) + self._sending, self._pool
        return Traffic(active) if pool is None else Traffic(active, pool.idle, pool.opened, pool.reused)

    async def start(self) -> None:
        """Make the pool; raises `ConfigError` where the CA file cannot be used."""
        self._trusted = _content(self._ca_file)
        # Whoever starts again may find another file.
        context, self._context = self._context or tls_context(self._ca_file), None
        self._pool = Pool(context, idle=self._max, keepalive=self._keepalive, guard=self._guard)

    def trusting(self, ca_file: Path | None) -> tuple[ssl.SSLContext, bytes] | None:
        """Return what `trust` takes, None where the file is as it was; raises `ConfigError` where it cannot be used."""
        content = _content(ca_file)
        return None if content == self._trusted else (tls_context(ca_file), content)

    def trust(self, made: tuple[ssl.SSLContext, bytes] | None) -> None:
        """Hold providers to these authorities: connections that idle are closed, those in use serve to their end."""
        if made is not None and self._pool is not None:
            context, self._trusted = made
            self._pool.trust(context)

    def resize(self, most: int) -> None:
        """Allow so many connections in use from now on."""
        self._max = most

    async def close(self) -> None:
        """Close every connection, answers in flight included. A closed transport may be started again."""
        pool, self._pool = self._pool, None
        for response in tuple(self._open):
            response.drop()
        if pool is not None:
            await pool.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send and return once the head is here; see `ports.Transport`.

        A cancelled send closes its socket at once.
        """
        pool = self._pool
        if pool is None:
            raise TokenHubError(
                Fault(Kind.INTERNAL, Blame.US, "the transport is not running", cause="stopped")
            )
        if len(self._open) + self._sending >= self._max:
            message = f"more than {self._max} provider connections are in use"
            raise TokenHubError(Fault(Kind.OVERLOADED, Blame.US, message, cause="connection_limit"))
        try:
            site, data = self._written(request)
        except ValueError as exc:
            words = f"{_host(request.url)}: the request cannot be sent"
            raise TokenHubError(Fault(Kind.INTERNAL, Blame.US, words, cause="bad_request")) from exc
        self._sending += 1
        try:
            wire, head = await _exchange(pool, site, request.method, data, timeouts)
        finally:
            self._sending -= 1
        response = _HttpResponse(pool, wire, head, timeouts.stall, self._open)
        self._open.add(response)
        response.check()
        return response

    def _written(self, request: UpstreamRequest) -> tuple[Site, bytes]:
        """Return where a request goes, and all of its bytes; raises `ValueError` where it cannot be sent."""
        scheme, _, rest = request.url.partition("#")[0].partition("://")
        path = len(rest)
        for mark in "/?":
            found = rest.find(mark, 0, path)
            path = found if found >= 0 else path
        base = f"{scheme}://{rest[:path]}"
        known = self._sites.get(base)
        if known is None:
            if len(self._sites) >= _MAX_SITES:
                self._sites.clear()
            known = self._sites[base] = _site(base)
        site, authority = known
        target = rest[path:]
        head = request_head(
            request.method,
            target if target.startswith("/") else f"/{target}",
            authority=authority,
            headers=request.headers,
            length=len(request.body),
        )
        return site, head + request.body


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


class Authorities:
    """The CA file as it was read last. A context that many hold is given what stands there now."""

    def __init__(self, context: ssl.SSLContext, ca_file: Path | None) -> None:
        self._context = context
        self._read = _content(ca_file)

    def made(self, ca_file: Path | None) -> bytes:
        """Return what stands in the file; raises `ConfigError` where it cannot be used."""
        content = _content(ca_file)
        if content != self._read:
            tls_context(ca_file)
        return content

    def put(self, content: bytes) -> None:
        """Trust these as well; of a context nothing can be taken away."""
        if content and content != self._read:
            self._context.load_verify_locations(cadata=content.decode("ascii", "ignore"))
        self._read = content


def _content(ca_file: Path | None) -> bytes:
    """Return what stands in a file, nothing where none is named; of one that cannot be read only that it is another."""
    try:
        return ca_file.read_bytes() if ca_file is not None else b""
    except OSError:
        return b"unreadable"


async def _exchange(
    pool: Pool, site: Site, method: str, message: bytes, timeouts: Timeouts
) -> tuple[Wire, Head]:
    """Send and return the connection with the answer's head read.

    A provider may close an idle connection at the moment it is used again. Only what may be done twice
    (RFC 9110, section 9.2.2) is then sent again, once and on a new connection.
    """
    wire = pool.take(site)
    again = wire is not None and method in _IDEMPOTENT
    while True:
        if wire is None:
            wire = await _connected(pool, site, timeouts.connect)
        try:
            wire.ask(method, message)
            return wire, await wire.head(timeouts.ttft)
        except (OverdueError, ValueError, OSError) as exc:
            wire.abort()
            if not again or wire.touched or isinstance(exc, OverdueError):
                raise TokenHubError(_unanswered(exc, site.host, timeouts)) from exc
        except BaseException:
            wire.abort()
            raise
        wire, again = None, False


async def _connected(pool: Pool, site: Site, limit: float) -> Wire:
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await pool.connect(site)
    except OSError as exc:
        if scope.expired():
            words = f"{site.host}: connecting took longer than {limit:g} s"
            fault = Fault(Kind.TIMEOUT, Blame.PROVIDER, words, cause="connect_timeout")
            raise TokenHubError(fault) from exc
        kind, cause, words = _connecting(exc, tls=site.tls)
        raise TokenHubError(Fault(kind, Blame.PROVIDER, f"{site.host}: {words}", cause=cause)) from exc
    except ValueError as exc:
        # What the resolver says to a name that cannot be one.
        fault = Fault(
            Kind.INTERNAL, Blame.US, f"{site.host}: the request cannot be sent", cause="bad_request"
        )
        raise TokenHubError(fault) from exc


class _HttpResponse:
    """One answer in flight: `ports.UpstreamResponse`."""

    __slots__ = (
        "_decoder",
        "_host",
        "_open",
        "_pool",
        "_stall",
        "_tick",
        "_whole",
        "_wire",
        "headers",
        "status",
    )

    def __init__(
        self, pool: Pool, wire: Wire, head: Head, stall: float | None, registry: set[_HttpResponse]
    ) -> None:
        self.status = head.status
        self.headers: Headers = head.fields
        self._pool = pool
        self._wire: Wire | None = wire
        self._host = wire.site.host
        self._stall = stall
        self._tick: float | None = None
        self._open = registry
        self._decoder: Decoder | None = None
        self._whole = False

    def check(self) -> None:
        """Refuse a body that cannot be decoded."""
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
        engine = self._decoder
        while (wire := self._wire) is not None:
            data = wire.take()
            if not data:
                if wire.done:
                    self._finish(wire)
                    return
                if wire.failure is not None:
                    raise self._lost(wire.failure) from wire.failure
                await wire.more(self._stall, self._tick)
                if self._tick is not None and not wire.waiting:
                    yield b""
            elif engine is None:
                yield data
            else:
                try:
                    for piece in engine.feed(data):
                        yield piece
                except (BombError, BrokenBodyError) as exc:
                    raise self._undecodable(exc) from exc
        if not self._whole:
            raise self._fail(Kind.TRUNCATED, "truncated", "the answer ended before its end")

    def ease(self, *, gather: float, tick: float) -> None:
        """Hand over what comes close together in one piece, and tell of silence."""
        self._tick = tick
        if self._wire is not None:
            self._wire.gather(gather)

    async def close(self) -> None:
        """Let go of the connection: back to the pool when the body was read to its end, else closed."""
        self.drop()

    def drop(self) -> None:
        """Close without waiting; any number of times."""
        self._open.discard(self)
        wire, self._wire = self._wire, None
        if wire is not None:
            self._pool.give(wire)

    def _finish(self, wire: Wire) -> None:
        """Check, at the body's end, that it is one."""
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except BrokenBodyError as exc:
                raise self._fail(Kind.TRUNCATED, "truncated", str(exc)) from exc
        self._whole = True
        self._wire = None
        self._pool.give(wire)

    def _lost(self, exc: Exception) -> TokenHubError:
        match exc:
            case OverdueError():
                return self._fail(
                    Kind.TIMEOUT, "stall_timeout", f"no more of the answer came for {self._stall:g} s"
                )
            case OSError():
                # Without a length a lost connection looks like an end; only the way it was lost tells.
                words = "the connection was reset in the middle of the answer"
                return self._fail(Kind.TRUNCATED, "reset", words)
            case BrokenResponseError():
                return self._fail(Kind.TRANSIENT, "bad_http", "the answer's body is not valid HTTP")
            case _:
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


def _unanswered(exc: Exception, host: str, timeouts: Timeouts) -> Fault:
    """Return the fault behind an exception that came between connecting and the head. Types and numbers only."""
    kind = Kind.TRANSIENT
    match exc:
        case OverdueError():
            kind, cause, words = Kind.TIMEOUT, "ttft_timeout", f"no answer began within {timeouts.ttft:g} s"
        case HeadTooLargeError():
            cause, words = "header_too_large", "the response's header is too large"
        case CutOffError():
            cause, words = "disconnected", "the connection was closed without an answer"
        case ssl.SSLError():
            cause, words = _alerted(exc)
        case OSError():
            cause, words = "reset", "the connection was reset before the answer"
        case _:
            cause, words = "bad_http", "the answer is not valid HTTP"
    return Fault(kind, Blame.PROVIDER, f"{host}: {words}", cause=cause)


def _certificate(exc: ssl.SSLCertVerificationError) -> tuple[str, str]:
    return _CERTIFICATE_CAUSES.get(exc.verify_code, ("tls_certificate", "the certificate was refused"))


def _alerted(exc: ssl.SSLError) -> tuple[str, str]:
    """Return the cause and what the other side has said: an alert's name is one of a fixed set (RFC 8446, 6)."""
    alert = (exc.reason or "").partition("_ALERT_")[2].replace("_", " ").lower()
    if wants_certificate(exc):
        return "tls_client_certificate", "it wants a certificate of its client, and we have none to show"
    return "tls_protocol", f"the TLS connection failed{f': {alert}' if alert else ''}"


def wants_certificate(exc: BaseException | None) -> bool:
    """Tell whether TLS failed because the client has shown no certificate; servers of TLS 1.2 do not say so."""
    return isinstance(exc, ssl.SSLError) and (exc.reason or "").endswith("CERTIFICATE_REQUIRED")


def _connecting(exc: OSError, *, tls: bool) -> tuple[Kind, str, str]:
    if isinstance(exc, UnresolvedError):
        return Kind.TRANSIENT, "dns", "the name cannot be resolved"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Kind.TRANSIENT, *_certificate(exc)
    if isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError) or (
        tls and isinstance(exc, ConnectionResetError)
    ):
        return Kind.TRANSIENT, "tls_truncated", "the TLS handshake was cut off"
    if isinstance(exc, ssl.SSLError):
        return Kind.TRANSIENT, *_alerted(exc)
    known = _CONNECT_CAUSES.get(exc.errno or 0)
    return known or (Kind.TRANSIENT, "connect_failed", "the connection could not be made")


def _site(base: str) -> tuple[Site, str]:
    """Return where `scheme://authority` leads, and the Host field; raises `ValueError` where it leads nowhere."""
    # urlsplit drops tabs and line breaks without a word.
    if not base.isprintable() or not base.isascii() or " " in base:
        raise ValueError("the URL has characters that no URL has")
    parts = urlsplit(base)
    default = _PORTS.get(parts.scheme)
    if default is None or not parts.hostname or "@" in parts.netloc:
        raise ValueError("the URL has no host to connect to")
    port = parts.port or default
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if port == default else f"{host}:{port}"
    return Site(parts.scheme == "https", parts.hostname, port), authority


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "provider"
    except ValueError:
        return "provider"
