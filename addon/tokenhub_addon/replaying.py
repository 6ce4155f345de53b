"""Calls that the user repeats in mitmproxy: its interface builds the layers itself, so they go by the side server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mitmproxy import http
from mitmproxy.connection import Client, Server

from tokenhub_addon.flows import drop_masks, redact
from tokenhub_addon.guard import addon
from tokenhub_addon.inspect import InspectLane
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind
from tokenhub_core.recognise import CHAT, Recognised
from tokenhub_core.types import Origin


@dataclass(frozen=True, slots=True)
class Side:
    """Where replayed calls go."""

    scheme: str
    host: str
    port: int


def side_at(url: str) -> Side | None:
    """Return the side server at a URL, None where there is none; raises `ConfigError` for what is no URL."""
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"tokenhub_side_url {url!r}: must be an http or https URL")
    return Side(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))


class Replays:
    """The replayed calls that are under way."""

    def __init__(self, lane: InspectLane, side: Callable[[], Side | None]) -> None:
        self._lane = lane
        self._side = side
        self._sent: dict[str, http.Request] = {}
        """By flow id, requests as they were before they were sent to the side server."""

    def __len__(self) -> int:
        """Return how many are not over yet."""
        return len(self._sent)

    def send(self, flow: http.HTTPFlow, what: Recognised, origin: Origin) -> None:
        """Send a replayed call to the side server, or refuse it."""
        side = self._side()
        redact(flow.request)
        flow.metadata.pop("tokenhub", None)
        flow.comment = flow.marked = ""
        if side is None or what.operation != CHAT:
            fault = Fault(
                Kind.INVALID,
                Blame.CLIENT,
                "only routed calls can be replayed, and only with tokenhub_side_url set to the side server",
                cause="replay_refused",
            )
            flow.response = self._lane.refuse(flow, fault, what, origin)
            return
        self._sent[flow.id] = flow.request.copy()
        request = flow.request
        drop_masks(request)
        request.data.scheme, request.data.host, request.data.port = side.scheme.encode(), side.host, side.port
        request.data.authority = b""
        request.headers["host"] = f"{side.host}:{side.port}"
        flow.server_conn = Server(address=(side.host, side.port))

    def leads_to(self, client: Client, host: str, port: int) -> bool:
        """Tell whether this is a replayed call on its way to the side server: its client is none of ours."""
        side = self._side()
        return (
            side is not None
            and (side.host, side.port) == (host, port)
            and bool(self._sent)
            and client.id not in addon("proxyserver").connections
        )

    def restore(self, flow: http.HTTPFlow) -> bool:
        """Give a replayed flow the request back that the user knows."""
        request = self._sent.pop(flow.id, None)
        if request is None:
            return False
        flow.request = request
        flow.comment = "replayed through the side server"
        return True
