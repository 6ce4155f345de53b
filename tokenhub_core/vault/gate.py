"""Where passwords are tried: one after the other, and slower after each that was wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from tokenhub_core.audit.entries import Action, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.ports import Clock
from tokenhub_core.store import vault as rows
from tokenhub_core.vault import sealing, throttle
from tokenhub_core.vault.sealing import Header, WrongPasswordError
from tokenhub_core.vault.turn import Turn, slower, threaded


class Gate:
    """Counts wrong passwords in the store, so that a restart forgives nobody."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._turn = Turn("vault")

    async def root(self, header: Header, password: bytes, *, throttled: bool) -> bytearray:
        """Return the root that `password` opens.

        A wrong password is `AUTH` (`wrong_password`) and changes nothing but how long the next one waits. Where too
        many wait, or too many were wrong (and `throttled`), this is `RATE_LIMITED`. Raises `TamperedError` for a header
        that cannot be used.
        """
        try:
            async with self._turn.alone():
                if throttled:
                    await self._charge()
                root = await threaded(lambda: sealing.open_root(header, password))
                if throttled:
                    await self._audit.commit(partial(rows.put_failures, count=0, now=0.0))
        except WrongPasswordError:
            await self._audit.note(Action.VAULT_UNLOCK, outcome=Result.DENIED, reason="wrong_password")
            raise client_fault(
                "this is not the vault's password", kind=Kind.AUTH, cause="wrong_password"
            ) from None
        return root

    async def alone[T](self, work: Callable[[], T]) -> T:
        """Run `work`, which derives a key, in a thread when its turn has come."""
        return await self._turn.run(work)

    async def _charge(self) -> None:
        """Count the password as a wrong one before it is tried: whoever stops the process is not let off."""
        now = self._clock.now()

        def charge(connection: Connection) -> float:
            failures, failed_at = rows.failures(connection)
            wait = throttle.remaining(failures, failed_at, now)
            if not wait:
                rows.put_failures(connection, failures + 1, now=now)
            return wait

        if wait := await self._audit.commit(charge):
            raise slower(
                f"too many passwords were wrong: the next one can be tried in {wait:.0f} s",
                "vault_throttled",
                wait,
            )
