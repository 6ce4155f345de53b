"""How a process follows what others on its database have changed: it looks twice a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from tokenhub_core.errors import TokenHubError

POLL: Final = 0.5
"""Seconds between two looks at what other processes have changed."""

_log: Final = logging.getLogger(__name__)


async def follow(what: str, look: Callable[[int], Awaitable[None]], every: float = POLL) -> None:
    """Look for ever, and count the looks from 1. While the store fails, what is known goes on; that is told once."""
    turn, well = 0, True
    while True:
        await asyncio.sleep(every)
        turn += 1
        try:
            await look(turn)
            well = True
        except TokenHubError as error:
            if well:
                _log.error("%s are not followed for now: %s", what, error)
            well = False
