"""The committed rest of a streamed attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.dispatch.job import CANCELLED, INTERNAL
from tokenhub_core.dispatch.quiet import Quiet
from tokenhub_core.errors import Fault, TokenHubError
from tokenhub_core.types import Headers


class Committed(Protocol):
    """An attempt whose caller has seen a beginning."""

    headers: Headers

    async def finish(self, fault: Fault | None) -> None:
        """End it; only the first call counts."""
        ...

    def broken(self, gate: Gate) -> Fault | None:
        """Return the fault that the stream has run into, if any."""
        ...

    def drain(self, gate: Gate) -> bool:
        """Read on, apart from the reply, where that is to be; tell whether it is so."""
        ...


class Stream:
    """The committed rest of an attempt. Implements `Live`."""

    def __init__(
        self, tried: Committed, gate: Gate, first: bytes, chunks: AsyncIterator[bytes], quiet: Quiet
    ) -> None:
        self._quiet = quiet
        self._tried = tried
        self.gate = gate
        self._first = first
        self._chunks = chunks
        self.headers = tried.headers
        self.said = gate.said

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield bytes up to, not including, the terminal event."""
        gate = self.gate
        try:
            if self._first:
                yield self._first
            while not gate.ended():
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    gate.flush()
                    break
                ready = gate.feed(chunk) if chunk else gate.insert(self._quiet.sign)
                self._quiet.heard(gate, chunk)
                if ready:
                    yield ready
            if fault := self._tried.broken(gate) or gate.cut():
                raise TokenHubError(fault)
        except TokenHubError as error:
            await self._tried.finish(error.fault)
            raise
        except Exception:
            await self._tried.finish(INTERNAL)
            raise
        await self._tried.finish(None)

    def tail(self) -> bytes:
        """Return the terminal event."""
        return self.gate.tail()

    async def close(self) -> None:
        """End the attempt as cancelled unless it has ended already, or its provider is to be read on."""
        if not self._tried.drain(self.gate):
            await self._tried.finish(CANCELLED)
