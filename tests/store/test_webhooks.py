"""The queue of webhooks, in either database."""

from __future__ import annotations

from functools import partial

import pytest

from tests.fakes.databases import plan
from tokenhub_core.store import webhooks as rows
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.webhooks.values import Webhook

HOOK = Webhook("h", "https://x.example", ("audit",), True, 1.0, 2.0)


def event(number: int, hook: str = "h") -> tuple[str, str, str, str]:
    return (hook, f"evt_{number}", "audit", '{"é":1}')


async def queued(writer: Writer, *events: tuple[str, str, str, str], now: float = 10.0) -> dict[str, int]:
    return await writer.commit(partial(rows.enqueue, found=events, now=now))


async def test_a_webhook_is_read_as_it_was_stored(database: Database, writer: Writer) -> None:
    """Changed by its id; gone with all that waits for it."""
    await writer.commit(partial(rows.save, hook=Webhook("h", "x", (), False, 1.0, 1.0)))
    await writer.commit(partial(rows.save, hook=HOOK))
    await queued(writer, event(1))
    with database.reading() as connection:
        assert rows.load(connection) == [HOOK]
        assert rows.waiting(connection, "h") == 1
    assert await writer.commit(partial(rows.remove, hook_id="h")) is True
    assert await writer.commit(partial(rows.remove, hook_id="h")) is False
    with database.reading() as connection:
        assert rows.listed(connection, "h", dead=False) == []


async def test_what_is_due_is_given_to_one_at_a_time(database: Database, writer: Writer) -> None:
    """The longest due first; nobody else gets it until the lease ends."""
    await writer.commit(partial(rows.save, hook=HOOK))
    await queued(writer, event(2), now=11.0)
    await queued(writer, event(1), event(1), event(9, "gone"), now=10.0)
    claim = partial(rows.claim, hook_id="h", until=60.0)
    first = await writer.commit(partial(claim, now=12.0))
    second = await writer.commit(partial(claim, now=12.0))
    assert first is not None
    assert second is not None
    assert (first.event_id, second.event_id, first.body, first.attempts) == ("evt_1", "evt_2", '{"é":1}', 0)
    assert await writer.commit(partial(claim, now=12.0)) is None
    await writer.commit(partial(rows.told, seq=second.seq))
    with database.reading() as connection:
        assert rows.next_due(connection, ["h"]) == 60.0
        assert rows.next_due(connection, ["other"]) is None
    again = await writer.commit(partial(claim, now=61.0))
    assert again is not None
    assert again.event_id == "evt_1"


async def test_what_was_given_up_is_seen_and_can_be_tried_anew(database: Database, writer: Writer) -> None:
    """With its reason and its tries; it counts no more as waiting."""
    await writer.commit(partial(rows.save, hook=HOOK))
    await queued(writer, event(1), event(2))
    for due in (20.0, None):
        found = await writer.commit(partial(rows.claim, hook_id="h", now=30.0, until=31.0))
        assert found is not None
        await writer.commit(partial(rows.failed, seq=found.seq, cause="http_500", due_at=due))
    with database.reading() as connection:
        (dead,) = rows.listed(connection, "h", dead=True)
        (waits,) = rows.listed(connection, "h", dead=False)
        assert rows.listed(connection, "h", dead=True, before=dead.seq) == []
        assert rows.waiting(connection, "h") == 1
    assert (dead.due_at, dead.attempts, dead.cause) == (None, 1, "http_500")
    assert (waits.due_at, waits.attempts) == (20.0, 1)
    assert await writer.commit(partial(rows.revive, hook_id="h", now=40.0)) == 1
    with database.reading() as connection:
        assert [(one.attempts, one.due_at) for one in rows.listed(connection, "h", dead=False)] == [
            (0, 40.0),
            (1, 20.0),
        ]


async def test_a_queue_has_an_end(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is counted, for each webhook apart."""
    monkeypatch.setattr(rows, "MOST_WAITING", 2)
    for name in ("h", "i"):
        await writer.commit(partial(rows.save, hook=Webhook(name, "x", (), True, 1.0, 1.0)))
    assert await queued(writer, *(event(n) for n in range(3)), event(1, "i")) == {"h": 1}
    assert await queued(writer, event(7), event(2, "i")) == {"h": 1}
    with database.reading() as connection:
        assert (rows.waiting(connection, "h"), rows.waiting(connection, "i")) == (2, 2)


async def test_what_is_due_is_read_from_an_index(database: Database) -> None:
    """However much waits for others, or is dead."""
    read = plan(
        database,
        "SELECT * FROM deliveries WHERE webhook_id = 'h' AND due_at <= 5 ORDER BY due_at, seq LIMIT 1",
    )
    assert "ix_deliveries_due" in read
    assert "TEMP B-TREE" not in read
    assert "Sort" not in read
