"""A TokenHub that is a process of its own, between callers and providers that share this one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.e2e.serving import Serve, serving
from tests.faults.world import SLOTS, Doors, Outside, register, settings_for, slots_of


@asynccontextmanager
async def apart(folder: Path, *, slots: int = SLOTS, **settings: Any) -> AsyncIterator[tuple[Serve, Outside]]:
    """Run one, and pairs of providers that it knows. At its end it must have told of no bug."""
    given = settings_for(folder, **settings)
    # Of a tree that is installed nowhere.
    given |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(slots_of(slots))
        serve = await stack.enter_async_context(serving(folder, settings=given))
        info = serve.info
        doors = Doors(info.proxy_url, info.side_url, info.ca_file, serve.admin_token)
        it = Outside(doors, serve.session, doors.trust(), made)
        await asyncio.gather(*(register(it, slot) for slot in made))
        yield serve, it
