"""What proof of delivery costs a call: CPU time and rows, off, for tool calls, and for the words too.

Each call goes through a real prover on a real database in a file: begun, heard at the provider, recorded, heard at
the caller's end, closed. Off, the same call is recorded and nothing else. No sockets and no engine: the difference is
what listening, reading both sides, comparing and the chain take, the writer's thread included.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import structs
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from scripts.benchmark.figures import Spread, rotated, spread
from scripts.benchmark.pairs import transcript
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.journal import Audit
from tokenhub_core.clock import SystemClock
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.proof.canon import hashing
from tokenhub_core.proof.entries import Draft
from tokenhub_core.proof.prover import Manner, Prover
from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.quirks.repairs import UNTOUCHED
from tokenhub_core.store.database import open_database
from tokenhub_core.store.schema import PROOFS
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Attempt, Caller, Dialect, Headers, Outcome, Record, Snapshot

OFF: Final = "off"
WAYS: Final = (OFF, "tools", "all")
CALLS: Final = 400
QUICK: Final = 50
ROUNDS: Final = 5
_CHAT: Final = Dialect.OPENAI_CHAT
_SIGNER: Final = Signer("bench", bytes(32))
_PIECE: Final = 4096


class ProofError(Exception):
    """A delivery that was not proved to be the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of answer, as it comes from its provider."""

    name: str
    pieces: tuple[bytes, ...]
    stream: bool

    @property
    def headers(self) -> Headers:
        """Return the head of it."""
        return (("content-type", "text/event-stream" if self.stream else "application/json"),)


@dataclass(frozen=True, slots=True)
class Found:
    """What one way cost of one kind of answer, over the rounds."""

    answer: str
    way: str
    microseconds: Spread
    """CPU time of one call, its record included."""
    rows: float
    """Entries of the chain for one call."""
    stored: float
    """Bytes of what they say."""


class _Response:
    """A provider's answer that is there already. Implements `ports.UpstreamResponse`."""

    status = 200

    def __init__(self, answer: Answer) -> None:
        self.headers = answer.headers
        self._pieces = answer.pieces

    async def read(self, limit: int) -> bytes:
        """Return the whole body."""
        return b"".join(self._pieces)[:limit]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        for piece in self._pieces:
            yield piece

    def ease(self, *, gather: float, tick: float) -> None:
        """Nothing is to be calmed."""

    async def close(self) -> None:
        """Nothing is open."""


def answers() -> tuple[Answer, ...]:
    """Return a whole answer with one tool call, and a stream of a hundred events in pieces of a few kilobytes."""
    call = {"name": "write", "arguments": json.dumps({"path": "a.txt", "text": "word " * 80})}
    message = {
        "role": "assistant",
        "content": "I shall write it.",
        "tool_calls": [{"id": "c1", "type": "function", "function": call}],
    }
    whole = {
        "id": "bench",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
    }
    stream = transcript(_CHAT)
    cut = tuple(stream[at : at + _PIECE] for at in range(0, len(stream), _PIECE))
    return (
        Answer("whole, a tool call", (json.dumps(whole).encode(),), False),
        Answer("stream, 100 events", cut, True),
    )


def run(folder: Path, *, calls: int, rounds: int, tell: Callable[[int, int, str], None]) -> list[Found]:
    """Measure every way with every kind of answer, each round in another order."""
    kinds = [(answer, way) for answer in answers() for way in WAYS]
    took: dict[tuple[str, str], list[float]] = {}
    rows: dict[tuple[str, str], tuple[float, float]] = {}
    for number in range(rounds):
        for place, (answer, way) in enumerate(rotated(kinds, number)):
            tell(number * len(kinds) + place, rounds * len(kinds), f"{answer.name}, {way}")
            where = folder / f"proofs-{number}-{place}.sqlite"
            seconds, *told = asyncio.run(_measured(where, answer, way, calls))
            took.setdefault((answer.name, way), []).append(1e6 * seconds / calls)
            rows[answer.name, way] = (told[0] / calls, told[1] / calls)
    return [
        Found(answer.name, way, spread(took[answer.name, way]), *rows[answer.name, way])
        for answer, way in kinds
    ]


async def _measured(where: Path, answer: Answer, way: str, calls: int) -> tuple[float, int, int]:
    """Return the CPU time of so many calls, the entries of the chain, and the bytes of what they say."""
    database = open_database(str(where))
    writer = Writer(database)
    writer.start()
    told: list[Draft] = []
    prover = Prover(
        Audit(database, writer, clock=SystemClock()),
        writer,
        Manner(hashing(b"bench"), DIALECTS, texts=way == "all"),
        signer=lambda: _SIGNER,
        told=told.append,
    )
    recorder = StoreRecorder(database, writer, beside=None if way == OFF else prover.beside)
    try:
        began = time.process_time()
        for number in range(calls):
            await _call(None if way == OFF else prover, recorder, f"req_{number}", answer)
        await prover.close()
        spent = time.process_time() - began
        with database.reading() as connection:
            counted = connection.execute(select(func.count(), func.sum(func.length(PROOFS.c.body)))).one()
    finally:
        await writer.close()
        database.close()
    check(told, 0 if way == OFF else calls)
    return spent, counted[0], counted[1] or 0


def check(told: Sequence[Draft], calls: int) -> None:
    """Raise `ProofError` where not every delivery is the same as what was sent."""
    if [draft.verdict for draft in told] != [Verdict.SAME] * calls:
        raise ProofError("what was given is not proved to be what was sent")


async def _call(prover: Prover | None, recorder: StoreRecorder, name: str, answer: Answer) -> None:
    record = structs.replace(_RECORD, id=name)
    if prover is None:
        await recorder.commit(record)
        return
    snapshot = Snapshot(name, "POST", "/v1/chat/completions", (), b"{}", 1000.0, 1.0, _CHAT)
    delivery = prover.begin(snapshot)
    response = prover.listen(
        _Response(answer),
        request_id=name,
        attempt=1,
        dialect=DIALECTS[_CHAT],
        stream=answer.stream,
        repairs=UNTOUCHED,
    )
    delivery.begin(200, (*answer.headers, ("x-request-id", name)))
    if answer.stream:
        async for piece in response.chunks():
            delivery.add(piece)
    else:
        delivery.add(await response.read(1 << 20))
    await recorder.commit(record)
    delivery.close()


_RECORD: Final = Record(
    "",
    1000.0,
    Outcome.OK,
    200,
    Caller(),
    "POST",
    "/v1/chat/completions",
    _CHAT,
    model="m",
    provider="p",
    attempts=(Attempt(1, "m", "p", 1.0, 2.0, first_byte_ms=1.5, status=200),),
)


def show(found: Sequence[Found], console: Console) -> None:
    """Print a row for each, with what it costs over proofs that are off."""
    table = Table(title="Proof of delivery: what a call costs", title_justify="left")
    table.add_column("answer")
    table.add_column("proof")
    for name in ("CPU µs a call", "more than off", "rows", "bytes"):
        table.add_column(name, justify="right")
    off = {one.answer: one.microseconds.middle for one in found if one.way == OFF}
    for one in found:
        more = one.microseconds.middle - off[one.answer]
        cells = (f"{one.microseconds.middle:,.0f}", f"{more:,.0f}", f"{one.rows:.0f}", f"{one.stored:,.0f}")
        table.add_row(one.answer, one.way, *cells)
    console.print(table)
