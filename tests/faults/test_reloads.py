"""L8 of the scorecard: settings are read anew a thousand times, and nobody who calls notices."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.serving import measured
from tests.faults.reloads import calling, reload, say, unanswered
from tests.faults.world import LANES, Got, world

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module")]

RELOADS = 1000


@pytest.mark.timeout(1800)
async def test_l8_a_thousand_reloads_drop_no_call(tmp_path: Path) -> None:
    """One after another, each of a file that says something else, while all lanes are called without a pause."""
    path, gots = tmp_path / "env", list[Got]()
    async with world(tmp_path, env_file=path) as it:
        began = time.monotonic()
        async with calling(it, gots, slots=len(LANES)):
            for number in range(RELOADS):
                say(path, MAX_ATTEMPTS=2 + number % 5, DEFAULT_MODE=("cheap", "normal")[number % 2])
                status, told = await reload(it)
                assert (status, len(told["changes"]) > 0) == (200, True), told
        took = time.monotonic() - began

    lost = unanswered(gots)
    measured(f"L8: {RELOADS} reloads in {took:.1f} s, {len(gots)} calls meanwhile, {len(lost)} of them lost")
    assert not lost, lost[0]
    assert len(gots) > len(LANES)
