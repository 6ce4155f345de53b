"""The write path: records a second, acknowledged when they are durable, by how many callers wait at once.

SQLite stands in a file on the disk that `--folder` names; PostgreSQL is measured where TOKENHUB_DB_DSN names one, in a
database that is empty: its records are left there. Whoever waits is answered with its whole batch (group commit), so
more callers mean larger batches and not slower ones, up to what encoding a record costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Final

from msgspec import structs
from rich.console import Console
from rich.table import Table

from tokenhub_core.store.database import open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Attempt, Caller, Features, Outcome, Plan, Policy, Record, Timings, Usage

CALLERS: Final = (1, 16, 256)
SECONDS: Final = 5.0
QUICK: Final = 1.0
_RECORD: Final = Record(
    id="",
    at=0.0,
    outcome=Outcome.OK,
    status=200,
    caller=Caller(program="bench"),
    method="POST",
    path="/v1/chat/completions",
    model="m",
    provider="p",
    requested_model="m",
    usage=Usage(1_000, 200),
    cost_nanousd=4_000_000,
    timings=Timings(total_ms=900.0, ttft_ms=300.0),
    attempts=(Attempt(1, "m", "p", 0, 900, 300, 200, usage=Usage(1_000, 200)),),
    plan=Plan(Policy(), (), (), 1_000, 200, "", features=Features("m", text_bytes=4_000), context="medium"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What one run came to."""

    database: str
    callers: int
    records: int
    seconds: float
    batch: float
    """Records in one commit, on average."""
    p50: float
    p99: float
    """Milliseconds from handing a record over to its acknowledgement."""

    @property
    def rate(self) -> float:
        """Return records a second."""
        return self.records / self.seconds


def run(folder: Path, dsn: str, *, seconds: float, tell: Callable[[int, int, str], None]) -> list[Found]:
    """Measure every database with every number of callers."""
    places = {"SQLite": str(folder / "writes.sqlite"), **({"PostgreSQL": dsn} if dsn else {})}
    found: list[Found] = []
    for name, where in places.items():
        for callers in CALLERS:
            tell(len(found), len(places) * len(CALLERS), f"{name}, {callers}")
            found.append(asyncio.run(_run(name, where, callers, seconds)))
    return found


async def _run(name: str, where: str, callers: int, seconds: float) -> Found:
    database = open_database(where)
    writer = Writer(database)
    writer.start()
    recorder = StoreRecorder(database, writer)
    numbers, took = count(time.time_ns()), list[float]()
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (begun := time.perf_counter()) < until:
            await recorder.commit(structs.replace(_RECORD, id=str(next(numbers)), at=time.time()))
            took.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    try:
        await asyncio.gather(*(caller() for _ in range(callers)))
        spent, counts = time.perf_counter() - begun, writer.counts
    finally:
        await writer.close()
        database.close()
    cuts = quantiles(took, n=100)
    batch = counts.committed / max(counts.batches, 1)
    return Found(name, callers, len(took), spent, batch, cuts[49] * 1000, cuts[98] * 1000)


def show(found: list[Found], console: Console) -> None:
    """Print a row for each run."""
    table = Table(title="Records, acknowledged when they are durable", title_justify="left")
    table.add_column("database")
    for name in ("callers", "records/s", "in one commit", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for one in found:
        figures = (f"{one.rate:,.0f}", f"{one.batch:.1f}", f"{one.p50:.1f}", f"{one.p99:.1f}")
        table.add_row(one.database, str(one.callers), *figures)
    console.print(table)
