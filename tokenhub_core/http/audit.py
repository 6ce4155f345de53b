"""The audit log at the admin API's door, and its pages.

GET /admin/v1/audit           ?limit=&before=&action=&actor=&subject=&outcome=&since=&until=
GET /admin/v1/audit/verify    ?head=SEQ:HASH   is every entry what was written?
GET /admin/v1/audit/export    JSON lines, oldest first
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from aiohttp import web
from msgspec import structs

from tokenhub_core.audit import chain
from tokenhub_core.audit.denials import Attempt
from tokenhub_core.audit.entries import Action, Cause, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import ConfigError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.side import answer
from tokenhub_core.ids import request_id
from tokenhub_core.ports import Clock
from tokenhub_core.store.audit import AuditLog, Filters, shown
from tokenhub_core.types import Json
from tokenhub_core.vault.keys import KeyHolder

PATH: Final = "/admin/v1/audit"
_CLOSED: Final = "/admin"
_DENIED: Final = frozenset({401, 403, 421})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PIECE: Final = 500
"""Entries that are read at a time for an export."""

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watch:
    """Says who is at work while an admin request is handled, and writes what came of it where nothing else did."""

    def __init__(self, audit: Audit, sessions: Sessions, clock: Clock, entropy: Callable[[], bytes]) -> None:
        self._audit = audit
        self._sessions = sessions
        self._clock = clock
        self._entropy = entropy

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Stand around every handler; what is no admin request passes."""
        if not request.path.startswith(_CLOSED):
            return await handler(request)
        cause = Cause(
            actor=self._sessions.actor(request),
            source=request.remote or "",
            program=request.headers.get("user-agent", ""),
            request_id=request_id(self._clock.now(), self._entropy()),
        )
        with self._audit.by(cause) as doing:
            response = await handler(request)
            if response.status >= 400 and not doing.entries:
                await self._unwritten(request, response, cause)
        if not response.prepared:
            response.headers["x-request-id"] = cause.request_id
        return response

    async def _unwritten(self, request: web.Request, response: web.StreamResponse, cause: Cause) -> None:
        """Write an attempt that was denied, or that was to change something and did not."""
        resource = request.match_info.route.resource
        subject = f"{request.method} {resource.canonical if resource else _CLOSED}"
        if response.status in _DENIED:
            await self._audit.denied(Attempt(cause.source, _code(response), subject, cause.actor))
        elif request.method not in _SAFE:
            failed = Result.FAILED if response.status >= 500 else Result.REFUSED
            named = {name: value for name, value in request.match_info.items() if value}
            await self._audit.try_note(
                Action.REQUEST, subject, after=named or None, outcome=failed, reason=_code(response)
            )


class AuditPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, audit: Audit, log: AuditLog, keyring: KeyHolder) -> None:
        self._audit = audit
        self._log = log
        self._keyring = keyring

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._page),
            web.get(PATH + "/verify", self._verify),
            web.get(PATH + "/export", self._export, allow_head=False),  # as for the stream of events
        ]

    async def _page(self, request: web.Request) -> web.Response:
        limit, before = shapes.page(request)
        filters = _filters(request)
        page = await asyncio.to_thread(self._log.page, limit=limit, before=before, filters=filters)
        head = await asyncio.to_thread(self._log.head)
        return answer(
            {"entries": [shown(entry) for entry in page.items], "next": page.next, "head": str(head)}
        )

    async def _verify(self, request: web.Request) -> web.Response:
        heads = []
        if (given := request.query.get("head")) is not None:
            try:
                heads.append(chain.head_of(given))
            except ValueError:
                raise client_fault("head must be SEQ:HASH", param="head") from None
        try:
            anchored = await asyncio.to_thread(self._audit.anchored)
        except ConfigError as error:
            raise client_fault(str(error)) from None
        known = [*heads, *([anchored] if anchored else []), self._audit.head]
        report = await asyncio.to_thread(self._log.verify, self._keyring.verifiers(), tuple(known))
        return answer(report_json(report))

    async def _export(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "content-type": "application/jsonl",
                "cache-control": "no-store",
                "server": "tokenhub",
                "x-content-type-options": "nosniff",
            }
        )
        await self._audit.note(Action.AUDIT_READ)
        await response.prepare(request)
        at = 0
        while piece := await asyncio.to_thread(self._log.after, at, _PIECE):
            await response.write(b"".join(orjson.dumps(shown(entry)) + b"\n" for entry in piece))
            at = piece[-1].seq
        await response.write_eof()
        return response


def report_json(report: chain.Report) -> Json:
    """Return what a verification came to."""
    return {
        "ok": report.ok,
        "findings": [structs.asdict(one) for one in report.findings],
        "entries": report.entries,
        "signed": report.signed,
        "unchecked": report.unchecked,
        "covered": report.covered,
        "head": str(report.head),
    }


def _filters(request: web.Request) -> Filters:
    query = request.query
    action, outcome = query.get("action", ""), query.get("outcome", "")
    if action and not any(action in {one, one.partition(".")[0]} for one in Action):
        raise client_fault(f"there is no action {action!r}", param="action")
    if outcome and outcome not in list(Result):
        raise client_fault(f"outcome must be one of {', '.join(Result)}", param="outcome")
    return Filters(
        action,
        query.get("actor", ""),
        query.get("subject", ""),
        outcome,
        shapes.moment(request, "since"),
        shapes.moment(request, "until"),
    )


def _code(response: web.StreamResponse) -> str:
    """Return the code of an error of ours."""
    body = response.body if isinstance(response, web.Response) else None
    try:
        return str(orjson.loads(body)["error"]["code"]) if isinstance(body, bytes) else ""
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
