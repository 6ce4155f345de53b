"""The side server: consumer API, health, metrics, admin API and the admin pages, on one port.

Protected by default: `OPEN` names the routes that anybody may use; everything else asks who it is, and `access.roles`
says what that has to be.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from tokenhub_core import native
from tokenhub_core.admission.doorkeeper import allow, loopback, scope_of
from tokenhub_core.dialects import wire
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.http import listing, manual
from tokenhub_core.http.consumer import DIRECT, Consumer
from tokenhub_core.http.sessions import Sessions, refuse_secrets_in
from tokenhub_core.orchestration.plancall import PATH as PLAN
from tokenhub_core.recognise import bare_host
from tokenhub_core.telemetry.metrics import CONTENT_TYPE, Metrics
from tokenhub_core.types import Dialect, Fleet, Json, Provider, Scope

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ROUTED: Final = {
    **{re.sub(r"{(\w+):.*?}(?=/|$)", r"{\1}", path): dialect for path, dialect in DIRECT.items()},
    native.PATH: Dialect.OPENAI_CHAT,
}
"""`DIRECT` by the names that the router gives its paths."""

_METRICS: Final = "/metrics"
"""Open to whom the operator says."""

DESCRIPTION: Final = "/openapi.json"
OPEN: Final = frozenset(
    {
        "/",
        "/login",
        "/ui/{page}",
        "/assets/{name}",
        *manual.PATHS,
        "/admin/v1/login",
        "/healthz",
        "/readyz",
        _METRICS,
        DESCRIPTION,
        *_ROUTED,
        PLAN,
        "/v1/models",
        "/v1/models/{id}",
        "/{version}/models",
        "/{version}/models/{id}",
        "/api/tags",
    }
)
"""The routes that need no identity of an admin. Those of the consumer API ask for a key, wherever one is required."""

LEAVING: Final = web.AppKey("leaving", asyncio.Event)
"""Set when the server begins to shut down: an answer that has no end of its own has to end then."""

_GEMINI: Final = ("/v1beta/", "/v1alpha/")
_OLLAMA: Final = "/api/"

_PAGES: Final = frozenset({"/", "/login"})
_UI: Final = "/ui/"
_CLOSED: Final = "/admin"
"""Under this path even what does not exist is no stranger's business."""

_log: Final = logging.getLogger(__name__)


async def _alone() -> tuple[bytes, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Probes:
    """What `/readyz` asks."""

    store: Callable[[], Awaitable[bool]]
    draining: Callable[[], bool]
    vault: Callable[[], str] = lambda: ""
    """The vault's state."""
    credentialed: Callable[[Provider], bool] = lambda _: True
    """Whether a call to this provider could be made now."""
    figures: Callable[[], Awaitable[Sequence[bytes]]] = _alone
    """What the other workers have counted, for `/metrics`."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """Who may come in as what the settings say."""

    hosts: Sequence[str] = ()
    """Names that we are called by."""
    scrapes: str = "local"
    """Who may read the metrics without a token: `local`, `open` to everybody, or `token`: nobody."""


class SideServer:
    """Builds the application of the side server."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        sessions: Sessions,
        metrics: Metrics,
        fleet: Callable[[], Fleet],
        probes: Probes,
        origin: bool,
        entrance: Entrance | None = None,
    ) -> None:
        self._consumer = consumer
        self._sessions = sessions
        self._metrics = metrics
        self._fleet = fleet
        self._probes = probes
        self._origin = origin
        self.renew(entrance or Entrance())

    def renew(self, entrance: Entrance) -> None:
        """Let in whom these settings say, from now on."""
        self._hosts = frozenset(map(bare_host, entrance.hosts))
        self._scrapes = entrance.scrapes

    def application(self, more: Iterable[web.RouteDef] = ()) -> web.Application:
        """Return the application; `more` are the routes of the admin API and the page."""
        app = web.Application(middlewares=[self._protect])
        app[LEAVING] = asyncio.Event()
        app.on_shutdown.append(_leave)
        app.add_routes([web.post(path, partial(self._chat, dialect)) for path, dialect in DIRECT.items()])
        app.add_routes(
            [
                web.post(native.PATH, self._native),
                web.get("/healthz", self._live),
                web.get("/readyz", self._ready),
                web.get(_METRICS, self._show_metrics),
                web.post(PLAN, self._plan),
                web.get("/v1/models", self._models),
                web.get(r"/v1/models/{id:.+}", self._model),
                web.get("/{version:v1beta|v1alpha}/models", self._gemini_models),
                web.get("/{version:v1beta|v1alpha}/models/{id:.+}", self._gemini_model),
                web.get("/api/tags", self._tags),
                *more,
            ]
        )
        return app

    @web.middleware
    async def _protect(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who may come in, and give every error the shape of its path."""
        try:
            if request.path.startswith(_CLOSED):
                self._consumer.count_admin(request)
            self._admit(request)
            return await handler(request)
        except TokenHubError as error:
            return self._told(request, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            told = self._told(request, TokenHubError(_http_fault(request, error)))
            if "allow" in error.headers:
                told.headers["allow"] = error.headers["allow"]
            return told
        except Exception:
            if request.writer.output_size:
                raise  # too late for another answer: aiohttp cuts the connection
            _log.exception("%s %s failed", request.method, request.path)
            return self._told(request, TokenHubError(_INTERNAL))

    def _admit(self, request: web.Request) -> None:
        # Browsers always send one; a balancer's health check over HTTP/1.0 may not.
        host = request.headers.get("host")
        if host is not None and not local_host(host) and bare_host(host) not in self._hosts:
            raise client_fault("this Host is not served here", kind=Kind.FORBIDDEN, cause="bad_host")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise client_fault(
                "requests from other sites are refused", kind=Kind.FORBIDDEN, cause="bad_origin"
            )
        resource = request.match_info.route.resource
        open_ = resource.canonical in OPEN if resource else not request.path.startswith(_CLOSED)
        if resource and resource.canonical == _METRICS:
            open_ = self._scrapes == "open" or (self._scrapes == "local" and loopback(request.remote or ""))
        if request.path.startswith((_CLOSED, _UI)) or request.path in _PAGES:
            refuse_secrets_in(request)
        if not open_:
            self._sessions.admit(request)

    def _told(self, request: web.Request, error: TokenHubError) -> web.Response:
        resource = request.match_info.route.resource
        # With another method there is no route.
        dialect = _ROUTED.get(resource.canonical if resource else request.path) or _family(request.path)
        if dialect is None and request.path.startswith("/v1/"):
            dialect = Dialect.ANTHROPIC_MESSAGES if _speaks_anthropic(request) else Dialect.OPENAI_CHAT
        return failed(error.fault) if dialect is None else self._consumer.refusal(error, dialect, request)

    async def _chat(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        entry = self._consumer.admit(request, dialect, scope_of(dialect))
        return await self._consumer.handle(request, dialect, entry)

    async def _native(self, request: web.Request) -> web.StreamResponse:
        entry = self._consumer.admit(request, Dialect.OPENAI_CHAT, Scope.CHAT)
        return await self._consumer.handle(request, Dialect.OPENAI_CHAT, entry, native=True)

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        """Answer a call that says what is to be done with it: the key has to be good for that, and for the calls."""
        entry = self._consumer.admit(request, Dialect.OPENAI_CHAT, Scope.PLAN)
        allow(entry.key, Scope.CHAT)
        return await self._consumer.handle(request, Dialect.OPENAI_CHAT, entry)

    async def _live(self, request: web.Request) -> web.Response:
        del request
        return answer({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        """Say whether calls can be served: the store reads, something could answer, and nobody is leaving."""
        del request
        view = self._fleet()
        waiting = [one.id for one in view.providers.values() if not self._probes.credentialed(one)]
        could = any(model.provider_id not in waiting for model in view.models)
        checks = {
            "store": await self._probes.store(),
            "models": could or self._origin,
            "serving": not self._probes.draining(),
        }
        ready = all(checks.values())
        body: Json = {
            "status": "ready" if ready else "not ready",
            "checks": checks,
            "providers": len(view.providers),
            "models": len(view.models),
            "vault": self._probes.vault(),
            "without_credential": len(waiting),
        }
        return answer(body, 200 if ready else 503)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        del request
        body = self._metrics.render(await self._probes.figures())
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE})

    async def _models(self, request: web.Request) -> web.Response:
        names = self._names(request)
        if _speaks_anthropic(request):
            listed = [listing.anthropic(name) for name in names]
            ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
            return answer({"data": listed, "has_more": False, "first_id": None, "last_id": None, **ends})
        return answer({"object": "list", "data": [listing.openai(name) for name in names]})

    async def _model(self, request: web.Request) -> web.Response:
        shape = listing.anthropic if _speaks_anthropic(request) else listing.openai
        return answer(shape(self._named(request)))

    async def _gemini_models(self, request: web.Request) -> web.Response:
        return answer({"models": [listing.gemini(name) for name in self._names(request)]})

    async def _gemini_model(self, request: web.Request) -> web.Response:
        return answer(listing.gemini(self._named(request)))

    async def _tags(self, request: web.Request) -> web.Response:
        return answer({"models": [listing.ollama(name) for name in self._names(request)]})

    def _names(self, request: web.Request) -> list[listing.Name]:
        """Return what the caller may ask for; raises `TokenHubError` where it may not come in."""
        dialect = _family(request.path) or Dialect.OPENAI_CHAT
        key = self._consumer.admit(request, dialect, Scope.PLAN).key
        return listing.names(self._fleet(), key)

    def _named(self, request: web.Request) -> listing.Name:
        wanted = request.match_info["id"]
        for name in self._names(request):
            if name.id == wanted:
                return name
        raise client_fault(f"The model '{wanted}' is not registered.", kind=Kind.NOT_FOUND, param="model")


def answer(data: Json, status: int = 200) -> web.Response:
    """Return `data` as a JSON response."""
    return web.Response(
        status=status,
        body=wire.encode(data),
        content_type="application/json",
        headers={"server": "tokenhub", "cache-control": "no-store", "x-content-type-options": "nosniff"},
    )


def failed(fault: Fault) -> web.Response:
    """Return a fault as the admin API tells it."""
    told = {"message": fault.message, "type": fault.kind.value, "code": fault.label}
    if fault.param:
        told["param"] = fault.param
    response = answer({"error": told}, fault.http_status)
    if fault.retry_after is not None:
        response.headers["retry-after"] = str(math.ceil(fault.retry_after))
    return response


def local_host(host: str) -> bool:
    """Tell whether a Host header names this machine by address or as localhost.

    A page whose name was re-bound to our address still sends its own name: this is what stops it.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _family(path: str) -> Dialect | None:
    """Return the dialect that everything at a path is told in, None where that is not known by its beginning."""
    if path.startswith(_GEMINI):
        return Dialect.GEMINI
    return Dialect.OLLAMA_CHAT if path.startswith(_OLLAMA) else None


def _speaks_anthropic(request: web.Request) -> bool:
    return "anthropic-version" in request.headers


def _http_fault(request: web.Request, error: web.HTTPException) -> Fault:
    """Return what the HTTP library refuses as a fault."""
    what = f"{request.method} {request.path}"
    match error.status:
        case 404:
            return Fault(Kind.NOT_FOUND, Blame.CLIENT, f"{what} is not served here", cause="no_route")
        case 405:
            message = f"{what} is not served here, but {error.headers.get('allow', '')} is"
            return Fault(Kind.INVALID, Blame.CLIENT, message, cause="bad_method", status=405)
        case status:
            return Fault(Kind.INVALID, Blame.CLIENT, error.reason, cause=f"http_{status}", status=status)


async def _leave(app: web.Application) -> None:
    app[LEAVING].set()


_INTERNAL: Final = Fault(
    Kind.INTERNAL, Blame.US, "TokenHub failed to answer this request; its log says why.", cause="internal"
)
