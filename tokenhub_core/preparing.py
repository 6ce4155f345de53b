"""What is done with a call before anybody is asked: it is let in, read, and planned.

open → directives → policy → plan → job
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import structs

from tokenhub_core import directives, encoding, native, policy
from tokenhub_core.admission.doorkeeper import matches
from tokenhub_core.admission.foreign import KEPT, Foreign, Use
from tokenhub_core.admission.identity import carries_credential
from tokenhub_core.admission.limits import Call, Room
from tokenhub_core.admission.quotas import nanoseconds
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.composing import check_budget
from tokenhub_core.dialects import anthropic_count_tokens, wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.bodies import Bodies
from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.job import Job, Means, Whole
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.leave import Leaves, granted
from tokenhub_core.modes import ROUTED, Modes
from tokenhub_core.orchestration import asked, machines, plancall, steps
from tokenhub_core.orchestration.asks import Goal, bound
from tokenhub_core.orchestration.purse import purse
from tokenhub_core.orchestration.steps import Frame
from tokenhub_core.orchestration.telling import Composed
from tokenhub_core.policy import Layer
from tokenhub_core.progress import Progress
from tokenhub_core.providers.catalogue import Catalogue, priced
from tokenhub_core.routing import aliases, estimate
from tokenhub_core.routing.affinity import LOOSE, Bonds, Thread
from tokenhub_core.routing.bandit import STILL, Explorer
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE, Circumstances, Wire
from tokenhub_core.routing.estimate import UNLEARNED, Estimates
from tokenhub_core.routing.fleet import named
from tokenhub_core.routing.plan import OriginOption, decide
from tokenhub_core.routing.replay import Ground
from tokenhub_core.shaping import schemas
from tokenhub_core.shaping.shape import shape_of
from tokenhub_core.shaping.wanted import check_of
from tokenhub_core.signing import Signatures
from tokenhub_core.types import (
    Bond,
    Dialect,
    Features,
    Fleet,
    Headers,
    Json,
    Model,
    Origin,
    Plan,
    Policy,
    Provider,
    ProviderType,
    Request,
    Skipped,
    Snapshot,
    header,
)

UNRECORDABLE: Final = Fault(
    Kind.INTERNAL,
    Blame.US,
    "calls cannot be recorded now, so none is made",
    cause="unrecordable",
    status=503,
    retry_after=1.0,
)
_ORIGINS: Final = 256
"""Origins, paths and names that are remembered together."""
_NAMES: Final = 8192
"""The fleet's names for which it is remembered whether a key's patterns are for them."""
_SCHEMAS: Final = 64
"""Schemas that are kept ready."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decided for every exchange."""

    origin: bool = True
    """Whether the host that a call was meant for may serve it."""
    directives: Callable[[], str] = lambda: "reject"
    """What a malformed directive does: `reject`, `ignore`; or `off`: no directive is read or stripped."""
    leaves: Leaves = field(default_factory=Leaves)
    """What a directive may do."""
    signatures: Signatures = field(default_factory=Signatures)
    max_body_bytes: int = 32 << 20
    max_attempts: int = 5
    total_seconds: float = 900.0
    """The most that one call may take up to its answer, a stream up to its first content."""
    modes: Callable[[], Modes] = lambda: ROUTED
    throttle: Throttle = field(default_factory=Throttle)
    """What callers may use."""
    foreign: Foreign = KEPT
    """What is done with credentials that clients bring for their hosts."""
    recordable: Callable[[], bool] = lambda: True
    """Whether the record of a call can be expected to be stored."""
    locked: Callable[[], bool] = lambda: False
    """Whether the vault is locked, so that its providers are no candidates."""


@dataclass(frozen=True, slots=True)
class Insight:
    """What was learned, as far as routing may use it."""

    estimates: Estimates = UNLEARNED
    explorer: Callable[[], Explorer] = lambda: STILL
    bonds: Callable[[], Bonds] = lambda: LOOSE


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
    return OriginOption(_priced(catalogue, name, provider.id), provider)


def _priced(catalogue: Catalogue, name: str, provider: str) -> Model:
    """Return a model that nobody has registered, at the list's price where it has one."""
    model = Model(id=name, provider_id=provider, pricing_source=UNKNOWN_PRICE)
    entry = catalogue.lookup(name)
    return priced(model, entry) if entry else model


class Preparation:
    """Makes calls ready to be dispatched. Holds what all calls share; nothing of a single one."""

    def __init__(
        self,
        means: Means,
        *,
        catalogue: Catalogue,
        fleet: Callable[[], Fleet],
        defaults: Callable[[], Layer],
        rules: Rules,
        insight: Insight,
    ) -> None:
        self._means = means
        self._secrets = means.secrets
        self._keyring = means.keyring
        # Programs ask for few models at few hosts, over and over.
        self._priced = partial(_priced, catalogue)
        self._origin_of = lru_cache(maxsize=_ORIGINS)(partial(_origin_option, catalogue))
        self._matching = lru_cache(maxsize=_NAMES)(matches)
        # Programs bring few schemas, over and over.
        self._compiled = lru_cache(maxsize=_SCHEMAS)(schemas.compiled)
        self._fleet = fleet
        self._defaults = defaults
        self._rules = rules
        self._insight = insight
        self._turns = aliases.Turns()
        self._dialects: Mapping[Dialect, DialectModule] = means.dialects
        self._clock = means.clock

    def renew(self, rules: Rules) -> None:
        """Prepare the calls that come from now on by other rules."""
        self._rules = rules

    def enter(self, progress: Progress) -> None:
        """Let the call in where its caller's limits do; raises `TokenHubError` where they do not.

        And where it can be recorded: nobody is to pay for what would be known to nobody.
        """
        if not self._rules.recordable():
            raise TokenHubError(UNRECORDABLE)
        snapshot, now = progress.snapshot, self.instant()
        stay = progress.stay = self._rules.throttle.visit(snapshot.caller, snapshot.headers, now)
        if stay is not None:
            stay.enter(now)

    def instant(self) -> int:
        """Return what limits reckon with as now."""
        return nanoseconds(self._clock.monotonic())

    def prepare(self, progress: Progress, *, shadow: bool = False) -> Job | Whole | Composed:
        """Return the call made ready, or its answer where nobody needs to be asked for one.

        In `shadow` nobody will be asked: no turn is taken, and aliases that rest are applied.
        """
        snapshot = progress.snapshot
        if len(snapshot.body) > self._rules.max_body_bytes:
            raise client_fault(
                f"the request body is larger than {self._rules.max_body_bytes} bytes",
                kind=Kind.TOO_LARGE,
                cause="body_too_large",
            )
        plan = self._plan_call(snapshot)
        request, said = self._taken(progress, plan)
        # A conversation is known by what its program wrote: a directive leaves the last turn only.
        thread = self._follow(progress, request)
        written, reading = request, directives.Reading()
        if plan is None:
            request, reading = self._directives(progress, request)
        request, cap = _capped(progress, request)
        view = self._fleet()
        goal = plan.goal if plan else asked.goal(reading.values, seed=snapshot.id)
        wishes = policy.for_call(self._defaults(), request.features.model, asked.policy(reading.values), said)
        wishes = plancall.bounded(wishes, plan) if plan else wishes
        meant = progress.meant = (
            aliases.Applied(wishes)
            if not shadow and self._rests(snapshot, wishes.model)
            else aliases.applied(wishes, view, self._asking(snapshot, written, shadow=shadow))
        )
        wishes, key = meant.policy, snapshot.caller.key
        if key is not None:
            wishes = policy.for_key(key, wishes, meant.alias, aliases.meant(meant, view))
        if goal is not None:
            return self._composed(progress, request, goal, wishes, view, shadow=shadow)
        origin = self._origin(snapshot, request, meant.model)
        features, wishes = policy.framed(request.dialect, request.features, wishes)
        bodies = Bodies(
            request, self._dialects, wishes.output_schema, cap=cap, shape=shape_of(request, wishes)
        )
        check = check_of(request, wishes, bodies.own_schema, self._compiled)
        planned, fault = decide(
            view,
            features,
            wishes,
            now=self._circumstances(view, snapshot, origin, thread.bond),
            seed=snapshot.id,
            wire=Wire(request.dialect, bodies.losses),
            origin=origin,
        )
        progress.routed = self._clock.monotonic()
        progress.plan = planned = (
            structs.replace(planned, chances=meant.chances) if meant.chances else planned
        )
        if fault is not None:
            if request.dialect is Dialect.ANTHROPIC_COUNT_TOKENS and fault.kind is Kind.NO_CANDIDATE:
                return self._counted(progress, request)
            raise TokenHubError(self._locked_out(view, planned, fault))
        if progress.stay is not None and request.dialect.billed:
            progress.stay.reserve(planned.input_tokens + planned.output_tokens, self.instant())
        return Job(
            snapshot=snapshot,
            request=request,
            plan=planned,
            bodies=bodies,
            limits=self._limits(wishes),
            check=check,
        )

    def _limits(self, wishes: Policy) -> Limits:
        seconds = self._rules.total_seconds
        if wishes.max_latency_ms is not None:
            seconds = min(seconds, wishes.max_latency_ms / 1000)
        return Limits(max_attempts=self._rules.max_attempts, total_seconds=seconds)

    def _composed(
        self, progress: Progress, request: Request, goal: Goal, wishes: Policy, view: Fleet, *, shadow: bool
    ) -> Composed:
        """Return a call that is to be made in several steps, with the first of them decided.

        Raises `TokenHubError` where nobody may serve that one, or the caller's limits could not carry all of them.
        """
        snapshot, model = progress.snapshot, progress.meant.model if progress.meant else ""
        steps.check(request, goal)
        bond = progress.thread.bond if progress.thread is not None else None
        frame = self.framed(
            snapshot,
            request,
            wishes,
            model=model,
            bond=bond,
            most_output=progress.stay.most_output if progress.stay is not None else None,
            view=view,
        )
        ask = next(machines.machine(goal)).asks[0]
        first = steps.step(frame, ask, purse(wishes.max_budget_usd, goal).share())
        progress.routed = self._clock.monotonic()
        progress.plan = first.plan
        if first.fault is not None:
            raise TokenHubError(self._locked_out(view, first.plan, first.fault))
        composed = Composed(goal, frame, first, plancall.result if plancall.serves(snapshot) else None)
        if not shadow:
            check_budget(self._means.ledger, composed)
        if progress.stay is not None:
            tokens = first.plan.input_tokens + first.plan.output_tokens
            progress.stay.reserve(tokens * bound(goal), self.instant())
        return composed

    def framed(
        self,
        snapshot: Snapshot,
        request: Request,
        wishes: Policy,
        *,
        model: str,
        bond: Bond | None,
        most_output: int | None,
        view: Fleet | None = None,
    ) -> Frame:
        """Return what the steps of a call share; `view` is the fleet of now where none is given.

        Raises `TokenHubError` where its answer is to fit a schema that is none.
        """
        known = self._fleet() if view is None else view
        shape = shape_of(request, wishes)
        bodies = Bodies(request, self._dialects, wishes.output_schema, shape=shape)

        def now(origin: OriginOption | None) -> Circumstances:
            # Nobody explores: rewards are for single calls, and the order of candidates decides who votes.
            return structs.replace(self._circumstances(known, snapshot, origin, bond), explorer=STILL)

        return Frame(
            snapshot=snapshot,
            request=request,
            call=self._dialects[request.dialect].parse(request),
            policy=wishes,
            view=known,
            dialects=self._dialects,
            limits=self._limits(wishes),
            origin=lambda said: self._origin(said, request, model),
            now=now,
            model=model,
            bond=bond,
            most_output=most_output,
            shape=shape,
            check=check_of(request, wishes, bodies.own_schema, self._compiled),
        )

    def simulate(
        self, features: Features, wishes: Layer, *, dialect: Dialect, seed: str
    ) -> tuple[Plan, Fault | None]:
        """Decide a call that nobody makes, as if it came directly to us; changes nothing.

        There is no body, so nothing of it is lost where a provider speaks another dialect.
        """
        view = self._fleet()
        asking = aliases.Asking(seed, turn=self._turns.peek)
        asked = aliases.applied(policy.merge([self._defaults(), wishes]), view, asking).policy
        features, asked = policy.framed(dialect, features, asked)
        now = self._circumstances(view, None, None)
        return decide(view, features, asked, now=now, seed=seed, wire=Wire(dialect))

    def ground(self) -> Ground:
        """Return what a call would be decided with now, for whoever thinks calls through that were made before."""
        view = self._fleet()
        origin = self._rehearsed_origin if self._rules.origin else lambda host, name, dialect: None
        now = structs.replace(self._circumstances(view, None, None), room=None)
        return Ground(view, self._defaults(), now, origin)

    def alias_of(self, dialect: Dialect, path: str, headers: Headers, body: bytes) -> str:
        """Return the alias that a call asks for, empty where its name is none; raises nothing."""
        try:
            name = self._opened(dialect, path, headers, body).features.model
        except Exception:  # noqa: BLE001 -- whatever it is, it names no alias; who answers it will say what is wrong
            return ""
        view = self._fleet()
        known = view.aliases.get(name)
        return name if known is not None and known.enabled and name not in view.by_id else ""

    def _rehearsed_origin(self, host: str, name: str, dialect: Dialect) -> OriginOption:
        return self._origin_of(Origin("https", host, 443), "", name, dialect)

    def _taken(self, progress: Progress, plan: plancall.Asked | None) -> tuple[Request, Mapping[str, Any]]:
        """Return the call as its dialect reads it, and what it asks for in fields of its own, within its leave."""
        snapshot = progress.snapshot
        if not snapshot.native:
            request = progress.request = self._opened(
                snapshot.dialect,
                snapshot.path,
                () if plan else snapshot.headers,
                plan.chat if plan else snapshot.body,
            )
            return request, _NOTHING
        found = native.opened(self._plain(snapshot.headers, snapshot.body), snapshot.path)
        progress.request, progress.called = found.request, found.id
        leave = structs.replace(self._rules.leaves.of("", snapshot.caller.key), names=None)
        kept, _ = granted(found.wishes, leave, self._defaults().values)
        for name in found.wishes:
            if name not in kept:
                message = f"policy.{name} is beyond what this caller may ask for"
                raise client_fault(
                    message, kind=Kind.FORBIDDEN, cause="policy_denied", param=f"policy.{name}"
                )
        return found.request, kept

    def _plain(self, headers: Headers, body: bytes) -> bytes:
        limit = self._rules.max_body_bytes
        return encoding.decoded(body, header(headers, "content-encoding"), limit=limit)

    def _opened(self, dialect: Dialect, path: str, headers: Headers, body: bytes) -> Request:
        return self._dialects[dialect].open(self._plain(headers, body), path)

    def _plan_call(self, snapshot: Snapshot) -> plancall.Asked | None:
        """Return what the body of a `/v1/plan` says, None for every other call."""
        if not plancall.serves(snapshot):
            return None
        plain = self._plain(snapshot.headers, snapshot.body)
        return plancall.read(plain, seed=snapshot.id, key=snapshot.caller.key)

    def _counted(self, progress: Progress, request: Request) -> Whole:
        """Answer a count of tokens by our own estimate, for a model whose providers count none."""
        progress.trace.losses = ("input_tokens:estimated",)
        features = request.features
        tokens = estimate.input_tokens(features, features.model, self._insight.estimates)
        body = wire.encode(anthropic_count_tokens.estimated(tokens))
        return Whole(body, (("content-type", "application/json"),))

    def _directives(self, progress: Progress, request: Request) -> tuple[Request, directives.Reading]:
        malformed = self._rules.directives()
        if malformed == "off":
            return request, directives.Reading()
        reading = directives.Reading()
        if directives.may_stand_in(request.body):
            reading = self._read(progress.snapshot, request)
        module = self._dialects[request.dialect]
        progress.directive, progress.directive_why = reading.outcome, reading.why
        if reading.outcome == "invalid" and malformed == "reject":
            raise client_fault(f"malformed @@tokenhub directive: {reading.fault}", cause="directive_invalid")
        if reading.stripped:
            progress.request = module.open(
                _without(request, module.replace_texts(request.data, reading.stripped)), request.path
            )
            return progress.request, reading
        return request, reading

    def _read(self, snapshot: Snapshot, request: Request) -> directives.Reading:
        key = snapshot.caller.key
        reading = directives.read(
            self._dialects[request.dialect].text_slots(request.data),
            self._rules.leaves.of(snapshot.origin.host if snapshot.origin else "", key),
            limits=self._defaults().values,
            refusal=lambda one, text: self._rules.signatures.refusal(one, key, text, self._clock.now()),
        )
        if not reading.outcome and directives.MARKER.encode() in request.body:
            return directives.Reading("ignored")
        return reading

    def _follow(self, progress: Progress, request: Request) -> Thread:
        bonds = progress.bonds = self._insight.bonds()
        traces = partial(self._dialects[request.dialect].traces, request.data)
        thread = progress.thread = bonds.follow(traces, self._clock.now())
        return thread

    def _rests(self, snapshot: Snapshot, name: str | None) -> bool:
        """Tell whether a mode says that the alias of this name is left out."""
        host = snapshot.origin.host if snapshot.origin else ""
        return name is not None and self._rules.modes().rests(host, snapshot.caller.proxy_user, name)

    def _asking(self, snapshot: Snapshot, request: Request, *, shadow: bool) -> aliases.Asking:
        module, caller = self._dialects[request.dialect], snapshot.caller
        return aliases.Asking(
            snapshot.id,
            key=aliases.caller_key(caller.key.id if caller.key else "", caller.proxy_user, caller.peer),
            conversation=lambda: aliases.conversation_key(module.text_slots(request.data)),
            turn=self._turns.peek if shadow else self._turns.take,
        )

    def _origin(self, snapshot: Snapshot, request: Request, meant: str) -> OriginOption | None:
        """Return the host that the call was meant for; it is asked for the model that an alias meant."""
        name = meant or request.features.model
        if snapshot.origin is None or not self._rules.origin or name in policy.ANY_MODEL:
            return None
        if self._rules.foreign.rule(snapshot.origin.host) is Use.REPLACE:
            return self._registered(snapshot.origin.host, name)
        if snapshot.caller.key is not None and not carries_credential(snapshot.headers, snapshot.path):
            return None  # its key was ours: it has none for that host
        return self._origin_of(snapshot.origin, snapshot.path, name, request.dialect)

    def _registered(self, host: str, name: str) -> OriginOption | None:
        """Return the provider that is registered for a host as the one to ask, with its own credential, for this model.

        None where there is none, and where the model is registered there anyway.
        """
        view = self._fleet()
        for provider in view.providers.values():
            if provider.enabled and any(urlsplit(one).hostname == host for one in provider.endpoints):
                if any(model.provider_id == provider.id for model in named(view, name)):
                    return None
                return OriginOption(self._priced(name, provider.id), provider)
        return None

    def _circumstances(
        self,
        view: Fleet,
        snapshot: Snapshot | None,
        origin: OriginOption | None,
        bond: Bond | None = None,
    ) -> Circumstances:
        now = self._clock.monotonic()
        ids = [*view.providers, origin.provider.id] if origin else view.providers
        standing = self._means.health.standing
        return Circumstances(
            {name: standing(name, now) for name in ids},
            self._credentialed,
            estimates=self._insight.estimates,
            explorer=self._insight.explorer(),
            program=snapshot.caller.program if snapshot else "",
            at=self._clock.now(),
            room=None if self._keyring.quiet else self._room(now, snapshot, origin),
            bond=bond,
            matching=self._matching,
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


def _capped(progress: Progress, request: Request) -> tuple[Request, int | None]:
    """Return the call with the cap that its caller's key puts on answers, and that cap where it is none of his own.

    Raises `TokenHubError` where he asks for more: an answer that we cut short would look like one that the model did.
    """
    stay = progress.stay
    if stay is None or (most := stay.most_output) is None or not request.dialect.translates:
        return request, None
    features = request.features
    if features.max_output_tokens is not None:
        stay.check_output(features.max_output_tokens)
        return request, None
    request = progress.request = structs.replace(
        request, features=structs.replace(features, max_output_tokens=most)
    )
    return request, most


def _without(request: Request, data: Json) -> bytes:
    """Return the body with the changed members in place of the old ones, every other byte as it came."""
    if data.keys() != request.data.keys():
        return wire.encode(data)
    edits = {name: value for name, value in data.items() if value is not request.data[name]}
    return wire.splice(request.body, request.data, edits)
