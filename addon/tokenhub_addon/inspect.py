"""The inspect lane: the engine answers inside mitmproxy's own HTTP stack, so that a routed call is a flow.

mitmproxy chooses its layers; each `HttpLayer` among them becomes a `RoutedHttpLayer`. That one differs in a single
place: a flow that the lane has accepted and that asks for its server connection gets an exchange with the engine
instead of a socket. The exchange is a task; what it produces travels back as an event through the connection
handler, like bytes from a socket would, and the task waits while the client does not read.

    HttpStream ──request──► _EngineConnection ──► Exchange (task) ──► Engine
        ▲                                             │
        └───── EngineEvent ◄── server_event ◄─────────┘

Hooks, flow list, filters, interception and saving work as for every other flow. This is the one file of the lane
that leans on mitmproxy's internals: `HttpLayer` and `HttpStream` (their tables of streams, connections and
commands), `ConnectionHandler.server_event`, `drain_writers` and `timeout_watchdog`, `Layer._paused_event_queue`
and the send buffers of `BufferedH2Connection`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, override, runtime_checkable

from mitmproxy import flow as base
from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, context, events, layer, server
from mitmproxy.proxy.layers import http as layers
from mitmproxy.proxy.layers.http import SendHttp
from mitmproxy.proxy.layers.http._base import HttpConnection, HttpEvent
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook
from mitmproxy.proxy.layers.http._http2 import Http2Connection

from tokenhub_addon.flows import NOBODY, Errors, declared_size, fault_reply, head, note, redact, whole
from tokenhub_addon.guard import addon
from tokenhub_addon.host import EngineHost
from tokenhub_addon.passing import Passage, Ticket
from tokenhub_addon.pipe import Pipe, Transcript, reset_at_close
from tokenhub_addon.proving import Outgoing, Sending
from tokenhub_addon.trailers import tolerate
from tokenhub_core.admission.doorkeeper import Entry
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.modes import HostMode
from tokenhub_core.ports import Clock, Reply
from tokenhub_core.recognise import Recognised
from tokenhub_core.types import Dialect, Origin, Snapshot

_logger: Final = logging.getLogger(__name__)

_PENDING: Final = 64 * 1024
"""Bytes of one answer that may wait for a slow client in each of our two buffers."""


class InspectLane:
    """The desk between mitmproxy's layers and the engine: accepts flows, starts, cuts and owns exchanges."""

    def __init__(
        self,
        host: EngineHost,
        *,
        errors: Errors,
        clock: Clock,
        new_id: Callable[[], str],
        max_body: Callable[[], int],
        would_route: Callable[[http.HTTPFlow], bool],
    ) -> None:
        self.engine = host.engine
        self.clock = clock
        self.would_route = would_route
        """Tells of a flow that has no ticket yet whether it will be routed."""
        self._errors = errors
        self._new_id = new_id
        self._max_body = max_body
        self._host = host
        self._tickets: dict[str, Ticket] = {}
        self._permitted: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.outgoing = Outgoing(host)

    # --- hooks

    def route_layers(self, nextlayer: layer.NextLayer) -> None:
        """Let mitmproxy choose the next layer, and make every HTTP layer in it one of ours."""
        if nextlayer.layer is None:
            addon("nextlayer").next_layer(nextlayer)
        for chosen in nextlayer.context.layers:
            if type(chosen) is layers.HttpLayer:
                # In place: a layer may sit at the bottom of a stack whose other layers hold it already.
                chosen.__class__ = RoutedHttpLayer
                assert isinstance(chosen, RoutedHttpLayer)
                chosen.lane = self
                chosen.exchanges = set()

    def accept(
        self,
        flow: http.HTTPFlow,
        what: Recognised,
        origin: Origin,
        mode: HostMode = HostMode.ROUTE,
        *,
        entry: Entry = NOBODY,
    ) -> Ticket:
        """Take a flow in: its secrets move to a ticket, and the engine or its own host will answer it.

        Call it in `requestheaders`, before anything else may have looked at the flow.
        """
        ticket = self._tickets[flow.id] = self._ticket(flow, what, origin, entry)
        if ticket.routed and mode is not HostMode.ROUTE:
            ticket.leave(shadow=mode is HostMode.SHADOW)
        # The body of a routed call is collected under our cap; what passes through is not held up.
        flow.request.stream = False if ticket.routed else ticket.passage.up
        return ticket

    def refuse(self, flow: http.HTTPFlow, fault: Fault, what: Recognised, origin: Origin) -> http.Response:
        """Return the fault as a response to a flow that is not accepted, and record it."""
        ticket = self._ticket(flow, what, origin)
        ticket.passage.fault = fault
        self._host.refuse(ticket.passage.record())
        return whole(self.fault_reply(what.dialect, fault, ticket.id), flow.request)

    def _ticket(self, flow: http.HTTPFlow, what: Recognised, origin: Origin, entry: Entry = NOBODY) -> Ticket:
        name, secrets = self._new_id(), redact(flow.request)
        passage = Passage(name, flow, what, origin, clock=self.clock, host=self._host, entry=entry)
        return Ticket(name, flow.client_conn.id, what, origin, secrets, passage, entry)

    def ticket(self, flow: base.Flow) -> Ticket | None:
        """Return what is known of the flow, None where it was not accepted or has ended."""
        return self._tickets.get(flow.id)

    def end(self, flow: base.Flow) -> None:
        """Forget a flow that got its response or its error, and record it where the engine does not."""
        ticket = self._tickets.pop(flow.id, None)
        if ticket is None:
            return
        if ticket.exchange is None:
            self._recorded(ticket)
        elif isinstance(flow, http.HTTPFlow):
            ticket.exchange.transcript.keep(flow)

    def _recorded(self, ticket: Ticket) -> None:
        """Record what did not reach the engine; a routed call that its client gave up before was none."""
        if not ticket.routed or ticket.passage.fault is not None:
            self._host.post(ticket.passage.record())

    def forget(self, client: Client) -> None:
        """Forget everything of a client that has left."""
        self.outgoing.forget(client)
        for flow_id in [key for key, ticket in self._tickets.items() if ticket.client_id == client.id]:
            ticket = self._tickets.pop(flow_id)
            if ticket.exchange is not None:
                ticket.exchange.cancel()
            else:
                self._recorded(ticket)

    def left(self, flow: http.HTTPFlow) -> None:
        """Hear that it is the client that ends a flow."""
        ticket = self._tickets.get(flow.id)
        if ticket is not None:
            ticket.passage.left = True

    def kill(self, flow: base.Flow) -> None:
        """Cut the exchange of a flow that the user has killed; nothing where there is none."""
        ticket = self._tickets.get(flow.id)
        if ticket is None:
            return
        if ticket.exchange is not None:
            ticket.exchange.kill()
        else:
            # A killed flow that waits to be resumed would wait for ever.
            flow.intercept()  # type: ignore[no-untyped-call] # mitmproxy's
            flow.resume()  # type: ignore[no-untyped-call] # mitmproxy's

    # --- egress

    def permit(self, connection: Server) -> None:
        """Let a flow that passes through on purpose open this connection."""
        self._permitted.add(connection.id)

    def permits(self, connection: Server) -> bool:
        """Tell whether a connection to a listed host was opened on purpose."""
        return connection.id in self._permitted

    def closed(self, connection: Server) -> None:
        """Forget a connection."""
        self._permitted.discard(connection.id)

    # --- for the layers

    def refusal(self, flow: http.HTTPFlow, size: int) -> http.Response | None:
        """Return the answer to a request whose body has `size` bytes so far, None if that is acceptable."""
        limit = self._max_body()
        ticket = self._tickets.get(flow.id)
        if flow.response is not None:
            return flow.response  # refused already: nobody needs its body
        if ticket is None or not ticket.routed or max(size, declared_size(flow.request)) <= limit:
            return None
        fault = Fault(
            Kind.TOO_LARGE,
            Blame.CLIENT,
            f"the request body is larger than {limit} bytes",
            cause="body_too_large",
        )
        flow.marked, flow.comment = ":warning:", fault.label
        return self.error(flow, fault)

    def error(self, flow: http.HTTPFlow, fault: Fault, dialect: Dialect | None = None) -> http.Response:
        """Return the fault as a response to this flow, in its caller's dialect."""
        ticket = self._tickets.get(flow.id)
        if ticket is None:
            return whole(self.fault_reply(dialect, fault, self._new_id()), flow.request)
        ticket.passage.fault = fault
        return whole(self.fault_reply(ticket.what.dialect, fault, ticket.id), flow.request)

    def fault_reply(self, dialect: Dialect | None, fault: Fault, request_id: str) -> Reply:
        """Return the fault as a whole reply."""
        return fault_reply(self._errors, dialect, fault, request_id)

    def start(
        self, flow: http.HTTPFlow, body: bytes, *, http_layer: RoutedHttpLayer, stream_id: int
    ) -> Exchange | None:
        """Start the exchange of an accepted flow whose request is complete; None when the client has gone."""
        ticket = self._tickets.get(flow.id)
        handler = addon("proxyserver").connections.get(flow.client_conn.id)
        if ticket is None or handler is None:
            return None
        target = _Target(flow, http_layer, stream_id, handler)
        # From here and not from the first byte: a user may have held the flow back for minutes.
        snapshot = ticket.snapshot(flow, body, started=self.clock.monotonic())
        exchange = ticket.exchange = Exchange(self, ticket, snapshot, target)
        http_layer.exchanges.add(exchange)
        exchange.task = self.spawn(exchange.run(), f"tokenhub exchange {ticket.id}")
        exchange.task.add_done_callback(lambda _: http_layer.exchanges.discard(exchange))
        return exchange

    def spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        """Run a coroutine as a task that the lane owns."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def __len__(self) -> int:
        """Return how many flows, connections and tasks the lane still has to do with."""
        return len(self._tickets) + len(self._permitted) + len(self._tasks) + len(self.outgoing)

    async def close(self) -> None:
        """Cancel what is still running, and return when it has ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def restored(self, flow: http.HTTPFlow, request: http.Request) -> http.Request:
        """Return the request with the flow's secrets back in it, for the host that it was meant for."""
        ticket = self._tickets.get(flow.id)
        return request if ticket is None or ticket.routed else ticket.restored(request)


# --- one exchange ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the answer to one flow goes."""

    flow: http.HTTPFlow
    http_layer: RoutedHttpLayer
    stream_id: int
    handler: server.ConnectionHandler


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


class Exchange:
    """One call to the engine, and the way of its reply back into the stream that asked."""

    def __init__(self, lane: InspectLane, ticket: Ticket, snapshot: Snapshot, target: _Target) -> None:
        self.task: asyncio.Task[None] | None = None
        self._lane = lane
        self._ticket = ticket
        self._snapshot = snapshot
        self._flow = target.flow
        self._layer = target.http_layer
        self._stream_id = target.stream_id
        self._handler = target.handler
        self._killed = False
        self._moved = asyncio.Event()
        self.transcript = Transcript()

    def cancel(self) -> None:
        """Stop: the client has left."""
        if self.task is not None:
            self.task.cancel()

    def kill(self) -> None:
        """Stop, and end the client's stream as well: the user has had enough."""
        if not self._killed:
            self._killed = True
            self.cancel()

    def moved(self) -> None:
        """Hear that something went on in the stack: there may be room for more now."""
        self._moved.set()

    async def run(self) -> None:
        """Answer. Ends early when it is cancelled; every other failure reaches the client as one."""
        try:
            with self._handler.timeout_watchdog.disarm():  # the engine's own limits apply
                await self._answer(await self._reply())
        except asyncio.CancelledError:
            if self._killed:
                gone = ResponseProtocolError(self._stream_id, base.Error.KILLED_MESSAGE, ErrorCode.KILL)
                await self._deliver(gone)
            raise
        except Exception:  # it ends as an error in its dialect
            _logger.exception("exchange %s failed", self._ticket.id)
            await self._deliver(self._broken())

    async def _reply(self) -> Reply:
        try:
            engine = await self._lane.engine()
            stream = self._layer.streams.get(self._stream_id)
            self._lane.outgoing.begin(self._snapshot, stream, self._flow.client_conn)
            return await engine.exchange(self._snapshot)
        except Exception:  # it is answered in its dialect
            _logger.exception("the engine failed in exchange %s", self._ticket.id)
            fault = Fault(
                Kind.INTERNAL, Blame.US, "TokenHub could not answer this call", cause="engine_failed"
            )
            return self._lane.fault_reply(self._ticket.what.dialect, fault, self._ticket.id)

    async def _answer(self, reply: Reply) -> None:
        if reply.summary is not None:
            note(self._flow, reply.summary)
        response = head(reply, self._flow.request)
        begin = ResponseHeaders(self._stream_id, response)
        end = ResponseEndOfMessage(self._stream_id)
        if reply.frames is None:
            data = (ResponseData(self._stream_id, reply.body),) if reply.body else ()
            await self._deliver(begin, *data, end)
            await self._drained()
            return
        try:
            response.stream = True
            await self._deliver(begin)
            await self._relay(reply.frames, end)
        finally:
            if isinstance(reply.frames, _Closable):
                await reply.frames.aclose()

    async def _relay(self, frames: AsyncIterator[bytes], end: HttpEvent) -> None:
        """Send frames as they come: what is ready together travels together.

        This task pulls the frames, as it called the engine; a second one waits for the client.
        """
        pipe = Pipe[HttpEvent](_PENDING)
        writer = self._lane.spawn(self._write(pipe), f"tokenhub writer {self._ticket.id}")
        writer.add_done_callback(lambda _: pipe.burst())
        try:
            async for frame in frames:
                if writer.done():
                    break
                await pipe.put(frame)
            pipe.finish(end)
        except Exception:  # what has begun ends as broken
            _logger.exception("the stream of exchange %s broke", self._ticket.id)
            pipe.finish(self._broken())
            if self._flow.request.data.http_version == b"HTTP/1.0":
                reset_at_close(self._handler, self._flow.client_conn)
        except BaseException:
            writer.cancel()
            raise
        await writer

    async def _write(self, pipe: Pipe[HttpEvent]) -> None:
        end: HttpEvent | None = None
        while end is None:
            await self._room()
            data, end = await pipe.take()
            self.transcript.add(data)
            parts = ([ResponseData(self._stream_id, data)] if data else []) + ([end] if end else [])
            await self._deliver(*parts)
            await self._drained()

    async def _drained(self) -> None:
        await self._handler.drain_writers()  # type: ignore[no-untyped-call] # mitmproxy's

    def _broken(self) -> ResponseProtocolError:
        return ResponseProtocolError(self._stream_id, "the answer broke off", ErrorCode.GENERIC_SERVER_ERROR)

    async def _deliver(self, *http_events: HttpEvent) -> None:
        await self._handler.server_event(EngineEvent(self._flow, http_events, self._layer, self._stream_id))

    async def _room(self) -> None:
        """Wait until what was delivered has gone on towards the client, or the client has."""
        while self._layer.pending(self._stream_id) > _PENDING:
            self._moved.clear()
            await self._moved.wait()


# --- inside mitmproxy's stack ------------------------------------------------------------------------------


@dataclass(repr=False)
class EngineEvent(events.MessageInjected[Sequence[HttpEvent]]):
    """A piece of the engine's answer on its way down the stack, to one stream of one layer."""

    http_layer: RoutedHttpLayer
    stream_id: int


class RoutedHttpLayer(layers.HttpLayer):
    """mitmproxy's HTTP layer, with the engine in the place of some of its servers."""

    lane: InspectLane
    exchanges: set[Exchange]

    @override
    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, EngineEvent) and event.http_layer is self:
            for http_event in event.message:
                stream = self.streams.get(event.stream_id)
                if stream is not None and stream.flow is event.flow:
                    yield from self.event_to_child(stream, http_event)
        else:
            if isinstance(event, events.DataReceived) and event.connection in self.connections:
                tolerate(self.connections[event.connection].context.layers[-1])
            yield from super()._handle_event(event)
        for exchange in self.exchanges:
            exchange.moved()

    @override
    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        for connection, child in tuple(self.connections.items()):
            if isinstance(child, _EngineConnection) and child.stream_id not in self.streams:
                del self.connections[connection]
        stream = self.streams[stream_id] = RoutedStream(self.context.fork(), stream_id)
        stream.lane = self.lane
        yield from self.event_to_child(stream, events.Start())

    @override
    def get_connection(
        self, event: layers.GetHttpConnection, *, reuse: bool = True
    ) -> layer.CommandGenerator[None]:
        stream = self.command_sources[event]
        ticket = self.lane.ticket(stream.flow) if isinstance(stream, layers.HttpStream) else None
        if ticket is None or not isinstance(stream, RoutedStream):
            yield from super().get_connection(event, reuse=reuse)
        elif ticket.routed:
            # An id of our own: to make up a random one takes longer than the rest.
            stand_in = Server(address=("tokenhub", 0), id=f"{self.context.client.id}/{stream.stream_id}")
            stand_in.state = ConnectionState.OPEN
            forked = self.context.fork()
            forked.server = stand_in
            self.connections[stand_in] = _EngineConnection(forked, self, stream)
            self.command_sources.pop(event)
            completed = layers.GetHttpConnectionCompleted(event, (stand_in, None))
            yield from self.event_to_child(stream, completed)
        else:
            for command in super().get_connection(event, reuse=reuse):
                if isinstance(command, commands.OpenConnection):
                    self.lane.permit(command.connection)
                yield command

    def pending(self, stream_id: int) -> int:
        """Return how many bytes wait in this layer for the client of a stream to take them."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return 0
        held = sum(len(e.data) for e in stream._paused_event_queue if isinstance(e, ResponseData))
        client = self.connections.get(self.context.client)
        if isinstance(client, Http2Connection):
            held += sum(len(part.data) for part in client.h2_conn.stream_buffers.get(stream_id, ()))
        return held


class RoutedStream(layers.HttpStream, Sending):
    """mitmproxy's HTTP stream, with our rules for request bodies and for secrets."""

    lane: InspectLane

    @override
    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        for command in super().handle_event(event):
            if self.outgoing is not None and isinstance(command, SendHttp):
                self.lane.outgoing.sent(self.outgoing, command.event)
            if isinstance(command, SendHttp) and isinstance(command.event, RequestHeaders):
                command.event.request = self.lane.restored(self.flow, command.event.request)
            yield command

    @override
    def check_killed(self, emit_error_hook: bool) -> layer.CommandGenerator[bool]:
        if any(isinstance(event, RequestProtocolError) for event in self._paused_event_queue):
            self.lane.left(self.flow)
        return (yield from super().check_killed(emit_error_hook))

    @override
    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        if isinstance(event, RequestProtocolError):
            self.lane.left(self.flow)
        yield from super().handle_protocol_error(event)

    @override
    def send_response(self, already_streamed: bool = False) -> layer.CommandGenerator[None]:
        yield from super().send_response(already_streamed)
        if self.server_state == self.state_done and self.client_state == self.state_stream_request_body:
            # The host has said all that it will before it had the whole request: the rest is for nobody.
            gone = RequestProtocolError(self.stream_id, "the answer is complete", ErrorCode.CANCEL)
            yield SendHttp(gone, self.context.server)
            self.client_state = self._discard
            yield from self.flow_done()

    @override
    def check_body_size(self, request: bool) -> layer.CommandGenerator[bool]:
        ticket = self.lane.ticket(self.flow)
        if ticket.routed if ticket is not None else self.lane.would_route(self.flow):
            return False
        return (yield from super().check_body_size(request))

    @override
    def start_request_stream(self) -> layer.CommandGenerator[None]:
        ticket = self.lane.ticket(self.flow)
        if self.flow.response is not None or (ticket is not None and ticket.routed):
            # Another addon wants the body streamed, but it is needed whole, or for nothing.
            self.flow.request.stream = False
            self.client_state = self.state_consume_request_body
        else:
            yield from super().start_request_stream()

    @override
    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        refusal = None
        if isinstance(event, RequestData):
            refusal = self.lane.refusal(self.flow, len(self.request_body_buf) + len(event.data))
        if refusal is None:
            yield from super().state_consume_request_body(event)
        else:
            yield from self._refuse(refusal)

    def _refuse(self, response: http.Response) -> layer.CommandGenerator[None]:
        """Answer now, and throw away the rest of the body as it comes."""
        self.request_body_buf.clear()  # type: ignore[no-untyped-call] # mitmproxy's
        self.client_state = self._discard
        self.flow.request.timestamp_end = time.time()
        self.flow.response = response
        yield HttpResponseHeadersHook(self.flow)
        yield from self.send_response()
        if self.server_state == self.state_done:
            yield from self.flow_done()

    def _discard(self, _: events.Event) -> layer.CommandGenerator[None]:
        yield from ()


class _EngineConnection(HttpConnection):
    """The stand-in for a server: what it receives starts an exchange, or stops it."""

    def __init__(self, forked: context.Context, http_layer: RoutedHttpLayer, stream: RoutedStream) -> None:
        super().__init__(forked, forked.server)
        self.stream_id = stream.stream_id
        self._http_layer = http_layer
        self._stream = stream
        self._body: list[bytes] = []
        self._exchange: Exchange | None = None

    @override
    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, RequestData):
            self._body.append(event.data)
        elif isinstance(event, RequestEndOfMessage):
            self._exchange = self._http_layer.lane.start(
                self._stream.flow,
                b"".join(self._body),
                http_layer=self._http_layer,
                stream_id=self.stream_id,
            )
        elif isinstance(event, RequestProtocolError) and self._exchange is not None:
            self._exchange.cancel()
            self._http_layer.lane.outgoing.end(self._stream.outgoing)
        yield from ()
