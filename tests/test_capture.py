"""The text of calls: kept where it was asked for, sealed, cut, redacted, read by few, and deleted in time."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec import structs
from sqlalchemy import func, select

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.capture import Capturing, Shelf, opened
from tokenhub_core.config import Settings
from tokenhub_core.ports import Reply
from tokenhub_core.store import captures as rows
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.retention import DAY, PIECE
from tokenhub_core.store.schema import CAPTURES, REQUEST_LOGS
from tokenhub_core.store.writer import Writer
from tokenhub_core.sweeper import Retention, Sweeper
from tokenhub_core.types import ApiKey, Caller, Capture, Outcome, Privacy, Record, Snapshot
from tokenhub_core.vault.keys import KeyHolder, Keys
from tokenhub_core.vault.sealing import TamperedError

PASSWORD = "a password for the vault"
PROMPT = "my mail is bob@example.org and my key is sk-0123456789abcdef0123456789"
OPEN = {"VAULT_PASSWORD": PASSWORD}


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    """A provider on a real socket."""
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
def database() -> Iterator[Database]:
    """An empty one."""
    database = open_database(MEMORY)
    yield database
    database.close()


@pytest_asyncio.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    """Its writer."""
    writer = Writer(database)
    writer.start()
    yield writer
    await writer.close()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return 0.0


async def text_of(it: House, call: str) -> Any:
    """Return what was kept of a call, once it is there."""
    async with asyncio.timeout(PATIENCE):
        for delay in itertools.repeat(0.01):
            told = await it.admin("GET", f"/logs/{call}/body")
            if told.status != 404:
                assert told.status == 200, told.body
                return told.json
            await asyncio.sleep(delay)
    raise AssertionError


def stored(data: Path) -> bytes:
    """Return every byte of the database."""
    return b"".join(path.read_bytes() for path in (data / "data").glob("tokenhub.sqlite*"))


# --- the whole way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_asked_for_is_kept_sealed_and_read_by_the_admin(
    tmp_path: Path, fake: FakeProvider, *, stream: bool
) -> None:
    """Request and answer as they were; the database holds no word of them, and the audit log says who read."""
    async with house(tmp_path, settings={**OPEN, "CAPTURE": "full"}) as it:
        await it.provider(fake, "p", "gpt-4o")
        answer = await it.chat(messages=[{"role": "user", "content": PROMPT}], stream=stream)
        call = answer.header("x-request-id")
        told = await text_of(it, call)
        assert json.loads(told["request"]["text"])["messages"][0]["content"] == PROMPT
        assert told["answer"] == {"text": answer.body.decode(), "size": len(answer.body), "whole": True}
        assert told["mode"] == "full"
        assert told["until"] - told["at"] == 7 * DAY
        assert b"bob@example" not in stored(tmp_path)
        entries = (await it.done("GET", "/audit?action=secret.read"))["entries"]
        assert [(entry["subject"], entry["actor"]) for entry in entries] == [(f"body:{call}", "admin-token")]


async def test_nothing_is_kept_by_default(tmp_path: Path, fake: FakeProvider) -> None:
    """Nor is there anything to read."""
    async with house(tmp_path, settings=OPEN) as it:
        await it.provider(fake, "p", "gpt-4o")
        call = (await it.chat()).header("x-request-id")
        assert (await it.admin("GET", f"/logs/{call}/body")).status == 404
        with it.app.vault._database.reading() as connection:
            assert connection.execute(select(func.count()).select_from(CAPTURES)).scalar_one() == 0


async def test_redacted_text_holds_no_key_and_no_address(tmp_path: Path, fake: FakeProvider) -> None:
    """It is still JSON."""
    async with house(tmp_path, settings={**OPEN, "CAPTURE": "redacted"}) as it:
        await it.provider(fake, "p", "gpt-4o")
        call = (await it.chat(messages=[{"role": "user", "content": PROMPT}])).header("x-request-id")
        kept = json.loads((await text_of(it, call))["request"]["text"])
        assert kept["messages"][0]["content"] == "my mail is [email] and my key is [key]"


async def test_a_locked_vault_keeps_nothing_and_shows_nothing(
    tmp_path: Path, fake: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator is told, at the start and once in the log; the call is answered either way."""
    async with house(tmp_path, settings={"CAPTURE": "full"}) as shut:
        assert "TOKENHUB_CAPTURE keeps nothing until the vault is open" in shut.app.warnings
        await shut.provider(fake, "p", "gpt-4o")
        with caplog.at_level(logging.WARNING, "tokenhub_core.capture"):
            assert [(await shut.chat()).status for _ in range(3)] == [200] * 3
        assert caplog.messages == [
            "the vault is not open: what calls say is not kept, though it was asked for"
        ]
        await shut.done("POST", "/vault/init", {"admin_password": PASSWORD})
        call = (await shut.chat()).header("x-request-id")
        await text_of(shut, call)
        await shut.done("POST", "/vault/lock")
        refused = await shut.admin("GET", f"/logs/{call}/body")
        assert (refused.status, refused.fault["code"]) == (503, "vault_locked")


async def test_another_root_ends_what_was_sealed_under_the_old_one(
    tmp_path: Path, fake: FakeProvider
) -> None:
    """Rotation is also the way to make everything unreadable at once."""
    async with house(tmp_path, settings={**OPEN, "CAPTURE": "full"}) as it:
        await it.provider(fake, "p", "gpt-4o")
        call = (await it.chat()).header("x-request-id")
        await text_of(it, call)
        await it.done("POST", "/vault/rotate", {"admin_password": PASSWORD})
        gone = await it.admin("GET", f"/logs/{call}/body")
        assert (gone.status, "replaced" in gone.fault["message"]) == (404, True)


async def test_a_row_that_was_moved_to_another_call_does_not_open(tmp_path: Path, fake: FakeProvider) -> None:
    """Each is bound to its own."""
    async with house(tmp_path, settings={**OPEN, "CAPTURE": "full"}) as it:
        await it.provider(fake, "p", "gpt-4o")
        calls = [(await it.chat()).header("x-request-id") for _ in range(2)]
        for call in calls:
            await text_of(it, call)
        with it.app.vault._database.reading() as connection:
            first = rows.load(connection, calls[0], now=0)
        assert first is not None
        moved = structs.replace(first, id=calls[1])
        await it.app.recorder._writer.commit(lambda connection: rows.save(connection, moved))  # type: ignore[attr-defined]
        refused = await it.admin("GET", f"/logs/{calls[1]}/body")
        assert (refused.status, refused.fault["code"]) == (503, "vault_tampered")


# --- who asks for it ---------------------------------------------------------------------------------------


class Bench:
    """A `Capturing` in front of an engine that says what a test says."""

    def __init__(self, writer: Writer, database: Database, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.holder = KeyHolder()
        self.holder.take(Keys(bytearray(range(32)), b"v"))
        self.clock = Clock()
        self.database = database
        self.reply = Reply(200, (), b"answer")
        self.shelf = Shelf(
            writer, self.holder, self.settings, clock=self.clock, entropy=lambda size: b"n" * size
        )
        self.writer = writer
        self.engine = Capturing(self, self.settings, self.holder, self.shelf)

    async def exchange(self, snapshot: Snapshot) -> Reply:
        return self.reply

    async def call(self, *, key: ApiKey | None = None, body: bytes = b"question", name: str = "r") -> Reply:
        caller = Caller(key=key)
        return await self.engine.exchange(
            Snapshot(name, "POST", "/v1/chat/completions", (), body, 0.0, 0.0, caller=caller)
        )

    async def kept(self, name: str = "r") -> rows.Captured | None:
        await self.shelf.close()
        await self.writer.commit(lambda _: None)
        with self.database.reading() as connection:
            return rows.load(connection, name, now=self.clock.now())


@pytest.mark.parametrize(
    ("usual", "own", "days", "kept"),
    [
        ("none", Privacy(Capture.FULL), None, ("full", 7)),
        ("none", Privacy(Capture.REDACTED, 30), None, ("redacted", 30)),
        ("full", Privacy(Capture.NONE), None, None),
        ("full", Privacy(retention_days=2), None, ("full", 2)),
        ("redacted", Privacy(), None, ("redacted", 7)),
        ("full", Privacy(retention_days=90), 10, ("full", 10)),
        ("none", Privacy(), None, None),
    ],
)
async def test_a_key_says_what_is_kept_and_for_how_long(
    writer: Writer,
    database: Database,
    usual: str,
    own: Privacy,
    days: int | None,
    kept: tuple[str, int] | None,
) -> None:
    """The operator's default stands where it says nothing; no text outlives the records."""
    bench = Bench(writer, database, capture=usual, log_retention_days=days)
    await bench.call(key=ApiKey(id="k1", privacy=own))
    found = await bench.kept()
    if kept is None:
        assert found is None
        return
    assert found is not None
    body = opened(found, bench.holder)
    assert body is not None
    assert (body.mode.value, found.until - found.at) == (kept[0], kept[1] * DAY)
    assert (body.request.text, body.answer.text) == ("question", "answer")


async def test_what_is_off_is_not_in_the_way(writer: Writer, database: Database) -> None:
    """The engine's own reply is returned, and nothing was started."""
    bench = Bench(writer, database)
    assert await bench.call() is bench.reply
    assert not bench.shelf._tasks


async def test_long_texts_are_cut_and_a_secret_is_not_cut_in_two(writer: Writer, database: Database) -> None:
    """What is redacted is known whole, though only a part of it would have been kept."""
    bench = Bench(writer, database, capture="redacted", capture_max_bytes=256)
    body = b"x" * 240 + b" sk-0123456789abcdef0123456789 " + b"y" * 100_000
    await bench.call(body=body)
    found = await bench.kept()
    assert found is not None
    kept = opened(found, bench.holder)
    assert kept is not None
    assert kept.request.text == "x" * 240 + " [key] " + "y" * 9
    assert (kept.request.size, kept.request.whole) == (len(body), False)


async def test_a_stream_that_its_caller_left_is_kept_as_far_as_it_went(
    writer: Writer, database: Database
) -> None:
    """And the stream below is closed."""
    closed = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        try:
            yield b"one "
            yield b"two"
        finally:
            closed.set()

    bench = Bench(writer, database, capture="full")
    bench.reply = Reply(200, (), frames=frames())
    reply = await bench.call()
    assert reply.frames is not None
    assert await anext(reply.frames) == b"one "
    await reply.frames.aclose()  # type: ignore[attr-defined] # as front doors do
    assert closed.is_set()
    found = await bench.kept()
    assert found is not None
    body = opened(found, bench.holder)
    assert body is not None
    assert body.answer.text == "one "


async def test_a_changed_row_is_found(writer: Writer, database: Database) -> None:
    """One bit is enough."""
    bench = Bench(writer, database, capture="full")
    await bench.call()
    found = await bench.kept()
    assert found is not None
    changed = found.sealed[:-1] + bytes([found.sealed[-1] ^ 1])
    with pytest.raises(TamperedError):
        opened(structs.replace(found, sealed=changed), bench.holder)
    assert opened(structs.replace(found, key_id="other"), bench.holder) is None


# --- how long ----------------------------------------------------------------------------------------------


async def test_text_is_deleted_when_its_time_is_over(writer: Writer, database: Database) -> None:
    """It cannot be read from that moment on, and is gone with the next sweep; what is younger stays."""
    bench = Bench(writer, database, capture="full", capture_days=1)
    await bench.call(name="old")
    await bench.kept("old")
    bench.clock.time += DAY / 2
    await bench.call(name="young")
    await bench.kept("young")
    bench.clock.time += DAY / 2 + 1
    assert await bench.kept("old") is None
    assert await Sweeper(writer, bench.clock, Retention()).sweep() == 1
    assert await bench.kept("young") is not None
    with database.reading() as connection:
        assert connection.execute(select(CAPTURES.c.id)).scalars().all() == ["young"]


async def test_records_are_deleted_piece_by_piece_and_only_on_request(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one transaction holds; between two others get their turn."""
    monkeypatch.setattr("tokenhub_core.sweeper.PAUSE", 0.0)
    clock = Clock()
    log, old = RequestLog(database), 2 * PIECE + 3
    for number in range(old + 2):
        at = clock.time - (40 if number < old else 20) * DAY
        record = Record(f"r{number}", at, Outcome.OK, 200, Caller(), "POST", "/v1/messages")
        await writer.insert(log.insert(record))
    assert await Sweeper(writer, clock, Retention()).sweep() == 0
    pieces: list[int] = []
    commit = writer.commit

    async def counted(work: Any) -> Any:
        result = await commit(work)
        pieces.append(result)
        return result

    monkeypatch.setattr(writer, "commit", counted)
    assert await Sweeper(writer, clock, Retention(records=30)).sweep() == old
    assert pieces == [0, 0, PIECE, PIECE, 3]
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(REQUEST_LOGS)).scalar_one() == 2
