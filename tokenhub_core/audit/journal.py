"""The audit log as the service writes it.

    audit.commit(work)          a transaction: what it changes of what is configured is in it, and the entries are too
    audit.commit_telling(work)  the same, where the work itself says what there is to tell
    audit.note(action)          something that is no row: a session, a read secret, a step that the service took
    audit.denied(…)             someone who was not let in

Who does it is ambient (`with audit.by(cause)`), so that nothing between a door and the store has to pass it on. Where
nobody is named it was the service itself.

An entry that cannot be written is an error for whoever wanted it: what cannot be audited is not done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Final

from msgspec import structs
from sqlalchemy import Connection

from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.denials import Attempt, Denials
from tokenhub_core.audit.entries import SYSTEM, Action, Cause, Draft, Entry, Head, Result
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.store import audit as rows
from tokenhub_core.store.anchor import Anchor
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.types import Json

TICK: Final = 5.0
"""Seconds between two looks at denied attempts that were gathered."""

_log: Final = logging.getLogger(__name__)


class Doing:
    """One cause at work, and how many entries came of it."""

    def __init__(self, cause: Cause) -> None:
        self.cause = cause
        self.entries = 0


class Audit:
    """Belongs to one event loop. `signer` is asked for the key at each entry; None while the vault is not open."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        *,
        clock: Clock,
        signer: Callable[[], Signer | None] = lambda: None,
        anchor: Anchor | None = None,
        cause: Cause = SYSTEM,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._signer = signer
        self._anchor = anchor
        self._cause = cause
        self._doing: ContextVar[Doing | None] = ContextVar("audit cause", default=None)
        self._head = chain.START
        self._anchored = chain.START
        self._anchoring = asyncio.Lock()
        self._denials = Denials()
        self._listeners: list[Callable[[Entry], None]] = []

    @property
    def database(self) -> Database:
        """Return the database that is written to."""
        return self._database

    @property
    def head(self) -> Head:
        """Return where the chain ends, as far as this process knows."""
        return self._head

    @property
    def signing(self) -> bool:
        """Tell whether entries are signed now: whether the vault is open."""
        return self._signer() is not None

    async def load(self) -> tuple[str, ...]:
        """Find the end of the chain, and return what the operator should know of it.

        A chain that does not lead over the place that the anchor names was cut or replaced; an entry says so, and the
        chain goes on from there.
        """
        try:
            known = await asyncio.to_thread(self.anchored)
        except ConfigError as error:
            return (f"the audit log's head is not known: {error}",)
        if known is None:
            self._head = await asyncio.to_thread(rows.AuditLog(self._database).head)
            return ()
        self._head = known
        entries = await self._append([])
        if not entries:
            self._head = await asyncio.to_thread(rows.AuditLog(self._database).head)
            return ()
        return ("the audit log is not what it was: run tokenhub audit verify",)

    def anchored(self) -> Head | None:
        """Return the head that the file beside the database knows, if any; raises `ConfigError`."""
        text = self._anchor.read() if self._anchor else None
        if text is None:
            return None
        try:
            return chain.head_of(text)
        except ValueError:
            raise ConfigError(f"{self._anchor}: not the head of an audit log") from None

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Tell `listener` of every entry that this process writes, once it is durable."""
        self._listeners.append(listener)

    @contextmanager
    def by(self, cause: Cause) -> Iterator[Doing]:
        """Let `cause` answer for what is done inside."""
        doing = Doing(cause)
        token = self._doing.set(doing)
        try:
            yield doing
        finally:
            self._doing.reset(token)

    def by_actor(self, actor: str) -> AbstractContextManager[Doing]:
        """Let `actor` answer for what is done inside, for who it is was only found out on the way."""
        doing = self._doing.get() or Doing(self._cause)
        return self.by(structs.replace(doing.cause, actor=actor))

    async def commit[T](self, work: Work[T], *, also: Sequence[Draft] = ()) -> T:
        """Run `work` as `Writer.commit` does, with an entry for each thing that it changes, in its own transaction.

        `also` gets entries too: what has happened that no row tells of.
        """

        def compared(connection: Connection) -> tuple[T, list[Draft]]:
            before = rows.state(connection)
            result = work(connection)
            return result, [*rows.differences(before, rows.state(connection)), *also]

        return await self.commit_telling(compared)

    async def commit_telling[T](self, work: Work[tuple[T, list[Draft]]]) -> T:
        """Run `work` as `commit` does, with the entries that it returns beside its result: for tables that are long."""
        signer, now, known = self._signer(), self._clock.now(), self._head
        doing = self._doing.get() or Doing(self._cause)

        def audited(connection: Connection) -> tuple[T, list[Entry]]:
            result, drafts = work(connection)
            return result, _appended(
                connection, drafts, known=known, cause=doing.cause, now=now, signer=signer
            )

        result, entries = await self._writer.commit(audited)
        await self._told(doing, entries)
        return result

    async def note(
        self,
        action: Action,
        subject: str = "",
        *,
        before: Json | None = None,
        after: Json | None = None,
        outcome: Result = Result.DONE,
        reason: str = "",
    ) -> None:
        """Write one entry; durable on return. Raises `TokenHubError` where the store fails."""
        await self._append([Draft(action, subject, before, after, outcome, reason)])

    async def try_note(
        self,
        action: Action,
        subject: str = "",
        *,
        before: Json | None = None,
        after: Json | None = None,
        outcome: Result = Result.DONE,
        reason: str = "",
    ) -> None:
        """Write one entry of what cannot be undone any more: where the store fails, the log has it."""
        try:
            await self.note(action, subject, before=before, after=after, outcome=outcome, reason=reason)
        except TokenHubError as error:
            _log.error("an audit entry was lost: %s %s %s: %s", action, subject, reason, error)

    async def denied(self, attempt: Attempt) -> None:
        """Write that someone was not let in, or count it where that was written a moment ago. Never raises."""
        await self._gathered(self._denials.due(self._clock.monotonic()))
        first = self._denials.seen(attempt, self._clock.monotonic())
        if first is not None:
            await self._try(first, 1)

    async def keep(self) -> None:
        """Write denied attempts that were gathered, for as long as the service runs."""
        while True:
            await asyncio.sleep(TICK)
            await self._gathered(self._denials.due(self._clock.monotonic()))

    async def close(self) -> None:
        """Write what was gathered and not written yet."""
        await self._gathered(self._denials.due(self._clock.monotonic(), leaving=True))

    async def _gathered(self, attempts: Sequence[tuple[Attempt, int]]) -> None:
        for attempt, count in attempts:
            await self._try(attempt, count)

    async def _try(self, attempt: Attempt, count: int) -> None:
        denial = Draft(
            Action.ACCESS, attempt.subject, outcome=Result.DENIED, reason=attempt.reason, count=count
        )
        try:
            await self._append([denial], Cause(attempt.actor, attempt.source))
        except TokenHubError as error:
            _log.error("an audit entry was lost: %s at %s: %s", attempt.reason, attempt.subject, error)

    async def _append(self, drafts: list[Draft], cause: Cause | None = None) -> list[Entry]:
        doing = self._doing.get() or Doing(self._cause)
        work = partial(
            _appended,
            drafts=drafts,
            known=self._head,
            cause=cause or doing.cause,
            now=self._clock.now(),
            signer=self._signer(),
        )
        entries = await self._writer.commit(work)
        await self._told(doing, entries)
        return entries

    async def _told(self, doing: Doing, entries: list[Entry]) -> None:
        """Let everybody know what is durable now."""
        doing.entries += len(entries)
        for entry in entries:
            _log.info(
                "audit %s %s by %s: %s", Head(entry.seq, entry.hash), entry.action, entry.actor, entry.outcome
            )
            for listener in self._listeners:
                listener(entry)
        if entries:
            last = Head(entries[-1].seq, entries[-1].hash)
            # A replaced chain may be shorter than the one that was known.
            broken = any(entry.action == Action.AUDIT_BROKEN for entry in entries)
            if broken or last.seq > self._head.seq:
                self._head = last
            await self._remember()

    async def _remember(self) -> None:
        """Bring the file beside the database up to date; one write at a time, and the newest head each time."""
        if self._anchor is None:
            return
        async with self._anchoring:
            head = self._head
            if head == self._anchored:
                return
            try:
                await asyncio.to_thread(self._anchor.write, str(head))
                self._anchored = head
            except OSError as error:
                _log.error("%s could not be written: %s", self._anchor, error.strerror)


def _appended(
    connection: Connection,
    drafts: Sequence[Draft],
    *,
    known: Head,
    cause: Cause,
    now: float,
    signer: Signer | None,
) -> list[Entry]:
    if not rows.holds(connection, known):
        found = rows.head(connection)
        broken = Draft(
            Action.AUDIT_BROKEN,
            before={"head": str(known)},
            after={"head": str(found)},
            outcome=Result.FAILED,
        )
        first = rows.append(connection, [broken], SYSTEM, now=now, signer=signer)
        return first + rows.append(connection, drafts, cause, now=now, signer=signer)
    return rows.append(connection, drafts, cause, now=now, signer=signer)
