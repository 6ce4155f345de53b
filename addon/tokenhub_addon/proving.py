"""What leaves mitmproxy's stack for a client, told to whoever proves what was delivered.

It is heard where a stream hands it to its client's connection: behind every addon, and behind a user who edits flows.
"""

from __future__ import annotations

from mitmproxy.connection import Client
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._events import (
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)

from tokenhub_addon.flows import lower
from tokenhub_addon.host import EngineHost
from tokenhub_core.proof.prover import Delivery
from tokenhub_core.types import Snapshot


class Sending:
    """A stream whose client gets what is told here."""

    outgoing: Delivery | None = None


class Outgoing:
    """The deliveries of one lane. Where nothing is to be proved there are none."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._open: dict[Delivery, str] = {}

    def __len__(self) -> int:
        """Return how many are not over."""
        return len(self._open)

    def begin(self, snapshot: Snapshot, stream: object, client: Client) -> None:
        """Listen to what a stream sends to its client from here on."""
        prover = self._host.prover
        if prover is not None and isinstance(stream, Sending):
            stream.outgoing = prover.begin(snapshot)
            self._open[stream.outgoing] = client.id

    def sent(self, delivery: Delivery, event: HttpEvent) -> None:
        """Hear what goes to the client."""
        match event:
            case ResponseHeaders(response=response):
                delivery.begin(response.status_code, tuple(lower(response.headers.fields)))
            case ResponseData(data=data):
                delivery.add(data)
            case ResponseEndOfMessage() | ResponseProtocolError():
                self.end(delivery)
            case _:
                pass

    def end(self, delivery: Delivery | None) -> None:
        """Hear that nothing more goes to the client. Only the first call counts."""
        if delivery is not None and self._open.pop(delivery, None) is not None:
            delivery.close()

    def forget(self, client: Client) -> None:
        """Hear that a client has left."""
        for delivery in [one for one, owner in self._open.items() if owner == client.id]:
            self.end(delivery)
