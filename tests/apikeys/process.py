"""A process that keeps clients' keys, on a database that others may have open."""

from __future__ import annotations

from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

from tests.admission.test_apikeys import body
from tests.audit.conftest import Hands
from tokenhub_core.apikeys import ApiKeys
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import TokenHubError
from tokenhub_core.store.audit import AuditLog, shown
from tokenhub_core.store.database import open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import Json


class Process:
    """A database opened, and everything that a process has on it."""

    def __init__(self, path: Path, clock: Hands, number: int, salt: bytes = b"salt") -> None:
        self.clock = clock
        self.database = open_database(str(path))
        self.writer = Writer(self.database)
        self.writer.start()
        self.bus = Bus()
        self.audit = Audit(self.database, self.writer, clock=clock)
        thrown = count(number, 2)  # no two processes throw the same
        self.keys = ApiKeys(
            self.audit,
            self.writer,
            self.bus,
            clock,
            salt=salt,
            entropy=lambda size: blake2b(next(thrown).to_bytes(4), digest_size=size).digest(),
        )

    async def close(self) -> None:
        await self.writer.close()
        self.database.close()

    async def made(self, **fields: Any) -> tuple[str, str]:
        """Make a key and return its id and its secret."""
        kept, secret = await self.keys.create(body(**{"name": "n", **fields}))
        return kept.key.id, secret.reveal()

    def cause(self, secret: str) -> str:
        """Return why a secret is refused, empty where it is not."""
        try:
            self.keys.look_up(secret, self.clock.now())
        except TokenHubError as error:
            return error.fault.cause
        return ""

    def entries(self, action: str = "apikey") -> list[Json]:
        found = [shown(entry) for entry in AuditLog(self.database).entries()]
        return [one for one in found if one["action"].startswith(action)]

    def events(self) -> list[tuple[str, Any]]:
        return [(event.type, event.told) for event in self.bus._recent]


async def again(process: Process, path: Path, salt: bytes = b"salt") -> tuple[Process, tuple[str, ...]]:
    """Return what a start after this finds, and what the operator is told."""
    started = Process(path, process.clock, 1, salt)
    return started, await started.keys.load()
