"""The admin API's part about the vault: `/admin/v1/vault`, its password, its key, and an operator's own secrets.

    GET    /vault                    the state
    POST   /vault/init               {admin_password}
    POST   /vault/unlock             {admin_password, accept?}
    POST   /vault/lock
    POST   /vault/password           {old_password, new_password}
    POST   /vault/rotate             {admin_password}
    GET    /vault/secrets            names, never values
    GET    /vault/secrets/{name}     one value; the audit log has it before it leaves
    PUT    /vault/secrets/{name}     {value}
    DELETE /vault/secrets/{name}

Providers' credentials are in the same vault and can be replaced, never read, from here.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.credentials import SECRETS
from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.ports import Secret
from tokenhub_core.vault.vault import MAX_NAME, Vault

PATH: Final = "/admin/v1/vault"


class VaultPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, vault: Vault, audit: Audit) -> None:
        self._vault = vault
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        one = PATH + r"/secrets/{name:.+}"
        return [
            web.get(PATH, self._state),
            web.post(PATH + "/init", self._init),
            web.post(PATH + "/unlock", self._unlock),
            web.post(PATH + "/lock", self._lock),
            web.post(PATH + "/password", self._password),
            web.post(PATH + "/rotate", self._rotate),
            web.get(PATH + "/secrets", self._secrets),
            web.get(one, self._secret),
            web.put(one, self._put_secret),
            web.delete(one, self._delete_secret),
        ]

    async def _state(self, request: web.Request) -> web.Response:
        del request
        vault = self._vault
        return answer(
            {
                "state": vault.state.value,
                "entries": len(vault.names()),
                "seals": vault.seals,
                "bad": [{"name": name, "why": why} for name, why in sorted(vault.bad.items())],
            }
        )

    async def _init(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.PasswordBody)
        await self._vault.init(Secret(body.admin_password))
        return await self._state(request)

    async def _unlock(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.UnlockBody)
        await self._vault.unlock(Secret(body.admin_password), accept=body.accept)
        return await self._state(request)

    async def _lock(self, request: web.Request) -> web.Response:
        self._vault.lock()
        await self._audit.note(Action.VAULT_LOCK)
        return await self._state(request)

    async def _password(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.NewPasswordBody)
        await self._vault.change_password(Secret(body.old_password), Secret(body.new_password))
        return await self._state(request)

    async def _rotate(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.PasswordBody)
        await self._vault.rotate(Secret(body.admin_password))
        return await self._state(request)

    async def _secrets(self, request: web.Request) -> web.Response:
        del request
        names = [name.removeprefix(SECRETS) for name in self._vault.names() if name.startswith(SECRETS)]
        return answer({"items": [{"name": name} for name in names], "total": len(names)})

    async def _secret(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        secret = self._vault.get(SECRETS + name)
        if secret is None:
            raise _unknown(name)
        await self._audit.note(Action.SECRET_READ, SECRETS + name)
        return answer({"name": name, "value": secret.reveal()})

    async def _put_secret(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if len(SECRETS + name) > MAX_NAME:
            raise client_fault(f"a name has at most {MAX_NAME - len(SECRETS)} characters", param="name")
        body = await shapes.read(request, shapes.SecretBody)
        known = SECRETS + name in self._vault.names()
        await self._vault.put(SECRETS + name, Secret(body.value))
        return answer({"name": name}, 200 if known else 201)

    async def _delete_secret(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not await self._vault.delete(SECRETS + name):
            raise _unknown(name)
        return answer({"ok": True})


def _unknown(name: str) -> TokenHubError:
    return client_fault(f"there is no secret {name!r}", kind=Kind.NOT_FOUND, param="name")
