"""A whole engine in memory: the real pipeline on the simulator, with a recorder that keeps what it gets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson

from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.clock import SystemClock
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import Hedging, Means, Patience
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.pipeline import Pipeline
from tokenhub_core.policy import Layer
from tokenhub_core.ports import Books, Reply, Secret, Secrets, Transport
from tokenhub_core.preparing import Insight, Rules
from tokenhub_core.providers import catalogue
from tokenhub_core.providers.catalogue import Catalogue
from tokenhub_core.providers.simulated import SimulatedTransport
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.routing.fleet import build
from tokenhub_core.types import (
    Alias,
    Caller,
    Dialect,
    Headers,
    Json,
    Model,
    Origin,
    Prices,
    Provider,
    ProviderType,
    Record,
    Snapshot,
)

OPENAI = Provider("sim-openai", ProviderType.SIMULATOR, ("sim://openai",), Dialect.OPENAI_CHAT)
ANTHROPIC = Provider(
    "sim-anthropic", ProviderType.SIMULATOR, ("sim://anthropic",), Dialect.ANTHROPIC_MESSAGES
)
CALLER = Caller(peer="127.0.0.1")
PAIR = (
    Model("gpt-4o", "sim-openai", weight=6, max_context_tokens=128_000, prices=Prices(2500, 10_000)),
    Model(
        "claude-sonnet-4-5",
        "sim-anthropic",
        weight=8,
        max_context_tokens=200_000,
        prices=Prices(3000, 15_000),
    ),
)


@cache
def _prices() -> Catalogue:
    return catalogue.load()


class Kept:
    """A recorder that keeps every record, has it counted, and can be told to fail."""

    def __init__(self, books: Books | None = None) -> None:
        self.books = books or Ledger()
        self.records: list[Record] = []
        self.before: Callable[[], None] = lambda: None

    async def commit(self, record: Record) -> None:
        self.books.book(record)
        self.before()
        self.post(record)

    def post(self, record: Record) -> None:
        self.books.book(record)
        self.books.booked(record)
        self.records.append(record)

    @property
    def one(self) -> Record:
        assert len(self.records) == 1, [record.outcome for record in self.records]
        return self.records[0]


class NoSecrets:
    """No provider has a credential, and the simulator needs none."""

    def available(self, provider_id: str, cred_store: str, name: str = "default") -> bool:
        return True

    def credential(self, provider_id: str, cred_store: str, name: str = "default") -> Secret | None:
        return None


@dataclass
class Bench:
    """An engine and what it did."""

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    models: Sequence[Model] = PAIR
    providers: Sequence[Provider] = (OPENAI, ANTHROPIC)
    aliases: Sequence[Alias] = ()
    rules: Rules = field(default_factory=Rules)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    patience: Patience = Patience(ttft=2, stall=2, whole=5)
    transport: Transport | None = None
    insight: Insight = field(default_factory=Insight)
    now: Callable[[], float] | None = None
    """The monotonic clock, where a scene has its own."""
    hedging: Hedging | None = None
    learned: Callable[[str, str], float] | None = None
    silences: Callable[[str, str], float] | None = None
    """Within what its models' streams begin, in seconds."""
    ledger: Ledger = field(default_factory=Ledger)
    secrets: Secrets = field(default_factory=NoSecrets)
    prefix: str = "req_"
    """Of the ids of its calls."""

    def __post_init__(self) -> None:
        self.recorder = Kept(self.ledger)
        self.health = HealthTracker()
        self.clock = SystemClock()
        self._ids = itertools.count(1)
        if self.now is not None:
            self.clock.monotonic = self.now  # type: ignore[method-assign] # a scene's own time
        fleet = build(self.providers, self.models, version=1, aliases=self.aliases)
        means = Means(
            transport=self.transport or SimulatedTransport(profiles=self.profiles, speed=0),
            secrets=self.secrets,
            ledger=self.ledger,
            health=self.health,
            retries=RetryBudget(),
            clock=self.clock,
            random=lambda: 0.0,
            dialects=DIALECTS,
            hedging=self.hedging,
            learned=self.learned,
            silences=self.silences,
        )
        self.executor = Executor(means, self.patience)
        self.engine = Pipeline(
            executor=self.executor,
            recorder=self.recorder,
            catalogue=_prices(),
            fleet=lambda: fleet,
            defaults=lambda: Layer("default", self.defaults),
            rules=self.rules,
            insight=self.insight,
        )

    def snapshot(
        self,
        body: Json | bytes,
        dialect: Dialect = Dialect.OPENAI_CHAT,
        *,
        headers: Headers = (),
        origin: Origin | None = None,
        caller: Caller = CALLER,
    ) -> Snapshot:
        return Snapshot(
            id=f"{self.prefix}{next(self._ids)}",
            method="POST",
            path="/v1/chat/completions" if dialect is Dialect.OPENAI_CHAT else "/v1/messages",
            headers=headers,
            body=body if isinstance(body, bytes) else orjson.dumps(body),
            received_at=self.clock.now(),
            started=self.clock.monotonic(),
            dialect=dialect,
            origin=origin,
            caller=caller,
        )

    async def ask(
        self, body: Json | bytes, dialect: Dialect = Dialect.OPENAI_CHAT, **more: Any
    ) -> tuple[Reply, bytes]:
        """Send one call and read its reply to the end."""
        reply = await self.engine.exchange(self.snapshot(body, dialect, **more))
        if reply.frames is None:
            return reply, reply.body
        return reply, b"".join([frame async for frame in reply.frames])


def chat(text: str = "Hello", **more: Any) -> Json:
    """Return an OpenAI chat body."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def message(text: str = "Hello", **more: Any) -> Json:
    """Return an Anthropic messages body."""
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": text}],
        **more,
    }
