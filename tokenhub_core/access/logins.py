"""How one gets in: by a password or by a login link.

Passwords are tried one at a time. Wrong ones are counted for the name and for the address that they come from, in the
store and before the password is tried. After five, each makes the next one wait twice as long, up to a quarter of an
hour. A name that does not exist is treated as one that does. Tokens and login links are not held up, so nobody can keep
everybody out.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final

import msgspec
from sqlalchemy import Connection

from tokenhub_core.access import passwords
from tokenhub_core.access.marks import Marks, Use
from tokenhub_core.access.register import Register
from tokenhub_core.access.tickets import Tickets
from tokenhub_core.access.values import Kind, Owner, User
from tokenhub_core.audit.denials import Attempt
from tokenhub_core.audit.entries import Action, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind as Trouble
from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.siblings import Siblings
from tokenhub_core.store import access as rows
from tokenhub_core.store.rows import MICROS, micros
from tokenhub_core.vault import throttle
from tokenhub_core.vault.passwords import new_password, password_bytes
from tokenhub_core.vault.turn import Turn, slower, threaded

WHAT: Final = "a password"
LOCKED: Final = "login_locked"
NOBODY: Final = "?"
"""What stands for a name that nobody has, and that nobody can have."""
_TICKET: Final = "ticket"


class Logins:
    """Belongs to one event loop."""

    def __init__(
        self,
        register: Register,
        audit: Audit,
        *,
        clock: Clock,
        marks: Marks,
        entropy: Callable[[int], bytes],
        siblings: Siblings | None = None,
    ) -> None:
        self._register = register
        self._audit = audit
        self._clock = clock
        self._marks = marks
        self._entropy = entropy
        self._turn = Turn("login")
        self._tickets = Tickets(marks)
        self._siblings = siblings or Siblings()
        self._siblings.answering(_TICKET, self._redeemed)

    # --- passwords

    async def hashed(self, password: Secret) -> str:
        """Return a new password as it is stored; raises `TokenHubError` where it is too short or too many wait."""
        given = new_password(password, WHAT)
        salt = self._entropy(passwords.SALT_BYTES)
        return await self._turn.run(lambda: passwords.hashed(given, salt))

    async def user(self, name: str, password: Secret, source: str) -> User:
        """Return the user with this name and password.

        Raises `TokenHubError`: `AUTH` (`login_failed`) where there is none such, whatever is wrong; `RATE_LIMITED`
        where too many passwords were wrong (`login_locked`) or too many are being tried (`login_busy`).
        """
        given = password_bytes(password, WHAT)
        subjects = self._subjects(name, source)
        async with self._turn.alone():
            failed = await self._charge(subjects)
            stored = await asyncio.to_thread(self._stored, name)
            known = stored[1] if stored else passwords.NOBODY
            right = await threaded(lambda: passwords.matches(known, given))
            user = self._register.find_user(stored[0]) if right and stored else None
            if user is not None and user.enabled:
                await self._forgive(subjects, user, failed)
                return user
        await self._told(name if stored else "", source, failed)
        raise client_fault("user or password is wrong", kind=Trouble.AUTH, cause="login_failed")

    async def unlock(self, user: User) -> None:
        """Let the user's next password be tried at once."""
        mark = self._subjects(user.name, "")[0]

        def forget(connection: Connection) -> None:
            rows.put_attempts(connection, mark, 0, 0)

        await self._audit.note(Action.LOGIN_UNLOCK, f"user:{user.name}")
        await self._audit.commit(forget)

    def _stored(self, name: str) -> tuple[str, str] | None:
        with self._audit.database.reading() as connection:
            return rows.password(connection, name)

    def _subjects(self, name: str, source: str) -> tuple[bytes, bytes]:
        """Return the marks of the name and of where it is tried from."""
        of = self._marks.of
        return of(Use.ATTEMPT, f"user {name}"), of(Use.ATTEMPT, f"source {network(source)}")

    async def _charge(self, subjects: tuple[bytes, bytes]) -> tuple[int, int]:
        """Count a wrong password for both before it is tried; raises where either has to wait."""
        now = self._clock.now()

        def charge(connection: Connection) -> tuple[float, list[int]]:
            found = rows.attempts(connection, subjects, micros(now))
            wait = max(throttle.remaining(failures, at / MICROS, now) for failures, at in found)
            if not wait:
                for mark, (failures, _) in zip(subjects, found, strict=True):
                    rows.put_attempts(connection, mark, failures + 1, micros(now))
            return wait, [failures + 1 for failures, _ in found]

        wait, (by_name, by_source) = await self._audit.commit(charge)
        if wait:
            raise slower(
                f"too many passwords were wrong: the next one can be tried in {wait:.0f} s", LOCKED, wait
            )
        return by_name, by_source

    async def _forgive(self, subjects: tuple[bytes, bytes], user: User, failed: tuple[int, int]) -> None:
        """Begin the name's count anew, and take back what this try cost its source: no more, or guessing were free."""
        now = micros(self._clock.now())

        def forgive(connection: Connection) -> None:
            rows.put_attempts(connection, subjects[0], 0, now)
            rows.put_attempts(connection, subjects[1], failed[1] - 1, now)

        await self._audit.commit(forgive)
        if failed[0] > throttle.FREE:
            await self._audit.note(Action.LOGIN_UNLOCK, f"user:{user.name}")

    async def _told(self, name: str, source: str, failed: tuple[int, int]) -> None:
        """Write that someone has to wait now: of a name that nobody has the same, without it, so that it takes as long.

        Names that strangers make up are not written.
        """
        by_name, by_source = (throttle.delay(count) for count in failed)
        if by_name:
            await self._audit.note(
                Action.LOGIN_LOCK, f"user:{name or NOBODY}", after={"seconds": by_name}, outcome=Result.DENIED
            )
        if by_source:
            await self._audit.denied(Attempt(source, LOCKED, "POST /admin/v1/login"))

    # --- login links

    def ticket(self, owner: Owner) -> str:
        """Return a ticket that opens one session of `owner`."""
        return self._tickets.issue(owner, self._entropy(32), self._clock.monotonic())

    async def redeem(self, ticket: str) -> Owner:
        """Return whose session a ticket opens, whichever worker gave it out, and spend it.

        Raises `TokenHubError` (`AUTH`).
        """
        owner = self._tickets.redeem(ticket, self._clock.monotonic())
        if owner is None:
            told = await self._siblings.ask(_TICKET, ticket.encode(errors="replace"))
            owner = msgspec.msgpack.decode(told[0], type=Owner) if told else None
        if owner is None or self._register.identity(owner) is None:
            raise _no_link()
        return owner

    async def _redeemed(self, body: bytes) -> bytes:
        """Spend a ticket of ours for another worker."""
        owner = self._tickets.redeem(body.decode(), self._clock.monotonic())
        return b"" if owner is None else msgspec.msgpack.encode(owner)


def owner_of(user: User) -> Owner:
    """Return the user as the owner of a session."""
    return Owner(Kind.USER, user.id)


def network(source: str) -> str:
    """Return what stands for an address: of IPv6 the first 64 bits, because one household has all the others."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.IPv6Address(int(address) >> 64 << 64))


def _no_link() -> TokenHubError:
    return client_fault(
        "this login link was used, or is older than ten minutes: make another one",
        kind=Trouble.AUTH,
        cause="login_link",
    )
