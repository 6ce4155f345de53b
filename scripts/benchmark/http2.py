"""HTTP/2 for the benchmark, by the `h2` library that mitmproxy brings: callers, and the upstream's side of it.

One connection carries all calls of a measurement, several at a time, as clients of HTTP/2 do.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, override

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection

ALPN: Final = "h2"
_WINDOW: Final = 1 << 24
"""Bytes that may be under way, so that no answer waits for leave."""

type Headers = Sequence[tuple[str, str]]


class _Talk(asyncio.Protocol, ABC):
    """One end of a connection."""

    def __init__(self, *, client: bool) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=client))
        self._transport: asyncio.WriteTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.begin(transport)

    def begin(self, transport: asyncio.WriteTransport) -> None:
        """Say hello."""
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW)
        self._flush()

    @override
    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._heard(event)
        self._flush()

    @abstractmethod
    def _heard(self, event: events.Event) -> None:
        """Take what the other side has said."""

    def _send(self, stream: int, headers: Headers, body: bytes) -> None:
        """Send a whole message; it has to fit into the other side's window."""
        self._h2.send_headers(stream, list(headers))
        while len(body) > (most := self._h2.max_outbound_frame_size):
            self._h2.send_data(stream, body[:most])
            body = body[most:]
        self._h2.send_data(stream, body, end_stream=True)
        self._flush()

    def _flush(self) -> None:
        if self._transport is not None and (data := self._h2.data_to_send()):
            self._transport.write(data)


@dataclass(slots=True)
class _Heard:
    """What has come of one message."""

    status: str = ""
    body: bytearray = field(default_factory=bytearray)
    whole: asyncio.Future[None] | None = None


class Caller(_Talk):
    """A client's end."""

    def __init__(self) -> None:
        super().__init__(client=True)
        self._answers: dict[int, _Heard] = {}
        self.gone = asyncio.Event()

    async def ask(self, headers: Headers, body: bytes) -> tuple[str, bytes]:
        """Return the status and the body of the answer; raises `ConnectionError` where the connection is lost."""
        if self.gone.is_set():
            raise ConnectionError("the connection was lost")
        stream = self._h2.get_next_available_stream_id()
        heard = self._answers[stream] = _Heard(whole=asyncio.get_running_loop().create_future())
        self._send(stream, headers, body)
        assert heard.whole is not None
        await heard.whole
        return heard.status, bytes(heard.body)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        for heard in self._answers.values():
            if heard.whole is not None and not heard.whole.done():
                heard.whole.set_exception(ConnectionError(f"the connection was lost: {exc or 'closed'}"))

    @override
    def _heard(self, event: events.Event) -> None:
        if isinstance(event, events.ResponseReceived):
            self._answers[event.stream_id].status = dict(event.headers)[b":status"].decode()
        elif isinstance(event, events.DataReceived):
            self._answers[event.stream_id].body += event.data
        elif isinstance(event, events.StreamEnded):
            heard = self._answers.pop(event.stream_id)
            if heard.whole is not None and not heard.whole.done():
                heard.whole.set_result(None)
        elif isinstance(event, events.StreamReset):
            heard = self._answers.pop(event.stream_id)
            if heard.whole is not None and not heard.whole.done():
                heard.whole.set_exception(ConnectionError(f"reset with {event.error_code}"))


class Answerer(_Talk):
    """The upstream's end: `answer` gets a request's body and returns what is said to it."""

    def __init__(self, answer: Callable[[bytes], tuple[Headers, bytes]]) -> None:
        super().__init__(client=False)
        self._answer = answer
        self._asked: dict[int, bytearray] = {}

    @override
    def _heard(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self._asked[event.stream_id] = bytearray()
        elif isinstance(event, events.DataReceived):
            self._asked[event.stream_id] += event.data
        elif isinstance(event, events.StreamEnded):
            headers, body = self._answer(bytes(self._asked.pop(event.stream_id)))
            self._send(event.stream_id, headers, body)
        elif isinstance(event, events.StreamReset):
            self._asked.pop(event.stream_id, None)
