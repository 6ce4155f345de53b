"""Nothing that a client has read to its end is lost, however the process ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import orjson
import pytest

from tests.e2e.calling import LAST_WORDS, Door, doors
from tests.e2e.serving import TOKENHUB, announced, bare_environment, measured, serving, stored
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.audit.entries import Action
from tokenhub_core.launch.serveinfo import ServeInfo
from tokenhub_core.store.audit import AuditLog
from tokenhub_core.store.database import open_database

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLERS: Sequence[tuple[int, str, bool]] = [
    (door, dialect, stream)
    for door in (0, 1)
    for dialect, stream in (("openai", True), ("anthropic", True), ("openai", False), ("anthropic", False))
]
"""Which door, which dialect, streamed or not: all at the same time."""

KILLS = int(os.environ.get("KILLS", "100"))
UNITS = ("usd", "tokens", "requests")
MODELS = {"openai": "m-openai", "anthropic": "m-anthropic"}


@dataclass
class Read:
    """What clients have read to the end: the request ids, by round and by who read them."""

    rounds: list[list[str]] = field(default_factory=list)
    by: dict[tuple[int, str, bool], int] = field(default_factory=dict)
    changes: int = 0
    """Changes of settings that were acknowledged."""
    ready: list[float] = field(default_factory=list)
    """Seconds from each start until the ports were open."""

    @property
    def ids(self) -> list[str]:
        return [name for names in self.rounds for name in names]


type Killed = Callable[[], Awaitable[None]]
type Start = Callable[[], Awaitable[tuple[int, Killed]]]
"""Starts one, and returns its process id and what waits until it is gone."""


async def test_after_kill_9_every_reply_that_was_read_is_on_record(tmp_path: Path) -> None:
    """Five kills of one database's life, at random moments, under the load of eight callers at both doors."""
    async with prepared(tmp_path) as data, forking(data) as start:
        read = await killing(data, start, rounds=5)
    check(data, read, rounds=5)


@pytest.mark.load
async def test_crash_a_hundred_times_and_every_reply_that_was_read_is_on_record(tmp_path: Path) -> None:
    """The same a hundred times, and everybody has read something."""
    async with prepared(tmp_path) as data, forking(data) as start:
        read = await killing(data, start, rounds=KILLS)
    check(data, read, rounds=KILLS)
    assert set(read.by) == set(CALLERS)


@pytest.mark.load
async def test_crash_the_installed_command(tmp_path: Path) -> None:
    """The same with a process that was started as users start it."""
    async with prepared(tmp_path) as data:

        async def start() -> tuple[int, Killed]:
            process = await asyncio.create_subprocess_exec(
                *TOKENHUB,
                *("serve", "--data-dir", str(data), "--port", "0", "--admin-port", "0"),
                env=bare_environment(tmp_path / "home"),
                stdin=DEVNULL,
                stdout=DEVNULL,
            )

            async def killed() -> None:
                assert await process.wait() == -signal.SIGKILL

            return process.pid, killed

        read = await killing(data, start, rounds=10)
    check(data, read, rounds=10)


@pytest.mark.load
async def test_the_crash_test_notices_a_record_that_nobody_waited_for(tmp_path: Path) -> None:
    """The same with the promise broken on purpose: replies are lost, and the test can tell."""
    async with prepared(tmp_path) as data, forking(data, "early") as start:
        read = await killing(data, start, rounds=10)
    lost = set(read.ids) - set(stored(data))
    measured(f"10 kills, {len(read.ids)} replies read to their end, {len(lost)} without a record")
    assert lost


def counted(data: Path) -> tuple[list[int], list[int]]:
    """Return what is counted of each budget, and what all records together come to."""
    with contextlib.closing(sqlite3.connect(data / "tokenhub.sqlite")) as database:
        spent = dict(
            database.execute(
                "SELECT unit, sum(spent) FROM (SELECT budget_id, spent FROM spends UNION ALL"
                " SELECT budget_id, spent FROM shares) JOIN budgets ON id = budget_id GROUP BY unit"
            )
        )
        logged = database.execute("SELECT cost_nanousd, attempts FROM request_logs").fetchall()
    tried = [orjson.loads(attempts) for _, attempts in logged]
    tokens = sum(one["input_tokens"] + one["output_tokens"] for some in tried for one in some)
    said = [sum(cost for cost, _ in logged), tokens, sum(map(bool, tried))]
    return [spent[unit] for unit in UNITS], said


def check(data: Path, read: Read, *, rounds: int) -> None:
    """Compare what was read with what is stored, and what budgets have counted with what records say."""
    spent, said = counted(data)
    measured(f"{rounds} kills, counted {spent}, records say {said}")
    assert spent == said
    assert min(spent) > 0
    missing = set(read.ids) - set(stored(data))
    measured(
        f"{rounds} kills, {len(read.ids)} replies read to their end, {len(missing)} without a record;"
        f" {read.changes} changes acknowledged, and all in an audit log that was whole after each;"
        f" ready within {median(read.ready):.1f} s, the slowest {max(read.ready):.1f}"
    )
    assert missing == set()
    assert read.changes
    assert len(set(read.ids)) == len(read.ids)
    assert sum(bool(names) for names in read.rounds) >= rounds * 0.7, "only a start may be silent"


@asynccontextmanager
async def prepared(folder: Path) -> AsyncIterator[Path]:
    """Register two providers that need no key, stop again, and return the data directory."""
    async with FakeProvider() as fake:
        async with serving(folder) as serve:
            for speaks, model in MODELS.items():
                provider = {"id": speaks, "type": speaks, "base_url": fake.url}
                await serve.admin("POST", "/providers", provider)
                prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
                await serve.admin("POST", "/models", {"id": model, "provider_id": speaks, **prices})
            for unit in UNITS:
                budget = {"owner": "all", "limit": 10**12, "period": "total", "unit": unit}
                await serve.admin("POST", "/budgets", budget)
        yield serve.data


@asynccontextmanager
async def forking(data: Path, *options: str) -> AsyncIterator[Start]:
    """Yield what starts one by forking: see `crashing.py`."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *(str(Path(__file__).with_name("crashing.py")), str(data), *options),
        env=bare_environment(data.parent / "home"),
        stdin=PIPE,
        stdout=PIPE,
    )
    stdin, stdout = program.stdin, program.stdout
    assert stdin is not None
    assert stdout is not None

    async def start() -> tuple[int, Killed]:
        stdin.write(b"\n")

        async def killed() -> None:
            assert int(await stdout.readline()) == -signal.SIGKILL

        return int(await stdout.readline()), killed

    try:
        yield start
    finally:
        stdin.close()
        await program.wait()


async def killing(data: Path, start: Start, *, rounds: int) -> Read:
    """Start, load and kill so many times."""
    chance, read = random.Random(7), Read()
    for number in range(rounds):
        began = time.monotonic()
        pid, killed = await start()
        async with asyncio.timeout(PATIENCE):
            info = await announced(data, pid)
        assert info is not None
        read.ready.append(time.monotonic() - began)
        names: list[str] = []
        first = asyncio.Event()
        async with aiohttp.ClientSession() as session:
            ways = doors(info)
            callers = [
                asyncio.create_task(calling(session, ways[who[0]], who, (names, first, read)))
                for who in CALLERS
            ]
            callers.append(asyncio.create_task(changing(session, info, data, read)))
            # Every fifth is killed before it is known to have answered anything.
            if number % 5:
                async with asyncio.timeout(PATIENCE):
                    await first.wait()
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
            await killed()
            await asyncio.gather(*callers)
        await asyncio.to_thread(audited, data, read)
        read.rounds.append(names)
    return read


async def changing(session: aiohttp.ClientSession, info: ServeInfo, data: Path, read: Read) -> None:
    """Change a model again and again until nobody answers; count what was acknowledged."""
    url = f"{info.side_url}/admin/v1/models/{MODELS['openai']}"
    headers = {"authorization": f"Bearer {(data / 'admin-token').read_text().strip()}"}
    with suppress(aiohttp.ClientError, ConnectionError):
        while True:
            body = {"weight": read.changes % 10}
            async with session.patch(url, json=body, headers=headers) as response:
                assert response.status == 200, await response.text()
                await response.read()
                read.changes += 1
            await asyncio.sleep(0.05)


def audited(data: Path, read: Read) -> None:
    """Hold the audit log, as the kill has left it, to be whole and to have each change that was acknowledged.

    It is read in a copy: what a kill has left is for the next start to find.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in data.glob("tokenhub.sqlite*"):
            shutil.copy(path, folder)
        database = open_database(str(Path(folder) / "tokenhub.sqlite"))
        try:
            log = AuditLog(database)
            report = log.verify({})
            count = sum(entry.action == Action.MODEL_CHANGE for entry in log.entries())
        finally:
            database.close()
    assert report.ok, report.findings
    assert count >= read.changes, (
        f"{read.changes} changes were acknowledged, and {count} are in the audit log"
    )


async def calling(
    session: aiohttp.ClientSession,
    door: Door,
    who: tuple[int, str, bool],
    noted: tuple[list[str], asyncio.Event, Read],
) -> None:
    """Call again and again until nobody answers; note each reply whose last byte has come."""
    _, dialect, stream = who
    names, first, read = noted
    with suppress(aiohttp.ClientError, ConnectionError):
        while True:
            async with door.call(session, dialect, MODELS[dialect], stream=stream) as response:
                assert response.status == 200, await response.text()
                body = b""
                async for piece in response.content.iter_any():
                    body += piece
                    if body.endswith(LAST_WORDS[dialect]) if stream else len(body) == response.content_length:
                        names.append(response.headers["x-request-id"])
                        read.by[who] = read.by.get(who, 0) + 1
                        first.set()
