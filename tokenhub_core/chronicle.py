"""Keeps what became of providers' health, so that it can be looked at later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from msgspec import structs

from tokenhub_core.health.tracker import State
from tokenhub_core.store import chronicle as rows
from tokenhub_core.store.chronicle import Moved
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer

MOST: Final = 1000
"""The most changes that are shown together."""
DAYS: Final = 30
"""How long they are kept."""

_log: Final = logging.getLogger(__name__)


class Chronicle:
    """Belongs to the event loop of the writer."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def note(self, moves: Sequence[Moved]) -> None:
        """Let changes be written; nobody waits for that."""
        kept = settled(moves)
        if kept and not self._writer.post(partial(rows.save, moves=kept)):
            _log.error("changes of providers' health could not be stored")

    async def told(self, *, since: float, until: float, provider_id: str, limit: int) -> list[Moved]:
        """Return what happened in that time (of the epoch), the newest first."""
        return await asyncio.to_thread(
            self._load, since=since, until=until, provider_id=provider_id, limit=limit
        )

    def _load(self, *, since: float, until: float, provider_id: str, limit: int) -> list[Moved]:
        with self._database.reading() as connection:
            return rows.load(connection, since=since, until=until, provider_id=provider_id, limit=limit)


def settled(moves: Sequence[Moved]) -> list[Moved]:
    """Return what of one look is worth a row: each way out and back, of the rest where a provider ended up.

    One that fails every third call goes to and fro between healthy and degraded many times a second.
    """
    kept: list[Moved] = []
    open_: dict[str, int] = {}
    for one in moves:
        place = open_.get(one.provider_id)
        if State.DOWN in {one.before, one.after}:
            open_.pop(one.provider_id, None)
            kept.append(one)
        elif place is None:
            open_[one.provider_id] = len(kept)
            kept.append(one)
        else:
            kept[place] = structs.replace(one, before=kept[place].before)
    return [one for one in kept if one.before != one.after]
