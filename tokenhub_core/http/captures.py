"""The admin API's part about the text of calls.

GET /admin/v1/logs/{id}/body     {id, at, until, mode, request, answer}; the audit log has it before it leaves
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from msgspec import structs

from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.capture import opened
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.http.side import answer
from tokenhub_core.ports import Clock
from tokenhub_core.store import captures as rows
from tokenhub_core.store.captures import Captured
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.sealing import TamperedError


class Bodies:
    """The handler. The route needs the admin token; the side server sees to that."""

    def __init__(self, audit: Audit, keys: KeyHolder, clock: Clock) -> None:
        self._audit = audit
        self._keys = keys
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/admin/v1/logs/{id}/body", self._body)]

    async def _body(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        found = await asyncio.to_thread(self._load, name)
        if found is None:
            raise client_fault("nothing was kept of what this call said", kind=Kind.NOT_FOUND, param="id")
        if self._keys.keys is None:
            raise _unusable("the vault is locked, and the text is sealed with a key in it", "vault_locked")
        try:
            body = opened(found, self._keys)
        except TamperedError as error:
            raise _unusable(str(error), "vault_tampered") from None
        if body is None:
            raise client_fault(
                "the text was sealed with a key that the vault has replaced since",
                kind=Kind.NOT_FOUND,
                param="id",
            )
        await self._audit.note(Action.SECRET_READ, f"body:{name}")
        texts = {"request": structs.asdict(body.request), "answer": structs.asdict(body.answer)}
        return answer({"id": name, "at": found.at, "until": found.until, "mode": body.mode.value, **texts})

    def _load(self, name: str) -> Captured | None:
        with self._audit.database.reading() as connection:
            return rows.load(connection, name, now=self._clock.now())


def _unusable(message: str, cause: str) -> TokenHubError:
    return TokenHubError(Fault(Kind.INTERNAL, Blame.US, message, cause=cause, status=503))
