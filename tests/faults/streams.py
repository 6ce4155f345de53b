"""F06 to F15: answers that begin and do not come to the end that they should."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from msgspec import structs

from tests.faults import off
from tests.faults.case import Case, Lab
from tests.faults.reaching import hanging
from tests.faults.world import QUICK, Turn
from tokenhub_core.dialects import sse
from tokenhub_core.dispatch import classify

type Play = Callable[[Turn], Awaitable[None]]

_CAUSES_OF_A_CUT: Final = {"reset", "truncated", "disconnected", "bad_http"}


def unseen(*faults: str, causes: frozenset[str] = frozenset()) -> Play:
    """Hold a fault before the first word to leave no trace: one stream, of the other provider, and no word charged."""

    async def play(turn: Turn) -> None:
        turn.meets(faults[turn.number % len(faults)])
        got = await turn.call()
        turn.whole(got)
        first, second = (await turn.record(got))["attempts"]
        assert second["cause"] == "", second
        # Anthropic's greeting counts the input, and who just ends may have read it: that is billed, and nothing else.
        read = "anthropic" in first["provider"] or first["cause"] in _CAUSES_OF_A_CUT
        assert not first["cost_nanousd"] or (read and first["output_tokens"] <= 1), first
        assert not causes or first["cause"] in causes, first
        if turn.caller in ("openai", "anthropic"):
            ids = {one.get("id") or one.get("message", {}).get("id") for one in got.events}
            assert len(ids - {None, ""}) == 1, ids

    return play


def seen(*faults: str, causes: set[str]) -> Play:
    """Hold a break behind the first word to be told: an error event, no ending, no second provider, and the bill."""

    async def play(turn: Turn) -> None:
        turn.meets(faults[turn.number % len(faults)])
        async with asyncio.timeout(10):
            got = await turn.call()
        turn.broken(got)
        record = await turn.record(got)
        assert (record["outcome"], record["error_class"] in causes) == ("error", True), record["error_class"]
        (attempt,) = record["attempts"]
        assert attempt["cost_nanousd"] > 0, "what was said is to be paid"
        assert record["usage_estimated"]
        assert turn.asked == 1

    return play


async def _trickling(turn: Turn) -> None:
    """Bytes are passed on as they come, however slowly."""
    turn.meets("trickle:4")
    got = await turn.call()
    turn.whole(got, turn.first)
    assert got.pieces > 20, got.pieces
    assert turn.asked == 1


async def _bad_body(turn: Turn) -> None:
    turn.meets(("bad-json", "length:-9", "bad-size", "bad-json")[turn.number % 4])
    got = await turn.call()
    turn.whole(got)
    (first, _) = (await turn.record(got))["attempts"]
    assert first["cause"] in {"bad_json", "bad_http", "truncated", "bad_answer"}, first
    broken = b'{"choices":['
    assert broken not in first["message"].encode()


_DRESSES: Final = ("no-space", "cr", "crlf", "bom", "comments", "fields", "split", "pieces")


async def _dressed(turn: Turn) -> None:
    """What SSE allows is read alike; what nobody should send ends in an error event, or somewhere else."""
    if turn.number % 10 == 9:
        turn.meets(f"line:{sse.LIMIT + 10}")
        turn.broken(await turn.call())
        return
    turn.meets(f"dress:{_DRESSES[turn.number % len(_DRESSES)]}")
    got = await turn.call()
    turn.whole(got, turn.first)
    assert turn.asked == 1


async def _in_disguise(turn: Turn) -> None:
    fault = ("error-body:500", "error-body:429", "error-body:503", "empty")[turn.number % 4]
    turn.meets(fault)
    got = await turn.call()
    turn.whole(got)
    (first, _) = (await turn.record(got))["attempts"]
    assert first["cause"] not in ("", "bad_json", "bad_answer"), first


_BRISK: Final = structs.replace(QUICK, stall=0.25, ttft=20.0)


@contextmanager
def _gathering(lab: Lab) -> Iterator[None]:
    """Hold back whatever comes within a minute of the last piece."""
    lab.given["patience"] = structs.replace(_BRISK, gather=60.0, stall=20.0)
    try:
        yield
    finally:
        del lab.given["patience"]


CASES: Final = (
    Case(
        "F06",
        "a stream opens, says hello, and then nothing",
        "the caller sees one stream, of another provider, from its beginning",
        "the commit gate: nothing leaves before the first word",
        "everything leaves at once",
        lambda lab, n: lab.turns(n, partial(hanging, fault="lifecycle-hang"), patience=QUICK, stream=True),
        off.eager_gate,
    ),
    Case(
        "F07",
        "a stream opens, says hello, and then that it cannot (429, 500, 503, 529)",
        "as if the first provider had not been asked; the status that it would have been decides what is learned",
        "the commit gate",
        "everything leaves at once",
        lambda lab, n: lab.turns(
            n,
            unseen(
                "then-error:429", "then-error:529", "lifecycle-error:500", "then-error:503", "cut-early:fin"
            ),
            stream=True,
        ),
        off.eager_gate,
        n=30,
        quick=True,
    ),
    Case(
        "F08",
        "an answer stops in the middle, its connection stays open",
        "an error event at the deadline between two pieces, no ending, and what was said is paid, marked as estimated",
        "the deadline between two pieces",
        "no deadlines",
        lambda lab, n: lab.turns(n, seen("cut:stall", causes={"stall_timeout"}), patience=QUICK, stream=True),
        off.no_deadlines,
        red=2,
    ),
    Case(
        "F09",
        "a stream comes one byte at a time",
        "it is passed on as it comes and to its end, longer than the deadline between two pieces",
        "the deadline begins anew with each piece, and pieces are passed on at once",
        "pieces are gathered for a minute before they are passed on",
        lambda lab, n: lab.turns(n, _trickling, patience=lab.given.get("patience", _BRISK), stream=True),
        _gathering,
        red=2,
    ),
    Case(
        "F10",
        "the connection is reset in the middle of a stream, at a random byte",
        "an error event and no ending; nobody else is asked",
        "a connection that is lost is told",
        "a stream that breaks just ends",
        lambda lab, n: lab.turns(n, seen("cut:reset", causes=_CAUSES_OF_A_CUT), stream=True),
        off.silent_breaks,
        n=50,
        quick=True,
    ),
    Case(
        "F11",
        "the connection is closed in the middle of a stream: between chunks, within one, or at a random byte",
        "an error event with the cause truncated, never a success",
        "a body has to end as HTTP says that it does",
        "a stream that breaks just ends",
        lambda lab, n: lab.turns(
            n, seen("cut:fin", "truncate", "cut:fin", causes={"truncated", "bad_http"}), stream=True
        ),
        off.silent_breaks,
        n=50,
    ),
    Case(
        "F12",
        "a stream ends cleanly and without its last event",
        "an error event: nobody can know that it is whole",
        "an answer ends with its dialect's last event",
        "any end of the body is taken for the end of the answer",
        lambda lab, n: lab.turns(n, seen("no-terminal", causes={"truncated"}), stream=True),
        off.all_of(off.trusting_gate, off.silent_breaks),
        n=30,
        quick=True,
    ),
    Case(
        "F13",
        "a success whose body is broken JSON, too short, or not chunked as it says",
        "another provider answers; nothing of the broken body is told",
        "an answer is read before it is passed on",
        "the first failure ends the call",
        lambda lab, n: lab.turns(n, _bad_body, stream=False),
        off.no_failover,
        n=30,
    ),
    Case(
        "F14",
        "server-sent events in every dress that the standard allows, and lines that are too long",
        "the same words whatever the dress; a line over 8 MiB is an error event",
        "one reader of events with a limit",
        "no limit",
        lambda lab, n: lab.turns(n, _dressed, stream=True),
        off.patched(sse.Parser, "_check", off.returning(None)),
        n=50,
        red=10,
    ),
    Case(
        "F15",
        "200 with an error in it, or with nothing in it",
        "classified as what it is, and answered by another provider",
        "successes are looked into",
        "they are not",
        lambda lab, n: lab.turns(n, _in_disguise, stream=False),
        off.patched(classify, "classify_body", off.returning(None)),
        n=30,
        quick=True,
    ),
)
