"""A program that is killed over and over while it commits records; run by `test_crash.py`.

`crashing.py DATABASE ROUNDS [early]` prints the id of each record whose `commit` has returned. Each round is a fork, so
that imports are paid for once, and ends by SIGKILL: every fifth at a random moment of its start, the others at a random
moment after their first acknowledgement, however slow the machine is. With `early` the writer acknowledges before it
commits, which the test must notice.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from typing import Any, override

from tokenhub_core.store.database import open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Caller, Outcome, Record


class _EarlyWriter(Writer):
    """Breaks the promise: tells its waiters first, and commits a moment later."""

    @override
    def _turn(self, batch: list[Any]) -> None:
        self._report([(item, True, None) for item in batch])
        time.sleep(0.02)
        self._write(batch)


async def _commit_for_ever(path: str, name: str, writer_class: type[Writer], told: int) -> None:
    database = open_database(path)
    writer = writer_class(database)
    writer.start()
    recorder = StoreRecorder(database, writer)

    async def caller(number: int) -> None:
        for n in range(1_000_000):
            record_id = f"{name}-{number}-{n}"
            await recorder.commit(
                Record(record_id, time.time(), Outcome.OK, 200, Caller(), "POST", "/v1/messages")
            )
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
    path, rounds, early = sys.argv[1], int(sys.argv[2]), "early" in sys.argv
    chance = random.Random(7)
    for number in range(rounds):
        sys.stdout.write(_round(path, number, _EarlyWriter if early else Writer, chance))


if __name__ == "__main__":
    main()
