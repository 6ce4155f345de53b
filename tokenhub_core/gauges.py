"""What the parts know of themselves, for whoever scrapes; and the beat that says how late the event loop is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.ports import Clock
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics, Readings
from tokenhub_core.types import NANO
from tokenhub_core.vault.vault import Vault

BEAT: Final = 0.25
"""Seconds between two looks at the event loop."""
_MICROS: Final = 1_000_000


def readings(
    writer: Writer, network: HttpTransport, ledger: Ledger, bus: Bus, *, vault: Vault, clock: Clock
) -> Callable[[], Readings]:
    """Return what reads all of them, and counts the tasks of this loop, at the moment when it is called."""
    loop = asyncio.get_running_loop()

    def read() -> Readings:
        counts, traffic = writer.counts, network.traffic
        standings = ledger.standings(round(clock.now() * _MICROS))
        return Readings(
            queued=writer.pending,
            stored={
                "committed": counts.committed,
                "duplicate": counts.duplicates,
                "refused": counts.refused,
                "lost": counts.lost,
                "failed": counts.failed,
            },
            batches=counts.batches,
            storing=writer.able,
            circuit=writer.breaker.state(clock.monotonic()),
            connections={"active": traffic.active, "idle": traffic.idle},
            connected=traffic.opened,
            reused=traffic.reused,
            reserved_usd=ledger.reserved_nanousd / NANO,
            budgets={
                name: (one.spent + one.held) / one.budget.limit if one.budget.limit else 1.0
                for name, one in standings.items()
            },
            listeners=bus.listeners,
            tasks=len(asyncio.all_tasks(loop)),
            vault_open=vault.open,
        )

    return read


async def beat(clock: Clock, metrics: Metrics) -> None:
    """Count how late the event loop comes round, for as long as the service runs."""
    while True:
        asked = clock.monotonic() + BEAT
        await asyncio.sleep(BEAT)
        metrics.lagged(max(clock.monotonic() - asked, 0.0))
