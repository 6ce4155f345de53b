"""Streams that are gone on with where they break: the next model is told what was said, and goes on from there.

Nobody can take back what a caller has read; but some models go on from a last message of the assistant (`prefill`).
Where the operator or the caller wants it (`Policy.resume`) a stream that broke behind its first word is sent to one of
those with the text so far, and what it says is written on in the same stream. That holds for text alone: a tool call
that was begun, a thought, a picture cannot be gone on with, nor what is measured token by token or held to a schema.

Each part is an attempt of its own, with its reservation, its cost and its line in the record. Who is left to ask, how
often, and for how long is decided by the failover machine, within what is left of the call's attempts and time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from msgspec import structs

from tokenhub_core.dispatch.job import Job, Live, Trace, Whole
from tokenhub_core.dispatch.streaming import Stream
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.quirks import prefill
from tokenhub_core.routing import estimate
from tokenhub_core.routing.eligibility import CONTEXT_MARGIN
from tokenhub_core.types import NANO, Candidate, Dialect, Usage

_DIALECTS: Final = frozenset(
    {Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES, Dialect.GEMINI, Dialect.OLLAMA_CHAT}
)
"""Those that have messages of the assistant to go on from; in Responses a last one is a past answer."""
_PASSING: Final = frozenset(
    {Kind.TRANSIENT, Kind.OVERLOADED, Kind.TRUNCATED, Kind.TIMEOUT, Kind.RATE_LIMITED}
)

type Run = Callable[[Job, Trace], Coroutine[Any, Any, Whole | Live]]


def resumable(job: Job) -> bool:
    """Tell whether a stream of this job may be gone on with, should it break behind its first word."""
    if not (job.plan.policy.resume and job.request.features.stream) or job.check is not None:
        return False
    if not any(map(_goes_on, job.plan.candidates)):
        return False
    try:
        return job.bodies.resumable()
    except TokenHubError:
        return False


def rest_of(job: Job, trace: Trace, stream: Stream, fault: Fault) -> Job | None:
    """Return the job of the rest of an answer, within every limit of the call; None where nobody can go on with it.

    `job` is the call as it was asked for, however many parts its answer has by now.
    """
    if fault.kind not in _PASSING or fault.blame is Blame.CLIENT or trace.sent >= job.limits.max_attempts:
        return None
    begun = stream.gate.begun(trace.resumed.plus(trace.usage))
    if begun is None:
        return None
    size = len(begun.text.encode("utf-8", "replace"))
    tokens = -(-size // estimate.BYTES_PER_TOKEN)
    whole = job.plan.input_tokens + tokens + estimate.TURN_TOKENS
    bodies = job.bodies.resumed(begun.text, tokens)
    candidates = _able(job, trace, whole)
    if bodies is None or not candidates:
        return None
    features = job.request.features
    features = structs.replace(features, text_bytes=features.text_bytes + size, turns=features.turns + 1)
    return structs.replace(
        job,
        request=structs.replace(job.request, features=features),
        plan=structs.replace(job.plan, candidates=candidates, spared=(), input_tokens=whole, lone=False),
        bodies=bodies,
        begun=begun,
        limits=structs.replace(job.limits, max_attempts=job.limits.max_attempts - trace.sent),
    )


def _able(job: Job, trace: Trace, whole: int) -> tuple[Candidate, ...]:
    """Return those who can go on from so many tokens; whose provider has failed this call come last."""
    plan, failed = job.plan, Counter(one.provider for one in trace.attempts if one.cause)
    most, able = plan.policy.max_budget_usd, list[Candidate]()
    for one in plan.candidates:
        if not _goes_on(one) or 0 < one.model.max_context_tokens < whole * CONTEXT_MARGIN:
            continue
        cost = estimate.cost(one.model.prices, Usage(whole, plan.output_tokens))
        if most is not None and trace.cost_nanousd + cost > most * NANO:
            continue
        expected = structs.replace(one.expected, input_tokens=whole)
        able.append(structs.replace(one, estimated_nanousd=cost, expected=expected))
    return tuple(sorted(able, key=lambda one: failed[one.provider.id]))


def _goes_on(candidate: Candidate) -> bool:
    return candidate.dialect in _DIALECTS and prefill.goes_on(candidate.model.quirks)


class Resuming:
    """A stream that is gone on with where it breaks. Implements `Live`."""

    def __init__(self, run: Run, job: Job, trace: Trace, stream: Stream, *, sign: bytes, tick: float) -> None:
        self._run = run
        self._job = job
        self._trace = trace
        self._stream = stream
        self._sign = sign
        self._tick = tick
        self._next: asyncio.Task[Whole | Live] | None = None
        """What looks for somebody who goes on."""
        self.headers = stream.headers
        self.said = stream.said

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield bytes up to, not including, the terminal event; raises what broke the stream where nobody goes on."""
        while True:
            try:
                async for frame in self._stream.frames():
                    yield frame
                return
            except TokenHubError as error:
                fault = error.fault
            rest = rest_of(self._job, self._trace, self._stream, fault)
            if rest is None:
                raise TokenHubError(fault)
            self._next = asyncio.create_task(self._run(rest, self._trace), name="rest of a stream")
            while not self._next.done():
                await asyncio.wait((self._next,), timeout=self._tick)
                if self._sign and not self._next.done():
                    yield self._sign
            try:
                result = await self._next
            except TokenHubError:
                # What the caller has to know is why it broke; the record has all of it.
                raise TokenHubError(fault) from None
            if not isinstance(result, Stream):
                raise AssertionError("what was streamed is gone on with as a stream")
            self._stream = result

    def tail(self) -> bytes:
        """Return the terminal event."""
        return self._stream.tail()

    async def close(self) -> None:
        """End the attempt, and the search for another one."""
        if (looking := self._next) is not None and not looking.done():
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        if looking is not None and not looking.cancelled() and looking.exception() is None:
            found = looking.result()
            if isinstance(found, Stream) and found is not self._stream:
                # It was there in the same moment.
                self._stream = found
        await self._stream.close()
