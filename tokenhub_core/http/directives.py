"""The admin API's part about signed directives: `GET /admin/v1/directives/secrets/{key_id}`.

What a client's key signs its directives with. The audit log has it before it leaves.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Final

from aiohttp import web

from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.http.side import answer
from tokenhub_core.signing import is_key_id
from tokenhub_core.vault.vault import Vault

PATH: Final = "/admin/v1/directives/secrets"


class SigningPages:
    """The handlers. Every route needs the admin token; the side server sees to that."""

    def __init__(self, vault: Vault, audit: Audit) -> None:
        self._vault = vault
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get(PATH + "/{key_id}", self._secret)]

    async def _secret(self, request: web.Request) -> web.Response:
        key_id = request.match_info["key_id"]
        if not is_key_id(key_id):
            raise client_fault(f"{key_id[:80]!r} is no id of a key", param="key_id")
        secret = self._vault.directive_secret(key_id)
        if secret is None:
            message = "The vault is not open, and signing secrets come from it."
            raise TokenHubError(Fault(Kind.OVERLOADED, Blame.US, message, cause="vault_locked", status=503))
        await self._audit.note(Action.SECRET_READ, f"directives:{key_id}")
        return answer({"key_id": key_id, "secret": urlsafe_b64encode(secret).decode()})
