"""The admin API's part about rehearsal: what logged traffic would come to under another policy.

    POST /admin/v1/rehearse   the report; calls no model and changes nothing

With `accept: application/x-ndjson` the answer is lines: `{"done", "total"}` while it goes on, and at last the report,
or `{"error"}`. The work is done in a thread beside the traffic, one rehearsal at a time, and pauses every few calls
so that live ones need not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, structs

from tokenhub_core.catalog import Catalog
from tokenhub_core.dialects import wire
from tokenhub_core.errors import Fault, TokenHubError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.aliases import AliasBody, alias_of
from tokenhub_core.http.side import LEAVING, answer
from tokenhub_core.learning import Learning
from tokenhub_core.policy import ANY_MODEL
from tokenhub_core.ports import Clock
from tokenhub_core.routing import aliases
from tokenhub_core.routing.bandit import STILL, Bandit, Explorer
from tokenhub_core.routing.fleet import named
from tokenhub_core.routing.learning import Learner
from tokenhub_core.routing.rehearsal import Rehearsal, Report, sentences
from tokenhub_core.routing.replay import AsLogged, Ground, Today, Wish
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.search import Filters
from tokenhub_core.types import Alias, Fleet, Json, Mode

PATH: Final = "/admin/v1/rehearse"
LINES: Final = "application/x-ndjson"
MAX_CALLS: Final = 200_000
"""The most calls that one rehearsal takes in, the newest ones."""
DAYS: Final = 7.0
_DAY: Final = 86_400.0
_TELL_SECONDS: Final = 0.2
_AT_ONCE: Final = 4
"""Calls between two pauses: a millisecond or two."""
_PAUSE: Final = 0.0001

type Name = Annotated[str, Meta(max_length=256)]


class PolicyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The operator's part of the policy: what is absent is as it is now. Null lifts a limit."""

    mode: Mode | msgspec.UnsetType = msgspec.UNSET
    max_budget_usd: shapes.Budget | msgspec.UnsetType | None = msgspec.UNSET
    max_latency_ms: shapes.Latency | msgspec.UnsetType | None = msgspec.UNSET
    min_weight: shapes.Weight | msgspec.UnsetType = msgspec.UNSET
    provider: Name | msgspec.UnsetType | None = msgspec.UNSET
    fallback: bool | msgspec.UnsetType = msgspec.UNSET
    lossy: bool | msgspec.UnsetType = msgspec.UNSET
    model: Name | msgspec.UnsetType = msgspec.UNSET
    """What every call names instead of its own model; `*` leaves the choice to the router."""


class RehearseBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /rehearse`."""

    policy: PolicyBody = PolicyBody()
    explore: Literal["thompson", "off"] | None = None
    aliases: Annotated[list[AliasBody], Meta(max_length=100)] = []
    since: shapes.Seconds | None = None
    """A week ago where it is absent."""
    until: shapes.Seconds | None = None
    host: Name = ""
    program: Name = ""
    as_logged: bool = False
    """Decide with the facts that were recorded, and not with today's."""
    clip: Annotated[float, Meta(ge=1)] | None = None
    """The largest weight; nothing is clipped where it is absent."""


class Rehearsals:
    """The handler. `access.roles` says who may use it; the side server sees to that."""

    def __init__(
        self,
        requests: RequestLog,
        catalog: Catalog,
        ground: Callable[[], Ground],
        *,
        learning: Learning,
        clock: Clock,
    ) -> None:
        self._requests = requests
        self._catalog = catalog
        self._ground = ground
        self._learning = learning
        self._clock = clock
        self._turn = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post(PATH, self._rehearse)]

    async def _rehearse(self, request: web.Request) -> web.StreamResponse:
        body = await shapes.read(request, RehearseBody)
        filters, wish = self._filters(body), _wish(body, self._catalog.fleet)
        lines = request.headers.get("accept", "") == LINES
        async with self._turn:
            work = _Work(self._requests, filters, self._rehearsal(body, wish), body)
            task = asyncio.create_task(asyncio.to_thread(work.run), name="rehearsal")
            try:
                if not lines:
                    return answer(self._told(await self._ended(request, work, task), work, body))
                return await self._lines(request, work, task, body)
            finally:
                work.gone.set()
                await asyncio.wait({task})

    async def _ended(self, request: web.Request, work: _Work, task: asyncio.Task[Report]) -> Report:
        """Return the report; a caller that has left, or a server that is leaving, ends the work."""
        while not task.done():
            await asyncio.wait({task}, timeout=_TELL_SECONDS)
            if _left(request):
                work.gone.set()
        return task.result()

    async def _lines(
        self, request: web.Request, work: _Work, task: asyncio.Task[Report], body: RehearseBody
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"content-type": LINES, "cache-control": "no-store", "server": "tokenhub"}
        )
        await response.prepare(request)
        try:
            while not task.done():
                await response.write(_line({"done": work.done, "total": work.total}))
                await asyncio.wait({task}, timeout=_TELL_SECONDS)
                if _left(request):
                    return response
            try:
                told = {"report": self._told(task.result(), work, body)}
            except TokenHubError as error:
                told = {"error": _error(error.fault)}
            await response.write(_line(told))
            await response.write_eof()
        except ConnectionError:
            pass
        return response

    def _filters(self, body: RehearseBody) -> Filters:
        now = self._clock.now()
        since = max(0.0, now - DAYS * _DAY) if body.since is None else body.since
        until = now if body.until is None else body.until
        if since >= until:
            raise client_fault("since must be before until", param="since")
        return Filters(since=since, until=until, host=body.host, program=body.program)

    def _rehearsal(self, body: RehearseBody, wish: Wish) -> Rehearsal:
        """Return the rehearsal on the facts of this moment: what is learned meanwhile does not move it."""
        if body.as_logged:
            return Rehearsal(AsLogged(wish))
        ground = self._ground()
        learner = Learner(self._learning.learner.averages().items())
        explorer: Explorer = STILL
        if (body.explore or self._catalog.explore) == "thompson":
            explorer = Bandit(self._learning.bandit.kept())
        now = structs.replace(ground.now, estimates=learner, explorer=explorer)
        ground = structs.replace(ground, now=now)
        return Rehearsal(Today(ground, wish), ground=ground)

    def _told(self, report: Report, work: _Work, body: RehearseBody) -> Json:
        explore = body.explore or ("as logged" if body.as_logged else self._catalog.explore)
        filters = work.filters
        return {
            "since": filters.since,
            "until": filters.until,
            "host": body.host,
            "program": body.program,
            "facts": "as logged" if body.as_logged else "today",
            "policy": shapes.given(body.policy),
            "explore": explore,
            "aliases": [one.name for one in body.aliases],
            "complete": work.records <= MAX_CALLS,
            "confidence": 0.95,
            **msgspec.to_builtins(report),
            "said": sentences(report),
        }


class _Work:
    """One rehearsal in its thread. The loop reads `done` and sets `gone`."""

    def __init__(
        self, requests: RequestLog, filters: Filters, rehearsal: Rehearsal, body: RehearseBody
    ) -> None:
        self.filters = filters
        self.gone = Event()
        self.done = self.records = 0
        self._requests = requests
        self._rehearsal = rehearsal
        self._clip = float("inf") if body.clip is None else body.clip

    @property
    def total(self) -> int:
        return min(self.records, MAX_CALLS)

    def run(self) -> Report:
        self.records = self._requests.count(self.filters)
        for entry in self._requests.decided(self.filters, limit=MAX_CALLS):
            self._rehearsal.add(entry)
            self.done += 1
            if self.done % _AT_ONCE == 0 and self.gone.wait(_PAUSE):
                break
        return self._rehearsal.report(clip=self._clip)


def _wish(body: RehearseBody, view: Fleet) -> Wish:
    """Return what is to be rehearsed; refuses what names nobody, and what the recorded facts cannot answer."""
    values = shapes.given(body.policy)
    model = values.pop("model", "")
    if body.as_logged and body.aliases:
        raise client_fault("aliases are rehearsed with today's facts only", param="aliases")
    if body.as_logged and body.explore == "thompson":
        raise client_fault("what would be drawn is rehearsed with today's facts only", param="explore")
    targets: list[Alias] = []
    for one in body.aliases:
        alias = alias_of(one)
        aliases.check(alias, view)
        targets.append(alias)
    known = {"", *ANY_MODEL, *view.aliases, *(alias.name for alias in targets)}
    if not body.as_logged and model not in known and not named(view, model):
        raise client_fault(f"there is no model {model!r}", param="policy.model")
    provider = values.get("provider")
    if provider is not None and not body.as_logged and provider not in view.providers:
        raise client_fault(f"there is no provider {provider!r}", param="policy.provider")
    return Wish(values, model, tuple(targets), body.explore or "")


def _left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing() or request.app[LEAVING].is_set()


def _error(fault: Fault) -> Json:
    return {"type": fault.label, "message": fault.message, "param": fault.param}


def _line(told: dict[str, Any]) -> bytes:
    return wire.encode(told) + b"\n"
