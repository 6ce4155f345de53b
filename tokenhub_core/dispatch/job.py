"""One call on its way through dispatch: what it needs, what it leaves, what comes of it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.bodies import Bodies
from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.seams import Begun
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.ports import Clock, Ledger, Secrets, Short, Transport, UpstreamResponse
from tokenhub_core.providers.adapters import Places, place
from tokenhub_core.quirks.repairs import AnswerRepairs
from tokenhub_core.routing.deadlines import Own
from tokenhub_core.routing.spread import LOST
from tokenhub_core.shaping.shape import Check, Said
from tokenhub_core.types import (
    Attempt,
    Candidate,
    Composition,
    Dialect,
    Headers,
    Left,
    Plan,
    Request,
    Skip,
    Snapshot,
    Stopped,
    Usage,
)

CANCELLED: Final = Fault(Kind.CANCELLED, Blame.CLIENT, "the caller left", cause="client_cancelled")
DRAINED: Final = Fault(
    Kind.CANCELLED, Blame.CLIENT, "the caller left; the answer was read to its end", cause="client_cancelled"
)
OUTRUN: Final = Fault(Kind.CANCELLED, Blame.US, "another attempt answered first", cause=LOST)
STOPPED: Final = Fault(
    Kind.CANCELLED, Blame.US, "the other steps of the call have settled it", cause="step_stopped"
)
INTERNAL: Final = Fault(
    Kind.INTERNAL, Blame.US, "TokenHub failed to answer this call; its log says why.", cause="internal"
)


class Job(msgspec.Struct, frozen=True):
    """One call, ready to be dispatched."""

    snapshot: Snapshot
    request: Request
    plan: Plan
    bodies: Bodies
    limits: Limits
    check: Check | None = None
    """What the answer has to be."""
    resumable: bool = False
    """A stream of it is written so that somebody else can go on with it."""
    begun: Begun | None = None
    """What its caller has read of an answer that broke off, and that is gone on with."""


class Draining(Protocol):
    """What reads on, as those see it who wait for its end."""

    def done(self) -> bool:
        """Tell whether it has ended."""
        ...

    def add_done_callback(self, heard: Callable[[Any], object], /) -> None:
        """Call `heard` when it has."""
        ...


class Produced(Protocol):
    """What a stream's model has produced so far."""

    usage: Usage
    output_chars: int


@dataclass(slots=True)
class Trace:
    """What happened so far; whoever started the run reads it, however the run ended."""

    attempts: list[Attempt] = field(default_factory=list)
    """Those that have ended."""
    sent: int = 0
    """How many were sent; a stream's reply begins before its attempt has ended."""
    change: str = ""
    """The last `Attempt.change` among them."""
    resumed: Usage = Usage()
    """What the parts of the answer have used that broke off and were gone on with."""
    hedged: bool = False
    """The answer is a hedge's that came before the attempt that it was sent beside."""
    ttft_ms: float | None = None
    usage: Usage = Usage()
    usage_estimated: bool = False
    candidate: Candidate | None = None
    """The one whose answer the caller gets."""
    asked: Candidate | None = None
    """The one that the last attempt was sent to,"""
    gate: Produced | None = None
    """and how far its stream has come."""
    losses: tuple[str, ...] = ()
    identical: bool = False
    stop: Stopped | None = None
    passed_over: list[Skip] = field(default_factory=list)
    """Candidates that budgets had too little left for."""
    left: Left = Left()
    """What of the answer comes back with the conversation's next call."""
    recorded: bool = False
    """The record is made by whoever runs the call, and by nobody else."""
    gone: bool = False
    """The caller has left."""
    draining: Draining | None = None
    """What reads on after the caller has left; the last attempt ends with it."""
    composition: Composition | None = None
    """The steps that made the answer, None where one call did."""

    @property
    def cost_nanousd(self) -> int:
        """Return the cost of all attempts."""
        return sum(attempt.cost_nanousd for attempt in self.attempts)


class Whole(msgspec.Struct, frozen=True):
    """An answer that came in one piece, in the caller's dialect."""

    body: bytes
    headers: Headers
    """The provider's own."""
    said: Said | None = None
    """What it says, where it is checked."""


class Ear(Protocol):
    """Who listens to what providers answer."""

    def listen(
        self,
        response: UpstreamResponse,
        *,
        request_id: str,
        attempt: int,
        dialect: DialectModule,
        stream: bool,
        repairs: AnswerRepairs,
    ) -> UpstreamResponse:
        """Return the answer to be read in the place of `response`; `repairs` are what will be done to it."""
        ...


class Live(Protocol):
    """A committed stream, in the caller's dialect."""

    headers: Headers
    said: Said | None
    """What was said so far, where it is checked."""

    def frames(self) -> AsyncIterator[bytes]:
        """Yield bytes up to, not including, the terminal event; raises `TokenHubError` where it breaks."""
        ...

    def tail(self) -> bytes:
        """Return the terminal event, once `frames` has ended."""
        ...

    async def close(self) -> None:
        """End the attempt; after an early close it counts as cancelled."""
        ...


class Drain(msgspec.Struct, frozen=True):
    """How far an answer is read on whose caller has left."""

    seconds: float = 30.0
    size: int = 4 << 20
    """Bytes."""
    most: int = 64
    """At once."""


class Guard(msgspec.Struct, frozen=True):
    """How much of a guarded stream is held."""

    seconds: float = 5.0
    size: int = 32 << 10
    """Bytes for the caller."""


class Patience(msgspec.Struct, frozen=True):
    """How long attempts may take, in seconds."""

    connect: float = 5.0
    ttft: float = 120.0
    stall: float = 90.0
    whole: float = 600.0
    """For a whole answer; also the longest that a stream may go on without content, pings or not."""
    floor: float | None = None
    """The least that is learned for `ttft`; None: nothing is."""
    own: tuple[Own, ...] = ()
    """What the operator says of single models' `ttft` and `stall`."""
    suited: bool = False
    """`ttft` is that of the attempt's own model."""
    stall_floor: float | None = None
    """The least that is learned for `silence`; None: nothing is."""
    silence: float = math.inf
    """The longest that a stream of the attempt's own model may be silent once it has begun, where that is known."""
    gather: float = 0.01
    """What a stream's provider sends within this time of the last piece goes on together with what follows."""
    tick: float = 15.0
    """After so much silence of a committed stream's provider the caller gets a sign of life."""
    drain: Drain = Drain()
    """For providers that bill on."""
    guard: Guard = Guard()
    """For streams that are guarded."""

    @property
    def learns(self) -> bool:
        """Tell whether a stream's model makes a difference."""
        return self.floor is not None or self.stall_floor is not None


class Hedging(msgspec.Struct, frozen=True):
    """What is needed to send a second attempt beside one that is slow to begin."""

    after: Callable[[str, str, float], float | None]
    """From a model, its provider and a quantile to the milliseconds within which that share of its streams has begun;
    None where too little is known."""
    share: RetryBudget
    """How many of all calls may be hedged."""


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
    keyring: Keyring = field(default_factory=Keyring)
    """Which credential takes a call, and what the answers say of their limits."""
    places: Places = place
    """Where providers' operations are."""
    hedging: Hedging | None = None
    """None: no call is hedged, whatever its policy says."""
    learned: Callable[[str, str], float] | None = None
    """From a model and its provider to the seconds within which its streams begin unless something is wrong."""
    silences: Callable[[str, str], float] | None = None
    """The same for the longest that one is silent once it has begun."""
    ear: Ear | None = None
    """None: nobody listens."""
    more: Callable[[Short, float, int], Awaitable[bool]] | None = None
    """Asks for a larger share of the budgets, for an attempt that began at so many monotonic seconds and has asked so
    many times; tells whether to try again. None: nobody can be asked."""
