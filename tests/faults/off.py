"""How protections are switched off: every one by a patch in the test's process, none by a switch in the product."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from tests.faults.case import ENDLESS, Lab, Off
from tokenhub_core.dispatch import attempt, streaming
from tokenhub_core.dispatch.failover import Failover
from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.errors import Fault, TokenHubError


def patched(target: object, name: str, value: Any) -> Off:
    """Return what puts something else in the place of a part."""
    return lambda lab: mock.patch.object(target, name, value)


def all_of(*offs: Off) -> Off:
    """Return what switches several off."""

    @contextmanager
    def off(lab: Lab) -> Iterator[None]:
        stack: list[AbstractContextManager[Any]] = [one(lab) for one in offs]
        for one in stack:
            one.__enter__()
        try:
            yield
        finally:
            for one in reversed(stack):
                one.__exit__(None, None, None)

    return off


def _ends(self: Failover, fault: Fault, now: float, n: int = 0, *, spare: bool = False) -> None:
    """The first failure is the caller's."""
    del now, spare
    self._close(n)
    self._end = self._end or fault


no_failover = patched(Failover, "failed", _ends)


def _goes_on(self: Failover, fault: Fault, now: float, n: int = 0, *, spare: bool = False) -> None:
    """Whatever it was, somebody else is asked."""
    del spare
    tried = self._close(n)
    if tried is not None:
        self._faults.append((tried.entry, fault))
        self._learn(tried.entry, fault, now)


always_failover = patched(Failover, "failed", _goes_on)


class _Eager(Gate):
    """Lets through whatever comes."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.committed = True


eager_gate = patched(attempt, "Gate", _Eager)


def _never_cut(self: Gate) -> None:
    self.finished = True


trusting_gate = patched(Gate, "cut", _never_cut)
"""Any end of the body is taken for the end of the answer."""

_frames = streaming.Stream.frames


async def _swallowing(self: Any) -> AsyncIterator[bytes]:
    try:
        async for frame in _frames(self):
            yield frame
    except TokenHubError:
        self.gate.finished = True


silent_breaks = patched(streaming.Stream, "frames", _swallowing)
"""A stream that breaks ends without a word, as a bare proxy's does."""


@contextmanager
def no_deadlines(lab: Lab) -> Iterator[None]:
    """Nobody waits for a limited time."""
    it = lab._world
    assert it is not None
    before, it.executor.patience = it.executor.patience, ENDLESS
    try:
        yield
    finally:
        it.executor.patience = before


def returning(value: Any) -> Callable[..., Any]:
    """Return a function that answers everything with this."""
    return lambda *_, **__: value
