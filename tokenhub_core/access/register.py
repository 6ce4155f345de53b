"""The register of who may do admin work: users, scoped tokens and sessions, in memory and in the store.

Every change goes to the store first; what is in memory is then what the same transaction read back. So a look-up waits
for nothing, and nobody is let in by what the store does not hold.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import structs
from sqlalchemy import Connection

from tokenhub_core.access.marks import Marks, Use
from tokenhub_core.access.roles import Role
from tokenhub_core.access.values import Identity, Kind, Known, Owner, Session, Token, User
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Blame, Fault, TokenHubError, client_fault
from tokenhub_core.errors import Kind as Trouble
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store import access as rows
from tokenhub_core.store import generations
from tokenhub_core.store.rows import MICROS, micros
from tokenhub_core.store.writer import Writer
from tokenhub_core.types.identity import KEY_PREFIX

LIFETIME: Final = 12 * 3600
"""Seconds after which a session ends, used or not."""
IDLE: Final = 3600
"""Seconds without use after which it ends."""
MOST_SESSIONS: Final = 20
"""Sessions of one owner."""
TOKEN_PREFIX: Final = "thadmin_"  # noqa: S105 - what every token begins with

_TOLD: Final = len(TOKEN_PREFIX) + 8
"""Characters of a token that are kept to know it again by."""
_SAVED: Final = 60
"""Seconds between two times that the use of a session is stored."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")

type _Work[T] = Callable[[Connection], T]


class Register:
    """Belongs to one event loop; the only one on its database."""

    def __init__(
        self,
        audit: Audit,
        writer: Writer,
        *,
        clock: Clock,
        marks: Marks,
        token: Secret,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._audit = audit
        self._writer = writer
        self._clock = clock
        self._marks = marks
        self._token = token
        self._entropy = entropy
        self._known = Known()
        self._used: dict[str, int] = {}
        """When sessions were used last, by id; the store may be a minute behind."""
        self._saved: dict[str, int] = {}
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Read everybody; called at start, and whenever another process has changed anything."""
        async with self._turn:
            self._know(await asyncio.to_thread(self._read))

    def _read(self) -> Known:
        with self._audit.database.reading() as connection:
            return rows.load(connection)

    # --- who is asking

    @property
    def bootstrap(self) -> Owner:
        """Return the owner of sessions that the bootstrap token opens; another token is another owner."""
        return Owner(Kind.BOOTSTRAP, self._marks.of(Use.BOOTSTRAP, self._token.reveal()).hex())

    def bearer(self, given: str) -> Identity | None:
        """Return who shows this token, None where it is none. A client's key never is one."""
        if given.startswith(KEY_PREFIX):
            return None
        known = self._token.reveal()
        if known and hmac.compare_digest(
            given.encode(errors="surrogatepass"), known.encode(errors="surrogatepass")
        ):
            return Identity("admin-token", Role.ADMIN, self.bootstrap)
        token = self._known.tokens.get(self._marks.of(Use.TOKEN, given))
        if token is None or self._expired(token):
            return None
        return Identity(f"token:{token.name}", token.role, Owner(Kind.TOKEN, token.id))

    def session(self, name: str, *, use: bool) -> Identity | None:
        """Return whose session this is, None where it is none or has ended; `use` keeps it from being idle."""
        found = self._known.sessions.get(self._marks.of(Use.SESSION, name))
        if found is None or self._over(found):
            return None
        identity = self.identity(found.owner, found.id)
        if identity is not None and use:
            self._touch(found.id)
        return identity

    def identity(self, owner: Owner, session: str = "") -> Identity | None:
        """Return who an owner is now, None where they may not come in any more."""
        if owner.kind is Kind.USER:
            user = self._known.users.get(owner.id)
            if user is None or not user.enabled:
                return None
            return Identity(f"user:{user.name}", user.role, owner, session)
        if owner.kind is Kind.TOKEN:
            token = self._token_of(owner.id)
            if token is None or self._expired(token):
                return None
            return Identity(f"token:{token.name}", token.role, owner, session)
        if not self._token or owner != self.bootstrap:
            return None
        return Identity(f"session:{session}" if session else "admin-token", Role.ADMIN, owner, session)

    def csrf(self, name: str) -> str:
        """Return what writes by the session with this name have to show."""
        return self._marks.of(Use.CSRF, name).hex()

    def _over(self, session: Session) -> bool:
        now = micros(self._clock.now())
        used = max(session.used_at, self._used.get(session.id, 0))
        return now >= session.expires_at or now >= used + IDLE * MICROS

    def _expired(self, token: Token) -> bool:
        return bool(token.expires_at) and micros(self._clock.now()) >= token.expires_at

    def _touch(self, session: str) -> None:
        now = micros(self._clock.now())
        self._used[session] = now
        if now - self._saved.get(session, 0) >= _SAVED * MICROS:
            self._saved[session] = now
            # Nobody waits: where it is lost, the session is idle a little earlier.
            self._writer.post(partial(rows.use_session, session_id=session, now=now))

    # --- sessions

    def sessions(self) -> list[Session]:
        """Return those that are open, the newest last."""
        return [
            structs.replace(one, used_at=max(one.used_at, self._used.get(one.id, 0)))
            for one in self._known.sessions.values()
            if not self._over(one) and self.identity(one.owner, one.id) is not None
        ]

    async def open(self, owner: Owner, *, source: str, program: str) -> tuple[str, Session]:
        """Open a session; return the name that opens it, which is nowhere else, and what it is."""
        now = micros(self._clock.now())
        name = self._entropy(32).hex()
        session = Session(
            id=self._entropy(8).hex(),
            mark=self._marks.of(Use.SESSION, name),
            owner=owner,
            source=source,
            program=program,
            created_at=now,
            used_at=now,
            expires_at=now + LIFETIME * MICROS,
        )

        def add(connection: Connection) -> None:
            rows.add_session(connection, session, idle_since=now - IDLE * MICROS, most=MOST_SESSIONS)
            if owner.kind is Kind.USER:
                rows.change_user(connection, owner.id, last_login_at=now)

        await self._commit(add)
        return name, session

    async def end(self, session: str) -> bool:
        """End a session; False where it had ended."""
        return await self._commit(partial(rows.end_session, session_id=session))

    # --- users

    def users(self) -> list[User]:
        """Return every user, by name."""
        return [*self._known.users.values()]

    def user(self, user_id: str) -> User:
        """Return a user; raises `TokenHubError` (`NOT_FOUND`)."""
        found = self.find_user(user_id)
        if found is None:
            raise _no_user()
        return found

    def find_user(self, user_id: str) -> User | None:
        """Return a user, None where there is none."""
        return self._known.users.get(user_id)

    async def add_user(self, name: str, role: Role, password: str) -> User:
        """Add a user whose password has this PHC string; raises `TokenHubError` for a name that is taken."""
        _check(name)
        now = micros(self._clock.now())
        user = User(self._entropy(8).hex(), name, role, True, now, now, now)

        def add(connection: Connection) -> None:
            if any(one.name == name for one in rows.load(connection).users.values()):
                raise _conflict(f"there is a user {name!r}", "exists")
            rows.add_user(connection, user, password)

        await self._commit(add)
        return user

    async def change_user(
        self, user_id: str, *, role: Role | None = None, enabled: bool | None = None
    ) -> User:
        """Change what a user may do, and end their sessions where that changes anything."""

        def change(connection: Connection) -> None:
            user = _user(connection, user_id)
            wanted = structs.replace(
                user,
                role=user.role if role is None else role,
                enabled=user.enabled if enabled is None else enabled,
            )
            if wanted == user:
                return
            _keep_an_admin(connection, user, wanted)
            now = micros(self._clock.now())
            rows.change_user(
                connection, user_id, role=wanted.role.value, enabled=wanted.enabled, updated_at=now
            )
            rows.end_sessions(connection, Owner(Kind.USER, user_id))

        await self._commit(change)
        return self.user(user_id)

    async def set_password(self, user_id: str, password: str, *, but: str = "") -> User:
        """Give a user another password, by its PHC string, and end their sessions except the one with the id `but`."""

        def change(connection: Connection) -> None:
            _user(connection, user_id)
            now = micros(self._clock.now())
            rows.change_user(connection, user_id, password=password, password_at=now, updated_at=now)
            rows.end_sessions(connection, Owner(Kind.USER, user_id), but=but)

        await self._commit(change)
        return self.user(user_id)

    async def delete_user(self, user_id: str) -> None:
        """Remove a user and their sessions."""

        def remove(connection: Connection) -> None:
            _keep_an_admin(connection, _user(connection, user_id), None)
            rows.delete_user(connection, user_id)
            rows.end_sessions(connection, Owner(Kind.USER, user_id))

        await self._commit(remove)

    # --- tokens

    def tokens(self) -> list[Token]:
        """Return every scoped token, by name."""
        return [*self._known.tokens.values()]

    def token(self, token_id: str) -> Token:
        """Return a token; raises `TokenHubError` (`NOT_FOUND`)."""
        found = self._token_of(token_id)
        if found is None:
            raise client_fault("there is no such token", kind=Trouble.NOT_FOUND, param="id")
        return found

    async def add_token(self, name: str, role: Role, *, expires_at: float, by: str) -> tuple[str, Token]:
        """Add a token; return its value, which is nowhere else, and what it is. `expires_at` 0: never."""
        _check(name)
        now = micros(self._clock.now())
        value = TOKEN_PREFIX + self._entropy(32).hex()
        token = Token(
            id=self._entropy(8).hex(),
            name=name,
            role=role,
            mark=self._marks.of(Use.TOKEN, value),
            prefix=value[:_TOLD],
            created_by=by,
            created_at=now,
            updated_at=now,
            expires_at=micros(expires_at),
        )

        def add(connection: Connection) -> None:
            if any(one.name == name for one in rows.load(connection).tokens.values()):
                raise _conflict(f"there is a token {name!r}", "exists")
            rows.add_token(connection, token)

        await self._commit(add)
        return value, token

    async def change_token(
        self, token_id: str, *, role: Role | None = None, expires_at: float | None = None
    ) -> Token:
        """Change what a token may do and for how long; a change of role ends the sessions that it opened."""
        token = self.token(token_id)
        wanted = structs.replace(
            token,
            role=token.role if role is None else role,
            expires_at=token.expires_at if expires_at is None else micros(expires_at),
        )

        def change(connection: Connection) -> None:
            now = micros(self._clock.now())
            values = {"role": wanted.role.value, "expires_at": wanted.expires_at, "updated_at": now}
            rows.change_token(connection, token_id, **values)
            if wanted.role is not token.role:
                rows.end_sessions(connection, Owner(Kind.TOKEN, token_id))

        await self._commit(change)
        return self.token(token_id)

    async def delete_token(self, token_id: str) -> None:
        """Revoke a token and end the sessions that it opened."""
        self.token(token_id)

        def remove(connection: Connection) -> None:
            rows.delete_token(connection, token_id)
            rows.end_sessions(connection, Owner(Kind.TOKEN, token_id))

        await self._commit(remove)

    def _token_of(self, token_id: str) -> Token | None:
        return next((one for one in self._known.tokens.values() if one.id == token_id), None)

    # --- the store

    async def _commit[T](self, work: _Work[T]) -> T:
        """Do `work` in the store and then know what it knows, one change at a time, to the end if the caller leaves."""

        def read_back(connection: Connection) -> tuple[T, Known]:
            result = work(connection)
            generations.counted(connection, generations.ACCESS)
            return result, rows.load(connection)

        async def alone() -> T:
            async with self._turn:
                result, known = await self._audit.commit(read_back)
                self._know(known)
            return result

        return await asyncio.shield(asyncio.create_task(alone(), name="access change"))

    def _know(self, known: Known) -> None:
        self._known = known
        open_ = {one.id for one in known.sessions.values()}
        self._used = {name: at for name, at in self._used.items() if name in open_}
        self._saved = {name: at for name, at in self._saved.items() if name in open_}


def _user(connection: Connection, user_id: str) -> User:
    found = rows.load(connection).users.get(user_id)
    if found is None:
        raise _no_user()
    return found


def _keep_an_admin(connection: Connection, user: User, wanted: User | None) -> None:
    """Refuse what would leave no user who is an admin, where there is one."""
    if not _is_admin(user) or (wanted is not None and _is_admin(wanted)):
        return
    others = [one for one in rows.load(connection).users.values() if one.id != user.id and _is_admin(one)]
    if not others:
        raise _conflict("this is the last admin: make another user one first", "last_admin")


def _is_admin(user: User) -> bool:
    return user.enabled and user.role is Role.ADMIN


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise client_fault(
            "a name has 1 to 64 small letters, digits and . _ @ + -, and begins with one of the first two",
            param="name",
        )


def _no_user() -> TokenHubError:
    return client_fault("there is no such user", kind=Trouble.NOT_FOUND, param="id")


def _conflict(message: str, cause: str) -> TokenHubError:
    return TokenHubError(Fault(Trouble.INVALID, Blame.CLIENT, message, cause=cause, status=409))
