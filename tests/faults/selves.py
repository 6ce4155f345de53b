"""F45 to F57: what we do to ourselves, and what others who share the machine do to us."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from mitmproxy import certs
from msgspec import structs

from tests.addon import test_guard
from tests.e2e.serving import eventually, until
from tests.fakes.engine import Bench, chat
from tests.fakes.provider import closed_port
from tests.faults import off, reloads
from tests.faults.case import Case, Lab
from tests.faults.world import CALLERS, LANES, Turn, World
from tests.vault import test_rotation, test_throttle, test_traffic, test_vault
from tests.vault.conftest import Hands
from tokenhub_addon import listening
from tokenhub_core import config
from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.audit.journal import Audit
from tokenhub_core.dispatch.job import INTERNAL, Job, Live, Whole
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.idempotency import Idempotent
from tokenhub_core.ports import Secret
from tokenhub_core.progress import Progress
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.renewals import Renewals
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import ApiKey, Caller, Lane, Snapshot
from tokenhub_core.underway import Underway
from tokenhub_core.vault import manifest, sealing
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.sealing import Params
from tokenhub_core.vault.vault import Custody, Vault
from tokenhub_core.workflows.client import Durable

# --- the vault ----------------------------------------------------------------------------------------------


async def _locked_vault(lab: Lab, n: int) -> None:
    """A stream that runs ends as it would; a new call that needs the vault is told so in its dialect."""
    await lab.close()
    body = chat(model="gpt-4o")
    for _ in range(n):
        await test_traffic.test_a_stream_that_runs_when_the_vault_locks_ends_as_it_would(lab.room())
        await test_traffic.test_a_call_that_needs_a_locked_vault_is_told_so_in_its_dialect(
            lab.room(), "/v1/chat/completions", body, ("error", "message")
        )


class _Bank:
    """A vault on disk, and what starts it again; its passwords are cheap to try."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.clock = Hands()
        self.database: Database = open_database(str(room / "tokenhub.sqlite"))
        self.writer = Writer(self.database)
        self.writer.start()

    async def start(self) -> Vault:
        ring = KeyHolder()
        vault = Vault(
            self.database,
            Audit(self.database, self.writer, clock=self.clock, signer=ring.signer),
            clock=self.clock,
            entropy=secrets.token_bytes,
            params=Params(memory_kib=8, passes=1),
            custody=Custody(ring, beside(self.database.where, "vault")),
        )
        await vault.load()
        return vault

    async def opened(self) -> Vault:
        vault = await self.start()
        await vault.init(Secret("correct horse battery"))
        await vault.put("provider:openai:api_key", Secret("sk-the-key"))
        return vault

    async def close(self) -> None:
        await self.writer.close()
        self.database.close()


async def _tampered(lab: Lab, n: int) -> None:
    """Wrong passwords, entries in each other's place, entries of another vault: nothing opens, nothing is written."""
    scenes = (
        lambda bank, vault: test_vault.test_a_wrong_password_opens_and_changes_nothing(
            vault, bank.start, bank.database
        ),
        lambda bank, vault: test_vault.test_swapped_entries_are_refused(vault, bank.start, bank.database),
        lambda bank, vault: test_throttle.test_the_sixth_wrong_password_has_to_wait(vault, bank.clock),
    )
    for number in range(n):
        bank = _Bank(lab.room())
        try:
            await scenes[number % len(scenes)](bank, await bank.opened())
        finally:
            await bank.close()


_bound = sealing._bound


def _unbound(purpose: str, vault_id: bytes, number: int, name: str) -> bytes:
    """Say nothing of whose entry it is, nor which one."""
    del number, name
    return _bound(purpose, vault_id, 0, "")


async def _rotated(lab: Lab, n: int) -> None:
    """A process that changes the key is killed at every step: one of the two keys opens everything."""
    for _ in range(n):
        room = lab.room()
        bank = _Bank(room)
        vault = await bank.start()
        await vault.init(test_rotation.OLD)
        for name in (test_rotation.NAME, "other"):
            await vault.put(name, Secret(f"sk-{name}"))
        await bank.close()
        steps = await asyncio.to_thread(test_rotation.killed, room, "rotate")
        assert len(steps) > 8
        if lab.given.get("torn"):
            _torn(steps[0], steps[-1])
        ended = [await _whole(step) for step in steps]
        assert (ended[0], ended[-1]) == ("before", "after"), ended
        assert ended == sorted(ended, reverse=True), ended
        lab.told["steps"] = len(steps)


async def _whole(step: Path) -> str:
    try:
        return await test_rotation._opened(step, "rotate")
    except (TokenHubError, KeyError, ValueError) as error:
        raise AssertionError(f"{step.name} does not open: {error}") from error


def _torn(before: Path, after: Path) -> None:
    """Make of the last state one in which only the header was changed."""
    with (
        sqlite3.connect(before / "tokenhub.sqlite") as old,
        sqlite3.connect(after / "tokenhub.sqlite") as new,
    ):
        tables = [name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        (entries,) = [name for name in tables if name.startswith("vault") and "entr" in name]
        rows = old.execute(f"SELECT * FROM {entries}").fetchall()
        new.execute(f"DELETE FROM {entries}")
        for row in rows:
            new.execute(f"INSERT INTO {entries} VALUES ({', '.join('?' * len(row))})", row)


@contextmanager
def _half_done(lab: Lab) -> Iterator[None]:
    lab.given["torn"] = True
    try:
        yield
    finally:
        del lab.given["torn"]


# --- clocks -------------------------------------------------------------------------------------------------


async def _jumping_clock(lab: Lab, n: int) -> None:
    """The wall clock jumps by hours and weeks, either way: no call takes less than no time, and no deadline moves."""
    for number in range(n):
        chance = random.Random(number)
        bench = Bench(profiles={"gpt-4o": Profile(faults=("hang",) if number % 4 == 3 else ())})
        wall = [bench.clock.now()]

        def now(wall: list[float] = wall, chance: random.Random = chance) -> float:
            wall[0] += chance.choice([0.0, 3600.0, -3600.0, 30 * 86400.0, -3600.0])
            return wall[0]

        bench.clock.now = now  # type: ignore[method-assign] # the scene's own time
        if lab.given.get("one_clock"):
            bench.clock.monotonic = now  # type: ignore[method-assign]
        bench.executor.patience = structs.replace(bench.executor.patience, ttft=0.1, whole=0.1)
        async with asyncio.timeout(20):
            reply, _ = await bench.ask(chat(stream=number % 2 == 0))
        assert reply.status == 200
        record = bench.recorder.one
        spans = [(one.started_ms, one.ended_ms) for one in record.attempts]
        assert all(0 <= start <= end < 20_000 for start, end in spans), spans


@contextmanager
def _one_clock(lab: Lab) -> Iterator[None]:
    lab.given["one_clock"] = True
    try:
        yield
    finally:
        del lab.given["one_clock"]


# --- leaving ------------------------------------------------------------------------------------------------


async def _drained(lab: Lab, n: int) -> None:
    """Streams that outlast the drain end in an error event; those that do not, at their end. All are on record."""
    async with lab.alone(slots=2, shutdown_drain_secs=1.0) as it:
        text = [it.turn(0), it.turn(1)]
        for slot, rate in zip(it.slots, (4.0, 400.0), strict=True):
            slot.first.profile = slot.spare.profile = Profile(tokens_per_second=rate)
        turns = [
            replace(
                text[number % 2],
                number=number,
                lane=LANES[number % 3],
                caller=CALLERS[number % 2],
                stream=True,
            )
            for number in range(n)
        ]
        before = sum(one.asked for one in text)
        calls = [asyncio.create_task(turn.call()) for turn in turns]
        await until(lambda: sum(one.asked for one in text) >= before + n)
        await asyncio.sleep(0.3)
        await it.stop()
        gots = await asyncio.gather(*calls)
        with sqlite3.connect(it.folder / "data" / "tokenhub.sqlite") as database:
            rows = dict(database.execute("SELECT id, error_class FROM request_logs").fetchall())
    for turn, got in zip(turns, gots, strict=True):
        if turn.slot.number == 0:
            assert "TokenHub is stopping" in got.said, (turn.lane, got.broke, got.body[-200:])
            assert not got.ended
            assert rows[got.id] == "shutting_down", rows[got.id]
        else:
            assert (got.said, got.ended, got.broke) == ("", True, ""), (turn.lane, got.broke, got.body[-200:])
            assert not rows[got.id]
    lab.told["streams"] = n


def _no_last_words(lab: Lab) -> Any:
    del lab
    return mock.patch.object(Underway, "stop", off.returning(None))


def _settings(folder: Path, **given: str) -> config.Settings:
    values = {
        "port": "0",
        "admin_port": "0",
        "origin": "false",
        "credentials_file": str(folder / "none"),
        **given,
    }
    return config.parse(
        {f"TOKENHUB_{name.upper()}": value for name, value in values.items()}, data_dir=folder / "data"
    )


def _made(path: Path) -> None:
    open_database(str(path)).close()


async def _cannot_start(lab: Lab, n: int) -> None:
    """A taken port, a place that another one serves from, a file in its place, a database of a later version."""
    await lab.close()
    for number in range(n):
        folder = lab.room()
        async with AsyncExitStack() as stack:
            given: dict[str, str] = {}
            match number % 4:
                case 0 | 1:
                    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                    given = {("port", "admin_port")[number % 2]: str(taken.getsockname()[1])}
                case 2:
                    (folder / "data").write_text("not a directory")
                case _:
                    (folder / "data").mkdir(mode=0o700)
                    path = folder / "data" / "tokenhub.sqlite"
                    await asyncio.to_thread(_made, path)
                    with sqlite3.connect(path) as database:
                        database.execute("UPDATE alembic_version SET version_num = '9999'")
            with pytest.raises((ConfigError, OSError), match=r"\A[^\n]+\Z"):
                async with listening.serving(_settings(folder, **given), {}):
                    raise AssertionError("it has started")
    folder = lab.room()
    async with listening.serving(_settings(folder), {}):
        with pytest.raises(ConfigError, match="another TokenHub"), listening.only_one(folder / "data"):
            raise AssertionError("two would serve from one place")


def _many(lab: Lab) -> Any:
    del lab
    return mock.patch.object(listening, "only_one", off.returning(nullcontext()))


async def _hooks(lab: Lab, n: int) -> None:
    """Whichever hook of the addon raises, no call reaches the host that it was meant for."""
    await lab.close()
    room = lab.room()
    certs.CertStore.from_store(room, "mitmproxy", 2048)
    for hook in test_guard.HOOKS[:n]:
        await test_guard.test_a_hook_that_raises_lets_no_call_out(room, hook)
    lab.told["hooks"] = min(n, len(test_guard.HOOKS))


def _unguarded(lab: Lab) -> Any:
    del lab
    broken = test_guard._broken
    every = broken(*set(test_guard.HOOKS) - {"load"}, guarded=False)
    return mock.patch.object(test_guard, "_broken", return_value=every)


# --- others -------------------------------------------------------------------------------------------------


async def _no_way(self: Durable, job: Job, progress: Progress) -> Whole | Live:
    """Fail, as Temporal has."""
    del self, job, progress
    raise TokenHubError(INTERNAL)


async def _no_temporal(lab: Lab, n: int) -> None:
    """Calls that should be durable are made directly, once each and at once, and counted."""
    settings = {
        "temporal_enabled": "true",
        "temporal_host": f"127.0.0.1:{closed_port()}",
        "temporal_calls": "all",
        "temporal_begin_secs": "0.3",
        "temporal_worker": "false",
        # Without its key nothing is sealed, and Temporal is not even asked.
        "vault_password": "correct horse battery",
    }
    async with lab.alone(slots=1, **settings) as it:
        for number in range(n):
            turn = it.turn(number)
            async with asyncio.timeout(10):
                got = await turn.call()
            assert got.status == 200, got.body[:200]
            assert turn.asked == 1, "it was made twice"
        told = dict(line.rsplit(" ", 1) for line in (await it.metrics()).splitlines())
        assert float(told["tokenhub_temporal_up"]) == 0
        assert float(told["tokenhub_temporal_fallback_total"]) == n


async def _blocked(lab: Lab, n: int) -> None:
    """The loop stands still: that is told with where it stood, and no call is lost by it."""
    it = await lab.world()
    for number in range(n):
        before = _blocks(await it.metrics())
        call = asyncio.create_task(it.turn(number).call())
        await asyncio.sleep(0.02)
        time.sleep(1.6)  # noqa: ASYNC251 -- that is the fault
        got = await call
        assert got.status == 200
        await eventually(partial(_more_blocks, it, before), within=5)


async def _more_blocks(it: World, before: float) -> bool:
    return _blocks(await it.metrics()) > before


def _blocks(metrics: str) -> float:
    return sum(
        float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith("tokenhub_loop_blocked_total")
    )


def _blind(lab: Lab) -> Any:
    del lab
    return mock.patch.object(sys, "_current_frames", off.returning({}))


async def _budget_race(lab: Lab, n: int) -> None:
    """Forty callers at once, and money for a few of them: just those are served."""
    it = await lab.world()
    for number in range(n):
        room = 3 + number % 5
        made = await it.admin("POST", "/apikeys", {"name": f"racer-{time.monotonic_ns()}"})
        body = {"owner": f"key:{made['id']}", "limit": room, "unit": "requests", "period": "total"}
        await it.admin("POST", "/budgets", body)
        turn = it.turn(number, lane=Lane.DIRECT, caller="openai", speaks="openai", spare_speaks="openai")
        shown = {"authorization": f"Bearer {made['key']}"}
        gots = await asyncio.gather(*(turn.call(headers=shown) for _ in range(40)))
        served = [got for got in gots if got.status == 200]
        assert len(served) == room, f"{len(served)} were served, and there was money for {room}"
        assert {got.status for got in gots} <= {200, 402}, {got.status for got in gots}


_reserve = Ledger.reserve


def _careless(self: Ledger, snapshot: Snapshot, nanousd: int, outlay: Any = None) -> Any:
    """Look first and hold nothing, as ledgers do that charge later."""
    if fault := self.admit(snapshot.caller, snapshot.received_at):
        raise TokenHubError(fault)
    nobody = Snapshot(
        **{
            **{name: getattr(snapshot, name) for name in snapshot.__struct_fields__},
            "caller": Caller(key=ApiKey("nobody")),
        }
    )
    lines, self._lines = self._lines, {}
    try:
        return _reserve(self, nobody, nanousd, outlay)
    finally:
        self._lines = lines


async def _duplicates(turn: Turn) -> None:
    """Twenty of the same call are one; another body under its key is refused; another owner's is another call."""
    turn = replace(turn, caller="openai", stream=turn.number % 2 == 0)
    shown = {"idempotency-key": f"turn {turn.number} {time.monotonic_ns()}"}
    gots = await asyncio.gather(*(turn.call(headers=shown) for _ in range(20)))
    assert {got.status for got in gots} == {200}, {got.status for got in gots}
    assert len({got.words for got in gots}) == 1
    assert turn.asked == 1, f"{turn.asked} calls were made"
    again = await turn.call(headers=shown)
    assert (again.status, turn.asked) == (200, 1)
    other = await turn.call(headers=shown, text="something else")
    assert (other.status, turn.asked) == (422, 1)


async def _always_anew(self: Idempotent, snapshot: Snapshot) -> Any:
    return await self._engine.exchange(snapshot)


CASES: Final = (
    Case(
        "F45",
        "the vault is locked while calls run",
        "what runs ends as it would; a call that needs it is answered 503 in its dialect, and served after unlocking",
        "a lock that forgets the keys",
        "locking does nothing",
        _locked_vault,
        off.patched(Vault, "lock", off.returning(None)),
        lanes=(Lane.DIRECT,),
        n=2,
        red=1,
    ),
    Case(
        "F46",
        "wrong passwords, entries moved to each other's place",
        "nothing opens, nothing is written, and the sixth password has to wait",
        "entries are bound to their names, and the set of them to the vault",
        "neither is",
        _tampered,
        off.all_of(
            off.patched(sealing, "_bound", _unbound), off.patched(manifest, "_wrong", off.returning(""))
        ),
        lanes=(),
        n=21,
        red=3,
    ),
    Case(
        "F47",
        "a change of the vault's key is killed at every step",
        "one of the two keys opens everything, never a mix",
        "one transaction for all of it",
        "a state in which only the header was changed",
        _rotated,
        _half_done,
        lanes=(),
        n=2,
        red=1,
    ),
    Case(
        "F48",
        "the wall clock jumps by hours and weeks",
        "no time is negative, and no deadline moves",
        "durations and deadlines are monotonic",
        "one clock for both",
        _jumping_clock,
        _one_clock,
        lanes=(),
        red=20,
    ),
    Case(
        "F49",
        "we are asked to leave while streams run",
        "those that end in time do; the others end in an error event, not in silence; all are on record",
        "calls that are left at the end of the drain are told",
        "they are cut",
        _drained,
        _no_last_words,
        n=24,
        red=6,
    ),
    Case(
        "F50",
        "settings are changed while calls run, and some cannot be used",
        "they are read from their sources, swapped whole, told; bad ones change nothing; no call is dropped",
        "everything is made before anything is put in its place",
        "each part is put in its place as soon as it is made",
        reloads.reloaded,
        off.patched(Renewals, "made", reloads.piecemeal),
        n=40,
        red=4,
    ),
    Case(
        "F51",
        "a port is taken, a place is served from already, is no directory, or has a later version's database",
        "one line that says so, and nothing is left open",
        "every start looks before it serves",
        "nobody holds the place",
        _cannot_start,
        _many,
        lanes=(),
        n=8,
        red=4,
    ),
    Case(
        "F52",
        "a hook of the addon raises",
        "no call reaches the host that it was meant for",
        "hooks fail closed",
        "hooks are not guarded",
        _hooks,
        _unguarded,
        lanes=(Lane.INSPECT,),
        n=40,
        red=1,
    ),
    Case(
        "F54",
        "Temporal cannot be reached",
        "calls are made directly, once each and at once",
        "the direct way for calls that nobody could follow",
        "there is none",
        _no_temporal,
        off.patched(Durable, "directly", _no_way),
        red=6,
    ),
    Case(
        "F55",
        "the event loop stands still for a second and a half",
        "that is counted and told with where it stood; no call is lost",
        "the watchdog",
        "it does not see where the loop stands",
        _blocked,
        _blind,
        n=5,
        red=1,
    ),
    Case(
        "F56",
        "forty callers at once at the end of a budget",
        "just as many are served as there is money for",
        "money is held before each attempt",
        "it is looked at, and charged later",
        _budget_race,
        off.patched(Ledger, "reserve", _careless),
        lanes=(Lane.DIRECT,),
        red=3,
    ),
    Case(
        "F57",
        "the same call twenty times at once, again later, and another one under its key",
        "one call is made, everybody gets its answer, and the other body is refused",
        "idempotency keys",
        "every call is made",
        lambda lab, n: lab.turns(n, _duplicates, spare_speaks="openai", speaks="openai"),
        off.patched(Idempotent, "exchange", _always_anew),
        red=6,
    ),
)
