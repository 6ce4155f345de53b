"""Where passwords are tried: one after the other, and slower after each that was wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from sqlalchemy import Connection

from tokenhub_core.audit.entries import Action, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.ports import Clock
from tokenhub_core.store import vault as rows
from tokenhub_core.vault import sealing, throttle
from tokenhub_core.vault.sealing import Header, WrongPasswordError

QUEUE: Final = 4
"""How many may wait while one password is being tried; each try takes 64 MiB and a good part of a second."""


class Gate:
    """Counts wrong passwords in the store, so that a restart forgives nobody."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._turn = asyncio.Lock()
        self._queued = 0

    async def root(self, header: Header, password: bytes, *, throttled: bool) -> bytearray:
        """Return the root that `password` opens.

        A wrong password is `AUTH` (`wrong_password`) and changes nothing but how long the next one waits. Where too
        many wait, or too many were wrong (and `throttled`), this is `RATE_LIMITED`. Raises `TamperedError` for a header
        that cannot be used.
        """
        try:
            async with self._alone():
                if throttled:
                    await self._charge()
                root = await _threaded(lambda: sealing.open_root(header, password))
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
        async with self._alone():
            return await _threaded(work)

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
            raise _slower(
                f"too many passwords were wrong: the next one can be tried in {wait:.0f} s",
                "vault_throttled",
                wait,
            )

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        if self._queued > QUEUE:
            raise _slower("too many passwords are being tried at once", "vault_busy", 1.0)
        self._queued += 1
        try:
            async with self._turn:
                yield
        finally:
            self._queued -= 1


async def _threaded[T](work: Callable[[], T]) -> T:
    """Run `work` in a thread. A thread cannot be stopped: whoever leaves waits until it has ended."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def _slower(message: str, cause: str, wait: float) -> TokenHubError:
    return TokenHubError(Fault(Kind.RATE_LIMITED, Blame.CLIENT, message, cause=cause, retry_after=wait))
