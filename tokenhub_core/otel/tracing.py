"""Gives calls their place in a trace on their way in, and hears of their records; spans are made of them elsewhere."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import structs

from tokenhub_core.otel import context
from tokenhub_core.otel.context import Joined
from tokenhub_core.otel.outbox import Call, Outbox
from tokenhub_core.ports import Engine, Reply
from tokenhub_core.types import Record, Snapshot

REMEMBERED: Final = 10_000
"""Calls under way whose place is known; one that is forgotten begins a trace of its own."""


class Tracing:
    """`share` of all traces is kept, and every one of a call that failed; `parents` says what a caller's span is to us.

    That is `parent` (ours is below it), `link` (ours begins a trace, and names it) or `ignore`. With `tells`, providers
    are told of our span in the place of the caller's. `entropy` gives random bytes. A subscriber of records.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        share: float,
        parents: str,
        tells: bool,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._outbox = outbox
        self._share = share
        self._parents = parents
        self._tells = tells
        self._entropy = entropy
        self._calls: OrderedDict[str, Joined] = OrderedDict()

    def around(self, engine: Engine) -> Engine:
        """Return an engine whose calls have a place in a trace."""
        return _Traced(self, engine)

    def enter(self, snapshot: Snapshot) -> Snapshot:
        """Take note of a call's place; return it as it goes on."""
        joined = self._joined(snapshot)
        self._calls[snapshot.id] = joined
        if len(self._calls) > REMEMBERED:
            self._calls.popitem(last=False)
        if not self._tells:
            return snapshot
        sampled = joined.wanted and context.kept(joined.trace_id, self._share)
        return structs.replace(snapshot, trace=context.told(joined, sampled=sampled))

    def __call__(self, record: Record) -> None:
        """Let a record's spans be made, if its trace is kept."""
        joined = self._calls.pop(record.id, None) or self._begun()
        if record.fault or (joined.wanted and context.kept(joined.trace_id, self._share)):
            self._outbox.put(Call(record, joined))

    def _joined(self, snapshot: Snapshot) -> Joined:
        parent = None if self._parents == "ignore" else context.parent(snapshot.headers)
        if parent is None:
            return self._begun()
        if self._parents == "link":
            return structs.replace(self._begun(), link=parent)
        span_id = self._entropy(8).hex()
        return Joined(parent.trace_id, span_id, parent.span_id, parent.state, wanted=parent.sampled)

    def _begun(self) -> Joined:
        return Joined(self._entropy(16).hex(), self._entropy(8).hex())


class _Traced:
    """Implements `ports.Engine`."""

    def __init__(self, tracing: Tracing, engine: Engine) -> None:
        self._tracing = tracing
        self._engine = engine

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one call."""
        return await self._engine.exchange(self._tracing.enter(snapshot))
