"""The admin API's part about the calls that are under way.

GET /admin/v1/underway     who asks, who is asked, for how long, and how much has come so far; the longest first

Where one server has several workers each is asked; one that does not answer within a second is counted as unheard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from aiohttp import web

from tokenhub_core.http.side import answer
from tokenhub_core.ports import Clock
from tokenhub_core.progress import Progress
from tokenhub_core.routing import estimate
from tokenhub_core.siblings import Siblings
from tokenhub_core.underway import Underway

UNDERWAY: Final = "/admin/v1/underway"
_TOPIC: Final = "underway"
_MOST: Final = 200
"""Calls that are shown; all of them are counted."""
_NAME: Final = 200
"""Characters of a name that callers chose."""


class Ongoing(msgspec.Struct, frozen=True):
    """One call that has not come to its end."""

    id: str
    at: float
    """When it came, in seconds since the epoch."""
    seconds: float
    """How long ago that was."""
    state: Literal["planning", "waiting", "streaming"]
    """`waiting`: it was sent, and nothing of its answer has come."""
    program: str
    key_id: str
    requested_model: str
    model_id: str
    """Of the attempt that is under way; empty where none was sent yet, and for calls of several steps."""
    provider_id: str
    stream: bool
    attempts: int
    """How many were sent."""
    output_chars: int
    """What the model has produced so far; of an answer that comes whole, nothing is known before its end."""
    output_tokens: int
    """The same in tokens: the provider's count, or an estimate where that is more."""


class _Part(msgspec.Struct, frozen=True):
    """What one process is at."""

    calls: int
    items: list[Ongoing]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Part).decode


class OngoingPages:
    """The handler, and what this process answers when another worker is asked."""

    def __init__(self, underway: Underway, siblings: Siblings, clock: Clock) -> None:
        self._underway = underway
        self._siblings = siblings
        self._clock = clock
        siblings.answering(_TOPIC, self._told)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get(UNDERWAY, self._show)]

    def _part(self) -> _Part:
        now = self._clock.monotonic()
        return _Part(len(self._underway), shown(self._underway.calls(), now))

    async def _told(self, asked: bytes) -> bytes:
        del asked
        return _encode(self._part())

    async def _show(self, request: web.Request) -> web.Response:
        del request
        others = await self._siblings.everybody(_TOPIC)
        parts = [self._part(), *(_decode(told) for told in others if told)]
        items = sorted((one for part in parts for one in part.items), key=lambda one: -one.seconds)
        return answer(
            {
                "calls": sum(part.calls for part in parts),
                "processes": len(parts),
                "unheard": len(others) + 1 - len(parts),
                "items": msgspec.to_builtins(items[:_MOST]),
            }
        )


def shown(calls: Iterable[object], now: float) -> list[Ongoing]:
    """Return the calls that have their place longest, as they are `now` (monotonic seconds)."""
    found = [call for call in calls if isinstance(call, Progress)]
    return [_one(call, now) for call in found[:_MOST]]


def _one(progress: Progress, now: float) -> Ongoing:
    snapshot, trace, request = progress.snapshot, progress.trace, progress.request
    asked, chars, tokens = trace.candidate or trace.asked, 0, 0
    if (produced := trace.gate) is not None:
        chars = produced.output_chars
        tokens = max(produced.usage.output_tokens, -(-chars // estimate.BYTES_PER_TOKEN))
    caller = snapshot.caller
    return Ongoing(
        id=snapshot.id,
        at=snapshot.received_at,
        seconds=round(now - snapshot.started, 3),
        state="planning" if asked is None else "waiting" if trace.candidate is None else "streaming",
        program=caller.program,
        key_id=caller.key.id if caller.key else "",
        requested_model=request.features.model[:_NAME] if request else "",
        model_id=asked.model.id[:_NAME] if asked else "",
        provider_id=asked.provider.id if asked else "",
        stream=request.features.stream if request else False,
        attempts=trace.sent,
        output_chars=chars,
        output_tokens=tokens,
    )
