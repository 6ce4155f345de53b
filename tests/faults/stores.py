"""F40 to F44, F53 and F58: the store fails, and so do those who read from us."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest import mock

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from tests.e2e.serving import until
from tests.fakes import postgres
from tests.faults import off
from tests.faults.case import Case, Lab
from tests.faults.world import World
from tests.store import crashing, test_outage
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.store import checkup
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.driver import choose
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Listener
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Caller, Outcome, Record


def _writer(it: World) -> Writer:
    recorder: Any = it.served.app.recorder
    writer: Writer = recorder._writer
    return writer


_REFUSED: Final = 8


async def _comes_back(it: World) -> None:
    await until(lambda: _writer(it).able)


@contextmanager
def _disk_of(pages: int) -> Iterator[None]:
    """Let every connection that writes find so much room and no more."""
    make = Database.writer_connection

    def made(self: Database) -> Connection:
        connection = make(self)
        raw: Any = connection.connection.driver_connection
        raw.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with mock.patch.object(Database, "writer_connection", made):
        yield


def _limit(pages: int) -> Callable[[Connection], None]:
    return lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").close()


def _pages(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())


async def _full(lab: Lab, n: int) -> None:
    """Without room nobody is served on credit; with room again everything goes on without a restart."""
    it = await lab.world()
    writer = _writer(it)
    acknowledged: list[str] = []
    for round_ in range(n):
        room = await writer.commit(_pages) + 1
        with _disk_of(room):
            await writer.commit(_limit(room))
            refused = 0
            for number in range(400):
                # A short record may still find a place where a longer one did not.
                got = await it.turn(round_ * 400 + number).call()
                if got.status == 200 and not got.said:
                    acknowledged.append(got.id)
                else:
                    refused += 1
                    assert got.status == 503 or got.said, (got.status, got.body[:200])
                if refused == _REFUSED:
                    break
            assert refused == _REFUSED, f"{refused} calls were refused with a full disk"
        await _comes_back(it)
        await writer.commit(_limit(1 << 30))
        got = await it.turn(round_).call()
        assert got.status == 200, got.body[:200]
    for name in acknowledged:
        assert (await it.record(name))["status"] == 200, name
    lab.told["acknowledged"] = len(acknowledged)


@contextmanager
def _on_credit(lab: Lab) -> Iterator[None]:
    """Records that cannot be stored are forgotten, and calls go on."""
    del lab

    async def forgets(self: StoreRecorder, record: Record) -> None:
        self.post(record)

    with (
        mock.patch.object(StoreRecorder, "commit", forgets),
        mock.patch.object(Writer, "able", property(off.returning(True))),
    ):
        yield


async def _locked(lab: Lab, n: int) -> None:
    """Another program holds the database: nobody is served unrecorded, and the loop goes on meanwhile."""
    async with lab.alone(slots=2, db_timeout_secs=0.5) as it:
        path = it.folder / "data" / "tokenhub.sqlite"
        gaps: list[float] = []
        beat = asyncio.create_task(_beat(gaps))
        for number in range(n):
            async with _held(path):
                got = await it.turn(number, stream=False).call()
                assert got.status == 503, (got.status, got.body[:200])
            await _comes_back(it)
            got = await it.turn(number).call()
            assert got.status == 200, got.body[:200]
        beat.cancel()
        lab.told["longest_beat"] = round(max(gaps), 3)
        assert max(gaps) < 0.5, "the loop stood still with the store"


_HOLDER: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def _held(path: Path) -> AsyncIterator[None]:
    """Let another process have the database to itself: locks of one process's own do not keep it out."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        await program.communicate()


async def _beat(gaps: list[float]) -> None:
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        await asyncio.sleep(0.02)
        gaps.append(loop.time() - last)
        last = loop.time()


async def _damaged(lab: Lab, n: int) -> None:
    """Bits turned around at random, a header of zeros, a tail cut off: found, or harmless."""
    folder = lab.room()
    good = folder / "good.sqlite"
    await asyncio.to_thread(_filled, good)
    found = 0
    for number in range(n):
        found += await asyncio.to_thread(_broken, good, folder / f"bad-{number}.sqlite", number, lab)
    lab.told |= {"damaged": n, "found": found}
    assert found >= n * 0.9, f"only {found} of {n} damages were found"


_ROWS: Final = 300


def _filled(path: Path) -> None:
    database = open_database(str(path))
    log = RequestLog(database)
    with database.writing() as connection:
        for number in range(_ROWS):
            record = Record(f"req_{number}", float(number), Outcome.OK, 200, Caller(), "POST", "/v1/messages")
            insert = log.insert(record, ())
            connection.exec_driver_sql(insert.statement, insert.row)
    database.close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _broken(good: Path, bad: Path, number: int, lab: Lab) -> bool:
    shutil.copy(good, bad)
    chance = random.Random(f"{lab.seed}/{number}")
    data = bytearray(bad.read_bytes())
    match number % 4:
        case 0:
            data[:100] = bytes(100)
        case 1:
            del data[len(data) * 2 // 3 :]
        case _:
            # In a page that is in use: a cell's pointer, a length, a page's kind.
            page = chance.randrange(1, len(data) // 4096) * 4096
            for _ in range(8):
                data[page + chance.randrange(12)] ^= chance.randrange(1, 256)
    bad.write_bytes(bytes(data))
    try:
        database = open_database(str(bad))
    except ConfigError as error:
        return "\n" not in str(error)
    try:
        wrong = checkup.findings(database)
    except (TokenHubError, OperationalError, Exception) as error:  # noqa: BLE001 -- what it cannot read, it has found
        wrong = [str(error)]
    finally:
        database.close()
    return bool(wrong)


@contextmanager
def _not_looking(lab: Lab) -> Iterator[None]:
    """Nobody looks, neither at the start nor when asked: what is found then, SQLite finds by itself."""
    del lab
    with (
        mock.patch.object(checkup, "findings", off.returning([])),
        mock.patch("tokenhub_core.store.database._check", off.returning(True)),
    ):
        yield


async def _killed(lab: Lab, n: int) -> None:
    """A program is killed while it commits: what it said is stored is there."""
    database = lab.room() / "tokenhub.sqlite"
    await asyncio.to_thread(lambda: open_database(str(database)).close())
    given = [str(database), str(n), *lab.given.get("breach", ())]
    program = await asyncio.create_subprocess_exec(
        sys.executable, crashing.__file__, *given, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    told, error = await program.communicate()
    assert program.returncode == 0, error.decode()
    names = told.decode().split()
    with sqlite3.connect(database) as connection:
        there = {name for (name,) in connection.execute("SELECT id FROM request_logs")}
    lost = set(names) - there
    lab.told |= {"kills": n, "acknowledged": len(names), "lost": len(lost)}
    assert names
    assert not lost, f"{len(lost)} of {len(names)} acknowledged records are lost"


@contextmanager
def _too_early(lab: Lab) -> Iterator[None]:
    """Tell waiters first, and commit a moment later."""
    lab.given["breach"] = ("early",)
    try:
        yield
    finally:
        del lab.given["breach"]


async def _at_every_commit(lab: Lab, n: int) -> None:
    """The Nth commit fails with an I/O error, for every N: whoever was told that it is stored can read it."""
    failed = 0
    for number in range(n):
        path = lab.room() / "tokenhub.sqlite"
        (await asyncio.to_thread(open_database, str(path))).close()
        broken = _Breaking(number + 1)
        database = await asyncio.to_thread(open_database, str(path), driver=broken.driver)
        writer = Writer(database)
        writer.start()
        recorder = StoreRecorder(database, writer)
        told: list[str] = []
        try:
            for at in range(n + 1):
                record = Record(f"req_{at}", float(at), Outcome.OK, 200, Caller(), "POST", "/v1/messages")
                try:
                    await recorder.commit(record)
                except TokenHubError:
                    failed += 1
                    continue
                told.append(record.id)
        finally:
            await writer.close()
            database.close()
        with sqlite3.connect(path) as connection:
            there = {name for (name,) in connection.execute("SELECT id FROM request_logs")}
        assert set(told) <= there, (
            f"commit {number + 1}: {set(told) - there} were acknowledged and are not there"
        )
        assert told
    lab.told["failed"] = failed


class _Breaking:
    """A build of SQLite whose commit number `n` fails."""

    def __init__(self, n: int) -> None:
        self._left = n
        real = choose()
        module: Any = real.module
        breaking = self

        class Cursor(module.Cursor):  # type: ignore[misc] # whichever build it is
            def execute(self, sql: str, *given: Any) -> Any:
                if sql == "COMMIT":
                    breaking.commit(module)
                return super().execute(sql, *given)

        class Opened(module.Connection):  # type: ignore[misc]
            def cursor(self, *given: Any) -> Any:
                return super().cursor(*given or (Cursor,))

            def commit(self) -> None:
                breaking.commit(module)
                super().commit()

        built = ModuleType(module.__name__)
        built.__dict__.update(vars(module))
        built.connect = partial(module.connect, factory=Opened)  # type: ignore[attr-defined]
        self.driver = replace(real, module=built)

    def commit(self, module: Any) -> None:
        """Raise where it is this one's turn."""
        self._left -= 1
        if self._left == 0:
            error = module.OperationalError("disk I/O error")
            error.sqlite_errorcode = _IOERR
            raise error


_IOERR: Final = 10
"""https://www.sqlite.org/rescode.html#ioerr"""


def _swallowed(lab: Lab) -> Any:
    """Say of every item that it is stored, whatever came of it."""
    del lab
    report = Writer._report

    def glad(self: Writer, outcomes: Any) -> None:
        report(self, [(item, True, None) for item, _, _ in outcomes])

    return mock.patch.object(Writer, "_report", glad)


@asynccontextmanager
async def _postgres() -> AsyncIterator[postgres.Server]:
    server = await asyncio.to_thread(postgres.Server.made)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.remove)


async def _server_gone(lab: Lab, n: int) -> None:
    """PostgreSQL restarts, stays away, is stopped: nobody waits for long, nothing acknowledged is lost."""
    if reason := postgres.missing():
        raise AssertionError(f"cannot be shown here: {reason}")
    scenes = (
        test_outage.test_a_server_that_restarts_between_two_records_costs_none,
        test_outage.test_a_server_that_stays_away_is_told_and_found_again,
        test_outage.test_a_stopped_server_holds_nobody,
        test_outage.test_a_commit_that_nobody_heard_of_is_made_once,
    )
    async with _postgres() as own:
        for _ in range(n):
            for scene in scenes:
                try:
                    await scene(own)
                except TokenHubError as error:
                    raise AssertionError(f"{scene.__name__}: {error}") from error
    lab.told["scenes"] = len(scenes)


def _never_again(lab: Lab) -> Any:
    """A connection that is lost is nobody's to find again."""
    del lab
    return mock.patch("tokenhub_core.store.writer._SAME_AGAIN", frozenset())


async def _stalled_readers(lab: Lab, n: int) -> None:
    """Somebody follows events and reads none: what waits for it is bounded, and nobody else notices."""
    it = await lab.world()
    url = f"{it.doors.side_url}/admin/v1/events"
    for number in range(n):
        async with it.session.get(url, headers=it.bearer) as response:
            assert response.status == 200
            bus: Any = None
            for route in it.served.app.side.router.routes():
                owner = getattr(route.handler, "__self__", None)
                bus = getattr(getattr(owner, "_desk", None), "bus", None) or bus
            (listener,) = bus._listeners
            # A socket takes a lot before it is full; past that only the listener's own bound holds.
            for at in range(3000):
                bus.publish("noise", {"at": at, "text": "x" * 3000})
                if at % 500 == 0:
                    await asyncio.sleep(0)
            waiting = len(listener._waiting)
            got = await it.turn(number).call()
            assert got.status == 200
            assert waiting <= 200, f"{waiting} events wait for one who does not read"
            response.close()


def _unbounded_listener(lab: Lab) -> Any:
    del lab

    def put(self: Listener, event_: Any) -> None:
        self._waiting.append(event_)
        self._ready.set()

    return mock.patch.object(Listener, "put", put)


CASES: Final = (
    Case(
        "F40",
        "the disk is full",
        "what cannot be recorded is refused; nothing acknowledged is lost; with room again it goes on by itself",
        "what cannot be recorded is not admitted",
        "records that cannot be stored are forgotten",
        _full,
        _on_credit,
        n=5,
        red=1,
    ),
    Case(
        "F41",
        "another program holds the database",
        "503 after the limit, and the loop goes on; when it is free calls are served again",
        "what cannot be recorded is not admitted, and the store has a thread of its own",
        "records that cannot be stored are forgotten",
        _locked,
        _on_credit,
        n=8,
        red=1,
    ),
    Case(
        "F42",
        "the database is damaged: its header, its tail, its pages",
        "it does not open, or the check says what is wrong",
        "a check of every page and every table",
        "nobody looks",
        _damaged,
        _not_looking,
        lanes=(),
        n=60,
        red=20,
    ),
    Case(
        "F43",
        "the process is killed at random moments while it commits",
        "every acknowledged record is there",
        "waiters go on after COMMIT has returned",
        "waiters are told first",
        _killed,
        _too_early,
        lanes=(),
        n=100,
        red=30,
    ),
    Case(
        "F44",
        "an I/O error at the Nth commit, for every N",
        "whoever was told that it is stored can read it",
        "an item is stored when its transaction is",
        "every item is said to be stored",
        _at_every_commit,
        _swallowed,
        lanes=(),
        red=10,
    ),
    Case(
        "F53",
        "PostgreSQL restarts, stays away, is stopped, or forgets to answer a commit",
        "nobody waits for long, nothing is stored twice, nothing acknowledged is lost, and it is found again",
        "a server that is gone is looked for, and rows are added once",
        "it is not looked for",
        _server_gone,
        _never_again,
        lanes=(),
        n=1,
        red=1,
    ),
    Case(
        "F58",
        "somebody who follows events stops reading",
        "what waits for it is bounded, and calls are answered",
        "a bound for each listener",
        "no bound",
        _stalled_readers,
        _unbounded_listener,
        lanes=(),
        n=20,
        red=1,
    ),
)
