"""F50: settings are read anew while calls run, and some cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.faults.case import Lab
from tests.faults.world import CALLERS, LANES, SLOTS, Got, World
from tokenhub_core.renewals import Fresh, Put, Renewals
from tokenhub_core.types import Json


def say(path: Path, **variables: object) -> None:
    """Let the environment file say this, and nothing else."""
    path.write_text("".join(f"TOKENHUB_{name}={value}\n" for name, value in variables.items()))
    path.chmod(0o600)


async def reload(it: World) -> tuple[int, Json]:
    """Ask for a reload; return the status, and what was told."""
    url = f"{it.doors.side_url}/admin/v1/reload"
    async with it.session.post(url, headers=it.bearer) as response:
        data: Json = await response.json()
        return response.status, data


@asynccontextmanager
async def calling(it: World, gots: list[Got], *, slots: int = SLOTS) -> AsyncIterator[None]:
    """Make calls one after another at so many slots, through all lanes, for as long as the block lasts."""
    over = asyncio.Event()
    turns = [
        replace(it.turn(slot), lane=LANES[slot % 3], caller=CALLERS[slot % 4], stream=slot % 2 == 0)
        for slot in range(slots)
    ]

    async def caller(slot: int) -> None:
        while not over.is_set():
            gots.append(await turns[slot].call())

    callers = [asyncio.create_task(caller(slot)) for slot in range(slots)]
    try:
        yield
    finally:
        over.set()
        ends = await asyncio.gather(*callers, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


def unanswered(gots: list[Got]) -> list[Got]:
    """Return the calls that were not answered whole."""
    return [
        got for got in gots if got.status != 200 or got.said or got.broke or (got.streamed and not got.ended)
    ]


async def reloaded(lab: Lab, n: int) -> None:
    """Every fourth file cannot be used: then all is as it was. Every other one holds whole, at once."""
    path = lab.room() / "env"
    gots: list[Got] = []
    async with lab.alone(env_file=path) as it:
        attempts, mode = 5, "normal"
        async with calling(it, gots):
            for number in range(n):
                wanted = (2 + number % 5, ("cheap", "normal")[number % 2])
                bad = {"CA_FILE": path.parent / "none.pem"} if number % 4 == 3 else {}
                say(path, MAX_ATTEMPTS=wanted[0], DEFAULT_MODE=wanted[1], **bad)
                status, told = await reload(it)
                assert status == (400 if bad else 200), told
                if bad:
                    assert "none.pem" in told["error"]["message"]
                else:
                    attempts, mode = wanted
                found = (
                    it.pipeline._ready._rules.max_attempts,
                    it.served.app.catalog.defaults().values["mode"],
                )
                assert found == (attempts, mode), (number, found)
        lost = unanswered(gots)
        assert not lost, f"{len(lost)} of {len(gots)} calls were lost: {lost[0]}"
        lab.told["calls"] = len(gots)


def piecemeal(self: Renewals, fresh: Fresh) -> Put:
    """Put every part in its place as soon as it is made."""
    for part in self._parts:
        part(fresh)()
    return lambda: None
