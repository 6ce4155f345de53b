"""What goes past the engine in the inspect lane, watched from the side: for each such flow one record.

That is what passes through to its host, WebSockets included, and what is refused before the engine hears of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

from mitmproxy import flow as base
from mitmproxy import http

from tokenhub_addon.flows import NOBODY, caller, go_on, lower, path_of, raw, unredacted
from tokenhub_addon.host import EngineHost
from tokenhub_addon.pipe import Transcript
from tokenhub_core.admission.doorkeeper import Entry, let_pass
from tokenhub_core.admission.quotas import nanoseconds
from tokenhub_core.admission.tenures import KEY_ENDED
from tokenhub_core.admission.throttle import Stay
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.http.passthrough import is_handshake, refusal, sizes
from tokenhub_core.lending import Loan
from tokenhub_core.modes import ROUTED, HostMode
from tokenhub_core.ports import Clock
from tokenhub_core.recognise import CHAT, PASSTHROUGH, Recognised, Recogniser, without_secrets
from tokenhub_core.types import Headers, Origin, Outcome, Record, Snapshot, Timings
from tokenhub_core.watching import Watch

_CONVERSATION: Final = 1 << 20
"""Bytes of a WebSocket's messages that its flow keeps: the last ones. mitmproxy would keep all for ever."""

_LEFT: Final = 499


class Answering(Protocol):
    """The call to the engine that a ticket led to."""

    transcript: Transcript

    def cancel(self) -> None:
        """Stop: the client has left."""
        ...

    def kill(self) -> None:
        """Stop, and end the client's stream as well."""
        ...


@dataclass(slots=True)
class Ticket:
    """What the lane knows of one accepted flow and the flow must not hold."""

    id: str
    client_id: str
    what: Recognised
    origin: Origin
    secrets: list[tuple[bytes, bytes]] = field(repr=False)
    passage: Passage
    entry: Entry = NOBODY
    exchange: Answering | None = None

    def leave(self, *, shadow: bool) -> None:
        """Let its own host answer it, in `shadow` with a decision on the way."""
        self.what = Recognised(self.what.dialect, PASSTHROUGH)
        self.passage.shadow = shadow

    @property
    def routed(self) -> bool:
        """Return whether the engine answers it."""
        return self.what.operation == CHAT

    def snapshot(self, flow: http.HTTPFlow, body: bytes, *, started: float) -> Snapshot:
        """Return the flow's request as the engine has it."""
        request = flow.request
        return Snapshot(
            id=self.id,
            method=request.method,
            path=path_of(request, self.secrets),
            headers=lower(unredacted(request.headers.fields, self.secrets)),
            body=body,
            received_at=request.timestamp_start,
            started=started,
            dialect=self.what.dialect,
            origin=self.origin,
            caller=caller(flow, self.entry),
        )

    def restored(self, request: http.Request) -> http.Request:
        """Return the request with its secrets back in it."""
        whole = request.copy()
        whole.headers.fields = tuple(unredacted(request.headers.fields, self.secrets))
        whole.path = path_of(request, self.secrets)
        if (loan := self.passage.loan) is not None:
            whole.headers.fields = raw(loan.on(lower(whole.headers.fields)))
        return whole

    def sent(self, request: http.Request) -> Headers:
        """Return the request's fields as its host has got them."""
        fields = lower(unredacted(request.headers.fields, self.secrets))
        return self.passage.loan.on(fields) if self.passage.loan else fields


class Passage:
    """One flow's way: where it began, what went by, how it ended."""

    def __init__(
        self,
        name: str,
        flow: http.HTTPFlow,
        what: Recognised,
        origin: Origin,
        *,
        clock: Clock,
        host: EngineHost,
        entry: Entry = NOBODY,
    ) -> None:
        request = flow.request
        self.fault: Fault | None = None
        """Why we refused it."""
        self.left = False
        """The client was the one that ended it."""
        self.shadow = False
        """What we would have done with it is to be decided on the way."""
        self.loan: Loan | None = None
        """The credential that it goes with, where that is not the caller's own."""
        self.cut: Fault | None = None
        """Why we have ended its conversation."""
        self._name = name
        self._flow = flow
        self._what = what
        self._origin = origin
        self._clock = clock
        self._at, self._started = clock.now(), clock.monotonic()
        self._host = host
        self._entry = entry
        self._method, self._path = request.method, request.path
        self._stay: Stay | None = None
        self._sent = self._received = self._kept = 0

    @cached_property
    def _watch(self) -> Watch:
        """What counts; made for what passes, which most flows do not."""
        snapshot = Snapshot(
            id=self._name,
            method=self._method,
            path=self._path,
            headers=lower(self._flow.request.headers.fields),
            body=b"",
            received_at=self._at,
            started=self._started,
            dialect=self._what.dialect,
            origin=self._origin,
            caller=caller(self._flow, self._entry),
        )
        return Watch(snapshot, watcher=self._host.watcher, shadow=self.shadow)

    def asked(self) -> str:
        """Return the model that was asked for, empty where none was heard of."""
        return self._watch.asked()

    def enter(self) -> Fault | None:
        """Let the request pass where its caller's limits do; return why it may not."""
        now, headers = nanoseconds(self._clock.monotonic()), lower(self._flow.request.headers.fields)
        throttle = self._host.throttle
        stay = self._stay = (
            throttle.visit(caller(self._flow), headers, now, drawn=False) if throttle else None
        )
        try:
            if stay is not None:
                stay.enter(now)
        except TokenHubError as error:
            return error.fault
        return None

    def up(self, data: bytes) -> bytes:
        """Let a piece of the request go by; an empty one is its end."""
        self._sent += len(data)
        self._watch.ask(data)
        if not data and self._watch.decides:
            # Once it is on its way: the host works while we decide.
            asyncio.get_running_loop().call_soon(self._watch.decide)
        return data

    def begin(self, response: http.Response) -> None:
        """Hear the head of the answer."""
        headers = lower(response.headers.fields)
        self._watch.begin(response.status_code, headers)
        if self.loan is not None:
            self.loan.began(response.status_code, headers)
            response.headers.fields = raw(self.loan.veiled(headers))

    def switched(self) -> None:
        """Hear that its host has taken the request for a WebSocket."""
        if self.loan is not None:
            self.loan.began(101, ())

    def down(self, data: bytes) -> bytes:
        """Let a piece of the answer go by."""
        self._received += len(data)
        self._watch.feed(data)
        return self.loan.veil(data) if self.loan else data

    def ended(self) -> None:
        """Hear that the conversation is ended for its key."""
        self.cut = KEY_ENDED

    def message(self) -> None:
        """Hear that one more message went over the flow's WebSocket; count it, and keep the flow small."""
        assert self._flow.websocket is not None
        messages = self._flow.websocket.messages
        size = len(messages[-1].content)
        if messages[-1].from_client:
            self._sent += size
        else:
            self._received += size
        self._kept += size
        while self._kept > _CONVERSATION and len(messages) > 1:
            self._kept -= len(messages.pop(0).content)

    def record(self) -> Record:
        """Return the fact about it, now that it is over."""
        outcome, status, fault = self._end()
        record = Record(
            id=self._name,
            at=self._at,
            outcome=outcome,
            status=status,
            caller=caller(self._flow, self._entry),
            method=self._method,
            path=without_secrets(self._path),
            dialect=self._what.dialect,
            origin_host=self._origin.host,
            provider=self.loan.provider if self.loan else "",
            timings=Timings(total_ms=round((self._clock.monotonic() - self._started) * 1000, 3)),
            fault=fault.label if fault else "",
            message=fault.message if fault else sizes(self._sent, self._received),
        )
        record = self._watch.told(record)
        if self.loan is not None:
            self.loan.ended()
        if self._stay is not None:
            used = record.usage.input_tokens + record.usage.output_tokens
            self._stay.leave(used, nanoseconds(self._clock.monotonic()))
        return record

    def _end(self) -> tuple[Outcome, int, Fault | None]:
        response, error = self._flow.response, self._flow.error
        if self.fault is not None:
            return Outcome.ERROR, self.fault.http_status, self.fault
        if response is not None and (error is None or response.status_code == 101):
            # Once it has switched, whoever leaves has ended the conversation.
            return Outcome.PASSED, response.status_code, self.cut
        if error is None or self.left or error.msg == base.Error.KILLED_MESSAGE:
            return Outcome.CANCELLED, _LEFT, None
        host = self._origin.host
        if response is None:
            message = f"{host} cannot be reached"
            fault = Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause="origin_unreachable")
        else:
            message = f"{host} broke its answer off"
            fault = Fault(Kind.TRUNCATED, Blame.PROVIDER, message, cause="origin_broke_off")
        return Outcome.ERROR, fault.http_status, fault


def let_go(
    flow: http.HTTPFlow,
    ticket: Ticket,
    *,
    host: EngineHost,
    recogniser: Recogniser,
    reachable: bool,
    call: bool,
    clock: Clock,
) -> Fault | None:
    """Let a request that is not routed go on to its host; return why it may not, with a status for its client.

    `reachable`: listed hosts may be reached at all. `call`: it is a call that its mode leaves alone.
    """
    request, origin, entry, watcher = flow.request, ticket.origin, ticket.entry, host.watcher
    handshake, who = is_handshake(lower(request.headers.fields)), caller(flow, entry)
    lender = watcher.lender if watcher and entry.replaced else None
    routed = (watcher.modes() if watcher else ROUTED).of(origin.host, who.proxy_user) is HostMode.ROUTE
    try:
        if lender is None:
            let_pass(entry, origin.host, call=call)
        if handshake and routed and (fault := refusal(recogniser, origin.host, request.path)):
            return fault
        # Whoever goes with a credential of ours keeps to its budget, whatever the mode says.
        if watcher and (routed or lender) and (fault := watcher.admit(who, clock.now())):
            return fault
        if not reachable:
            return _unreachable(request, origin, handshake=handshake)
        if fault := ticket.passage.enter():
            return fault
        if lender is not None:
            ticket.passage.loan = lender.lend(entry, origin, ticket.what.dialect)
    except TokenHubError as error:
        return error.fault
    # Encrypted, also where the caller spoke plain http with the proxy: it shows its credential.
    request.data.scheme, request.data.port = origin.scheme.encode(), origin.port
    go_on(request, switching=handshake)
    return None


def _unreachable(request: http.Request, origin: Origin, *, handshake: bool) -> Fault:
    what = f"{request.method} {request.path.partition('?')[0]}"
    return Fault(
        Kind.FORBIDDEN,
        Blame.US,
        f"{what} is not routed, and {origin.host} may not be reached",
        cause="origin_off",
        status=426 if handshake else 403,
    )
