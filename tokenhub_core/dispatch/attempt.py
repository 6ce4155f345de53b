"""One attempt at one candidate: sent, read up to its answer or its commit, and ended exactly once.

Every attempt reserves before it is sent and settles when it ends, however it ends, and leaves one line in the
trace.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from typing import Final

from msgspec import structs

from tokenhub_core.admission.outlay import outlay
from tokenhub_core.dialects import wire
from tokenhub_core.dialects.base import EventParser
from tokenhub_core.dispatch import classify
from tokenhub_core.dispatch.bodies import Body
from tokenhub_core.dispatch.failover import Try
from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.dispatch.guarding import held
from tokenhub_core.dispatch.holding import Holding
from tokenhub_core.dispatch.job import (
    CANCELLED,
    DRAINED,
    INTERNAL,
    OUTRUN,
    STOPPED,
    Job,
    Live,
    Means,
    Patience,
    Trace,
    Whole,
)
from tokenhub_core.dispatch.leftovers import Leftovers, rest
from tokenhub_core.dispatch.quiet import Quiet
from tokenhub_core.dispatch.seams import Seam, listens
from tokenhub_core.dispatch.streaming import Stream
from tokenhub_core.dispatch.whole import left, length
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import (
    Outlay,
    Reservation,
    Short,
    Timeouts,
    UpstreamRequest,
    UpstreamResponse,
)
from tokenhub_core.providers import adapters
from tokenhub_core.quirks.repairs import UNTOUCHED
from tokenhub_core.routing import estimate
from tokenhub_core.routing.deadlines import LATE, STALLED
from tokenhub_core.shaping.shape import Said, said
from tokenhub_core.types import (
    Answer,
    Attempt,
    Headers,
    Json,
    OnDisconnect,
    Skip,
    Skipped,
    Usage,
    header,
)

logger: Final = logging.getLogger(__name__)

MAX_ANSWER: Final = 64 << 20
"""Bytes of a whole answer; a stream has no limit, since nothing of it is kept."""
MAX_ERROR: Final = 64 << 10
"""Bytes of an error body that are read; error pages may be of any length."""

_MAYBE_BILLED: Final = frozenset(
    {LATE, "total_timeout", "deadline", "client_cancelled", OUTRUN.label, STOPPED.label}
)
"""Causes that leave open whether the provider has worked, and will bill, for nothing. An answer that broke off does so
too, unless it was a refusal."""


class Attempting:
    """One attempt at one candidate. Ends exactly once."""

    def __init__(
        self,
        means: Means,
        patience: Patience,
        job: Job,
        trace: Trace,
        step: Try,
        *,
        turn: int,
        after: Leftovers,
    ) -> None:
        self._means = means
        self._patience = patience
        self._job = job
        self._trace = trace
        self._step = step
        self._turn = turn
        self._leftovers = after
        self._candidate = step.candidate
        self._source = means.dialects[step.candidate.dialect]
        self._target = means.dialects[job.request.dialect]
        self._response: UpstreamResponse | None = None
        self._reservation: Reservation | None = None
        self._holding = Holding(
            means.keyring, means.secrets, means.clock, step.candidate, job.snapshot.headers
        )
        self._started = means.clock.monotonic()
        self._first_byte: float | None = None
        self._head: float | None = None
        self._losses: tuple[str, ...] = ()
        self._repairs = UNTOUCHED
        self.n = step.n
        self.refused = False
        """The attempt was not sent: no money, no credential, or somebody else's probe is under way."""
        self.spare = False
        """It failed by its credential, and its provider has another one that can take the call."""
        self._quiet: Quiet | None = None
        self._abandoned = False
        self._scope: asyncio.Timeout | None = None
        self._held = False
        """What came was held, as that of a guarded stream."""
        self.gate: Gate | None = None
        self.chunks: AsyncIterator[bytes] | None = None
        self.headers: Headers = ()

    # --- the attempt, up to its answer or its commit

    async def start(self) -> Whole | Live:
        """Send the call; return the whole answer, or this attempt as a live stream once it is committed."""
        try:
            limit, cause = self._limit()
            try:
                async with asyncio.timeout(limit) as self._scope:
                    await self._admitted()
                    return await self._answer()
            except TimeoutError:
                raise TokenHubError(self._late(cause)) from None
        except TokenHubError as error:
            fault = self._holding.unquoted(error.fault)
            await self._end(fault)
            raise TokenHubError(fault) from error
        except asyncio.CancelledError as error:
            await self._end(STOPPED if STOPPED.label in error.args else CANCELLED)
            raise
        except Exception as error:
            logger.exception("attempt %d of %s failed", self._step.n, self._job.snapshot.id)
            await self._end(INTERNAL)
            raise TokenHubError(INTERNAL) from error

    async def _admitted(self) -> None:
        """Admit; where this process's share of a budget is too small, ask for more of it first."""
        more, times = self._means.more, 0
        while True:
            try:
                return self._admit()
            except Short as short:
                if more is None or not await more(short, self._started, times):
                    raise
            times += 1

    def _admit(self) -> None:
        means, provider = self._means, self._candidate.provider
        self.refused = True
        if not means.health.admit(provider.id, self._started) and not self._job.plan.lone:
            message = f"{provider.id} is resting, or being probed by another call"
            raise TokenHubError(Fault(Kind.NO_CANDIDATE, Blame.US, message, cause="provider_resting"))
        try:
            reservation = means.ledger.reserve(
                self._job.snapshot, self._candidate.estimated_nanousd, self._outlay
            )
            try:
                self._holding.choose(self._started, anyway=self._job.plan.lone)
            except TokenHubError:
                means.ledger.settle(reservation, 0, Usage())
                raise
        except TokenHubError as error:
            if error.fault.kind is Kind.BUDGET:
                model = self._candidate.model.id
                skip = Skip(model, provider.id, Skipped.BUDGET_EXCEEDED, error.fault.message)
                self._trace.passed_over.append(skip)
            means.health.released(provider.id, started=self._started)
            raise
        self._reservation = reservation
        self.refused = False
        self._trace.sent += 1
        self._trace.asked = self._candidate
        self._trace.change = self._step.change or self._trace.change

    def _outlay(self) -> Outlay:
        return outlay(self._job.request, self._candidate, self._job.plan.output_tokens)

    def _limit(self) -> tuple[float, str]:
        limits = self._patience
        own, cause = (limits.ttft, LATE) if self._streams else (limits.whole, "total_timeout")
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

    @property
    def _verbatim(self) -> bool:
        """Tell whether the answer passes as the provider sent it."""
        passes = not self._job.resumable or listens(self._target.name)
        return self._source is self._target and self._repairs.idle and passes

    async def _answer(self) -> Whole | Live:
        body = self._job.bodies.render(self._candidate, self._step.max_output_tokens)
        self._losses = body.losses
        self._repairs = body.answers
        limits = self._patience
        timeouts = Timeouts(limits.connect, None, limits.stall if self._streams else limits.whole)
        response = await self._means.transport.send(self._upstream(body), timeouts)
        self._response = response
        self._head = self._means.clock.monotonic()
        self.headers = response.headers
        if not 200 <= response.status < 300:
            raise TokenHubError(await self._refusal(response))
        self._holding.answered(response.headers)
        if self._means.ear is not None:
            response = self._means.ear.listen(
                response,
                request_id=self._job.snapshot.id,
                attempt=self.n,
                dialect=self._source,
                stream=self._streams,
                repairs=self._repairs,
            )
        if not self._streams:
            return await self._whole(response)
        parser = self._source.parser(header(response.headers, "content-type"))
        if parser is None:
            raise TokenHubError(await self._not_a_stream(response))
        return await self._commit(response, parser)

    def _upstream(self, body: Body) -> UpstreamRequest:
        provider, snapshot = self._candidate.provider, self._job.snapshot
        return adapters.upstream_request(
            adapters.Sending(
                provider=provider,
                model=self._candidate.model,
                body=body.data,
                dialect=self._source.name,
                operation=self._source.operation(
                    model=self._candidate.model.name,
                    stream=self._streams,
                    request=self._job.request if self._source is self._target else None,
                ),
                stream=self._streams,
                credential=self._holding.secret(),
                caller=snapshot.headers,
                request_id=snapshot.id,
                trace=snapshot.trace,
                endpoint=self._turn,
            ),
            self._means.places,
        )

    async def _refusal(self, response: UpstreamResponse) -> Fault:
        body = await _beginning(response)
        self._holding.answered(response.headers, body)
        return classify.classify(
            self._source.name, response.status, response.headers, body, now=self._means.clock.now()
        )

    async def _not_a_stream(self, response: UpstreamResponse) -> Fault:
        try:
            data = wire.decode(await _beginning(response), repeats=True)
        except TokenHubError:
            data = {}
        found = classify.classify_body(self._source.name, data)
        return found or _bad_answer("the provider answered a streamed call with something else")

    async def _whole(self, response: UpstreamResponse) -> Whole:
        raw = await response.read(MAX_ANSWER)
        try:
            data = wire.decode(raw, repeats=True)
        except TokenHubError:
            raise TokenHubError(_bad_answer("the provider's answer is not JSON", "bad_json")) from None
        if fault := classify.classify_body(self._source.name, data):
            raise TokenHubError(fault)
        answer = self._parsed(data)
        self._first_byte = self._means.clock.monotonic()
        trace, size = self._trace, length(answer)
        if self._verbatim:
            body, trace.identical = raw, True
        else:
            answer, lost = self._repairs.answer(answer)
            given = structs.replace(
                answer,
                id=answer.id or self._job.snapshot.id.removeprefix("req_"),
                created=answer.created or int(self._means.clock.now()),
            )
            rendered = self._target.render_answer(given, request=self._job.request)
            body = wire.encode(rendered.data)
            self._losses = (*self._losses, *lost, *rendered.losses)
        trace.stop, trace.left = answer.stop, left(answer)
        if self._source.name.billed:
            self._note_usage(answer.usage, size)
        await self._end(None)
        heard = None if self._job.check is None else said(answer)
        return Whole(body, self._labelled(response.headers, "application/json"), heard)

    def _labelled(self, headers: Headers, content_type: str) -> Headers:
        """Return the provider's headers for the caller: what is written anew has a type of its own."""
        if self._verbatim:
            return headers
        return (*(field for field in headers if field[0] != "content-type"), ("content-type", content_type))

    def _parsed(self, data: Json) -> Answer:
        try:
            return self._source.parse_answer(data)
        except Exception as error:
            # Whatever a provider sends must not be able to stop us from asking another one.
            if not isinstance(error, ValueError):
                logger.exception("an answer of %s could not be read", self._candidate.provider.id)
            raise TokenHubError(_bad_answer("the provider's answer has no known shape")) from error

    async def _commit(self, response: UpstreamResponse, parser: EventParser) -> Live:
        gate = Gate(
            parser=parser,
            source=self._source,
            target=self._target,
            request=self._job.request,
            created=int(self._means.clock.now()),
            fallback_id=self._job.snapshot.id.removeprefix("req_"),
            repairs=self._repairs,
        )
        if self._job.resumable:
            before = self._job.begun
            gate.join(Seam(before), before.held if before is not None else b"")
        gate.said = None if self._job.check is None else Said()
        self.gate = self._trace.gate = gate
        chunks = self.chunks = response.chunks()
        async for chunk in chunks:
            ready = gate.feed(chunk)
            if gate.failed is not None and not gate.committed:
                raise TokenHubError(classify.classify_failed(self._source.name, gate.failed))
            if gate.committed:
                begun = self._means.clock.monotonic()
                if self._job.plan.policy.guarded:
                    ready = await self._guarded(gate, ready, response, chunks)
                self._first_byte = begun
                self.headers = self._labelled(self.headers, self._target.stream_type(self._job.request))
                self._trace.candidate = self._candidate
                response.ease(gather=self._patience.gather, tick=self._patience.tick)
                self._means.health.began(self._candidate.provider.id, self._first_byte, started=self._started)
                self._holding.began()
                alive = self._target.keep_alive(self._job.request)
                self._quiet = Quiet(self._means.clock, self._patience, alive)
                return Stream(self, gate, ready, chunks, self._quiet)
        raise TokenHubError(gate.cut() or _bad_answer("the provider's stream is empty", "empty_answer"))

    async def _guarded(
        self, gate: Gate, ready: bytes, response: UpstreamResponse, chunks: AsyncIterator[bytes]
    ) -> bytes:
        """Return the beginning once it is past the guard; raises `TokenHubError` where it breaks before that."""
        self._held = True
        if self._scope is not None:
            # Its first content is here: from now on silence has a limit of its own.
            self._scope.reschedule(None)
        ready, over = await held(
            gate, ready, response, chunks, patience=self._patience, clock=self._means.clock
        )
        if over and (fault := self.broken(gate) or gate.cut()):
            raise TokenHubError(fault)
        self._held = False
        return ready

    # --- the end

    def _note_usage(self, usage: Usage, output_chars: int, *, final: bool = True) -> None:
        """Take the provider's count, or an estimate where it gave none or had not come to its last one.

        A stream may open with a count (Anthropic's does: one output token). Where it breaks off, that one stands
        for next to nothing of what was produced.
        """
        trace, begun = self._trace, self._job.begun
        output = Usage(output_tokens=-(-output_chars // estimate.BYTES_PER_TOKEN))
        # What broke off before was an estimate, too.
        trace.usage_estimated = not (usage and final) or begun is not None
        trace.resumed = begun.usage if begun is not None else Usage()
        if not usage:
            trace.usage = structs.replace(output, input_tokens=self._job.plan.input_tokens)
        else:
            trace.usage = usage if final else usage.merge(output)

    def won(self) -> None:
        """Hear that of two attempts this one's answer is the caller's."""
        self._trace.candidate = self._candidate

    def abandon(self, fault: Fault) -> None:
        """Account for the attempt at once, as one without an answer; whoever runs it cancels it then."""
        self._abandoned = True
        self._account(fault)

    async def finish(self, fault: Fault | None) -> None:
        """End a committed stream."""
        if self.gate is not None and self._reservation is not None:
            if self._trace.draining is None:
                # What was read on nobody has been told.
                self._trace.stop, self._trace.left = self.gate.stop, self.gate.left
            self._trace.identical = self.gate.identical and fault is None
            self._losses = (*self._losses, *self.gate.losses)
            final = fault is None or self.gate.stop is not None
            self._note_usage(self.gate.usage, self.gate.output_chars, final=final)
        await self._end(fault)

    def drain(self, gate: Gate) -> bool:
        """Read on, apart from the reply, where the caller has left and the provider bills on; tell whether it is so."""
        response, trace = self._response, self._trace
        if self._candidate.provider.on_disconnect is not OnDisconnect.DRAIN or not trace.gone:
            return False
        if response is None or self.chunks is None:
            return False
        if trace.draining is None:
            trace.draining = self._leftovers.drain(
                self, rest(response, self.chunks), gate, self._patience.drain
            )
        if trace.draining is not None:
            self._note_usage(gate.usage, gate.output_chars, final=False)
        return trace.draining is not None

    async def _end(self, fault: Fault | None) -> None:
        response, self._response = self._response, None
        self._account(fault)
        if response is None:
            return
        if fault is None and self.chunks is not None:
            self._leftovers.add(response, self.chunks)
        else:
            await response.close()

    def _account(self, fault: Fault | None) -> None:
        """Settle, tell health, and leave the attempt's line. Only the first call counts."""
        if self._reservation is None:
            return
        means, trace, candidate = self._means, self._trace, self._candidate
        reservation, self._reservation = self._reservation, None
        answered = fault is None or (self._first_byte is not None and not self._abandoned)
        usage = trace.usage if answered else self._wasted(fault)
        cost = estimate.cost(candidate.model.prices, usage)
        means.ledger.settle(reservation, cost, usage)
        now = means.clock.monotonic()
        if fault is None:
            latency = ((self._first_byte or now) - self._started) * 1000
            means.health.succeeded(candidate.provider.id, now, latency, started=self._started)
        elif fault in (CANCELLED, DRAINED, OUTRUN, STOPPED):
            means.health.released(candidate.provider.id, started=self._started)
        else:
            means.health.failed(candidate.provider.id, fault, now, started=self._started)
        self.spare = self._holding.ended(fault)
        if answered:
            trace.candidate = candidate
            before = trace.losses if self._job.begun is not None else ()
            trace.losses = tuple(dict.fromkeys((*before, *self._losses)))
            if self._first_byte is not None and self._job.begun is None:
                trace.ttft_ms = self._since_start(self._first_byte)
        trace.attempts.append(self._line(fault, usage, cost, now))

    def _wasted(self, fault: Fault | None) -> Usage:
        """Return what an attempt without an answer has used: what was told, or what may have been read."""
        told = self.gate.usage if self.gate is not None else Usage()
        if self._held and self.gate is not None:
            # The model has said it, and nobody has heard it.
            said = Usage(output_tokens=-(-self.gate.output_chars // estimate.BYTES_PER_TOKEN))
            told = (told or Usage(input_tokens=self._job.plan.input_tokens)).merge(said)
        if not told and fault is not None and (fault.cause in _MAYBE_BILLED or _broken_off(fault)):
            told = Usage(input_tokens=self._job.plan.input_tokens)
        self._trace.usage_estimated = self._trace.usage_estimated or bool(told)
        return told

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
            blame=fault.blame.value if fault else "",
            message=fault.message if fault else "",
            usage=usage,
            cost_nanousd=cost,
            change=self._step.change,
            provider_request_id=header(self.headers, "x-request-id") or header(self.headers, "request-id"),
            head_ms=None if self._head is None else self._since_start(self._head),
            ttft_limit_ms=self._patience.ttft * 1000 if self._patience.suited else None,
            silence_ms=None if self._quiet is None else round(self._quiet.longest * 1000, 3),
            stall_limit_ms=self._patience.silence * 1000 if self._patience.silence < math.inf else None,
        )

    def _since_start(self, monotonic: float) -> float:
        return round((monotonic - self._job.snapshot.started) * 1000, 3)

    def broken(self, gate: Gate) -> Fault | None:
        """Return the fault that a committed stream has run into, if any."""
        if gate.failed is None:
            return None
        return self._holding.unquoted(classify.classify_failed(self._source.name, gate.failed))


async def _beginning(response: UpstreamResponse) -> bytes:
    """Return the first bytes of an error body."""
    body = bytearray()
    async for chunk in response.chunks():
        body += chunk
        if len(body) >= MAX_ERROR:
            break
    return bytes(body[:MAX_ERROR])


def _broken_off(fault: Fault) -> bool:
    """Tell whether an answer had begun, was no refusal, and did not come to its end."""
    cut = fault.kind is Kind.TRUNCATED or fault.cause == STALLED
    return cut and fault.upstream_status < 300


def _bad_answer(message: str, cause: str = "bad_answer") -> Fault:
    return Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause=cause)
