"""A prover on a database of its own, and calls that go through it without an engine between its ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.transport import Scripted
from tests.proof.saying import call, whole
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.journal import Audit
from tokenhub_core.clock import SystemClock
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.proof.canon import hashing
from tokenhub_core.proof.entries import Draft
from tokenhub_core.proof.prover import Manner, Prover
from tokenhub_core.quirks.repairs import UNTOUCHED
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.proofs import ProofLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Attempt, Caller, Dialect, Outcome, Record, Snapshot

SECRET = b"a secret of the data directory"
SIGNER = Signer("k1", bytes(range(32)))
CHAT = Dialect.OPENAI_CHAT


@dataclass
class Shop:
    """Everything that a proof needs."""

    database: Database
    writer: Writer
    prover: Prover
    recorder: StoreRecorder
    told: list[Draft] = field(default_factory=list)

    @property
    def log(self) -> ProofLog:
        return ProofLog(self.database)

    async def received(self, name: str, body: bytes = b"") -> bytes:
        """Let a provider answer a call, and record it; return what it said."""
        said = body or whole(call(f'{{"n": "{name}"}}'))
        response = self.prover.listen(
            Scripted(said),
            request_id=name,
            attempt=1,
            dialect=DIALECTS[CHAT],
            stream=False,
            repairs=UNTOUCHED,
        )
        await response.read(1 << 20)
        await self.recorder.commit(record(name))
        return said

    async def serve(self, name: str, body: bytes = b"") -> None:
        """Make a call, from its beginning to its end."""
        delivery = self.prover.begin(snapshot(name))
        said = await self.received(name)
        delivery.begin(200, (("content-type", "application/json"), ("x-request-id", name)))
        delivery.add(body or said)
        delivery.close()
        await self.prover.close()


@asynccontextmanager
async def shop(path: Path, signer: Signer | None = SIGNER) -> AsyncIterator[Shop]:
    """Open one on this database."""
    database = open_database(str(path))
    writer = Writer(database)
    writer.start()
    audit = Audit(database, writer, clock=SystemClock())
    told: list[Draft] = []
    prover = Prover(
        audit,
        writer,
        Manner(hashing(SECRET), DIALECTS, texts=True),
        signer=lambda: signer,
        anchor=beside(str(path), "proof"),
        told=told.append,
    )
    await prover.load()
    try:
        yield Shop(database, writer, prover, StoreRecorder(database, writer, beside=prover.beside), told)
    finally:
        await prover.close()
        await writer.close()
        database.close()


def snapshot(name: str) -> Snapshot:
    return Snapshot(name, "POST", "/v1/chat/completions", (), b"{}", 1000.0, 1.0, CHAT)


def record(name: str) -> Record:
    line = Attempt(1, "m", "p", 1.0, 2.0, first_byte_ms=1.5, status=200)
    return Record(
        name,
        1000.0,
        Outcome.OK,
        200,
        Caller(),
        "POST",
        "/v1/chat/completions",
        CHAT,
        model="m",
        provider="p",
        attempts=(line,),
    )
