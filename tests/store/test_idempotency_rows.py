"""Marks as rows: claimed once, ended by their call alone, gone when their time is over."""

from __future__ import annotations

from typing import Final

import pytest
from sqlalchemy import select

from tokenhub_core.admission.idempotency import Kept, Mark
from tokenhub_core.errors import TokenHubError
from tokenhub_core.store.database import Database
from tokenhub_core.store.idempotency import Earlier, Marks
from tokenhub_core.store.schema import IDEMPOTENCY
from tokenhub_core.store.writer import Writer

MARK: Final = Mark(b"\x00\xff" * 16, "ann", b"asked")
ANSWER: Final = Kept("req_1", b"asked", 200, (("content-type", "a"), ("x-é", "\udce9")), b"\x00the answer")


async def test_a_mark_belongs_to_the_call_that_came_first(writer: Writer) -> None:
    """The second one is told which that was, and that its end is not known."""
    marks = Marks(writer)
    assert await marks.claim(MARK, "req_1", now=100.0, until=200.0) is None
    assert await marks.claim(MARK, "req_2", now=101.0, until=201.0) == Earlier(
        "req_1", b"asked", done=False, begun=100.0
    )
    assert await marks.claim(Mark(b"other", "ann", b"asked"), "req_3", now=101.0, until=201.0) is None


async def test_a_finished_call_is_told_as_such(writer: Writer, database: Database) -> None:
    """Without its answer: no body and no header is in the database."""
    marks = Marks(writer)
    await marks.claim(MARK, "req_1", now=100.0, until=200.0)
    assert marks.finish(MARK, "req_1", ANSWER)
    assert await marks.claim(MARK, "req_2", now=101.0, until=201.0) == Earlier(
        "req_1", b"asked", done=True, begun=100.0
    )
    with database.reading() as connection:
        row = connection.execute(select(IDEMPOTENCY)).one()
    assert (row.owner, row.status, row.headers, row.answer) == ("ann", None, None, None)


async def test_an_answer_is_kept_where_that_is_asked_for(writer: Writer) -> None:
    """Every byte of it; one that was too long to be kept is told as answered."""
    marks = Marks(writer, answers=True)
    await marks.claim(MARK, "req_1", now=100.0, until=200.0)
    marks.finish(MARK, "req_1", ANSWER)
    earlier = await marks.claim(MARK, "req_2", now=101.0, until=201.0)
    assert earlier is not None
    assert earlier.answer is not None
    assert (earlier.answer.body, earlier.answer.status, earlier.answer.request_id) == (
        ANSWER.body,
        200,
        "req_1",
    )
    assert earlier.answer.headers[0] == ("content-type", "a")
    long = Mark(b"long", "ann", b"asked")
    await marks.claim(long, "req_3", now=100.0, until=200.0)
    marks.finish(long, "req_3", None)
    assert await marks.claim(long, "req_4", now=101.0, until=201.0) == Earlier(
        "req_3", b"asked", done=True, begun=100.0
    )


async def test_a_mark_is_dropped_by_its_own_call_only(writer: Writer) -> None:
    """After that the key is free."""
    marks = Marks(writer)
    await marks.claim(MARK, "req_1", now=100.0, until=200.0)
    assert marks.drop(MARK, "req_2")
    marks.finish(MARK, "req_2", ANSWER)
    assert await marks.claim(MARK, "req_3", now=101.0, until=201.0) == Earlier(
        "req_1", b"asked", done=False, begun=100.0
    )
    marks.drop(MARK, "req_1")
    assert await marks.claim(MARK, "req_3", now=101.0, until=201.0) is None


async def test_marks_end_at_their_time(writer: Writer, database: Database) -> None:
    """Whoever claims clears all that are over, others' too."""
    marks = Marks(writer)
    await marks.claim(MARK, "req_1", now=100.0, until=200.0)
    await marks.claim(Mark(b"b", "bob", b""), "req_2", now=100.0, until=200.0)
    assert await marks.claim(MARK, "req_3", now=199.9, until=300.0) is not None
    assert await marks.claim(MARK, "req_4", now=200.0, until=300.0) is None
    with database.reading() as connection:
        assert connection.execute(select(IDEMPOTENCY.c.request_id)).scalars().all() == ["req_4"]


async def test_a_store_that_is_closed_says_so(writer: Writer) -> None:
    """A claim fails, and what cannot be noted is told."""
    marks = Marks(writer)
    await writer.close()
    with pytest.raises(TokenHubError):
        await marks.claim(MARK, "req_1", now=100.0, until=200.0)
    assert not marks.finish(MARK, "req_1", ANSWER)
    assert not marks.drop(MARK, "req_1")
