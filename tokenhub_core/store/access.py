"""Users, tokens, sessions and failed logins as rows.

Every function works on a connection that its caller holds. Times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from tokenhub_core.access.roles import Role
from tokenhub_core.access.values import Kind, Known, Owner, Session, Token, User
from tokenhub_core.store.rows import text
from tokenhub_core.store.schema import ADMIN_ATTEMPTS, ADMIN_SESSIONS, ADMIN_TOKENS, ADMIN_USERS

MOST_ATTEMPTS: Final = 10_000
"""Rows of failed logins: whoever makes up names fills no disk."""
FORGOTTEN: Final = 24 * 3600 * 1_000_000
"""After so long a failed login counts no more."""


def load(connection: Connection) -> Known:
    """Return everybody."""
    users = [
        User(
            row.id,
            row.name,
            Role(row.role),
            row.enabled,
            row.created_at,
            row.updated_at,
            row.password_at,
            row.last_login_at,
        )
        for row in connection.execute(select(ADMIN_USERS).order_by(ADMIN_USERS.c.name))
    ]
    tokens = [
        Token(
            row.id,
            row.name,
            Role(row.role),
            bytes(row.mark),
            row.prefix,
            row.created_by,
            row.created_at,
            row.updated_at,
            row.expires_at,
        )
        for row in connection.execute(select(ADMIN_TOKENS).order_by(ADMIN_TOKENS.c.name))
    ]
    sessions = [
        Session(
            row.id,
            bytes(row.mark),
            Owner(Kind(row.kind), row.owner),
            row.source,
            row.program,
            row.created_at,
            row.used_at,
            row.expires_at,
        )
        for row in connection.execute(select(ADMIN_SESSIONS).order_by(ADMIN_SESSIONS.c.created_at))
    ]
    return Known(
        {user.id: user for user in users},
        {token.mark: token for token in tokens},
        {session.mark: session for session in sessions},
    )


def add_user(connection: Connection, user: User, password: str) -> None:
    """Store a new user with the PHC string of the password."""
    values = {
        "id": user.id,
        "name": user.name,
        "role": user.role.value,
        "password": password,
        "enabled": user.enabled,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
        "password_at": user.password_at,
        "last_login_at": user.last_login_at,
    }
    connection.execute(insert(ADMIN_USERS).values(**values))


def change_user(connection: Connection, user_id: str, **values: Any) -> bool:
    """Change columns of a user; False where there is none."""
    return (
        connection.execute(update(ADMIN_USERS).where(ADMIN_USERS.c.id == user_id).values(**values)).rowcount
        > 0
    )


def delete_user(connection: Connection, user_id: str) -> bool:
    """Remove a user; False where there was none."""
    return connection.execute(delete(ADMIN_USERS).where(ADMIN_USERS.c.id == user_id)).rowcount > 0


def password(connection: Connection, name: str) -> tuple[str, str] | None:
    """Return the id of the user with this name, and the PHC string of the password."""
    row = connection.execute(
        select(ADMIN_USERS.c.id, ADMIN_USERS.c.password).where(ADMIN_USERS.c.name == name)
    ).first()
    return (row.id, row.password) if row else None


def add_token(connection: Connection, token: Token) -> None:
    """Store a new token."""
    values = {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "mark": token.mark,
        "prefix": token.prefix,
        "created_by": text(token.created_by),
        "created_at": token.created_at,
        "updated_at": token.updated_at,
        "expires_at": token.expires_at,
    }
    connection.execute(insert(ADMIN_TOKENS).values(**values))


def change_token(connection: Connection, token_id: str, **values: Any) -> bool:
    """Change columns of a token; False where there is none."""
    table = ADMIN_TOKENS
    return connection.execute(update(table).where(table.c.id == token_id).values(**values)).rowcount > 0


def delete_token(connection: Connection, token_id: str) -> bool:
    """Remove a token; False where there was none."""
    return connection.execute(delete(ADMIN_TOKENS).where(ADMIN_TOKENS.c.id == token_id)).rowcount > 0


def add_session(connection: Connection, session: Session, *, idle_since: int, most: int) -> None:
    """Store a new session, and take out those that have ended; of one owner at most `most` stay, the newest."""
    table = ADMIN_SESSIONS.c
    now = session.created_at
    connection.execute(
        delete(ADMIN_SESSIONS).where((table.expires_at <= now) | (table.used_at <= idle_since))
    )
    mine = (table.kind == session.owner.kind.value) & (table.owner == session.owner.id)
    older = connection.execute(select(table.mark).where(mine).order_by(table.created_at.desc())).scalars()
    for mark in [*older][most - 1 :]:
        connection.execute(delete(ADMIN_SESSIONS).where(table.mark == mark))
    values = {
        "id": session.id,
        "mark": session.mark,
        "kind": session.owner.kind.value,
        "owner": session.owner.id,
        "source": text(session.source),
        "program": text(session.program),
        "created_at": now,
        "used_at": session.used_at,
        "expires_at": session.expires_at,
    }
    connection.execute(insert(ADMIN_SESSIONS).values(**values))


def end_session(connection: Connection, session_id: str) -> bool:
    """Remove a session; False where there was none."""
    table = ADMIN_SESSIONS
    return connection.execute(delete(table).where(table.c.id == session_id)).rowcount > 0


def end_sessions(connection: Connection, owner: Owner, *, but: str = "") -> None:
    """Remove every session of `owner`, except the one with the id `but`."""
    table = ADMIN_SESSIONS.c
    mine = (table.kind == owner.kind.value) & (table.owner == owner.id)
    connection.execute(delete(ADMIN_SESSIONS).where(mine & (table.id != but)))


def use_session(connection: Connection, session_id: str, now: int) -> None:
    """Store when a session was used last."""
    table = ADMIN_SESSIONS
    connection.execute(update(table).where(table.c.id == session_id).values(used_at=now))


def attempts(connection: Connection, marks: Sequence[bytes], now: int) -> list[tuple[int, int]]:
    """Return of each mark how many logins have failed in a row, and when the last of them did."""
    table = ADMIN_ATTEMPTS.c
    found = {
        bytes(row.mark): (row.failures, row.failed_at)
        for row in connection.execute(select(ADMIN_ATTEMPTS).where(table.mark.in_(marks)))
        if row.failed_at > now - FORGOTTEN
    }
    return [found.get(mark, (0, 0)) for mark in marks]


def put_attempts(connection: Connection, mark: bytes, failures: int, failed_at: int) -> None:
    """Store how many logins have failed in a row; 0 takes the row out.

    What is too old to count goes, and the oldest where there are too many.
    """
    table = ADMIN_ATTEMPTS.c
    connection.execute(delete(ADMIN_ATTEMPTS).where(table.mark == mark))
    if not failures:
        return
    connection.execute(delete(ADMIN_ATTEMPTS).where(table.failed_at <= failed_at - FORGOTTEN))
    count = connection.execute(select(func.count()).select_from(ADMIN_ATTEMPTS)).scalar_one()
    if count >= MOST_ATTEMPTS:
        oldest = select(table.mark).order_by(table.failed_at).limit(count - MOST_ATTEMPTS + 1)
        connection.execute(
            delete(ADMIN_ATTEMPTS).where(table.mark.in_([*connection.execute(oldest).scalars()]))
        )
    connection.execute(insert(ADMIN_ATTEMPTS).values(mark=mark, failures=failures, failed_at=failed_at))
