"""The admin API's part about who may use it: signing in and out, users, and scoped tokens.

POST   /login                  {user, password} or {ticket}: a session in a cookie, and its CSRF token. Open.
POST   /session                the same for whoever shows a token
GET    /session                who one is; for a session its CSRF token
DELETE /session                sign out
GET    /sessions               one's own; an admin sees all
DELETE /sessions/{id}
POST   /login-links            a ticket that opens one session of whoever shows a token
GET    /users, /users/{id}
POST   /users                  {name, role, password}
PATCH  /users/{id}             {role?, enabled?}: ends their sessions; nobody changes themselves
DELETE /users/{id}
POST   /users/{id}/password    {new_password, old_password?}: ends their other sessions
POST   /users/{id}/unlock      let the next password be tried at once
GET    /tokens, /tokens/{id}
POST   /tokens                 {name, role, expires_in_secs?}: shows the token, once
PATCH  /tokens/{id}            {role?, expires_in_secs?}
DELETE /tokens/{id}
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta, structs

from tokenhub_core.access.logins import Logins, owner_of
from tokenhub_core.access.register import Register
from tokenhub_core.access.roles import Role
from tokenhub_core.access.tickets import LIFETIME
from tokenhub_core.access.values import Identity, Kind, Owner, Session, Token, User
from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind as Trouble
from tokenhub_core.errors import client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.side import answer
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store.rows import MICROS
from tokenhub_core.types import Json

BASE: Final = "/admin/v1"
_DECADE: Final = 315_360_000

type Name = Annotated[str, Meta(max_length=64)]
type Seconds = Annotated[int, Meta(ge=0, le=_DECADE)]
"""0: for ever."""


class LoginBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /login`."""

    user: Name = ""
    password: str = ""
    ticket: Annotated[str, Meta(max_length=128)] = ""


class UserBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /users`."""

    name: Name
    role: Role
    password: str


class UserPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /users/{id}`: what is absent stays."""

    role: Role | None = None
    enabled: bool | None = None


class UserPasswordBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /users/{id}/password`. Whoever changes their own shows the old one."""

    new_password: str
    old_password: str = ""


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /tokens`."""

    name: Name
    role: Role
    expires_in_secs: Seconds = 0


class TokenPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /tokens/{id}`: what is absent stays."""

    role: Role | None = None
    expires_in_secs: Seconds | None = None


class AccessPages:
    """The handlers. What role each needs is in the table; whose things they are is decided here."""

    def __init__(
        self, register: Register, logins: Logins, sessions: Sessions, audit: Audit, clock: Clock
    ) -> None:
        self._register = register
        self._logins = logins
        self._sessions = sessions
        self._audit = audit
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        table = (
            ("POST", "/login", self._login),
            ("POST", "/session", self._sign_in),
            ("GET", "/session", self._session),
            ("DELETE", "/session", self._sign_out),
            ("GET", "/sessions", self._list_sessions),
            ("DELETE", "/sessions/{id}", self._end_session),
            ("POST", "/login-links", self._link),
            ("GET", "/users", self._users),
            ("POST", "/users", self._add_user),
            ("GET", "/users/{id}", self._user),
            ("PATCH", "/users/{id}", self._patch_user),
            ("DELETE", "/users/{id}", self._delete_user),
            ("POST", "/users/{id}/password", self._password),
            ("POST", "/users/{id}/unlock", self._unlock),
            ("GET", "/tokens", self._tokens),
            ("POST", "/tokens", self._add_token),
            ("GET", "/tokens/{id}", self._token),
            ("PATCH", "/tokens/{id}", self._patch_token),
            ("DELETE", "/tokens/{id}", self._delete_token),
        )
        return [web.route(method, BASE + path, handler) for method, path, handler in table]

    # --- in and out

    async def _login(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, LoginBody)
        if bool(body.ticket) == bool(body.user or body.password):
            raise client_fault("give user and password, or the ticket of a login link")
        if body.ticket:
            return await self._opened(request, await self._logins.redeem(body.ticket))
        user = await self._logins.user(body.user, Secret(body.password), request.remote or "")
        return await self._opened(request, owner_of(user))

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Open a browser session; only a token opens one, not another session, which would never end then."""
        return await self._opened(request, self._by_token(request).owner)

    async def _opened(self, request: web.Request, owner: Owner) -> web.Response:
        identity = self._register.identity(owner)
        if identity is None:
            raise client_fault("whoever that was may not come in", kind=Trouble.AUTH, cause="login_failed")
        with self._audit.by_actor(identity.actor):
            await self._audit.note(Action.SESSION_OPEN)
            name, session = await self._register.open(
                owner, source=request.remote or "", program=request.headers.get("user-agent", "")
            )
        response = answer(
            {
                **_who(structs.replace(identity, session=session.id)),
                "csrf": self._register.csrf(name),
                "expires_at": session.expires_at / MICROS,
            }
        )
        self._sessions.set_cookie(request, response, name)
        return response

    async def _session(self, request: web.Request) -> web.Response:
        identity = self._sessions.identity(request)
        return answer({**_who(identity), "csrf": self._sessions.csrf(request) if identity.session else None})

    async def _sign_out(self, request: web.Request) -> web.Response:
        identity = self._sessions.identity(request)
        response = answer({"ok": True})
        if identity.session:
            await self._audit.note(Action.SESSION_CLOSE)
            await self._register.end(identity.session)
        self._sessions.drop_cookie(request, response)
        return response

    async def _link(self, request: web.Request) -> web.Response:
        identity = self._by_token(request)
        await self._audit.note(Action.LOGIN_LINK)
        return answer({"ticket": self._logins.ticket(identity.owner), "expires_in_secs": LIFETIME}, 201)

    def _by_token(self, request: web.Request) -> Identity:
        identity = self._sessions.identity(request)
        if identity.session:
            raise client_fault(
                "a session opens no other one: show a token", kind=Trouble.FORBIDDEN, cause="session"
            )
        return identity

    # --- sessions

    async def _list_sessions(self, request: web.Request) -> web.Response:
        items = [self._session_json(one) for one in self._visible(self._sessions.identity(request))]
        return answer({"items": items, "total": len(items)})

    async def _end_session(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in {one.id for one in self._visible(self._sessions.identity(request))}:
            raise client_fault("there is no such session", kind=Trouble.NOT_FOUND, param="id")
        await self._audit.note(Action.SESSION_CLOSE, name)
        await self._register.end(name)
        return answer({"ok": True})

    def _visible(self, identity: Identity) -> list[Session]:
        return [
            one
            for one in self._register.sessions()
            if identity.role is Role.ADMIN or one.owner == identity.owner
        ]

    def _session_json(self, session: Session) -> Json:
        identity = self._register.identity(session.owner, session.id)
        return {
            "id": session.id,
            "actor": identity.actor if identity else "",
            "role": identity.role.value if identity else "",
            "source": session.source,
            "program": session.program,
            "created_at": session.created_at / MICROS,
            "used_at": session.used_at / MICROS,
            "expires_at": session.expires_at / MICROS,
        }

    # --- users

    async def _users(self, request: web.Request) -> web.Response:
        del request
        items = [_user_json(user) for user in self._register.users()]
        return answer({"items": items, "total": len(items)})

    async def _user(self, request: web.Request) -> web.Response:
        return answer(_user_json(self._register.user(request.match_info["id"])))

    async def _add_user(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, UserBody)
        password = await self._logins.hashed(Secret(body.password))
        return answer(_user_json(await self._register.add_user(body.name, body.role, password)), 201)

    async def _patch_user(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, UserPatch)
        user = self._register.user(request.match_info["id"])
        if self._sessions.identity(request).owner == owner_of(user):
            raise client_fault(
                "nobody changes their own role: ask another admin", kind=Trouble.FORBIDDEN, cause="own_role"
            )
        changed = await self._register.change_user(user.id, role=body.role, enabled=body.enabled)
        return answer(_user_json(changed))

    async def _delete_user(self, request: web.Request) -> web.Response:
        await self._register.delete_user(request.match_info["id"])
        return answer({"ok": True})

    async def _password(self, request: web.Request) -> web.Response:
        """Set a password: one's own by showing the old one, anybody else's as an admin."""
        body = await shapes.read(request, UserPasswordBody)
        identity = self._sessions.identity(request)
        own = identity.owner == Owner(Kind.USER, request.match_info["id"])
        if not own and identity.role is not Role.ADMIN:
            raise client_fault("only an admin sets another's password", kind=Trouble.FORBIDDEN, cause="role")
        user = self._register.user(request.match_info["id"])
        if own:
            await self._logins.user(user.name, Secret(body.old_password), request.remote or "")
        password = await self._logins.hashed(Secret(body.new_password))
        return answer(_user_json(await self._register.set_password(user.id, password, but=identity.session)))

    async def _unlock(self, request: web.Request) -> web.Response:
        user = self._register.user(request.match_info["id"])
        await self._logins.unlock(user)
        return answer(_user_json(user))

    # --- tokens

    async def _tokens(self, request: web.Request) -> web.Response:
        del request
        items = [_token_json(token) for token in self._register.tokens()]
        return answer({"items": items, "total": len(items)})

    async def _token(self, request: web.Request) -> web.Response:
        return answer(_token_json(self._register.token(request.match_info["id"])))

    async def _add_token(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, TokenBody)
        by = self._sessions.identity(request).actor
        until = self._until(body.expires_in_secs)
        value, token = await self._register.add_token(body.name, body.role, expires_at=until, by=by)
        return answer({**_token_json(token), "token": value}, 201)

    async def _patch_token(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, TokenPatch)
        token_id = request.match_info["id"]
        if self._sessions.identity(request).owner == Owner(Kind.TOKEN, token_id):
            raise client_fault(
                "no token changes itself: use another", kind=Trouble.FORBIDDEN, cause="own_role"
            )
        until = None if body.expires_in_secs is None else self._until(body.expires_in_secs)
        return answer(
            _token_json(await self._register.change_token(token_id, role=body.role, expires_at=until))
        )

    async def _delete_token(self, request: web.Request) -> web.Response:
        await self._register.delete_token(request.match_info["id"])
        return answer({"ok": True})

    def _until(self, seconds: int) -> float:
        return self._clock.now() + seconds if seconds else 0.0


def _who(identity: Identity) -> Json:
    return {"actor": identity.actor, "role": identity.role.value, "id": identity.session or None}


def _user_json(user: User) -> Json:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role.value,
        "enabled": user.enabled,
        "created_at": user.created_at / MICROS,
        "updated_at": user.updated_at / MICROS,
        "password_at": user.password_at / MICROS,
        "last_login_at": user.last_login_at / MICROS or None,
    }


def _token_json(token: Token) -> Json:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "prefix": token.prefix,
        "created_by": token.created_by,
        "created_at": token.created_at / MICROS,
        "updated_at": token.updated_at / MICROS,
        "expires_at": token.expires_at / MICROS or None,
    }
