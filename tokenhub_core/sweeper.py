"""Deletes what was kept for long enough, piece by piece, beside everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.store import retention
from tokenhub_core.store.retention import CHAIN_PIECE, DAY, PIECE
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.types import Json

EVERY: Final = 600.0
"""Seconds between two looks."""
PAUSE: Final = 0.05
"""Seconds between two pieces, for whoever waits to write."""
_log: Final = logging.getLogger(__name__)


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """For how many days what is kept; None: for ever."""

    records: int | None = None
    decisions: int | None = None
    parkings: int | None = None
    health: int | None = None
    spends: int | None = None
    deliveries: int | None = None
    """Events that webhooks were not told of."""
    audit: int | None = None
    proofs: int | None = None


class Sweeper:
    """Belongs to one event loop. `tell` hears how many rows of which table have gone, where any have."""

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        kept: Retention,
        *,
        audit: Audit | None = None,
        tell: Callable[[str, Json], None] = lambda *_: None,
        turn: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        """`turn` returns when this process is to do it."""
        self._writer = writer
        self._clock = clock
        self._kept = kept
        self._audit = audit
        self._tell = tell
        self._turn = turn

    def renew(self, kept: Retention) -> None:
        """Keep for other times from the next look on."""
        self._kept = kept

    async def keep(self) -> None:
        """Delete for as long as the service runs; where the store fails, later."""
        while True:
            await self._turn()
            try:
                await self.sweep()
            except TokenHubError as error:
                _log.warning("what is due to be deleted stays for now: %s", error)
            await asyncio.sleep(EVERY)

    async def sweep(self) -> int:
        """Delete everything that is due now; return how many rows that were."""
        now, kept = self._clock.now(), self._kept
        done = {
            "captures": await self._pieces(partial(retention.texts, now=now)),
            "idempotency": await self._pieces(partial(retention.marks, now=now)),
        }
        for table, days, work in (
            ("request_logs", kept.records, retention.records),
            ("decisions", kept.decisions, retention.decisions),
            ("parking_history", kept.parkings, retention.parkings),
            ("health_history", kept.health, retention.health),
            ("spends", kept.spends, retention.spends),
            ("deliveries", kept.deliveries, retention.deliveries),
        ):
            if days is not None:
                done[table] = await self._pieces(partial(work, before=now - days * DAY))
        if self._audit is not None:
            done |= await self._chains(self._audit, now)
        done = {table: count for table, count in done.items() if count}
        if done:
            _log.info("deleted rows whose time was over: %s", done)
            self._tell("rows_deleted", {"timestamp": now, "tables": done})
        return sum(done.values())

    async def _chains(self, audit: Audit, now: float) -> dict[str, int]:
        """Cut off the beginning of chains; the audit log says so in the same transaction."""
        done = {}
        if (days := self._kept.proofs) is not None:
            proofs_before = now - days * DAY

            async def proofs() -> int:
                cut = partial(retention.proofs, before=proofs_before, signed=audit.signing)
                return await audit.commit_telling(cut)

            done["proofs"] = await _whole(proofs, CHAIN_PIECE)
        if (days := self._kept.audit) is not None:
            before = now - days * DAY

            async def entries() -> int:
                # What this process knows of the end of the chain must stay: it is held to it at the next entry.
                cut = partial(retention.entries, before=before, keep=audit.head.seq, signed=audit.signing)
                return await audit.commit_telling(cut)

            done["audit"] = await _whole(entries, CHAIN_PIECE)
        return done

    async def _pieces(self, work: Work[int]) -> int:
        return await _whole(partial(self._writer.commit, work), PIECE)


async def _whole(piece: Callable[[], Awaitable[int]], size: int) -> int:
    """Delete pieces until one is smaller than it could be; return how many rows that were."""
    done = 0
    while True:
        some = await piece()
        done += some
        if some < size:
            return done
        await asyncio.sleep(PAUSE)
