"""What other processes have changed of what this one holds in memory: seen within a second, from workers at once.

Each change counts a number up in its own transaction (`store.generations`). Every process looks at the numbers twice a
second, and reads again what has moved on. After a change by its admin API a worker has its siblings look before it
answers: whoever makes a change and then a call may come to another worker with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from tokenhub_core.following import POLL, follow
from tokenhub_core.siblings import Siblings
from tokenhub_core.store import generations
from tokenhub_core.store.database import Database

_LOOK: Final = "look"
_ADMIN: Final = "/admin/v1/"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

type Refresh = Callable[[], Awaitable[object]]
type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Changes:
    """Belongs to one event loop."""

    def __init__(self, database: Database, siblings: Siblings) -> None:
        self._database = database
        self._siblings = siblings
        self._refreshes: dict[str, Refresh] = {}
        self._seen: dict[str, int] = {}
        self._turn = asyncio.Lock()
        self._also: Refresh | None = None
        siblings.answering(_LOOK, self._asked)

    async def begin(self) -> None:
        """Note where the numbers are; call it before anything is read that is to be followed."""
        self._seen = await asyncio.to_thread(self._numbers)

    def follow(self, name: str, refresh: Refresh) -> None:
        """Let `refresh` be called whenever the number of this name has moved on."""
        self._refreshes[name] = refresh

    async def look(self) -> None:
        """Read again what others have changed; raises `TokenHubError` where the store fails."""
        async with self._turn:
            numbers = await asyncio.to_thread(self._numbers)
            for name, refresh in self._refreshes.items():
                number = numbers.get(name, 0)
                if number != self._seen.get(name, 0):
                    await refresh()
                    self._seen[name] = number

    async def announce(self) -> None:
        """Let the other workers look now, and return when they have."""
        await self._siblings.ask(_LOOK)
        if self._also is not None:
            await self._also()

    def also(self, announce: Refresh) -> None:
        """Let `announce` be called where other machines are to look, too."""
        self._also = announce

    def follows(self, catalog: Refresh, vault: Refresh, access: Refresh, keys: Refresh) -> None:
        """Follow what every server has."""
        for name, refresh in (
            (generations.CATALOG, catalog),
            (generations.VAULT, vault),
            (generations.ACCESS, access),
            (generations.API_KEYS, keys),
        ):
            self.follow(name, refresh)

    async def keep(self, every: float = POLL) -> None:
        """Look for ever. While the store fails, what is known goes on."""
        await follow("changes", self._turned, every)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Announce what an admin request may have changed before it is answered."""
        response = await handler(request)
        others = self._siblings.joined or self._also is not None
        if others and request.method not in _READS and request.path.startswith(_ADMIN):
            await self.announce()
        return response

    async def _turned(self, turn: int) -> None:
        del turn
        await self.look()

    async def _asked(self, body: bytes) -> bytes:
        del body
        await self.look()
        return b"1"

    def _numbers(self) -> dict[str, int]:
        with self._database.reading() as connection:
            return generations.every(connection)
