"""One exchange: a snapshot in, a reply out, exactly one record.

    open → directives → policy → plan → dispatch → reply → record

The record is durable before the last byte of the reply is released. Whatever fails on the way becomes an
answer in the caller's dialect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Final

from msgspec import structs

from tokenhub_core import directives, encoding, policy
from tokenhub_core.admission.limits import Call, Room
from tokenhub_core.dialects import anthropic_count_tokens, wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.bodies import Bodies
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.job import CANCELLED, INTERNAL, Job, Live, Trace, Whole
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.policy import Layer
from tokenhub_core.ports import Recorder, Reply, Summary
from tokenhub_core.providers.catalogue import Catalogue, priced
from tokenhub_core.routing import aliases, estimate
from tokenhub_core.routing.bandit import STILL, Explorer
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE, Circumstances, Wire
from tokenhub_core.routing.estimate import UNLEARNED, Estimates
from tokenhub_core.routing.plan import OriginOption, decide
from tokenhub_core.types import (
    Dialect,
    Features,
    Fleet,
    Headers,
    Json,
    Model,
    Need,
    Origin,
    Outcome,
    Plan,
    Policy,
    Provider,
    ProviderType,
    Record,
    Request,
    Skipped,
    Snapshot,
    Timings,
    header,
)

logger: Final = logging.getLogger(__name__)

_KEPT: Final = (
    "content-type",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
)
_KEPT_PREFIXES: Final = ("x-ratelimit-", "anthropic-ratelimit-")
_ORIGINS: Final = 256
"""Origins, paths and names that are remembered together."""
_LONGEST_NAME: Final = 200
"""Characters of a name in headers and records; callers and providers choose them."""
_MASKED_QUERY: Final = ("key=", "api_key=", "api-key=", "access_token=")


_ANTHROPIC: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})
_WORDS: Final = frozenset({Need.CHAT})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decided for every exchange."""

    origin: bool = True
    """Whether the host that a call was meant for may serve it."""
    directives: Callable[[], str] = lambda: "reject"
    """What a malformed directive does: `reject`, `ignore`; or `off`: no directive is read or stripped."""
    directive_roles: frozenset[str] = frozenset({"user"})
    max_body_bytes: int = 32 << 20
    max_attempts: int = 5
    total_seconds: float = 900.0
    """The most that one call may take up to its answer, a stream up to its first content."""
    locked: Callable[[], bool] = lambda: False
    """Whether the vault is locked, so that its providers are no candidates."""


@dataclass(frozen=True, slots=True)
class Insight:
    """What was learned, as far as routing may use it."""

    estimates: Estimates = UNLEARNED
    explorer: Callable[[], Explorer] = lambda: STILL


@dataclass(slots=True)
class _Progress:
    """How far one exchange has come; what the record is made of."""

    snapshot: Snapshot
    trace: Trace
    request: Request | None = None
    plan: Plan | None = None
    meant: aliases.Applied | None = None
    """Whether the model was an alias, and what for."""
    directive: str = ""
    routed: float = 0.0
    recorded: bool = False
    """The record is on its way: nobody makes a second one."""


def _fixed(wishes: Policy) -> Policy:
    """Return the policy of a call whose answer is one model's own: vectors of two models do not go together."""
    if wishes.model is None:
        message = "this operation needs the name of a model: no other one gives the same answer"
        raise client_fault(message, cause="model_required", param="model")
    return structs.replace(wishes, fallback=False)


def _framed(dialect: Dialect, features: Features, wishes: Policy) -> tuple[Features, Policy]:
    """Return the call and its policy with what follows from the dialect: who translates needs words in return."""
    if not dialect.translates:
        return features, _fixed(wishes)
    wanted = _WORDS if wishes.output_schema is None else _WORDS | {Need.JSON_SCHEMA}
    return structs.replace(features, needs=features.needs | wanted), wishes


def _origin_option(
    catalogue: Catalogue, origin: Origin, path: str, name: str, dialect: Dialect
) -> OriginOption:
    provider = Provider(
        id=f"origin:{origin.host}",
        type=ProviderType.ORIGIN,
        endpoints=(origin.url + path,),
        dialect=dialect,
        cred_store="caller",
    )
    model = Model(id=name, provider_id=provider.id, pricing_source=UNKNOWN_PRICE)
    entry = catalogue.lookup(name)
    return OriginOption(priced(model, entry) if entry else model, provider)


class _Frames:
    """A reply's frames. Unlike a bare generator, one that is closed before its first frame is ended too."""

    def __init__(self, frames: AsyncGenerator[bytes], abandon: Callable[[], Awaitable[None]]) -> None:
        self._frames = frames
        self._abandon = abandon
        self._begun = False

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> bytes:
        self._begun = True
        return await anext(self._frames)

    async def aclose(self) -> None:
        """End the exchange."""
        if self._begun:
            await self._frames.aclose()
        else:
            self._begun = True
            await self._frames.aclose()
            await self._abandon()


class Pipeline:
    """The engine behind every front door."""

    def __init__(
        self,
        *,
        executor: Executor,
        recorder: Recorder,
        catalogue: Catalogue,
        fleet: Callable[[], Fleet],
        defaults: Callable[[], Layer],
        rules: Rules,
        insight: Insight = Insight(),
    ) -> None:
        self._executor = executor
        self._recorder = recorder
        self._secrets = executor.means.secrets
        self._keyring = executor.means.keyring
        # Programs ask for few models at few hosts, over and over.
        self._origin_of = lru_cache(maxsize=_ORIGINS)(partial(_origin_option, catalogue))
        self._fleet = fleet
        self._defaults = defaults
        self._rules = rules
        self._insight = insight
        self._turns = aliases.Turns()
        self._dialects: Mapping[Dialect, DialectModule] = executor.means.dialects
        self._clock = executor.means.clock

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one call. Raises nothing but cancellation."""
        progress = _Progress(snapshot, Trace())
        try:
            job = self._prepare(progress)
            result = job if isinstance(job, Whole) else await self._executor.run(job, progress.trace)
            if isinstance(result, Whole):
                await self._commit(progress, None)
                return self._reply(progress, result.headers, body=result.body)
            frames = _Frames(self._frames(progress, result), partial(self._abandon, progress, result))
            return self._reply(progress, result.headers, frames=frames)
        except TokenHubError as error:
            return await self._refuse(progress, error.fault)
        except asyncio.CancelledError:
            if not progress.recorded:
                self._recorder.post(self._record(progress, CANCELLED))
            raise
        except Exception:
            logger.exception("exchange %s failed", snapshot.id)
            return await self._refuse(progress, INTERNAL)

    def simulate(
        self, features: Features, wishes: Layer, *, dialect: Dialect, seed: str
    ) -> tuple[Plan, Fault | None]:
        """Decide a call that nobody makes, as if it came directly to us; changes nothing.

        There is no body, so nothing of it is lost where a provider speaks another dialect.
        """
        view = self._fleet()
        asking = aliases.Asking(seed, turn=self._turns.peek)
        asked = aliases.applied(policy.merge([self._defaults(), wishes]), view, asking).policy
        features, asked = _framed(dialect, features, asked)
        now = self._circumstances(view, None, None)
        return decide(view, features, asked, now=now, seed=seed, wire=Wire(dialect))

    # --- the way in

    def _prepare(self, progress: _Progress) -> Job | Whole:
        """Return the call made ready, or its answer where nobody needs to be asked for one."""
        snapshot = progress.snapshot
        if len(snapshot.body) > self._rules.max_body_bytes:
            raise client_fault(
                f"the request body is larger than {self._rules.max_body_bytes} bytes",
                kind=Kind.TOO_LARGE,
                cause="body_too_large",
            )
        body = encoding.decoded(
            snapshot.body, header(snapshot.headers, "content-encoding"), limit=self._rules.max_body_bytes
        )
        request = progress.request = self._dialects[snapshot.dialect].open(body, snapshot.path)
        request, reading = self._directives(progress, request)
        view = self._fleet()
        wishes = policy.for_call(self._defaults(), request.features.model, reading.values)
        meant = progress.meant = aliases.applied(wishes, view, self._asking(snapshot, request))
        wishes, origin = meant.policy, self._origin(snapshot, request, meant.model)
        features, wishes = _framed(request.dialect, request.features, wishes)
        bodies = Bodies(request, self._dialects, wishes.output_schema)
        planned, fault = decide(
            view,
            features,
            wishes,
            now=self._circumstances(view, snapshot, origin),
            seed=snapshot.id,
            wire=Wire(request.dialect, bodies.losses),
            origin=origin,
        )
        progress.routed = self._clock.monotonic()
        progress.plan = planned
        if fault is not None:
            if request.dialect is Dialect.ANTHROPIC_COUNT_TOKENS and fault.kind is Kind.NO_CANDIDATE:
                return self._counted(progress, request)
            raise TokenHubError(self._locked_out(view, planned, fault))
        seconds = self._rules.total_seconds
        if wishes.max_latency_ms is not None:
            seconds = min(seconds, wishes.max_latency_ms / 1000)
        return Job(
            snapshot=snapshot,
            request=request,
            plan=planned,
            bodies=bodies,
            limits=Limits(max_attempts=self._rules.max_attempts, total_seconds=seconds),
        )

    def _counted(self, progress: _Progress, request: Request) -> Whole:
        """Answer a count of tokens by our own estimate, for a model whose providers count none."""
        progress.trace.losses = ("input_tokens:estimated",)
        features = request.features
        tokens = estimate.input_tokens(features, features.model, self._insight.estimates)
        body = wire.encode(anthropic_count_tokens.estimated(tokens))
        return Whole(body, (("content-type", "application/json"),))

    def _directives(self, progress: _Progress, request: Request) -> tuple[Request, directives.Reading]:
        malformed = self._rules.directives()
        if malformed == "off":
            return request, directives.Reading()
        module = self._dialects[request.dialect]
        reading = directives.read(module.text_slots(request.data), roles=self._rules.directive_roles)
        progress.directive = reading.outcome
        if reading.outcome == "invalid" and malformed == "reject":
            raise client_fault(f"malformed @@tokenhub directive: {reading.fault}", cause="directive_invalid")
        if reading.stripped:
            progress.request = module.open(
                _without(request, module.replace_texts(request.data, reading.stripped)), request.path
            )
            return progress.request, reading
        return request, reading

    def _asking(self, snapshot: Snapshot, request: Request) -> aliases.Asking:
        module, caller = self._dialects[request.dialect], snapshot.caller
        return aliases.Asking(
            snapshot.id,
            key=f"user {caller.proxy_user}" if caller.proxy_user else f"peer {caller.peer}",
            conversation=lambda: aliases.conversation_key(module.text_slots(request.data)),
            turn=self._turns.take,
        )

    def _origin(self, snapshot: Snapshot, request: Request, meant: str) -> OriginOption | None:
        """Return the host that the call was meant for; it is asked for the model that an alias meant."""
        name = meant or request.features.model
        if snapshot.origin is None or not self._rules.origin or name in policy.ANY_MODEL:
            return None
        return self._origin_of(snapshot.origin, snapshot.path, name, request.dialect)

    def _circumstances(
        self, view: Fleet, snapshot: Snapshot | None, origin: OriginOption | None
    ) -> Circumstances:
        now = self._clock.monotonic()
        ids = [*view.providers, origin.provider.id] if origin else view.providers
        standing = self._executor.means.health.standing
        return Circumstances(
            {name: standing(name, now) for name in ids},
            self._credentialed,
            estimates=self._insight.estimates,
            explorer=self._insight.explorer(),
            program=snapshot.caller.program if snapshot else "",
            at=self._clock.now(),
            room=None if self._keyring.quiet else self._room(now, snapshot, origin),
        )

    def _room(
        self, now: float, snapshot: Snapshot | None, origin: OriginOption | None
    ) -> Callable[[Provider, Call], Room]:
        """Return what says how soon a provider can take a call; at the origin, by the caller's own key."""
        caller = self._keyring.caller(origin.provider, snapshot.headers) if origin and snapshot else ""
        return partial(self._keyring.room, now=now, at=self._clock.now(), caller=caller)

    def _credentialed(self, provider: Provider) -> bool:
        if provider.credentials:
            return any(
                one.enabled and self._secrets.available(provider.id, one.store, one.name)
                for one in provider.keys
            )
        if provider.cred_store in {"none", "caller"}:
            return True
        return self._secrets.available(provider.id, provider.cred_store)

    def _locked_out(self, view: Fleet, planned: Plan, fault: Fault) -> Fault:
        """Return the fault of an empty plan; it names the vault where that would be what to open."""
        if fault.kind is not Kind.NO_CANDIDATE or not self._rules.locked():
            return fault
        without = {skip.provider for skip in planned.skips if skip.reason is Skipped.NO_CREDENTIAL}
        known = [provider for name, provider in view.providers.items() if name in without]
        if not any(key.store == "vault" for provider in known for key in provider.keys):
            return fault
        message = "The vault is locked, and what could serve this call has its credential in it."
        return replace(fault, message=message, cause="vault_locked")

    # --- the way out

    async def _frames(self, progress: _Progress, live: Live) -> AsyncGenerator[bytes]:
        """Yield the stream; its terminal event leaves when the record is durable."""
        try:
            async for frame in live.frames():
                yield frame
            await self._commit(progress, None)
            yield live.tail()
        except TokenHubError as error:
            yield await self._break(progress, error.fault)
        except Exception:
            logger.exception("stream of %s failed", progress.snapshot.id)
            yield await self._break(progress, INTERNAL)
        finally:
            await self._abandon(progress, live)

    async def _abandon(self, progress: _Progress, live: Live) -> None:
        """Close a stream; where it did not come to its end, record that its caller left."""
        await live.close()
        if not progress.recorded:
            progress.recorded = True
            self._recorder.post(self._record(progress, CANCELLED))

    async def _commit(self, progress: _Progress, fault: Fault | None) -> None:
        """Return once the record is durable. From here on it is nobody else's to make, unless the store fails."""
        progress.recorded = True
        try:
            await self._recorder.commit(self._record(progress, fault))
        except TokenHubError:
            progress.recorded = False
            raise

    async def _break(self, progress: _Progress, fault: Fault) -> bytes:
        """Record a stream that has failed and return its last event."""
        await self._note(progress, fault)
        snapshot = progress.snapshot
        return self._dialects[snapshot.dialect].stream_error(
            fault, request_id=snapshot.id, request=progress.request
        )

    async def _refuse(self, progress: _Progress, fault: Fault) -> Reply:
        """Answer with an error in the caller's dialect, recorded like every other answer."""
        await self._note(progress, fault)
        error = self._dialects[progress.snapshot.dialect].error(fault, request_id=progress.snapshot.id)
        extra = () if _worth_retrying(fault) else (("x-should-retry", "false"),)
        told = self._told(progress)
        named = {name for name, _ in told}
        headers = (*(field for field in error.headers if field[0] not in named), *extra, *told)
        return Reply(error.status, headers, error.body, summary=self._summary(progress, fault))

    async def _note(self, progress: _Progress, fault: Fault) -> None:
        """Record a failure; that the store is down too must not hide it."""
        if progress.recorded:
            return
        try:
            await self._commit(progress, fault)
        except TokenHubError as error:
            logger.error("record %s is lost: %s", progress.snapshot.id, error)

    def _reply(
        self,
        progress: _Progress,
        upstream: Headers,
        *,
        body: bytes = b"",
        frames: AsyncIterator[bytes] | None = None,
    ) -> Reply:
        kept = tuple(
            (name, value) for name, value in upstream if name in _KEPT or name.startswith(_KEPT_PREFIXES)
        )
        headers = (*kept, *self._told(progress))
        return Reply(200, headers, body, frames, self._summary(progress, None))

    def _told(self, progress: _Progress) -> Headers:
        """Return the headers that explain the decision."""
        trace, snapshot = progress.trace, progress.snapshot
        told = [("x-request-id", snapshot.id), ("x-tokenhub-decision", snapshot.id)]
        if snapshot.dialect in _ANTHROPIC:
            told.append(("request-id", snapshot.id))
        if progress.directive:
            told.append(("x-tokenhub-directive", progress.directive))
        if progress.meant is not None and progress.meant.alias:
            told.append(("x-tokenhub-alias", _visible(progress.meant.alias)))
        if (candidate := trace.candidate) is not None and progress.plan is not None:
            told += [
                ("x-tokenhub-model", _visible(candidate.model.id)),
                ("x-tokenhub-provider", _visible(candidate.provider.id)),
                ("x-tokenhub-reason", self._reason(progress)),
                ("x-tokenhub-attempts", str(trace.sent)),
            ]
            if candidate.provider.type is ProviderType.SIMULATOR:
                told.append(("x-tokenhub-simulated", "true"))
        if trace.losses:
            told.append(("x-tokenhub-loss", ",".join(map(_visible, trace.losses))[:1000]))
        return tuple(told)

    def _reason(self, progress: _Progress) -> str:
        """Return why the serving candidate was chosen: the plan's reason, or what the failover did."""
        trace, planned = progress.trace, progress.plan
        if planned is None or trace.candidate is None:
            return ""
        if trace.hedged:
            return "hedge-won"
        if trace.change:
            return trace.change
        if trace.candidate is planned.candidates[0]:
            return planned.reason
        return "failover"

    def _summary(self, progress: _Progress, fault: Fault | None) -> Summary:
        trace = progress.trace
        candidate = trace.candidate
        return Summary(
            request_id=progress.snapshot.id,
            model=candidate.model.id[:_LONGEST_NAME] if candidate else "",
            provider=candidate.provider.id if candidate else "",
            reason=self._reason(progress),
            attempts=trace.sent,
            fault=fault.label if fault else "",
        )

    def _record(self, progress: _Progress, fault: Fault | None) -> Record:
        snapshot, trace, request = progress.snapshot, progress.trace, progress.request
        # A caller that stops reading once the model has stopped got all it came for.
        whole = fault is None or (fault is CANCELLED and trace.stop is not None)
        candidate = trace.candidate
        now = self._clock.monotonic()
        return Record(
            id=snapshot.id,
            at=snapshot.received_at,
            outcome=Outcome.OK if whole else Outcome.CANCELLED if fault is CANCELLED else Outcome.ERROR,
            status=200 if whole or fault is None else fault.http_status,
            caller=snapshot.caller,
            method=snapshot.method,
            path=without_secrets(snapshot.path),
            dialect=snapshot.dialect,
            stream=request.features.stream if request else False,
            origin_host=snapshot.origin.host if snapshot.origin else "",
            client_request_id=header(snapshot.headers, "x-request-id")[:200],
            requested_model=request.features.model[:200] if request else "",
            alias=progress.meant.alias if progress.meant else "",
            variant=progress.meant.variant if progress.meant else "",
            model=candidate.model.id[:_LONGEST_NAME] if candidate else "",
            provider=candidate.provider.id if candidate else "",
            reason=self._reason(progress),
            directive=progress.directive,
            usage=trace.usage,
            usage_estimated=trace.usage_estimated,
            cost_nanousd=trace.cost_nanousd,
            timings=Timings(
                route_ms=_since(snapshot, progress.routed) if progress.routed else 0.0,
                ttft_ms=trace.ttft_ms,
                total_ms=_since(snapshot, now),
            ),
            attempts=tuple(trace.attempts),
            plan=progress.plan,
            fault="" if whole or fault is None else fault.label,
            message="" if whole or fault is None else fault.message,
            losses=tuple(loss[:_LONGEST_NAME] for loss in trace.losses[:50]),
            identical=trace.identical,
            simulated=candidate is not None and candidate.provider.type is ProviderType.SIMULATOR,
            stop=trace.stop.reason.value if trace.stop else "",
        )


def without_secrets(path: str) -> str:
    """Return the path with the values of query parameters that hold keys left out."""
    bare, mark, query = path.partition("?")
    if not mark:
        return bare
    fields = (
        f"{name}=***" if any(f"{name.lower()}=".endswith(key) for key in _MASKED_QUERY) else field
        for field in query.split("&")
        for name in (field.partition("=")[0],)
    )
    return f"{bare}?{'&'.join(fields)}"


def _without(request: Request, data: Json) -> bytes:
    """Return the body with the changed members in place of the old ones, every other byte as it came."""
    if data.keys() != request.data.keys():
        return wire.encode(data)
    edits = {name: value for name, value in data.items() if value is not request.data[name]}
    return wire.splice(request.body, request.data, edits)


def _since(snapshot: Snapshot, monotonic: float) -> float:
    return round((monotonic - snapshot.started) * 1000, 3)


def _visible(text: str) -> str:
    """Return text that others chose as a header may carry it: one line, printable, of bounded length."""
    text = text[:_LONGEST_NAME]
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _worth_retrying(fault: Fault) -> bool:
    """Tell whether the caller's SDK may try again: not where we have just tried everything ourselves."""
    return fault.kind is Kind.RATE_LIMITED or fault.blame is Blame.CLIENT or fault.http_status < 500
