"""What is not routed, handed through to the host it was meant for: streamed both ways, WebSockets included.

Only listed LLM hosts come here, always over TLS, with the caller's own credential or, where the rule of the host says
`replace`, with that of the provider which is registered there. Nothing else is changed or held back; one record says
that it happened, with the usage where the host tells it in the open. Calls come here too where the mode of their host
or caller leaves them alone; those in shadow are decided on the way.
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

from tokenhub_core.admission.doorkeeper import Entry, let_pass
from tokenhub_core.admission.quotas import nanoseconds
from tokenhub_core.admission.tenures import KEY_ENDED
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.hops import end_to_end
from tokenhub_core.http.connection import Connection
from tokenhub_core.http.consumer import Door, caller
from tokenhub_core.http.websockets import splice
from tokenhub_core.ids import request_id
from tokenhub_core.lending import Loan
from tokenhub_core.modes import ROUTED, HostMode
from tokenhub_core.ports import Recorder
from tokenhub_core.providers.transport import wants_certificate
from tokenhub_core.recognise import CHAT, PASSTHROUGH, Recognised, Recogniser, without_secrets
from tokenhub_core.types import Headers, Origin, Outcome, Record, Snapshot, Timings, header
from tokenhub_core.watching import Watch, Watcher

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
_AUTOMATIC: Final = ("user-agent", "accept", "accept-encoding", "content-type")
"""What aiohttp would add of its own."""

_SWITCH: Final = (("connection", "Upgrade"), ("upgrade", "websocket"))
_PUBLIC: Final = Recogniser()

WANTED: Final = ("upgrade", "HTTP/1.1")
"""The field that a 426 must have (RFC 9110, 15.5.22)."""


@dataclass(slots=True)
class _Course:
    """How one exchange goes; as long as nothing else is known, its client has left."""

    watch: Watch
    outcome: Outcome = Outcome.CANCELLED
    status: int = 499
    fault: Fault | None = None
    sent: int = 0
    """Bytes of the request's body, or of the client's side of a WebSocket, that were passed on."""
    received: int = 0
    loan: Loan | None = None
    """The credential that it goes with, where that is not the caller's own."""

    def up(self, size: int) -> None:
        self.sent += size

    def down(self, size: int) -> None:
        self.received += size


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
        recogniser: Recogniser = _PUBLIC,
        watcher: Watcher | None = None,
    ) -> None:
        self._door = door
        self._recorder = recorder
        self._session = session
        self._allowed = allowed
        self._base_url = base_url
        self._recogniser = recogniser
        self._watcher = watcher

    async def __call__(
        self,
        request: web.BaseRequest,
        connection: Connection,
        found: Recognised,
        entry: Entry,
        *,
        shadow: bool = False,
        begun: bytes = b"",
    ) -> web.StreamResponse:
        """Hand one request through; `begun` is what was read of its body, `shadow` says that it is to be decided."""
        door = self._door
        at, started = door.clock.now(), door.clock.monotonic()
        name = request_id(at, door.entropy())
        snapshot = Snapshot(
            id=name,
            method=request.method,
            path=entry.path,
            headers=entry.headers,
            body=b"",
            received_at=at,
            started=started,
            dialect=found.dialect,
            origin=Origin("https", connection.host, connection.port),
            caller=caller(request, connection, entry),
        )
        course = _Course(Watch(snapshot, watcher=self._watcher, shadow=shadow))
        stay = door.throttle.visit(snapshot.caller, snapshot.headers, nanoseconds(started), drawn=False)
        try:
            if stay is not None:
                stay.enter(nanoseconds(started))
            response = await self._pass(
                request, connection, course, found, entry=entry, begun=begun, shadow=shadow
            )
            course.outcome, course.status = Outcome.PASSED, response.status
            return response
        except TokenHubError as error:
            course.outcome, course.fault = Outcome.ERROR, error.fault
            course.status = error.fault.http_status
            if request.writer.output_size:
                _cut(request)
            return self._refusal(error.fault, found, name)
        finally:
            if course.loan is not None:
                course.loan.ended()
            fault = course.fault
            record = Record(
                id=name,
                at=at,
                outcome=course.outcome,
                status=course.status,
                caller=snapshot.caller,
                method=request.method,
                path=without_secrets(entry.path),
                dialect=found.dialect,
                origin_host=connection.host,
                provider=course.loan.provider if course.loan else "",
                timings=Timings(total_ms=round((door.clock.monotonic() - started) * 1000, 3)),
                fault=fault.label if fault else "",
                message=fault.message if fault else sizes(course.sent, course.received),
            )
            record = course.watch.told(record)
            if stay is not None:
                used = record.usage.input_tokens + record.usage.output_tokens
                stay.leave(used, nanoseconds(door.clock.monotonic()))
            self._recorder.post(record)

    def _refusal(self, fault: Fault, found: Recognised, name: str) -> web.Response:
        error = self._door.dialects[found.dialect].error(fault, request_id=name)
        others = [field for field in error.headers if field[0] != "x-request-id"]
        headers = [*others, ("x-request-id", name), ("server", "tokenhub")]
        if error.status == 426:
            headers.append(WANTED)
        return web.Response(status=error.status, body=error.body, headers=headers)

    async def _pass(
        self,
        request: web.BaseRequest,
        connection: Connection,
        course: _Course,
        found: Recognised,
        *,
        entry: Entry,
        begun: bytes,
        shadow: bool,
    ) -> web.StreamResponse:
        lender = self._watcher.lender if self._watcher and entry.replaced else None
        if lender is None:
            let_pass(entry, connection.host, call=found.operation == CHAT)
        upgrade = is_handshake(entry.headers)
        modes = self._watcher.modes() if self._watcher else ROUTED
        routed = modes.of(connection.host, entry.user or connection.proxy_user) is HostMode.ROUTE
        if upgrade and routed and (fault := refusal(self._recogniser, connection.host, request.path_qs)):
            raise TokenHubError(fault)
        # Whoever goes with a credential of ours keeps to its budget, whatever the mode says.
        if ((routed and not shadow) or lender) and (fault := self._poor(request, connection, entry)):
            raise TokenHubError(fault)
        if not self._allowed:
            message = (
                f"{request.method} {request.path} is not routed, and {connection.host} may not be reached"
            )
            status = 426 if upgrade else 403
            raise TokenHubError(Fault(Kind.FORBIDDEN, Blame.US, message, cause="origin_off", status=status))
        if lender is not None:
            origin = Origin("https", connection.host, connection.port)
            course.loan = lender.lend(entry, origin, found.dialect)
        headers = course.loan.on(entry.headers) if course.loan else entry.headers
        body = _body(request, course, begun) if request.body_exists else None
        upstream = await self._send(request, connection, entry.path, headers, body=body, upgrade=upgrade)
        async with upstream:
            told = _lower(upstream.headers)
            if course.loan is not None:
                course.loan.began(upstream.status, told)
            self._door.overheard(
                connection.host,
                found.dialect,
                headers,
                told,
                model=course.watch.asked,
                now=self._door.clock.monotonic(),
                at=self._door.clock.now(),
            )
            if upstream.status == 101:
                return await _switch(
                    request,
                    connection,
                    upstream,
                    course,
                    asked=upgrade,
                    hold=lambda end: self._door.keeper.tenures.hold(end, entry.shown, connection.key),
                )
            return await _answer(request, connection, upstream, course)

    def _poor(self, request: web.BaseRequest, connection: Connection, entry: Entry) -> Fault | None:
        if self._watcher is None:
            return None
        return self._watcher.admit(caller(request, connection, entry), self._door.clock.now())

    async def _send(
        self,
        request: web.BaseRequest,
        connection: Connection,
        path: str,
        headers: Headers,
        *,
        body: AsyncIterator[bytes] | None,
        upgrade: bool,
    ) -> aiohttp.ClientResponse:
        """Return once the head of the host's answer is here; the request's body may still be on its way."""
        port = "" if connection.port == 443 else f":{connection.port}"
        host = ("host", f"{connection.host}{port}")
        try:
            return await self._session.request(
                request.method,
                # Encoded: what the client wrote is what the host gets.
                URL(self._base_url(connection) + path, encoded=True),
                headers=[*_forwarded(headers), host, *(_SWITCH if upgrade else ())],
                data=body,
                allow_redirects=False,
                timeout=_TIMEOUT,
                skip_auto_headers=_AUTOMATIC,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            message = f"{connection.host} cannot be reached: {type(error).__name__}"
            if wants_certificate(error.__cause__):
                # Its client has one, perhaps; but it was shown to nobody, and could not be used by us.
                message = (
                    f"{connection.host} wants a certificate of its client, which nobody in between can show:"
                    f" leave it unopened with `tokenhub mode set {connection.host} off`"
                )
            fault = Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause="origin_unreachable")
            raise TokenHubError(fault) from None


def sizes(sent: int, received: int) -> str:
    """Return what a record says of how much was passed: bytes of bodies, as they were on the wire."""
    return f"{sent} bytes up, {received} bytes down"


def is_handshake(headers: Headers) -> bool:
    """Tell whether a request asks to switch to a WebSocket (RFC 6455, 4.1); names of `headers` in lower case."""
    wanted = header(headers, "upgrade").strip().lower() == "websocket"
    options = (value.lower().split(",") for name, value in headers if name == "connection")
    return wanted and any(option.strip() == "upgrade" for line in options for option in line)


def refusal(recogniser: Recogniser, host: str, path: str) -> Fault | None:
    """Return why a WebSocket to this address is refused, None where it may pass.

    Calls are routed over HTTP. A client that would make them over a WebSocket, and learns that it cannot, makes
    them over HTTP: of OpenAI's Responses API that is how its clients fall back, at a 426.
    """
    found = recogniser.recognise(host, "POST", path)
    if found is None or found.operation == PASSTHROUGH:
        return None
    message = f"calls to {path.partition('?')[0]} are routed over HTTP and not over a WebSocket; use POST"
    return Fault(Kind.INVALID, Blame.CLIENT, message, cause="websocket_not_routed", status=426)


async def _answer(
    request: web.BaseRequest, connection: Connection, upstream: aiohttp.ClientResponse, course: _Course
) -> web.StreamResponse:
    response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
    loan = course.loan
    response.headers.extend(_told(upstream, loan))
    course.watch.begin(upstream.status, _lower(upstream.headers))
    await response.prepare(request)
    async for piece in _pieces(upstream, connection):
        if shown := loan.veil(piece) if loan else piece:
            await response.write(shown)
        course.down(len(piece))
        course.watch.feed(piece)
    await response.write_eof(loan.veil(b"") if loan else b"")
    return response


async def _switch(
    request: web.BaseRequest,
    connection: Connection,
    upstream: aiohttp.ClientResponse,
    course: _Course,
    *,
    asked: bool,
    hold: Callable[[Callable[[], None]], Callable[[], None]],
) -> web.StreamResponse:
    switched = upstream.connection is not None and upstream.connection.protocol is not None
    if not asked or not switched:
        message = f"{connection.host} switched to a protocol that nobody asked for"
        raise TokenHubError(Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause="bad_upgrade"))
    response = web.StreamResponse(status=101, reason=upstream.reason)
    response.headers.extend(_told(upstream, course.loan))
    response.headers.extend(_SWITCH)
    response.force_close()
    await response.prepare(request)
    # From here on a client that goes away is one that has ended its conversation.
    course.outcome, course.status = Outcome.PASSED, 101
    talk = asyncio.create_task(splice(request, upstream, up=course.up, down=course.down), name="websocket")

    def end() -> None:
        course.fault = KEY_ENDED
        talk.cancel()

    release = hold(end)
    try:
        await talk
    except asyncio.CancelledError:
        here = asyncio.current_task()
        if course.fault is not KEY_ENDED or (here is not None and here.cancelling()):
            raise
    finally:
        release()
    return response


async def _body(request: web.BaseRequest, course: _Course, begun: bytes) -> AsyncIterator[bytes]:
    yield b""  # aiohttp keeps the head back for the first piece; a host may refuse without any
    if begun:
        yield _heard(course, begun)
    async for piece in request.content.iter_any():
        yield _heard(course, piece)
    if course.watch.decides:
        # Once the rest is on its way: the host works while we decide.
        asyncio.get_running_loop().call_soon(course.watch.decide)


def _heard(course: _Course, piece: bytes) -> bytes:
    course.up(len(piece))
    course.watch.ask(piece)
    return piece


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


def _told(upstream: aiohttp.ClientResponse, loan: Loan | None) -> Headers:
    """Return the host's fields for the caller, in which no credential of ours is quoted."""
    fields = end_to_end(upstream.headers.items())
    return loan.veiled(fields) if loan else fields


def _lower(headers: CIMultiDictProxy[str]) -> Headers:
    return tuple((name.lower(), value) for name, value in headers.items())


def _forwarded(headers: Headers) -> list[tuple[str, str]]:
    """Return the caller's fields for the origin, but for those that aiohttp or we write anew."""
    return [(key, value) for key, value in end_to_end(headers) if key not in {"host", "expect"}]
