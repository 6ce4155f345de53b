"""Limits on callers whose calls come to many processes: each draws from a common pool before a call.

    arrive    before a call, and the one step that waits: draw from the pool what the call will need
    SharedStay decides with what is at hand, without waiting, as `throttle.Stay` does
    keep      say that this process is there, and look whether a pool that was gone is back

Calls under way at once are not drawn: each process lets in its even part of them.

A pool that is slow or gone keeps nobody waiting: from then on this process lets in its even part of each limit, and
begins with nothing of it at hand, so that what was drawn before is not given out twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from tokenhub_core.admission import pool
from tokenhub_core.admission.pool import Claim, Grant, Stock, Stocks
from tokenhub_core.types import KeyLimits

WAIT: Final = 0.05
"""Seconds that a call waits for the pool at most."""
_BASE: Final = 1024
"""Tokens that are drawn for a call's answer and frame before anything is known of its caller."""

_log: Final = logging.getLogger(__name__)


class Pool(Protocol):
    """What all processes draw from."""

    async def draw(self, claim: Claim) -> Grant | None:
        """Draw in one atomic step; None where there was no answer in time. Never raises."""
        ...


type Told = Callable[[bool], None]
"""Hears when the pool is gone (False) and when it is back."""


def _untold(up: bool) -> None:
    del up


class Drawing:
    """One process's way to the pool. `others` is how many processes there are where nothing is known of them."""

    def __init__(
        self, source: Pool, clock: Callable[[], float], *, others: int = 2, told: Told = _untold
    ) -> None:
        self._source = source
        self._clock = clock
        self._told = told
        self._posts: set[asyncio.Task[None]] = set()
        self.stocks = Stocks(others, self.settle)
        """What is at hand."""

    async def arrive(self, subject: str, limits: KeyLimits, size: int) -> None:
        """Draw what a call needs whose body has `size` bytes; waits `WAIT` seconds at most."""
        if not self.stocks.up:
            return
        stock, now = self.stocks.of(subject), self._clock()
        rate = limits.tokens_per_minute
        stock.expire(now, rate or 0)
        tokens = 0 if rate is None else min(max(stock.hint, _BASE + size // 3), rate)
        claim = self._claim(subject, limits, stock, wants=(1, tokens))
        if (grant := await self._draw(claim)) is not None:
            stock.put(grant, self._clock())

    def settle(self, subject: str, limits: KeyLimits) -> None:
        """Let the pool know, without waiting, what has ended."""
        task = asyncio.get_running_loop().create_task(self._settled(subject, limits))
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def keep(self) -> None:
        """Renew, for ever."""
        while True:
            await self.renew()
            await asyncio.sleep(pool.RENEW if self.stocks.up else pool.RENEW / 2)

    async def renew(self) -> None:
        """Say that this process is there, and look whether the pool is."""
        grant = await self._asked(Claim(""))
        self._became(grant is not None)
        if not self.stocks.up:
            return
        now = self._clock()
        for subject, stock in [*self.stocks.items()]:
            if stock.rests(now):
                self.stocks.drop(subject)

    async def close(self) -> None:
        """Wait for what was to be told."""
        await asyncio.gather(*self._posts, return_exceptions=True)

    async def _settled(self, subject: str, limits: KeyLimits) -> None:
        stock = self.stocks.of(subject)
        if self.stocks.up and stock.more:
            await self._draw(self._claim(subject, limits, stock, wants=(0, 0)))

    def _claim(self, subject: str, limits: KeyLimits, stock: Stock, *, wants: tuple[int, int]) -> Claim:
        more, stock.more = stock.more, 0
        return Claim(
            subject,
            _or(limits.requests_per_minute),
            _or(limits.tokens_per_minute),
            wants[0] if limits.requests_per_minute is not None else 0,
            wants[1],
            more,
        )

    async def _draw(self, claim: Claim) -> Grant | None:
        grant = await self._asked(claim)
        if grant is None:
            self._became(False)
        return grant

    async def _asked(self, claim: Claim) -> Grant | None:
        try:
            async with asyncio.timeout(WAIT):
                grant = await self._source.draw(claim)
        except TimeoutError:
            return None
        if grant is not None:
            self.stocks.processes = max(grant.processes, 1)
        return grant

    def _became(self, up: bool) -> None:
        if up == self.stocks.up:
            return
        self.stocks.up = up
        if up:
            _log.warning("limits on callers are shared again")
        else:
            self.stocks.clear()
            _log.error(
                "limits on callers are not shared: each of %d processes lets in its part",
                self.stocks.processes,
            )
        self._told(up)


def _or(limit: int | None) -> int:
    return -1 if limit is None else limit
