"""The admin API's part about the request log.

GET /admin/v1/logs           a page, searched and filtered
GET /admin/v1/logs/export    all that the filters choose, as a file; oldest first
GET /admin/v1/logs/{id}      one record with its decision

An export is read piece by piece, each in a view of its own, and holds no more than one piece: it takes as long as its
reader wants. It ends where the log ended when it began. What was cut short goes on with `after`, the last `seq` that
arrived, and the `through` of the first one.
"""

from __future__ import annotations

import asyncio
import re
from enum import StrEnum
from functools import partial
from typing import Final

from aiohttp import web

from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.http import exporting, shapes
from tokenhub_core.http.exporting import Format, Packer, Packing
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.side import LEAVING, answer
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.search import Filters
from tokenhub_core.types import Outcome

BASE: Final = "/admin/v1"
FIRST: Final = "x-tokenhub-first-seq"
LAST: Final = "x-tokenhub-last-seq"
_PIECE: Final = 500
"""Records that are read at a time for an export."""
_STATUS: Final = re.compile(r"([1-5])([0-9]{2}|xx)")
_WORDS: Final = (
    "model",
    "provider",
    "host",
    "program",
    "key",
    "project",
    "q",
    "mode",
    "directive",
    "tag",
    "error",
)


class LogPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, requests: RequestLog, audit: Audit, sessions: Sessions) -> None:
        self._requests = requests
        self._audit = audit
        self._sessions = sessions

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(f"{BASE}/logs", self._list),
            # A file is made by reading it: its head alone would be read for nothing, and audited.
            web.get(f"{BASE}/logs/export", self._export, allow_head=False),
            web.get(f"{BASE}/logs/{{id}}", self._one),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        limit, before = shapes.page(request)
        after = shapes.place(request, "after")
        page = await asyncio.to_thread(
            self._requests.page, limit=limit, before_seq=before, after_seq=after, filters=filters(request)
        )
        logs = [shapes.log_json(row) for row in page.items]
        return answer({"logs": logs, "next": page.next, "newer": page.newer})

    async def _one(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._requests.get, request.match_info["id"])
        if found is None:
            raise client_fault("there is no such request", kind=Kind.NOT_FOUND, param="id")
        return answer(shapes.log_json(found))

    async def _export(self, request: web.Request) -> web.StreamResponse:
        wanted = filters(request)
        format_ = _choice(request, "format", Format, Format.JSONL)
        packing = _choice(request, "compress", Packing, Packing.NONE)
        at = shapes.place(request, "after") or 0
        newest = await asyncio.to_thread(lambda: self._requests.page(limit=1).newer)
        through = min(shapes.place(request, "through") or newest, newest)
        asked = {name: value for name, value in request.query.items() if value}
        await self._audit.note(Action.LOG_EXPORT, after=asked)
        ending, media = exporting.PACKED.get(packing, ("", exporting.MEDIA[format_]))
        response = web.StreamResponse(
            headers={
                "content-type": media,
                "content-disposition": f'attachment; filename="tokenhub-log.{format_}{ending}"',
                "cache-control": "no-store",
                "server": "tokenhub",
                "x-content-type-options": "nosniff",
                FIRST: str(at + 1),
                LAST: str(through),
            }
        )
        await response.prepare(request)
        over = asyncio.create_task(
            self._sessions.over(request, request.app[LEAVING]), name="export until leaving"
        )
        packer = exporting.packer(packing)
        try:
            # Behind `after` there was a line before: the head stands above it.
            await response.write(packer.compress(exporting.head(format_) if not at else b""))
            while at < through:
                piece = partial(self._piece, wanted, at, through, format_, packer)
                data, at = await asyncio.to_thread(piece)
                if over.done():
                    raise ConnectionAbortedError
                await response.write(data)
            await response.write(packer.flush())
        except (TokenHubError, ConnectionError):
            # Too late for another answer: without its end nobody takes it for the whole.
            if request.transport is not None:
                request.transport.abort()
            return response
        finally:
            over.cancel()
        await response.write_eof()
        return response

    def _piece(
        self, wanted: Filters, at: int, through: int, format_: Format, packer: Packer
    ) -> tuple[bytes, int]:
        """Return the next lines behind a place, and the place that they lead to."""
        page = self._requests.page(limit=_PIECE, after_seq=at, filters=wanted)
        rows = [shapes.log_json(row) for row in reversed(page.items) if row["seq"] <= through]
        return packer.compress(exporting.lines(rows, format_)), page.newer


def filters(request: web.Request) -> Filters:
    """Return what a query chooses; raises `TokenHubError` that names the field."""
    query = request.query
    outcome = query.get("outcome")
    if outcome is not None and outcome not in list(Outcome):
        raise client_fault(f"outcome must be one of {', '.join(Outcome)}", param="outcome")
    return Filters(
        **{name: query.get(name, "") for name in _WORDS},
        outcome=outcome or "",
        since=shapes.moment(request, "since"),
        until=shapes.moment(request, "until"),
        status=_status(query.get("status", "")),
    )


def _status(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = _STATUS.fullmatch(text)
    if found is None:
        raise client_fault("status must be one such as 404, or a class of them such as 5xx", param="status")
    hundreds = int(found[1]) * 100
    return (hundreds, hundreds + 99) if found[2] == "xx" else (int(text), int(text))


def _choice[T: StrEnum](request: web.Request, name: str, kind: type[T], usual: T) -> T:
    raw = request.query.get(name) or usual
    if raw not in list(kind):
        raise client_fault(f"{name} must be one of {', '.join(kind)}", param=name)
    return kind(raw)
