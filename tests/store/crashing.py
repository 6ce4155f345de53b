"""A program that is killed over and over while it commits records; run by `test_crash.py`.

`crashing.py DATABASE ROUNDS [early]` prints the id of each record whose `commit` has returned. Each round is a fork, so
that imports are paid for once, and ends by SIGKILL: every fifth at a random moment of its start, the others at a random
moment after their first acknowledgement, however slow the machine is. With `early` the writer acknowledges before it
commits, and with `apart` what a record adds to the budgets is stored behind it, which the tests must notice.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from datetime import UTC
from typing import Any, override

from msgspec import structs

from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.store import budgets
from tokenhub_core.store.database import open_database
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Caller, Outcome, Record, Usage


class _EarlyWriter(Writer):
    """Breaks the promise: tells its waiters first, and commits a moment later."""

    @override
    def _turn(self, batch: list[Any]) -> None:
        self._report([(item, True, None) for item in batch])
        time.sleep(0.02)
        self._write(batch)


class _ApartWriter(Writer):
    """Breaks another promise: what goes with a row is committed a moment later."""

    @override
    async def insert(self, insert: Insert) -> bool:
        new = await super().insert(Insert(insert.statement, insert.row))
        for one in insert.then if new else ():
            await super().insert(one)
        return new


_WRITERS = {"early": _EarlyWriter, "apart": _ApartWriter}


async def _commit_for_ever(path: str, name: str, writer_class: type[Writer], told: int) -> None:
    database = open_database(path)
    writer = writer_class(database)
    writer.start()
    ledger = Ledger()
    with database.reading() as connection:
        for budget, counts in budgets.load(connection):
            ledger.install(budget, UTC, counts, at=int(time.time() * 1e6))
    recorder = StoreRecorder(database, writer, books=ledger)

    async def caller(number: int) -> None:
        for n in range(1_000_000):
            record_id = f"{name}-{number}-{n}"
            record = Record(record_id, time.time(), Outcome.OK, 200, Caller(), "POST", "/v1/messages")
            await recorder.commit(structs.replace(record, cost_nanousd=number + n, usage=Usage(n, number)))
            os.write(told, f"{record_id}\n".encode())  # unbuffered: what is said is said

    await asyncio.gather(*(caller(number) for number in range(8)))


def _round(path: str, number: int, writer_class: type[Writer], chance: random.Random) -> str:
    """Run one child until it is killed; return what it acknowledged."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        asyncio.run(_commit_for_ever(path, f"r{number}", writer_class, told))
    os.close(told)
    with os.fdopen(heard, encoding="utf-8") as acknowledged:
        first = acknowledged.readline() if number % 5 else ""
        time.sleep(chance.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"round {number} ended by itself")
        return first + acknowledged.read()


def main() -> None:
    path, rounds, breach = sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:])
    chance = random.Random(7)
    for number in range(rounds):
        sys.stdout.write(_round(path, number, _WRITERS.get(breach, Writer), chance))


if __name__ == "__main__":
    main()
