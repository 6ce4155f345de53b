"""The admin API's part about durable calls: `/admin/v1/workflows`.

What a workflow carries is never shown; it is sealed, and what is known of the call stands in the request log. A call's
workflow is named after its request id: `chat-` and that.
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.workflows.way import STATUSES, Durability

PATH: Final = "/admin/v1/workflows"
MOST: Final = 200
"""Workflows of one list."""
PAGE: Final = 50
EVENTS: Final = 1000
"""Events of one history: a call's has a few dozen at most."""


class WorkflowPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, durable: Durability | None, audit: Audit) -> None:
        self._durable = durable
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._list),
            web.get(PATH + "/{id}", self._one),
            web.get(PATH + "/{id}/history", self._history),
            web.post(PATH + "/{id}/cancel", self._cancel),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        limit = shapes.whole(request, "limit", PAGE, 1, MOST)
        status = request.query.get("status", "")
        if status and status not in STATUSES:
            raise client_fault(f"status must be one of {', '.join(STATUSES)}", param="status")
        if self._durable is None:
            return answer({"workflows": [], "temporal_enabled": False})
        found = await self._durable.workflows(limit=limit, status=status)
        return answer({"workflows": msgspec.to_builtins(found), "temporal_enabled": True})

    async def _one(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        found = None if self._durable is None else await self._durable.workflow(name)
        if found is None:
            raise _unknown()
        return answer(msgspec.to_builtins(found))

    async def _history(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        found = None if self._durable is None else await self._durable.history(name, limit=EVENTS)
        if found is None:
            raise _unknown()
        return answer({"workflow_id": name, "events": msgspec.to_builtins(found)})

    async def _cancel(self, request: web.Request) -> web.Response:
        """Ask a call to end, as if its caller had left."""
        name = request.match_info["id"]
        if self._durable is None or not await self._durable.cancel(name):
            raise _unknown()
        await self._audit.note(Action.WORKFLOW_CANCEL, name)
        return answer({"ok": True})


def _unknown() -> TokenHubError:
    return client_fault("there is no such workflow", kind=Kind.NOT_FOUND, param="id")
