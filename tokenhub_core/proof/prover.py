"""Listens at both ends of an answer, and writes what it heard into the chain of proofs.

    provider ──► listen ──► engine: reads, repairs, translates ──► … ──► Delivery ──► the caller's socket
                    │                                                        │
                received, in the transaction of the call's record        delivered, once the answer has ended

Nothing between the two ends has a hand in it: what is heard at the one is compared with what goes out at the other.
Nobody waits for the second entry; the first is durable before the caller gets the end of its answer, as the record is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from msgspec import structs
from sqlalchemy import Connection

from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.entries import Action, Head, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.seams import RESUMED
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.ports import Clock, UpstreamResponse
from tokenhub_core.proof import entries
from tokenhub_core.proof.alarms import Alarms
from tokenhub_core.proof.canon import Hashing, hashing
from tokenhub_core.proof.checking import compared
from tokenhub_core.proof.entries import Draft, Received
from tokenhub_core.proof.reading import Reading, Side, Sides, parser_of, resumed
from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.quirks.repairs import AnswerRepairs
from tokenhub_core.routing.spread import LOST
from tokenhub_core.store import proofs as rows
from tokenhub_core.store.anchor import Anchor, beside
from tokenhub_core.store.inserts import Insert, inserted
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Dialect, Headers, Record, Snapshot, header
from tokenhub_core.vault.keys import KeyHolder

TICK: Final = 1.0
"""Seconds between two looks at where the chain ends."""
MOST: Final = 10_000
"""Calls under way that are listened to; of the oldest beyond them nothing is proved."""

_NOTHING: Final = Side()
_log: Final = logging.getLogger(__name__)


class Told(Protocol):
    """Who hears of every delivery, once it is compared. Must not raise and must not wait."""

    def __call__(self, draft: Draft, /) -> None:
        """Hear of one."""
        ...


@dataclass(frozen=True, slots=True)
class Manner:
    """How proofs are made."""

    hashing: Hashing
    dialects: Mapping[Dialect, DialectModule]
    texts: bool = False
    """Prove the words of answers too."""


@dataclass(slots=True)
class _Heard:
    """One attempt's answer."""

    dialect: Dialect
    reading: Reading


@dataclass(slots=True)
class _Open:
    """One call under way."""

    snapshot: Snapshot
    heard: dict[int, _Heard] = field(default_factory=dict)
    recorded: bool = False
    received: Received | None = None
    sides: Sides | None = None
    delivered: bool = False
    given: Side = _NOTHING
    answers: str = ""
    content_type: str = ""
    status: int = 0

    @property
    def given_again(self) -> bool:
        """Return whether the answer is that of an earlier call, whose id it bears."""
        return self.received is None and self.answers not in {"", self.snapshot.id}


class Prover:
    """Belongs to one event loop."""

    def __init__(
        self,
        audit: Audit,
        writer: Writer,
        manner: Manner,
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        signer: Callable[[], Signer | None] = lambda: None,
        anchor: Anchor | None = None,
        told: Told,
    ) -> None:
        self._audit = audit
        self._log = rows.ProofLog(audit.database)
        self._writer = writer
        self._manner = manner
        self._clock = clock
        self._signer = signer
        self._anchor = anchor
        self._told = told
        self._head = chain.START
        self._open: dict[str, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many calls are listened to."""
        return len(self._open)

    # --- where the chain ends

    async def load(self) -> None:
        """Find the end of the chain; where it is not the one that was known of, say so."""
        try:
            known = await asyncio.to_thread(anchored, self._anchor)
            self._head = chain.START if known is None else known
        except ConfigError as error:
            _log.error("the end of the proofs is not known: %s", error)
        await self.remember()

    async def keep(self) -> None:
        """Write down where the chain ends, for as long as the service runs."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.remember()
            except TokenHubError as error:
                _log.error("the end of the proofs is not written down: %s", error)

    async def remember(self) -> bool:
        """Bring the file beside the database up to date; tell whether the chain is not the one that it knew of.

        The audit log has that, too, so that it is still known when the file is written anew.
        """
        known = self._head
        found, broken = await asyncio.to_thread(self._look, known)
        if broken:
            await self._audit.note(
                Action.PROOF_BROKEN,
                before={"head": str(known)},
                after={"head": str(found)},
                outcome=Result.FAILED,
            )
            _log.error("the proofs do not go on from %s, where they were: run tokenhub verify", known)
        if self._anchor is not None and found != known:
            try:
                await asyncio.to_thread(self._anchor.write, str(found))
            except OSError as error:
                _log.error("%s could not be written: %s", self._anchor, error.strerror)
        self._head = found
        return broken

    @property
    def head(self) -> Head:
        """Return where the chain ended at the last look."""
        return self._head

    def _look(self, known: Head) -> tuple[Head, bool]:
        with self._log.database.reading() as connection:
            return rows.head(connection), not rows.holds(connection, known)

    async def close(self) -> None:
        """Return once everything that was delivered is in the chain, and its end is written down."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.remember()
        except TokenHubError as error:
            _log.error("the end of the proofs is not written down: %s", error)

    # --- the two ends

    def begin(self, snapshot: Snapshot) -> Delivery:
        """Listen to a call from here on; whoever takes the delivery tells it what goes out, and closes it."""
        opened = self._open[snapshot.id] = _Open(snapshot)
        if len(self._open) > MOST:
            lost = next(iter(self._open))
            del self._open[lost]
            _log.error("nothing is proved of %s: too many calls at once", lost)
        return Delivery(self._manner, snapshot, partial(self._ended, opened))

    def _ended(self, opened: _Open, delivery: Delivery) -> None:
        opened.given, opened.answers = delivery.end(), delivery.answers
        opened.content_type, opened.status = delivery.content_type, delivery.status
        opened.delivered = True
        self._settle(opened)

    def listen(
        self,
        response: UpstreamResponse,
        *,
        request_id: str,
        attempt: int,
        dialect: DialectModule,
        stream: bool,
        repairs: AnswerRepairs,
    ) -> UpstreamResponse:
        """Return the provider's answer; whoever reads it lets us hear it. Implements `dispatch.job.Ear`."""
        opened = self._open.get(request_id)
        if opened is None:
            return response
        parser = dialect.parser(header(response.headers, "content-type")) if stream else None
        key = self._manner.hashing.of(request_id)
        reading = Reading(key, dialect, parser, texts=self._manner.texts, repairs=repairs)
        opened.heard[attempt] = _Heard(dialect.name, reading)
        return _Overheard(response, reading)

    def beside(self, record: Record, insert: Insert) -> Insert | Work[bool]:
        """Return the work that stores a record, and with it what was received for it."""
        opened = self._open.get(record.id)
        if opened is None:
            return insert
        if not opened.recorded:
            opened.recorded = True
            self._receive(opened, record)
            self._settle(opened)
        if opened.received is None:
            return insert
        draft = Draft(record.id, opened.received)
        now, signer = self._clock.now(), self._signer()

        def work(connection: Connection) -> bool:
            new = inserted(connection, insert)
            if new:
                rows.append(connection, [draft], now=now, signer=signer)
            return new

        return work

    # --- inside

    def _receive(self, opened: _Open, record: Record) -> None:
        attempt = answering(record)
        heard = None if attempt is None else opened.heard.get(attempt)
        if heard is None:
            return
        sides = heard.reading.end()
        parts = [opened.heard[n].reading.end() for n in _parts(record) if n in opened.heard]
        if len(parts) > 1:
            sides = resumed(self._manner.hashing.of(record.id), parts)
        opened.sides = sides
        repaired = sides.mended is not sides.sent
        opened.received = Received(
            provider=record.provider,
            model=record.model,
            attempt=attempt or 0,
            dialect=heard.dialect.value,
            key=self._manner.hashing.name,
            size=sides.sent.size,
            raw=sides.sent.raw.hex(),
            whole=sides.sent.whole,
            read=sides.sent.read,
            calls=entries.sent_calls(sides.sent.calls),
            text=sides.sent.said.hex(),
            voiced=sides.sent.voiced.hex(),
            mended=entries.sent_calls(sides.mended.calls) if repaired else None,
            mended_text=sides.mended.said.hex() if repaired else "",
            mended_voiced=sides.mended.voiced.hex() if repaired else "",
        )

    def _settle(self, opened: _Open) -> None:
        """Write what was delivered, once it is known and what was received is, too: either may be the later one."""
        if not (opened.recorded and opened.delivered):
            return
        name = opened.snapshot.id
        self._open.pop(name, None)
        if opened.received is None and not opened.given_again and not opened.given.calls:
            return  # an error of ours, or of the caller's own
        task = asyncio.get_running_loop().create_task(self._deliver(opened), name=f"proof of {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, opened: _Open) -> None:
        now, signer = self._clock.now(), self._signer()

        def work(connection: Connection) -> Draft:
            draft = self._compared(connection, opened)
            rows.append(connection, [draft], now=now, signer=signer)
            return draft

        try:
            self._told(await self._writer.commit(work))
        except TokenHubError as error:
            _log.error("what was delivered of %s is not in the proofs: %s", opened.snapshot.id, error)

    def _compared(self, connection: Connection, opened: _Open) -> Draft:
        """Return what is to be said of a delivery."""
        received, sides, answers = opened.received, opened.sides, opened.snapshot.id
        if opened.given_again:
            answers, received = opened.answers, _earlier(connection, opened.answers)
            sides = entries.sides_of(received) if received is not None else None
        verdict, said = compared(
            sides or Sides(_NOTHING, _NOTHING),
            opened.given,
            opened.snapshot.dialect,
            texts=self._manner.texts and (received is None or bool(received.text)),
            failed=opened.status >= 400,
        )
        if opened.given_again and received is None:
            verdict = Verdict.UNPROVED
        said = structs.replace(
            said,
            answers=answers,
            provider=received.provider if received else "",
            model=received.model if received else "",
            content_type=opened.content_type,
            key=self._manner.hashing.name,
        )
        return Draft(opened.snapshot.id, said, verdict.value)


def _earlier(connection: Connection, request_id: str) -> Received | None:
    """Return what was received for the call whose answer is given again, None where that is not known."""
    found = rows.received_of(connection, request_id)
    try:
        return entries.received_in(found) if found is not None else None
    except ValueError:  # damaged, as `tokenhub verify` tells
        return None


class Delivery:
    """What goes out to one caller, heard at the last place before its socket."""

    def __init__(self, manner: Manner, snapshot: Snapshot, ended: Callable[[Delivery], None]) -> None:
        self._manner = manner
        self._snapshot = snapshot
        self._ended: Callable[[Delivery], None] | None = ended
        self._reading: Reading | None = None
        self.answers = ""
        """The id that the answer bears."""
        self.content_type = ""
        self.status = 0

    def begin(self, status: int, headers: Headers) -> None:
        """Hear the head of the answer, as it goes out."""
        self.status = status
        self.answers = header(headers, "x-request-id") or self._snapshot.id
        self.content_type = header(headers, "content-type")

    def add(self, data: bytes) -> None:
        """Hear the next bytes that go out. Never raises."""
        if self._reading is None:
            manner = self._manner
            dialect = manner.dialects[self._snapshot.dialect]
            self._reading = Reading(
                manner.hashing.of(self.answers or self._snapshot.id),
                dialect,
                parser_of(dialect, self.content_type, begins=data),
                texts=manner.texts,
            )
        self._reading.feed(data)

    def close(self) -> None:
        """Hear that nothing more goes out. Only the first call counts."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)

    def end(self) -> Side:
        """Return what it came to."""
        return _NOTHING if self._reading is None else self._reading.end().sent


class _Overheard:
    """A provider's answer that somebody listens to. Implements `ports.UpstreamResponse`."""

    def __init__(self, response: UpstreamResponse, reading: Reading) -> None:
        self._response = response
        self._reading = reading

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Headers:
        """Return the response's header fields."""
        return self._response.headers

    async def read(self, limit: int) -> bytes:
        """Return the whole body."""
        data = await self._response.read(limit)
        self._reading.feed(data)
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        async for chunk in self._response.chunks():
            self._reading.feed(chunk)
            yield chunk

    def ease(self, *, gather: float, tick: float) -> None:
        """Let `chunks` be calmer from now on."""
        self._response.ease(gather=gather, tick=tick)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._response.close()


@asynccontextmanager
async def proving(
    settings: Settings,
    audit: Audit,
    writer: Writer,
    bus: Bus,
    metrics: Metrics,
    *,
    secret: bytes,
    holder: KeyHolder,
) -> AsyncIterator[Prover | None]:
    """Make proofs as the settings say; None where they say that none are made. `secret` is what hashes are keyed by."""
    if settings.proof == "off":
        yield None
        return
    alarms = Alarms(bus, metrics, audit)
    prover = Prover(
        audit,
        writer,
        Manner(hashing(secret), DIALECTS, texts=settings.proof == "all"),
        signer=holder.signer,
        anchor=beside(audit.database.where, "proof"),
        told=alarms,
    )
    await prover.load()
    keeper = asyncio.create_task(prover.keep(), name="proof keeper")
    try:
        yield prover
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await prover.close()
        await alarms.close()


def answering(record: Record) -> int | None:
    """Return the number of the attempt whose answer the caller got, or the beginning of it; None where nobody's."""
    begun = (
        one.n for one in reversed(record.attempts) if one.first_byte_ms is not None and one.cause != LOST
    )
    return next(begun, None)


def _parts(record: Record) -> list[int]:
    """Return the numbers of the attempts that an answer is of, if it was gone on with; in the order of its parts."""
    begun = [one for one in record.attempts if one.first_byte_ms is not None and one.cause != LOST]
    return [one.n for one in begun] if begun and begun[-1].change == RESUMED else []


def anchored(anchor: Anchor | None) -> Head | None:
    """Return the head that the file beside the database knows, if any; raises `ConfigError`."""
    text = anchor.read() if anchor else None
    if text is None:
        return None
    try:
        return chain.head_of(text)
    except ValueError:
        raise ConfigError(f"{anchor}: not the end of a chain") from None
