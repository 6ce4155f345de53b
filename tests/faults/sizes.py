"""F24 to F27: answers that are too much, packed, or counted in odd ways."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from msgspec import structs

from tests.faults import off
from tests.faults.case import Case, Lab
from tests.faults.world import Turn
from tokenhub_core.dispatch import attempt
from tokenhub_core.providers import decoding, http1
from tokenhub_core.types import Usage

_MB: Final = 1 << 20


def resident(pid: int | str = "self") -> int:
    """Return the bytes that a process holds, this one unless said otherwise."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@contextmanager
def many_files() -> Iterator[None]:
    """Let this process, which is all callers, open what it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _huge(lab: Lab, n: int) -> None:
    """A whole answer has an end; a stream may go on, since nothing of it is kept."""
    before = resident()

    async def whole(turn: Turn) -> None:
        turn.meets(f"big-chunked:{80 * _MB}")
        got = await turn.call()
        turn.whole(got)
        (first, _) = (await turn.record(got))["attempts"]
        assert first["cause"] == "response_too_large", first

    async def stream(turn: Turn) -> None:
        turn.meets("events:400000")
        got = await turn.call()
        # A megabyte of nothing before the first word is as good as silence.
        turn.whole(got)

    it = await lab.world()
    for number in range(n):
        await whole(it.turn(number, stream=False))
        await stream(it.turn(number, stream=True, speaks="openai", spare_speaks="openai"))
    lab.told["rss_growth_mb"] = round((resident() - before) / _MB, 1)


async def _heads(turn: Turn) -> None:
    turn.meets(("long-header", "many-headers", "big-head")[turn.number % 3])
    got = await turn.call()
    turn.whole(got)
    (first, _) = (await turn.record(got))["attempts"]
    # Of too many fields none is long: there the head is no HTTP that anybody sends.
    assert first["cause"] in ("header_too_large", "bad_http"), first


_READ: Final = ("gzip", "deflate", "raw-deflate", "brotli", "double-gzip")
_UNREAD: Final = {
    "unknown-encoding": "bad_encoding",
    "bad-gzip": "bad_encoding",
    "bad-brotli": "bad_encoding",
    "short-gzip": "truncated",
    "gzip-cut": "truncated",
    "gzip-bad": "bad_encoding",
    "label:br": "bad_encoding",
    "bomb:300": "decompression_bomb",
}


async def _packed(turn: Turn) -> None:
    both = (*_READ, *_UNREAD)
    name = both[turn.number % len(both)]
    turn.meets(name)
    got = await turn.call()
    turn.whole(got, turn.first if name in _READ else turn.spare)
    if name not in _READ:
        (first, _) = (await turn.record(got))["attempts"]
        assert first["cause"] == _UNREAD[name], first


_ODD: Final = ("zero", "negative", "huge", "text", "missing", "twice", "growing")
_MOST: Final = 5_000_000
"""Nano-dollars: more than any answer of these models costs."""


async def _counted(turn: Turn) -> None:
    """Whatever is told, the bill is that of this answer."""
    what = _ODD[turn.number % len(_ODD)]
    good = await turn.record(await turn.call())
    turn.meets(f"usage:{what}")
    got = await turn.call()
    assert (got.status, got.broke) == (200, ""), got.body[:200]
    record = await turn.record(got)
    assert 0 <= record["cost_nanousd"] <= _MOST, (what, record["cost_nanousd"])
    assert 0 <= record["output_tokens"] <= 1000, (what, record["output_tokens"])
    if (
        what in ("twice", "growing")
        and good["attempts"][-1]["provider"] == record["attempts"][-1]["provider"]
    ):
        assert record["output_tokens"] <= good["output_tokens"] * 1.5 + 2, (what, record, good)
    if what in ("missing", "text") and len(record["attempts"]) == 1:
        assert record["usage_estimated"], what


def _summed(self: Usage, other: Usage) -> Usage:
    return structs.replace(
        self,
        input_tokens=self.input_tokens + other.input_tokens,
        output_tokens=self.output_tokens + other.output_tokens,
    )


def _unbounded(target: Any, **values: Any) -> Callable[[Lab], AbstractContextManager[Any]]:
    return lambda lab: mock.patch.multiple(target, **values)


CASES: Final = (
    Case(
        "F24",
        "a whole answer of 80 MB, and a stream that is a megabyte of nothing",
        "each is cut at its bound and another provider answers",
        "bounds on whole answers and on what is held before the first word",
        "the bound is a terabyte",
        _huge,
        _unbounded(attempt, MAX_ANSWER=1 << 40),
        n=3,
        red=1,
    ),
    Case(
        "F25",
        "response headers of a megabyte, ten thousand of them, 800 kB in all",
        "cut at the bound; another provider answers",
        "bounds on the head of an answer",
        "the bounds are a terabyte",
        lambda lab, n: lab.turns(n, _heads),
        _unbounded(http1, MAX_HEAD=1 << 40, MAX_FIELD=1 << 40, MAX_FIELDS=1 << 40, _MAX_LINE=1 << 40),
        red=3,
        quick=True,
    ),
    Case(
        "F26",
        "gzip, deflate, brotli, twice packed, wrongly labelled, damaged, cut off, and a bomb of 300 MB",
        "what can be read is read; everything else is told apart and another provider answers",
        "bodies are unpacked step by step under a bound of their ratio",
        "the ratio is not looked at",
        lambda lab, n: lab.turns(n, _packed, stream=False),
        _unbounded(decoding, MAX_RATIO=1 << 40),
        n=52,
        red=13,
    ),
    Case(
        "F27",
        "counts that are zero, negative, absurd, no numbers, missing, told twice or with every piece",
        "the bill is that of this answer: the largest of each field, and an estimate where nothing can be believed",
        "counts are merged by the largest of each field",
        "counts are added up",
        lambda lab, n: lab.turns(n, _counted),
        off.patched(Usage, "merge", _summed),
        n=42,
        red=42,
        quick=True,
    ),
)
