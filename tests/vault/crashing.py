"""A program that changes a vault and is killed at every step of it; run by `test_rotation.py`.

`crashing.py PLACE password|rotate|put|upgrade` works on copies of the database in PLACE. A step is a statement that
writes, a commit, or a file that is opened, replaced or made durable. The copy `step-N` is what a process left that was
killed before its Nth step; the last one was not killed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from tokenhub_core.audit.journal import Audit
from tokenhub_core.ports import Secret
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.database import open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.sealing import Params
from tokenhub_core.vault.vault import Custody, Vault

OLD, NEW = Secret("correct horse battery"), Secret("another password")


class Later:
    """A clock that stands still, a little after the vault was made."""

    def now(self) -> float:
        return 1_700_000_005.0

    def monotonic(self) -> float:
        return 5.0


class Steps:
    """Counts steps, and kills the process before the one that it was told."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0
        self.armed = False

    def step(self, *_: Any, **__: Any) -> None:
        if self.armed:
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

    def statement(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        if not statement.startswith(("SELECT", "PRAGMA")):  # these leave nothing behind
            self.step()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return function(*args, **kwargs)

        return stepped


async def change(place: Path, what: str, steps: Steps) -> None:
    clock = Later()
    database = open_database(str(place / "tokenhub.sqlite"))
    writer = Writer(database)
    writer.start()
    ring = KeyHolder()
    audit = Audit(database, writer, clock=clock, signer=ring.signer, anchor=beside(database.where, "audit"))
    await audit.load()
    vault = Vault(
        database,
        audit,
        clock=clock,
        entropy=secrets.token_bytes,
        params=Params(memory_kib=8, passes=1),
        custody=Custody(ring, beside(database.where, "vault")),
    )
    await vault.load()
    if what == "put":
        await vault.unlock(OLD)
    event.listen(Engine, "before_cursor_execute", steps.statement)
    event.listen(Engine, "commit", steps.step)
    os.open = steps.before(os.open)
    os.fsync = steps.before(os.fsync)
    Path.replace = steps.before(Path.replace)  # type: ignore[method-assign]
    steps.armed = True
    match what:
        case "password":
            await vault.change_password(OLD, NEW)
        case "rotate":
            await vault.rotate(OLD)
        case "put":
            await vault.put("new", Secret("sk-new"))
        case _:
            await vault.unlock(OLD)
    steps.armed = False
    await writer.close()
    database.close()


def main(place: Path, what: str) -> None:
    """Go on for as long as the child is killed."""
    for number in range(1, 200):
        copy = place / f"step-{number}"
        copy.mkdir()
        for file in place.glob("tokenhub.sqlite*"):
            shutil.copy(file, copy)
        child = os.fork()
        if not child:
            asyncio.run(change(copy, what, Steps(number)))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return
        assert status == -signal.SIGKILL, status
    raise AssertionError("it never ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
