"""The shell around the failover machine: it does what the machine says and tells it what came of it.

One `run` answers one call. Every attempt reserves before it is sent and settles when it ends, however it
ends, and leaves one line in the trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, assert_never

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch import classify
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.bodies import Bodies, Body
from tokenhub_core.dispatch.failover import Failover, GiveUp, Limits, Try, Wait
from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.ports import (
    Clock,
    Ledger,
    Reservation,
    Secrets,
    Timeouts,
    Transport,
    UpstreamRequest,
    UpstreamResponse,
)
from tokenhub_core.providers import adapters
from tokenhub_core.routing import estimate
from tokenhub_core.types import (
    Attempt,
    Candidate,
    Dialect,
    Headers,
    Plan,
    ProviderType,
    Request,
    Snapshot,
    Stopped,
    Usage,
    header,
)

MAX_ANSWER: Final = 64 << 20
"""Bytes of a whole answer; a stream has no limit, since nothing of it is kept."""
MAX_ERROR: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """One call, ready to be dispatched."""

    snapshot: Snapshot
    request: Request
    plan: Plan
    bodies: Bodies
    limits: Limits


@dataclass(slots=True)
class Trace:
    """What happened so far; whoever started the run reads it, however the run ended."""

    attempts: list[Attempt] = field(default_factory=list)
    """Those that have ended."""
    sent: int = 0
    """How many were sent; a stream's reply begins before its attempt has ended."""
    change: str = ""
    """The last `Attempt.change` among them."""
    ttft_ms: float | None = None
    usage: Usage = Usage()
    usage_estimated: bool = False
    candidate: Candidate | None = None
    """The one whose answer the caller gets."""
    losses: tuple[str, ...] = ()
    identical: bool = False
    stop: Stopped | None = None

    @property
    def cost_nanousd(self) -> int:
        """Return the cost of all attempts."""
        return sum(attempt.cost_nanousd for attempt in self.attempts)


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that came in one piece, in the caller's dialect."""

    body: bytes
    headers: Headers
    """The provider's own."""


class Live(Protocol):
    """A committed stream, in the caller's dialect."""

    headers: Headers

    def frames(self) -> AsyncIterator[bytes]:
        """Yield bytes up to, not including, the terminal event; raises `TokenHubError` where it breaks."""
        ...

    def tail(self) -> bytes:
        """Return the terminal event, once `frames` has ended."""
        ...

    async def close(self) -> None:
        """End the attempt; after an early close it counts as cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long attempts may take, in seconds."""

    connect: float = 5.0
    ttft: float = 120.0
    stall: float = 90.0
    whole: float = 600.0


@dataclass(frozen=True, slots=True)
class Means:
    """What all calls share."""

    transport: Transport
    secrets: Secrets
    ledger: Ledger
    health: HealthTracker
    retries: RetryBudget
    clock: Clock
    random: Callable[[], float]
    """Uniform in [0, 1)."""
    dialects: Mapping[Dialect, DialectModule]


class Executor:
    """Runs calls. Holds what all calls share; nothing of a single one."""

    def __init__(self, means: Means, patience: Patience = Patience()) -> None:
        self.means = means
        self.patience = patience
        self._turn = 0

    async def run(self, job: Job, trace: Trace) -> Whole | Live:
        """Return the answer of the first candidate that gives one; raises `TokenHubError` when none does."""
        machine = Failover(
            job.plan,
            limits=job.limits,
            retries=self.means.retries,
            started=self.means.clock.monotonic(),
            max_output_tokens=job.request.features.max_output_tokens,
        )
        while True:
            step = machine.next(self.means.clock.monotonic(), self.means.random())
            match step:
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case GiveUp(fault):
                    raise TokenHubError(fault)
                case Try():
                    tried = _Try(self.means, self.patience, job, trace, step, turn=self._next_turn())
                    try:
                        result = await tried.start()
                    except TokenHubError as error:
                        if tried.refused:
                            machine.refused(error.fault)
                        else:
                            machine.failed(error.fault, self.means.clock.monotonic())
                        continue
                    machine.succeeded()
                    return result
                case _:
                    assert_never(step)

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn


class _Try:
    """One attempt at one candidate. Ends exactly once."""

    def __init__(
        self, means: Means, patience: Patience, job: Job, trace: Trace, step: Try, *, turn: int
    ) -> None:
        self._means = means
        self._patience = patience
        self._job = job
        self._trace = trace
        self._step = step
        self._turn = turn
        self._candidate = step.candidate
        self._source = means.dialects[step.candidate.provider.dialect]
        self._target = means.dialects[job.request.dialect]
        self._response: UpstreamResponse | None = None
        self._reservation: Reservation | None = None
        self._started = means.clock.monotonic()
        self._first_byte: float | None = None
        self._losses: tuple[str, ...] = ()
        self.refused = False
        """The attempt was not sent: no money, no credential, or somebody else's probe is under way."""
        self.gate: Gate | None = None
        self.headers: Headers = ()

    # --- the attempt, up to its answer or its commit

    async def start(self) -> Whole | Live:
        """Send the call; return the whole answer, or this attempt as a live stream once it is committed."""
        try:
            self._admit()
            limit, cause = self._limit()
            try:
                async with asyncio.timeout(limit):
                    return await self._answer()
            except TimeoutError:
                raise TokenHubError(self._late(cause)) from None
        except TokenHubError as error:
            await self._end(error.fault)
            raise
        except asyncio.CancelledError:
            await self._end(CANCELLED)
            raise

    def _admit(self) -> None:
        means, provider = self._means, self._candidate.provider
        self.refused = True
        if not means.health.admit(provider.id, self._started):
            if (left := means.health.cooling_for(provider.id, self._started)) > 0:
                message = f"{provider.id} has a rate limit for another {left:.0f} s"
                raise TokenHubError(
                    Fault(Kind.RATE_LIMITED, Blame.CREDENTIAL, message, cause="cooling", retry_after=left)
                )
            if not self._job.plan.lone:
                message = f"{provider.id} is resting, or being probed by another call"
                raise TokenHubError(Fault(Kind.NO_CANDIDATE, Blame.US, message, cause="provider_resting"))
        try:
            self._reservation = means.ledger.reserve(self._job.snapshot, self._candidate.estimated_nanousd)
        except TokenHubError:
            means.health.released(provider.id, started=self._started)
            raise
        self.refused = False
        self._trace.sent += 1
        self._trace.change = self._step.change or self._trace.change

    def _limit(self) -> tuple[float, str]:
        limits = self._patience
        own, cause = (limits.ttft, "ttft_timeout") if self._streams else (limits.whole, "total_timeout")
        left = self._step.timeout
        return (left, "deadline") if left is not None and left < own else (own, cause)

    def _late(self, cause: str) -> Fault:
        if cause == "deadline":
            return Fault(Kind.TIMEOUT, Blame.CLIENT, "the call's time limit has passed", cause=cause)
        name = self._candidate.provider.id
        return Fault(Kind.TIMEOUT, Blame.PROVIDER, f"{name} did not answer in time", cause=cause)

    @property
    def _streams(self) -> bool:
        return self._job.request.features.stream

    async def _answer(self) -> Whole | Live:
        body = self._job.bodies.render(self._candidate, self._step.max_output_tokens)
        self._losses = body.losses
        limits = self._patience
        timeouts = Timeouts(limits.connect, None, limits.stall if self._streams else limits.whole)
        response = await self._means.transport.send(self._upstream(body), timeouts)
        self._response = response
        self.headers = response.headers
        if not 200 <= response.status < 300:
            raise TokenHubError(await self._refusal(response))
        if not self._streams:
            return await self._whole(response)
        if not header(response.headers, "content-type").startswith("text/event-stream"):
            raise TokenHubError(await self._not_a_stream(response))
        return await self._commit(response)

    def _upstream(self, body: Body) -> UpstreamRequest:
        provider, snapshot = self._candidate.provider, self._job.snapshot
        credential = (
            None
            if provider.cred_store in {"none", "caller"}
            else self._means.secrets.credential(provider.id, provider.cred_store)
        )
        return adapters.upstream_request(
            adapters.Sending(
                provider=provider,
                model=self._candidate.model,
                body=body.data,
                stream=self._streams,
                credential=credential,
                caller=snapshot.headers,
                request_id=snapshot.id,
                endpoint=self._turn,
            )
        )

    async def _refusal(self, response: UpstreamResponse) -> Fault:
        body = await response.read(MAX_ERROR)
        return classify.classify(
            self._source.name, response.status, response.headers, body, now=self._means.clock.now()
        )

    async def _not_a_stream(self, response: UpstreamResponse) -> Fault:
        try:
            data = wire.decode(await response.read(MAX_ERROR))
        except TokenHubError:
            data = {}
        found = classify.classify_body(self._source.name, data)
        return found or _bad_answer("the provider answered a streamed call with something else")

    async def _whole(self, response: UpstreamResponse) -> Whole:
        raw = await response.read(MAX_ANSWER)
        try:
            data = wire.decode(raw)
        except TokenHubError:
            raise TokenHubError(_bad_answer("the provider's answer is not JSON", "bad_json")) from None
        if fault := classify.classify_body(self._source.name, data):
            raise TokenHubError(fault)
        try:
            answer = self._source.parse_answer(data)
        except ValueError:
            raise TokenHubError(_bad_answer("the provider's answer has no known shape")) from None
        self._first_byte = self._means.clock.monotonic()
        trace = self._trace
        if self._source is self._target:
            body, trace.identical = raw, True
        else:
            given = replace(
                answer,
                id=answer.id or self._job.snapshot.id.removeprefix("req_"),
                created=answer.created or int(self._means.clock.now()),
            )
            rendered = self._target.render_answer(given, request=self._job.request)
            body = wire.encode(rendered.data)
            self._losses = (*self._losses, *rendered.losses)
        trace.stop = answer.stop
        self._note_usage(answer.usage, len(raw))
        await self._end(None)
        return Whole(body, response.headers)

    async def _commit(self, response: UpstreamResponse) -> Live:
        gate = Gate(
            source=self._source,
            target=self._target,
            request=self._job.request,
            created=int(self._means.clock.now()),
            fallback_id=self._job.snapshot.id.removeprefix("req_"),
        )
        self.gate = gate
        chunks = response.chunks()
        async for chunk in chunks:
            ready = gate.feed(chunk)
            if gate.failed is not None and not gate.committed:
                raise TokenHubError(classify.classify_failed(self._source.name, gate.failed))
            if gate.committed:
                self._first_byte = self._means.clock.monotonic()
                self._trace.candidate = self._candidate
                return _Stream(self, gate, ready, chunks)
        raise TokenHubError(gate.cut() or _bad_answer("the provider's stream is empty", "empty_answer"))

    # --- the end

    def _note_usage(self, usage: Usage, output_chars: int, *, final: bool = True) -> None:
        """Take the provider's count, or an estimate where it gave none or had not come to its last one.

        A stream may open with a count (Anthropic's does: one output token). Where it breaks off, that one stands
        for next to nothing of what was produced.
        """
        trace = self._trace
        output = Usage(output_tokens=output_chars // estimate.BYTES_PER_TOKEN)
        trace.usage_estimated = not (usage and final)
        if not usage:
            trace.usage = replace(output, input_tokens=self._job.plan.input_tokens)
        else:
            trace.usage = usage if final else usage.merge(output)

    async def finish(self, fault: Fault | None) -> None:
        """End a committed stream."""
        if self.gate is not None and self._reservation is not None:
            self._trace.stop = self.gate.stop
            self._trace.identical = self.gate.identical and fault is None
            self._losses = (*self._losses, *self.gate.losses)
            final = fault is None or self.gate.stop is not None
            self._note_usage(self.gate.usage, self.gate.output_chars, final=final)
        await self._end(fault)

    async def _end(self, fault: Fault | None) -> None:
        response, self._response = self._response, None
        self._account(fault)
        if response is not None:
            await response.close()

    def _account(self, fault: Fault | None) -> None:
        """Settle, tell health, and leave the attempt's line. Only the first call counts."""
        if self._reservation is None:
            return
        means, trace, candidate = self._means, self._trace, self._candidate
        reservation, self._reservation = self._reservation, None
        answered = fault is None or self._first_byte is not None
        usage = trace.usage if answered else Usage()
        cost = estimate.cost(candidate.model.prices, usage)
        means.ledger.settle(reservation, cost, usage)
        now = means.clock.monotonic()
        if fault is None:
            latency = ((self._first_byte or now) - self._started) * 1000
            means.health.succeeded(candidate.provider.id, now, latency, started=self._started)
        elif fault is CANCELLED:
            means.health.released(candidate.provider.id, started=self._started)
        else:
            # At the origin, others come with other keys: a bad one is its owner's affair.
            shared = candidate.provider.type is not ProviderType.ORIGIN
            means.health.failed(candidate.provider.id, fault, now, shared=shared, started=self._started)
        if answered:
            trace.candidate = candidate
            trace.losses = tuple(dict.fromkeys(self._losses))
            if self._first_byte is not None:
                trace.ttft_ms = self._since_start(self._first_byte)
        trace.attempts.append(self._line(fault, usage, cost, now))

    def _line(self, fault: Fault | None, usage: Usage, cost: int, now: float) -> Attempt:
        return Attempt(
            n=self._step.n,
            model=self._candidate.model.id,
            provider=self._candidate.provider.id,
            started_ms=self._since_start(self._started),
            ended_ms=self._since_start(now),
            first_byte_ms=None if self._first_byte is None else self._since_start(self._first_byte),
            status=fault.upstream_status if fault else 200,
            cause=fault.label if fault else "",
            message=fault.message if fault else "",
            usage=usage,
            cost_nanousd=cost,
            change=self._step.change,
            provider_request_id=header(self.headers, "x-request-id") or header(self.headers, "request-id"),
        )

    def _since_start(self, monotonic: float) -> float:
        return round((monotonic - self._job.snapshot.started) * 1000, 3)

    def broken(self, gate: Gate) -> Fault | None:
        """Return the fault that a committed stream has run into, if any."""
        return classify.classify_failed(self._source.name, gate.failed) if gate.failed else None


class _Stream:
    """The committed rest of an attempt."""

    def __init__(self, tried: _Try, gate: Gate, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._tried = tried
        self._gate = gate
        self._first = first
        self._chunks = chunks
        self.headers = tried.headers

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield bytes up to, not including, the terminal event."""
        gate = self._gate
        try:
            if self._first:
                yield self._first
            while not gate.ended():
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    break
                if ready := gate.feed(chunk):
                    yield ready
            if fault := self._tried.broken(gate) or gate.cut():
                raise TokenHubError(fault)
        except TokenHubError as error:
            await self._tried.finish(error.fault)
            raise
        await self._tried.finish(None)

    def tail(self) -> bytes:
        """Return the terminal event."""
        return self._gate.tail()

    async def close(self) -> None:
        """End the attempt as cancelled unless it has ended already."""
        await self._tried.finish(CANCELLED)


CANCELLED: Final = Fault(Kind.CANCELLED, Blame.CLIENT, "the caller left", cause="client_cancelled")


def _bad_answer(message: str, cause: str = "bad_answer") -> Fault:
    return Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause=cause)
