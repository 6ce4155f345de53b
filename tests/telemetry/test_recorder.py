"""Records are durable first and told afterwards, once, to everybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection

from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.ports import Recorder
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.recorder import NullRecorder, StoreRecorder
from tokenhub_core.types import Caller, Outcome, Record


def _record(record_id: str) -> Record:
    return Record(record_id, 1000.0, Outcome.OK, 200, Caller(), "POST", "/v1/messages")


class _House:
    """A store, a writer, a recorder on both, and one subscriber who writes down what was durable when it heard."""

    def __init__(self, dsn: str) -> None:
        self.database = open_database(dsn)
        self.writer = Writer(self.database, limit=2)
        self.log = RequestLog(self.database)
        self.heard: list[tuple[str, bool]] = []
        self.recorder = StoreRecorder(self.database, self.writer, [self.hear])
        self.gate = threading.Event()

    def hear(self, record: Record) -> None:
        self.heard.append((record.id, self.log.get(record.id) is not None))

    def hold(self) -> None:
        """Keep the writer busy until the gate opens; takes one of its two places."""

        def wait(connection: Connection) -> None:
            self.gate.wait()

        assert self.writer.post(wait)


@pytest_asyncio.fixture
async def house(dsn: str) -> AsyncIterator[_House]:
    house = _House(dsn)
    house.writer.start()
    yield house
    house.gate.set()
    await house.writer.close()
    house.database.close()


async def test_subscribers_hear_of_a_record_once_it_is_durable(house: _House) -> None:
    """Nothing counts what a crash could take back."""
    await house.recorder.commit(_record("a"))
    assert house.heard == [("a", True)]


async def test_a_posted_record_is_told_at_once_and_stored_soon(house: _House) -> None:
    """Its caller is gone, so nobody waits."""
    house.recorder.post(_record("a"))
    assert [record_id for record_id, _ in house.heard] == ["a"]
    await house.writer.close()
    assert house.log.get("a") is not None


async def test_a_record_that_comes_twice_is_stored_and_told_once(house: _House) -> None:
    """Exactly once; the second time is counted."""
    await house.recorder.commit(_record("a"))
    await house.recorder.commit(_record("a"))
    assert house.heard == [("a", True)]
    assert (house.log.count(), house.recorder.duplicates) == (1, 1)


async def test_a_subscriber_that_raises_breaks_nothing(
    house: _House, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one hears, the caller goes on, the log has the reason."""

    def broken(record: Record) -> None:
        raise RuntimeError("no ears")

    recorder = StoreRecorder(house.database, house.writer, [broken, house.hear])
    await recorder.commit(_record("a"))
    recorder.post(_record("b"))
    assert [record_id for record_id, _ in house.heard] == ["a", "b"]
    assert caplog.text.count("RuntimeError: no ears") == 2


async def test_a_record_that_cannot_be_stored_fails_its_exchange(house: _House) -> None:
    """A typed fault of ours, and nobody heard of it."""
    await house.writer.close()
    with pytest.raises(TokenHubError) as caught:
        await house.recorder.commit(_record("a"))
    fault = caught.value.fault
    assert (fault.kind, fault.blame, fault.cause) == (Kind.INTERNAL, Blame.US, "store_unavailable")
    assert (fault.http_status, fault.retry_after) == (503, 1.0)
    assert house.heard == []


async def test_a_caller_that_leaves_while_it_waits_is_still_recorded(house: _House) -> None:
    """Told once, stored once, as if it had been posted."""
    house.hold()
    commit = asyncio.create_task(house.recorder.commit(_record("a")))
    await asyncio.sleep(0)
    commit.cancel()
    await asyncio.wait({commit})
    assert commit.cancelled()
    house.gate.set()
    await house.writer.close()
    assert [record_id for record_id, _ in house.heard] == ["a"]
    assert house.log.count() == 1


async def test_a_post_that_finds_no_room_is_told_counted_and_logged(
    house: _House, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is bounded, and a loss is never silent."""
    house.hold()
    house.recorder.post(_record("a"))
    house.recorder.post(_record("b"))
    assert [record_id for record_id, _ in house.heard] == ["a", "b"]
    assert house.writer.counts.refused == 1
    assert "record b was not stored" in caplog.text


# --- readiness ---------------------------------------------------------------------------------------------


class _Slow:
    """A database that answers when it is let."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.gate = threading.Event()
        self.asked = 0

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        self.asked += 1
        self.gate.wait()
        with self._database.reading() as connection:
            yield connection


async def test_a_store_that_can_be_read_is_ready(house: _House) -> None:
    """Whatever the writer is doing."""
    assert await house.recorder.ready()


async def test_a_store_that_hangs_is_not_ready_and_is_asked_once(house: _House) -> None:
    """The answer comes before the store's, probes do not pile up, and a store that comes back is ready again."""
    slow: Any = _Slow(house.database)
    recorder = StoreRecorder(slow, house.writer)
    assert [await recorder.ready(), await recorder.ready()] == [False, False]
    assert slow.asked == 1
    slow.gate.set()
    assert await recorder.ready()
    assert await recorder.ready()


async def test_a_store_that_fails_is_not_ready(house: _House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is an answer too."""

    def broken() -> None:
        raise OSError("gone")

    monkeypatch.setattr(house.database, "reading", broken)
    assert not await house.recorder.ready()


async def test_without_a_store_everything_is_taken_and_nothing_kept() -> None:
    """A null object, so that nobody asks whether there is a recorder."""
    recorder = NullRecorder()
    port: Recorder = recorder
    await port.commit(_record("a"))
    port.post(_record("a"))
    assert await recorder.ready()
