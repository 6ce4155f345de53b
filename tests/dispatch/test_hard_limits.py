"""Hard limits on every path of the real pipeline: over random fleets, policies, callers and faults nothing is sent to
anybody who may not serve the call, caps on attempts, time and money hold, and every attempt is accounted for once.

Time is the loop's own and leaps, so waits, timeouts and hedges are the real ones.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import orjson
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.fakes.engine import Bench, chat
from tests.fakes.leaping import LeapingLoop
from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.job import Hedging, Patience
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Outlay, Reservation, Secret, Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.preparing import Insight, Rules
from tokenhub_core.providers.simulated import SimulatedTransport
from tokenhub_core.providers.simulator import Profile, Script, dialect_at, play
from tokenhub_core.routing import estimate, pricing
from tokenhub_core.routing.bandit import STILL, Bandit
from tokenhub_core.routing.eligibility import CONTEXT_MARGIN, UNKNOWN_PRICE
from tokenhub_core.types import (
    DEFAULT_CREDENTIAL,
    NANO,
    Alias,
    ApiKey,
    Caller,
    Dialect,
    Headers,
    Model,
    Need,
    Outcome,
    Prices,
    Provider,
    ProviderType,
    Record,
    Snapshot,
    Target,
    Usage,
)
from tokenhub_core.types.aliases import Strategy

POOL, ALIAS = Alias("pool", (Target("a*"),), Strategy.POOL), Alias("alias", (Target("ab"),))
FAULTS = [
    *["ok"] * 20,
    *["500", "500", "529", "429:1", "429:60", "401", "403", "404", "400", "overflow", "overflow", "hang"],
    *[
        "disconnect",
        "lifecycle-hang",
        "lifecycle-error:500",
        "stall",
        "content-error:500",
        "reset",
        "truncate",
    ],
    *["no-terminal", "bad-json", "error-body:500", "bug", "unreachable"],
]
PATIENCE = Patience(connect=1, ttft=6, stall=3, whole=8)


@dataclass(frozen=True)
class Call:
    """What a caller asks for, and how long it stays."""

    model: str
    stream: bool
    size: int
    cap: int | None
    tools: bool
    leaves: float | None
    """Seconds until it is gone; None: it stays."""
    reads: int | None
    """Frames that it reads before it leaves; None: all."""


@dataclass(frozen=True)
class World:
    """Everything that a run follows from."""

    providers: list[Provider]
    models: list[Model]
    defaults: dict[str, Any]
    max_attempts: int
    total_seconds: float
    explores: bool
    ill: frozenset[str]
    """Providers that are ejected at the start."""
    poor: frozenset[str]
    """Providers whose credential is not there."""
    key: tuple[tuple[str, ...], tuple[str, ...]] | None
    """Patterns of the models and of the providers that the caller's key is good for; None: it has none."""
    hedge_ms: float
    credits: float
    calls: list[Call]
    script: list[tuple[str, float]]
    """What each request meets, and the seconds until its answer begins."""


models = st.builds(
    Model,
    id=st.just(""),
    provider_id=st.just(""),
    weight=st.sampled_from([1, 5, 5, 9]),
    max_context_tokens=st.sampled_from([0, 300, 2_000, 100_000, 100_000, 100_000]),
    max_output_tokens=st.sampled_from([0, 400, 4_000]),
    prices=st.builds(Prices, st.sampled_from([0, 100, 9_000]), st.sampled_from([0, 400, 40_000, 40_000])),
    pricing_source=st.sampled_from(["manual"] * 5 + [UNKNOWN_PRICE]),
    enabled=st.sampled_from([True] * 5 + [False]),
    lacks=st.sampled_from([frozenset[Need]()] * 3 + [frozenset({Need.TOOLS})]),
)
calls = st.builds(
    Call,
    model=st.sampled_from(["a", "ab", "*", "*", "*", "*", "pool", "alias"]),
    stream=st.sampled_from([True, True, True, False]),
    size=st.sampled_from([10, 10, 1_500, 12_000]),
    cap=st.none() | st.sampled_from([50, 3_000]),
    tools=st.sampled_from([False, False, True]),
    leaves=st.sampled_from([None] * 6 + [0.05, 0.6, 4.0]),
    reads=st.sampled_from([None] * 4 + [0, 2]),
)
worlds = st.builds(
    World,
    providers=st.tuples(*(st.sampled_from([Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES]),) * 3).map(
        lambda dialects: [
            Provider(
                f"p{n}",
                ProviderType.OPENAI_COMPATIBLE,
                (f"https://p{n}.example",),
                dialect,
                cred_store="vault",
            )
            for n, dialect in enumerate(dialects)
        ]
    ),
    models=st.lists(models, min_size=9, max_size=9).map(
        lambda drawn: [
            replace(one, id=["a", "ab", "b"][n // 3], provider_id=f"p{n % 3}") for n, one in enumerate(drawn)
        ]
    ),
    defaults=st.fixed_dictionaries(
        {
            "hedge": st.sampled_from([0.9, 0.9, 0.9, None]),
            "fallback": st.sampled_from([True, True, False]),
            "lossy": st.sampled_from([True, True, True, False]),
            "min_weight": st.sampled_from([0, 0, 0, 5]),
            "max_budget_usd": st.sampled_from([None, None, 0.004, 0.03, 0.03]),
            "max_latency_ms": st.sampled_from([None] * 4 + [1_500]),
            "provider": st.sampled_from([None] * 6 + ["p1"]),
        }
    ),
    max_attempts=st.integers(1, 6),
    total_seconds=st.sampled_from([2.0, 30.0, 60.0]),
    explores=st.booleans(),
    ill=st.sampled_from([frozenset[str]()] * 5 + [frozenset({"p0"}), frozenset({"p0", "p1", "p2"})]),
    poor=st.sampled_from([frozenset[str]()] * 5 + [frozenset({"p2"})]),
    key=st.sampled_from([None] * 3)
    | st.tuples(
        st.sampled_from([("*",), ("a*",), ("a",), ("b", "al?as"), ("pool", "[b]"), ()]),
        st.sampled_from([("*",), ("*",), ("p0", "p2"), ("p[12]",), ()]),
    ),
    hedge_ms=st.sampled_from([5.0, 5.0, 100.0, 1_000.0]),
    credits=st.sampled_from([0.0, 10.0, 10.0, 10.0]),
    calls=st.lists(calls, min_size=1, max_size=4),
    script=st.lists(
        st.tuples(st.sampled_from(FAULTS), st.sampled_from([0.0, 0.3, 0.6, 3.0])), min_size=3, max_size=25
    ),
)


class Books(Ledger):
    """A ledger that counts how often each reservation is settled."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved: Counter[int] = Counter()
        self.settled: Counter[int] = Counter()

    def reserve(
        self, snapshot: Snapshot, nanousd: int, outlay: Callable[[], Outlay] | None = None
    ) -> Reservation:
        reservation = super().reserve(snapshot, nanousd, outlay)
        self.reserved[reservation.id] += 1
        return reservation

    def settle(self, reservation: Reservation, nanousd: int, usage: Usage) -> None:
        self.settled[reservation.id] += 1
        super().settle(reservation, nanousd, usage)


@dataclass(frozen=True)
class Keys:
    """Providers have a key each, but for some."""

    poor: frozenset[str]

    def available(self, provider_id: str, cred_store: str, name: str = DEFAULT_CREDENTIAL) -> bool:
        del cred_store
        return provider_id not in self.poor

    def credential(self, provider_id: str, cred_store: str, name: str = DEFAULT_CREDENTIAL) -> Secret | None:
        return Secret(f"sk-{provider_id}") if self.available(provider_id, cred_store) else None


@dataclass(frozen=True)
class Sent:
    """One request that reached a provider."""

    at: float
    provider: str
    model: str
    key: str
    beside: int
    """How many others of the same call were open."""
    reserved: int
    """What was set aside then, for all that is open."""


class Watched:
    """A response that knows whether it was let go of."""

    def __init__(self, inner: UpstreamResponse) -> None:
        self._inner = inner
        self.status, self.headers = inner.status, inner.headers
        self.done = False

    async def read(self, limit: int) -> bytes:
        return await self._inner.read(limit)

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner.chunks():
            yield chunk

    def ease(self, *, gather: float, tick: float) -> None:
        self._inner.ease(gather=gather, tick=tick)

    async def close(self) -> None:
        self.done = True
        await self._inner.close()


class Field(SimulatedTransport):
    """All providers: each request meets the next fault of the script, and is written down."""

    def __init__(self, script: list[tuple[str, float]], books: Books) -> None:
        super().__init__()
        self._faults = list(script)
        self._books = books
        self._next: tuple[str, float] = ("ok", 0.0)
        self.sent: list[Sent] = []
        self.open: list[Watched | None] = []
        self.closed_to_calls = False

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        assert not self.closed_to_calls, "a request after the answer had begun, or after the end"
        running = len(self._books.reserved) - len(self._books.settled)
        self.sent.append(
            Sent(
                asyncio.get_running_loop().time(),
                (urlsplit(request.url).hostname or "").partition(".")[0],
                orjson.loads(request.body)["model"],
                _key(request.headers),
                running - 1,
                self._books.reserved_nanousd,
            )
        )
        fault, _ = self._next = self._faults.pop(0) if self._faults else ("ok", 0.0)
        if fault == "bug":
            raise ZeroDivisionError
        if fault == "unreachable":
            raise TokenHubError(
                Fault(Kind.TRANSIENT, Blame.PROVIDER, "no way there", cause="connect_refused")
            )
        watched = Watched(await super().send(request, timeouts))
        self.open.append(watched)
        return watched

    def _script(self, request: UpstreamRequest) -> Script:
        fault, ttft = self._next
        path = urlsplit(request.url).path
        dialect = dialect_at(path)
        assert dialect is not None
        profile = Profile(ttft=ttft, faults=(fault,))
        return play(dialect, request.body, target=path, profile=profile, call_number=0, created=0)


def _key(headers: Headers) -> str:
    named = dict(headers)
    return named.get("x-api-key") or named.get("authorization", "").removeprefix("Bearer ")


@dataclass
class Run:
    """A world at work."""

    world: World
    books: Books = field(default_factory=Books)
    explorer: Bandit = field(default_factory=Bandit)

    async def play(self) -> None:
        world, loop = self.world, asyncio.get_running_loop()
        self.field = Field(world.script, self.books)
        share = RetryBudget(per_second=world.credits)
        self.bench = Bench(
            models=world.models,
            providers=world.providers,
            aliases=[POOL, ALIAS],
            rules=Rules(max_attempts=world.max_attempts, total_seconds=world.total_seconds),
            defaults=world.defaults,
            patience=PATIENCE,
            transport=self.field,
            now=loop.time,
            hedging=Hedging(lambda *_: world.hedge_ms, share),
            ledger=self.books,
            secrets=Keys(world.poor),
            insight=Insight(explorer=lambda: self.explorer if world.explores else STILL),
        )
        down = Fault(Kind.TRANSIENT, Blame.PROVIDER, "boom")
        for provider in world.ill:
            for _ in range(5):
                self.bench.health.failed(provider, down, loop.time())
        for call in world.calls:
            await self._call(call)
        await self.bench.executor.close()
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert not [name for name in names if name.startswith(("attempt", "end of"))], (
            "somebody is still at work"
        )
        assert all(one.done for one in self.field.open if one), "a connection was left open"

    async def _call(self, call: Call) -> None:
        bench, sent = self.bench, self.field.sent
        self.field.closed_to_calls = False
        before, spent = len(sent), self.books.spent_nanousd
        bench.recorder.records.clear()
        body = chat("x" * call.size, model=call.model, stream=call.stream, seed=7)
        if call.cap is not None:
            body["max_tokens"] = call.cap
        if call.tools:
            body["tools"] = [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
            ]
        snapshot = bench.snapshot(body)
        if self.world.key is not None:
            models, providers = self.world.key
            key = ApiKey("k", models=models, providers=providers)
            snapshot = structs.replace(snapshot, caller=Caller(peer="127.0.0.1", key=key))
        took = await self._served(call, snapshot)
        record = bench.recorder.one
        assert self.books.settled == self.books.reserved, "something is not settled, or twice"
        assert all(count == 1 for count in self.books.settled.values())
        assert record.cost_nanousd == self.books.spent_nanousd - spent
        self._within_caps(record, snapshot, sent[before:], took)
        if call.leaves is None and call.reads is None:
            assert all(one.cause != "client_cancelled" for one in record.attempts), "nobody left"
        for one in sent[before:]:
            self._may_serve(call, record, one)
        self._note(record)
        if any(one.beside for one in sent[before:]):
            event("two open")

    async def _served(self, call: Call, snapshot: Snapshot) -> float:
        """Let the caller have its reply, or leave; return the seconds until the reply began."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        task = asyncio.create_task(self.bench.engine.exchange(snapshot))
        if call.leaves is not None:
            loop.call_later(call.leaves, task.cancel)
        reply = None
        with suppress(asyncio.CancelledError):
            reply = await task
        took = loop.time() - begun
        self.field.closed_to_calls = True
        if reply is not None and reply.frames is not None:
            frames: Any = reply.frames
            left = 10_000 if call.reads is None else call.reads
            while left and await anext(frames, None) is not None:
                left -= 1
            await frames.aclose()
        return took

    def _within_caps(self, record: Record, snapshot: Snapshot, sent: list[Sent], took: float) -> None:
        """Attempts, time, money, and how many were open at once."""
        defaults, seconds = self.world.defaults, self.world.total_seconds
        if defaults["max_latency_ms"] is not None:
            seconds = min(seconds, defaults["max_latency_ms"] / 1000)
        assert len(sent) == len(record.attempts) <= self.world.max_attempts
        assert all(one.at < snapshot.started + seconds for one in sent)
        assert took <= seconds + 1e-6
        beside = [one.beside for one in sent if one.beside]
        hedged = record.stream and defaults["hedge"] is not None
        assert beside in ([], [1] if hedged else [])
        if defaults["max_budget_usd"] is not None:
            assert all(one.reserved <= defaults["max_budget_usd"] * NANO for one in sent)
        lost = [one for one in record.attempts if one.cause == "hedge_lost"]
        assert len(lost) <= len(beside)
        assert all(one.blame == "us" for one in lost)

    def _may_serve(self, call: Call, record: Record, sent: Sent) -> None:
        """The limits once more, from what the call and the fleet are: no code of the router's is asked."""
        world, wishes = self.world, self.world.defaults
        (model,) = (one for one in world.models if (one.id, one.provider_id) == (sent.model, sent.provider))
        (provider,) = (one for one in world.providers if one.id == sent.provider)
        assert record.plan is not None
        assert record.plan.features is not None
        assert (model.id, provider.id) in {(one.model.id, one.provider.id) for one in record.plan.candidates}
        tokens = estimate.input_tokens(record.plan.features)
        output = call.cap or estimate.DEFAULT_OUTPUT_TOKENS
        output = min(output, model.max_output_tokens) if model.max_output_tokens else output
        assert model.enabled
        assert model.weight >= wishes["min_weight"]
        assert not (call.tools and Need.TOOLS in model.lacks)
        assert not model.max_context_tokens or int(tokens * CONTEXT_MARGIN) <= model.max_context_tokens
        if wishes["max_budget_usd"] is not None:
            assert model.pricing_source != UNKNOWN_PRICE
            cost = pricing.cost(model.prices, Usage(tokens, output))
            assert cost <= wishes["max_budget_usd"] * NANO
        assert wishes["provider"] in (None, provider.id)
        assert wishes["lossy"] or provider.dialect is Dialect.OPENAI_CHAT
        assert provider.id not in world.poor
        if world.key is not None:
            good, where = world.key
            meant = {"alias": {"ab"}, "pool": {"a", "ab"}}.get(call.model, set())
            assert _any(good, model.id) or (_any(good, call.model) and model.id in meant)
            assert _any(where, provider.id)
        assert sent.key == f"sk-{provider.id}"
        named = {"alias": "ab", "pool": None, "*": None}.get(call.model, call.model)
        assert named is None or wishes["fallback"] or model.id == named
        if call.model == "pool":
            assert any(fnmatch.fnmatchcase(model.id, target.model) for target in POOL.targets)
        if sent.beside and record.plan.candidates[0].pinned and len(record.attempts) == 2:
            assert model.id == named

    def _note(self, record: Record) -> None:
        """Tell Hypothesis which paths were gone."""
        causes = [one.cause for one in record.attempts]
        event(f"outcome {record.outcome.value}")
        event(f"reason {record.reason}" if record.reason else f"refused {record.fault}")
        if record.plan is not None and record.plan.lone and causes:
            event("lone")
        if "hedge_lost" in causes:
            event("hedged")
        if record.outcome is Outcome.CANCELLED and causes.count("client_cancelled") > 1:
            event("left two behind")


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _racing(world: World) -> World:
    """The same world with everybody slow to begin, and every call a hedged stream whose caller does not leave soon."""
    return replace(
        world,
        defaults={**world.defaults, "hedge": 0.9, "max_latency_ms": None, "provider": None},
        max_attempts=max(world.max_attempts, 2),
        total_seconds=60.0,
        ill=frozenset(),
        hedge_ms=5.0,
        credits=10.0,
        calls=[
            replace(one, stream=True, leaves=None, model="*" if one.model == "ab" else one.model)
            for one in world.calls
        ],
        script=[(fault, ttft or 0.3) for fault, ttft in world.script],
    )


def _play(world: World) -> None:
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(Run(world).play())


@settings(max_examples=120, deadline=None)
@given(worlds)
def test_no_limit_is_broken_on_any_path(world: World) -> None:
    """First try, failover, last resort, hedge, smaller cap, larger model, streams, aliases, exploration, goodbyes."""
    _play(world)


@settings(max_examples=80, deadline=None)
@given(worlds.map(_racing))
def test_no_limit_is_broken_in_a_race(world: World) -> None:
    """The same where nearly every call has two attempts open, which win, lose and fail in any order."""
    _play(world)
