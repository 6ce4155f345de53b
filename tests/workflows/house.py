"""An engine whose calls are durable: the bench of the direct path's scenes, a real store, and a real Temporal."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from temporalio.api.common.v1 import Payload

from tests.fakes.engine import Bench
from tests.workflows.server import NAMESPACE, Temporal
from tokenhub_core.config import Settings
from tokenhub_core.ports import Reply
from tokenhub_core.store.database import open_database
from tokenhub_core.store.durable import DurableCalls
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.vault.sealing import DURABLE, Sealer
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.client import Durable
from tokenhub_core.workflows.codec import Codec
from tokenhub_core.workflows.following import Waits
from tokenhub_core.workflows.stepping import Stepping

PATIENT = Waits(start=30, begin=60, leave=60)
"""On a busy machine everything takes many times as long as on an idle one."""
KEY = Sealer("test", bytes(range(32)), DURABLE)
_QUEUES = itertools.count(1)
_RUN = secrets.token_hex(4)


class Plain(Codec):
    """Seals nothing, for histories that are kept to be read again."""

    def __init__(self) -> None:
        super().__init__(lambda: KEY, secrets.token_bytes)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


class House:
    """A bench on the durable way, and what it is made of."""

    def __init__(self, bench: Bench, durable: Durable, rows: DurableCalls, writer: Writer) -> None:
        self.bench = bench
        self.writer = writer
        self.durable = durable
        self.rows = rows

    async def ask(self, body: Any, *more: Any, **named: Any) -> tuple[Reply, bytes]:
        """Send one call and read its reply to the end."""
        return await self.bench.ask(body, *more, **named)


@asynccontextmanager
async def durably(
    temporal: Temporal | str | None,
    directory: Path,
    bench: Bench,
    *,
    worker: bool = True,
    waits: Waits = PATIENT,
    sealed: bool = True,
) -> AsyncIterator[House]:
    """Let all calls of a bench be durable, on a task queue of their own; the ids of its calls too are its own.

    An address in the place of the server is one where there is none. None: nobody even tries, and the scene says
    what is spoken to.
    """
    database = open_database(str(directory / "store.sqlite"))
    writer = Writer(database)
    writer.start()
    number = next(_QUEUES)
    bench.prefix = f"req_{_RUN}_{number}_"
    rows, sealer = DurableCalls(database, writer), lambda: KEY
    safe = Safe(rows, sealer, secrets.token_bytes)
    settings = Settings(
        temporal_enabled=True,
        temporal_host=temporal.address if isinstance(temporal, Temporal) else temporal or "",
        temporal_namespace=NAMESPACE,
        temporal_task_queue=f"queue-{_RUN}-{number}",
        temporal_worker=worker,
        shutdown_drain_secs=0,
    )
    activities = Activities(bench.executor, bench.recorder, RequestLog(database), safe)
    durable = Durable(
        settings,
        activities=activities,
        stepping=Stepping(activities, bench.recorder, safe, bench.engine.framed),
        safe=safe,
        codec=Codec(sealer, secrets.token_bytes) if sealed else Plain(),
        metrics=Metrics(),
        waits=waits,
    )
    bench.engine.durable = durable
    keeping = asyncio.create_task(asyncio.sleep(0) if temporal is None else durable.keep())
    try:
        if isinstance(temporal, Temporal):
            await durable.connected.wait()
        yield House(bench, durable, rows, writer)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await durable.close()
        await writer.close()
        database.close()
