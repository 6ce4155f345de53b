"""Streams that break in the lab, where they are to be resumed: every caller, every lane, every two providers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.faults.test_load import AFTER
from tests.faults.world import CALLERS, LANES, SPEAKS, World, world
from tokenhub_core.types import Lane

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

_MARKS: Final = {"openai": "prefill_prefix", "anthropic": "prefill", "gemini": "prefill"}


async def test_every_caller_reads_one_answer_whoever_broke_and_whoever_went_on(tmp_path: Path) -> None:
    """Four dialects, three lanes, nine pairs of providers, five ways to break: each word once, and an end."""
    ends: Counter[str] = Counter()
    async with world(tmp_path, slots=1, quirks=_MARKS, resume="true") as it:
        pairs = {(first, second): await _unbroken(it, first, second) for first in SPEAKS for second in SPEAKS}
        for number, (caller, lane, pair) in enumerate(
            (caller, lane, pair) for caller in CALLERS for lane in LANES for pair in pairs
        ):
            first, second = pair
            turn = replace(
                it.turn(number), lane=lane, caller=caller, speaks=first, spare_speaks=second, stream=True
            )
            turn.meets(fault := AFTER[number % len(AFTER)])
            got = await turn.call()
            if (caller, *pair) == ("responses", "openai", "openai"):
                # Both are asked in its own dialect, which has nothing to go on from.
                got.broken(pairs[pair])
                continue
            got.whole(pairs[pair])
            assert turn.asked == 2, (caller, lane, pair, fault)
            record = await turn.record(got)
            assert [one["change"] for one in record["attempts"]] == ["", "resumed"]
            ends[fault] += 1
    assert ends.total() == (4 * 9 - 1) * 3
    assert set(ends) == set(AFTER)


async def _unbroken(it: World, first: str, second: str) -> str:
    """Return the words of the answer of two providers where nothing breaks."""
    turn = replace(it.turn(0), lane=Lane.DIRECT, caller="openai", speaks=first, spare_speaks=second)
    return (await turn.call()).words
