"""Answers that have to fit: each is checked before its end, and asked for once more where that is possible.

A whole answer, and a stream that is held (`Policy.buffered`), is repaired once: the same model is told its answer and
what does not fit. What the second answer costs is one more attempt of the same call. A stream that flows is checked
when its last word has come; then it is too late for another one, and it ends with an error in place of its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from msgspec import structs

from tokenhub_core.dispatch.job import Job, Live, Trace, Whole
from tokenhub_core.dispatch.mending import REPAIR, blame, repairing, unfit
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.shaping.shape import Check, Said

type Run = Callable[[Job, Trace], Awaitable[Whole | Live]]

MAX_HELD: Final = 64 << 20
"""Bytes of a stream that is held."""


async def checked(run: Run, job: Job, check: Check, trace: Trace) -> Whole | Live:
    """Return the answer of a job, once it fits; raises `TokenHubError` (422) where it does not."""
    result = await run(job, trace)
    if not isinstance(result, Whole):
        if not job.plan.policy.buffered:
            return Watched(result, check, trace)
        result = await _held(result)
    failure = check.failure(_said(result))
    if failure is None:
        return result
    blame(trace, failure)
    again = repairing(job, trace, check, _said(result).text, failure)
    if again is None:
        raise TokenHubError(unfit(failure))
    sent, lines = trace.sent, len(trace.attempts)
    # Who leaves from here on has not got what the first answer came to.
    trace.stop = None
    try:
        second = await run(again, trace)
        if not isinstance(second, Whole):
            second = await _held(second)
    except TokenHubError:
        # Why the first answer was refused is what its caller has to know.
        raise TokenHubError(unfit(failure)) from None
    finally:
        trace.attempts[lines:] = [
            structs.replace(line, n=line.n + sent, change=REPAIR) for line in trace.attempts[lines:]
        ]
    trace.change = REPAIR
    failure = check.failure(_said(second))
    if failure is None:
        return second
    blame(trace, failure)
    raise TokenHubError(unfit(failure))


def _said(answer: Whole | _Held) -> Said:
    if answer.said is None:
        raise AssertionError("who checks has it heard")
    return answer.said


class Watched:
    """A stream that flows, and whose end depends on what was said."""

    def __init__(self, live: Live, check: Check, trace: Trace) -> None:
        self._live = live
        self._check = check
        self._trace = trace
        self.headers = live.headers
        self.said = live.said

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the stream up to its end; raises `TokenHubError` where what was said does not fit."""
        async for frame in self._live.frames():
            yield frame
        failure = self._check.failure(self.said) if self.said is not None else None
        if failure is not None:
            blame(self._trace, failure)
            raise TokenHubError(unfit(failure))

    def tail(self) -> bytes:
        """Return the terminal event."""
        return self._live.tail()

    async def close(self) -> None:
        """End the attempt."""
        await self._live.close()


class _Held:
    """A stream that has come to its end before anything of it goes on."""

    def __init__(self, live: Live, frames: list[bytes]) -> None:
        self._live = live
        self._frames = frames
        self.headers = live.headers
        self.said = live.said

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the stream up to its end."""
        for frame in self._frames:
            yield frame

    def tail(self) -> bytes:
        """Return the terminal event."""
        return self._live.tail()

    async def close(self) -> None:
        """Do nothing: the attempt has ended."""
        await self._live.close()


async def _held(live: Live) -> _Held:
    """Read a stream to its end; it is closed where that does not come."""
    frames: list[bytes] = []
    size = 0
    try:
        async for frame in live.frames():
            frames.append(frame)
            size += len(frame)
            if size > MAX_HELD:
                message = f"a stream that is held may have at most {MAX_HELD} bytes"
                raise TokenHubError(
                    Fault(Kind.TOO_LARGE, Blame.US, message, cause="held_too_large", status=502)
                )
    except BaseException:
        await live.close()
        raise
    return _Held(live, frames)
