"""The consumer's front door: aiohttp requests in, snapshots to the engine, replies out.

Two kinds of connection arrive here: those of the side server, and those that the hand-off lane took over,
which bring their `Connection` along and are served by the host they were meant for.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol, cast

from aiohttp import HttpVersion11, web

from tokenhub_core.admission import identity
from tokenhub_core.admission.doorkeeper import ASKING, KEYLESS, Doorkeeper, Entry, allow, loopback, scope_of
from tokenhub_core.admission.foreign import KEPT, Foreign
from tokenhub_core.admission.quotas import nanoseconds
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.http.connection import Connection, connection_of
from tokenhub_core.ids import request_id
from tokenhub_core.modes import HostMode
from tokenhub_core.ports import Clock, Engine, Overhearing, Reply, deaf
from tokenhub_core.proof.prover import Delivery, Prover
from tokenhub_core.recognise import CHAT, Current, Recognised, Recogniser, without_secrets
from tokenhub_core.telemetry.refusals import unrecorded
from tokenhub_core.types import Caller, Dialect, Headers, Lane, Origin, Outcome, Record, Scope, Snapshot
from tokenhub_core.watching import Watcher

DIRECT: Final[Mapping[str, Dialect]] = {
    "/v1/chat/completions": Dialect.OPENAI_CHAT,
    "/v1/messages": Dialect.ANTHROPIC_MESSAGES,
    "/v1/responses": Dialect.OPENAI_RESPONSES,
    "/v1/completions": Dialect.OPENAI_COMPLETIONS,
    "/v1/embeddings": Dialect.OPENAI_EMBEDDINGS,
    "/v1/messages/count_tokens": Dialect.ANTHROPIC_COUNT_TOKENS,
    "/{version:v1|v1beta|v1alpha}/models/{call:.+:(?:generateContent|streamGenerateContent)}": Dialect.GEMINI,
    "/api/chat": Dialect.OLLAMA_CHAT,
    "/api/generate": Dialect.OLLAMA_GENERATE,
}
"""The routed paths of the side server, as aiohttp's router reads them."""

SILENCE: Final = 60.0
"""Seconds that a request body may pause for; also what ends one that has stopped being HTTP."""

_NOBODY: Final = Entry((), "")
_LONGEST: Final = 1000
"""Characters of a refused request's method and path that are kept."""
_PATHS: Final = 1024
"""Hosts and paths that are remembered together."""
_INTERNAL: Final = Fault(
    Kind.INTERNAL, Blame.US, "TokenHub could not answer this call", cause="engine_failed"
)
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """What both kinds of connection need."""

    engine: Engine
    dialects: Mapping[Dialect, DialectModule]
    clock: Clock
    entropy: Callable[[], bytes]
    """Ten random bytes for an id."""
    max_body_bytes: int
    overheard: Overhearing = deaf
    """Learns limits from the answers that pass."""
    throttle: Throttle = field(default_factory=Throttle)
    """Limits callers where no engine does."""
    keeper: Doorkeeper = KEYLESS
    """Says who comes in."""
    foreign: Foreign = KEPT
    """Says what is done with credentials that clients bring for their hosts."""
    prover: Prover | None = None
    """Hears what goes out, where that is to be proved."""
    refused: Callable[[Record], None] = unrecorded
    """Hears of those who are refused before there is an exchange."""

    def admit(
        self,
        request: web.BaseRequest,
        dialect: Dialect,
        scope: Scope,
        connection: Connection | None = None,
    ) -> Entry:
        """Return the request as it comes in, without its key; raises `TokenHubError` where it may not."""
        near = connection.near if connection is not None else None
        if near is None:
            near = loopback(connection.peer if connection is not None else request.remote or "")
        found = identity.find(
            fields(request),
            request.path_qs,
            gemini=dialect is Dialect.GEMINI,
            proxy=connection.key.reveal() if connection is not None else "",
        )
        entry = self.keeper.admit(found, near=near, now=self.clock.now())
        try:
            if connection is None:
                allow(entry.key, scope)
                return entry
            allow(entry.key, scope, host=connection.host)
            return self.foreign.settled(entry, connection.host, peer=connection.peer)
        except TokenHubError as error:
            raise KnownError(error.fault, entry) from None


class KnownError(TokenHubError):
    """The refusal of somebody who has shown who it is."""

    def __init__(self, fault: Fault, entry: Entry) -> None:
        super().__init__(fault)
        self.entry = entry


class Consumer:
    """Turns one HTTP request into one exchange."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def admit(
        self, request: web.BaseRequest, dialect: Dialect, scope: Scope, connection: Connection | None = None
    ) -> Entry:
        """Return the request as it comes in; see `Door.admit`."""
        return self._door.admit(request, dialect, scope, connection)

    async def handle(
        self,
        request: web.BaseRequest,
        dialect: Dialect,
        entry: Entry,
        *,
        connection: Connection | None = None,
        begun: bytes = b"",
        native: bool = False,
    ) -> web.StreamResponse:
        """Answer a routed request. Cancelled when the client leaves; the exchange then ends at once.

        `begun` is what was read of its body already; `native` says that it is asked for in our own way.
        """
        door = self._door
        received_at, started = door.clock.now(), door.clock.monotonic()
        try:
            body = await _body(request, door.max_body_bytes, begun)
        except TokenHubError as error:
            response = self.refusal(KnownError(error.fault, entry), dialect, request, connection)
            # What is left of the body would be taken for the next request.
            response.force_close()
            return response
        snapshot = Snapshot(
            id=request_id(received_at, door.entropy()),
            method=request.method,
            path=entry.path,
            headers=entry.headers,
            body=body,
            received_at=received_at,
            started=started,
            dialect=dialect,
            origin=Origin("https", connection.host, connection.port) if connection else None,
            caller=caller(request, connection, entry),
            native=native,
        )
        if door.prover is None:
            return await respond(request, await door.engine.exchange(snapshot))
        with closing(door.prover.begin(snapshot)) as delivery:
            return await respond(request, await door.engine.exchange(snapshot), delivery)

    def count_admin(self, request: web.BaseRequest) -> None:
        """Count a request to the admin API; raises `TokenHubError` (429) where its address sends too many."""
        door = self._door
        door.throttle.admin(request.remote or "", fields(request), nanoseconds(door.clock.monotonic()))

    def refusal(
        self,
        refused: TokenHubError,
        dialect: Dialect,
        request: web.BaseRequest,
        connection: Connection | None = None,
    ) -> web.Response:
        """Return the answer to a request that never became an exchange; one record says who was refused, and why."""
        at, fault = self._door.clock.now(), refused.fault
        name = request_id(at, self._door.entropy())
        self._door.refused(
            Record(
                id=name,
                at=at,
                outcome=Outcome.ERROR,
                status=fault.http_status,
                caller=caller(
                    request, connection, refused.entry if isinstance(refused, KnownError) else _NOBODY
                ),
                method=request.method[:_LONGEST],
                path=without_secrets(identity.masked(request.path_qs))[:_LONGEST],
                dialect=dialect,
                origin_host=connection.host if connection else "",
                fault=fault.label,
                message=fault.message,
            )
        )
        error = self._door.dialects[dialect].error(fault, request_id=name)
        others = [field for field in error.headers if field[0] != "x-request-id"]
        if error.status == 401:
            others.append(ASKING)
        return _whole(Reply(error.status, (*others, ("x-request-id", name)), error.body))


class PassingThrough(Protocol):
    """Hands a request through to its host."""

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
        """Return the host's answer; `begun` is what was read of the body, `shadow` asks for a decision on the way."""
        ...


class HandedOff:
    """Serves the connections of the hand-off lane, by their host."""

    def __init__(
        self,
        consumer: Consumer,
        recogniser: Recogniser,
        passthrough: PassingThrough,
        watcher: Watcher | None = None,
    ) -> None:
        self._consumer = consumer
        # Programs call few paths, over and over.
        self._recognise = lru_cache(maxsize=_PATHS)(recogniser.recognise)
        if isinstance(recogniser, Current):
            recogniser.listen(self._recognise.cache_clear)
        self._passthrough = passthrough
        self._watcher = watcher

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request of a handed-off connection."""
        connection = connection_of(request.transport)
        if connection is None:
            return web.Response(status=421, text="this connection was not handed off")
        found = self._recognise(connection.host, request.method, request.path_qs)
        if found is None:
            return web.Response(status=421, text="this host is not served here")
        scope = scope_of(found.dialect) if found.operation == CHAT else Scope.PASSTHROUGH
        try:
            entry = self._consumer.admit(request, found.dialect, scope, connection)
        except TokenHubError as error:
            response = self._consumer.refusal(error, found.dialect, request, connection)
            # Its body stays unread.
            response.force_close()
            return response
        if request.headers.get("expect", "").lower() == "100-continue":
            # A whole application would do this for us.
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        try:
            if found.operation != CHAT:
                return await self._passthrough(request, connection, found, entry)
            return await self._call(request, connection, found, entry)
        except ConnectionError:
            raise  # the client has left
        except Exception:
            if request.writer.output_size:
                raise  # too late for another answer: aiohttp cuts the connection
            _log.exception("%s %s failed", request.method, request.path)
            return self._consumer.refusal(TokenHubError(_INTERNAL), found.dialect, request, connection)

    async def _call(
        self, request: web.BaseRequest, connection: Connection, found: Recognised, entry: Entry
    ) -> web.StreamResponse:
        """Answer a call, or hand it through, as the mode of its host, caller or alias says."""
        body, mode = b"", HostMode.ROUTE
        if self._watcher is not None:
            modes, alias = self._watcher.modes(), ""
            if modes.by_alias:
                body = await _begun(request, self._watcher.max_body_bytes)
                alias = self._watcher.engine.alias_of(found.dialect, entry.path, entry.headers, body)
            mode = modes.of(connection.host, entry.user or connection.proxy_user, alias)
        if mode is HostMode.ROUTE:
            return await self._consumer.handle(
                request, found.dialect, entry, connection=connection, begun=body
            )
        shadow = mode is HostMode.SHADOW
        return await self._passthrough(request, connection, found, entry, shadow=shadow, begun=body)


async def respond(
    request: web.BaseRequest, reply: Reply, delivery: Delivery | None = None
) -> web.StreamResponse:
    """Send a reply; ends its frames when the client leaves. What goes out is told to `delivery`."""
    if delivery is not None:
        delivery.begin(reply.status, reply.headers)
    if reply.frames is None:
        return _whole(reply) if delivery is None else await _heard(request, _whole(reply), delivery)
    response = web.StreamResponse(status=reply.status, headers=_fields(reply.headers))
    response.headers.setdefault("cache-control", "no-cache")
    # nginx holds a stream back until a buffer is full, unless it is told not to.
    response.headers.setdefault("x-accel-buffering", "no")
    frames = cast("AsyncGenerator[bytes]", reply.frames)
    try:
        await response.prepare(request)
        async for frame in frames:
            if delivery is not None:
                delivery.add(frame)
            await response.write(frame)
        await response.write_eof()
    except ConnectionError:
        # The client left between two frames: what aiohttp tells by an error, a task is told by cancellation.
        raise asyncio.CancelledError from None
    except Exception:
        if request.version < HttpVersion11 and request.transport is not None:
            _reset(request.transport)
        raise
    finally:
        await frames.aclose()
    return response


def _reset(transport: asyncio.Transport) -> None:
    """Cut a connection so that its client sees it: without chunks, a normal close says that all is well."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _heard(request: web.BaseRequest, response: web.Response, delivery: Delivery) -> web.Response:
    """Send a whole answer here and now, and tell of it what is really sent."""
    await response.prepare(request)
    if isinstance(response.body, bytes):
        delivery.add(response.body)
    await response.write_eof()
    return response


def _whole(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=_fields(reply.headers))


def _fields(headers: Headers) -> list[tuple[str, str]]:
    return [*headers, ("server", "tokenhub")]


async def _begun(request: web.BaseRequest, limit: int) -> bytes:
    """Return a request's body, or its first bytes where it has more than `limit` or stops coming."""
    pieces: list[bytes] = []
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(SILENCE) as silence:
            while size <= limit and (piece := await request.content.readany()):
                size += len(piece)
                pieces.append(piece)
                silence.reschedule(asyncio.get_running_loop().time() + SILENCE)
    return b"".join(pieces)


async def _body(request: web.BaseRequest, limit: int, begun: bytes) -> bytes:
    content = request.content
    if max(request.content_length or 0, len(begun)) > limit:
        raise _too_large(limit)
    if content.is_eof() and content.exception() is None:
        # Mostly a body has come with its head: then nothing needs to be waited for, nor a clock to be set.
        whole = begun + content.read_nowait()
        if len(whole) > limit:
            raise _too_large(limit)
        return whole
    pieces = [begun] if begun else []
    size = len(begun)
    try:
        async with asyncio.timeout(SILENCE) as silence:
            async for piece in content.iter_any():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                pieces.append(piece)
                silence.reschedule(asyncio.get_running_loop().time() + SILENCE)
    except TimeoutError:
        message = f"no more of the request body came for {SILENCE:g} s"
        raise TokenHubError(
            Fault(Kind.TIMEOUT, Blame.CLIENT, message, cause="body_timeout", status=408)
        ) from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit: int) -> TokenHubError:
    message = f"the request body is larger than {limit} bytes"
    return client_fault(message, kind=Kind.TOO_LARGE, cause="body_too_large")


def fields(request: web.BaseRequest) -> Headers:
    """Return a request's header fields as the engine has them."""
    return tuple((key.lower(), value) for key, value in request.headers.items())


def caller(request: web.BaseRequest, connection: Connection | None, entry: Entry) -> Caller:
    """Return who sent a request."""
    agent = request.headers.get("user-agent", "").encode(errors="replace").decode()
    program = "" if identity.mentions(agent) else agent.partition(" ")[0][:80]
    if connection is None:
        peer = request.remote or ""
        return Caller(peer=peer, lane=Lane.DIRECT, proxy_user=entry.user, program=program, key=entry.key)
    return Caller(
        peer=connection.peer,
        lane=Lane.HANDOFF,
        mode=connection.mode,
        proxy_user=entry.user or connection.proxy_user,
        program=program,
        key=entry.key,
    )
