"""What the engine needs from the world, as small protocols. `app.py` chooses who fills them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from tokenhub_core.errors import Fault, TokenHubError
from tokenhub_core.types import (
    DEFAULT_CREDENTIAL,
    ApiKey,
    Caller,
    Dialect,
    Headers,
    Plan,
    Record,
    Request,
    Snapshot,
    Usage,
)


class Clock(Protocol):
    """Both times: the calendar's, for records; the monotonic one, for durations and deadlines."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        ...


class Secret:
    """A credential that shows itself to nobody who does not ask: `repr`, `str` and pickling are blank."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the credential; call it only where it goes on the wire."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, ("",))


class KeyBook(Protocol):
    """Where clients' keys are known."""

    def look_up(self, secret: str, now: float) -> ApiKey:
        """Return the key with this secret; `now` is in seconds since the epoch.

        Raises `TokenHubError` (`AUTH`), its cause saying why: `key_unknown`, `key_disabled`, `key_expired`.
        """
        ...

    def named(self, key_id: str, now: float) -> ApiKey:
        """Return the key with this id as it is now; raises like `look_up`. Only we know whom an id was given to."""
        ...


class Timeouts(msgspec.Struct, frozen=True):
    """Limits on one attempt, in seconds. None: no limit."""

    connect: float = 5.0
    ttft: float | None = 120.0
    """From sending the request to the response's head (a stream's first content is the gate's to watch)."""
    stall: float | None = 60.0
    """Between two reads of a body."""


class UpstreamRequest(msgspec.Struct, frozen=True):
    """What goes to a provider. `headers` already hold the credential; they are never logged."""

    method: str
    url: str
    headers: Headers
    body: bytes

    def __repr__(self) -> str:
        return f"UpstreamRequest({self.method} {self.url})"


class UpstreamResponse(Protocol):
    """A provider's answer, its head read. Every read may raise `TokenHubError` with a typed fault."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        ...

    @property
    def headers(self) -> Headers:
        """Return the response's header fields."""
        ...

    async def read(self, limit: int) -> bytes:
        """Return the whole decoded body; a longer one than `limit` bytes is a `TOO_LARGE` fault."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the decoded body as it arrives."""
        ...

    def ease(self, *, gather: float, tick: float) -> None:
        """Let `chunks` be calmer from now on; both in seconds.

        What arrives within `gather` of the last piece waits until that time is over and is yielded in one piece,
        and after every `tick` of silence an empty piece is yielded.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection: back to the pool when the body was read to its end, else closed."""
        ...


class Transport(Protocol):
    """The way to providers."""

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send and return once the head is here; raises `TokenHubError` with a typed fault."""
        ...


class Secrets(Protocol):
    """Where credentials are read, at use."""

    def available(self, provider_id: str, cred_store: str, name: str = DEFAULT_CREDENTIAL) -> bool:
        """Tell, cheaply, whether `credential` would return one now."""
        ...

    def credential(self, provider_id: str, cred_store: str, name: str = DEFAULT_CREDENTIAL) -> Secret | None:
        """Return that credential of the provider, None where there is none; raises `TokenHubError` while locked."""
        ...


class Reservation(msgspec.Struct, frozen=True):
    """Money set aside for one attempt, in nano-dollars."""

    id: int
    nanousd: int


class Outlay(msgspec.Struct, frozen=True):
    """What one attempt will probably use, and what it can use at most; money in nano-dollars."""

    nanousd: int
    most_nanousd: int | None
    """None: nobody knows what the model costs."""
    tokens: int
    most_tokens: int
    capped: bool = True
    """Whether the caller has said how long the answer may be at most."""


class Charge(msgspec.Struct, frozen=True):
    """What one record adds to one budget's count: of the time since `since` (microseconds), in the budget's unit."""

    budget: str
    since: int
    amount: int
    process: str = ""
    """Whose share it is spent of; empty where the budget is not shared."""


class Want(msgspec.Struct, frozen=True):
    """What one attempt needs of one budget's count, and this process's share has not."""

    budget: str
    since: int
    amount: int


class Short(TokenHubError):  # noqa: N818 -- asked about first, and only then an error
    """Refused for want of a share: the budget may have more, and its database can be asked for it."""

    def __init__(self, fault: Fault, wants: Sequence[Want]) -> None:
        super().__init__(fault)
        self.wants = wants


class Ledger(Protocol):
    """Two-phase money. The failover machine reserves before an attempt and settles after it."""

    def reserve(
        self, snapshot: Snapshot, nanousd: int, outlay: Callable[[], Outlay] | None = None
    ) -> Reservation:
        """Set money aside; raises `TokenHubError` (`BUDGET`) where there is not enough, `Short` where there may be.

        `outlay` says what the attempt can use at most; it is asked only where a budget applies.
        """
        ...

    def settle(self, reservation: Reservation, nanousd: int, usage: Usage) -> None:
        """Replace the reservation by what the attempt really cost (0 releases it)."""
        ...

    def told(self, caller: Caller, at: float) -> str:
        """Return what a caller is to be told of its budgets at `at` (seconds since the epoch); mostly nothing."""
        ...


class Books(Protocol):
    """Where records are counted; what a record adds is stored together with it."""

    def book(self, record: Record) -> Sequence[Charge]:
        """Count a record, once, however often it is handed over, and return what that adds."""
        ...

    def booked(self, record: Record) -> None:
        """Hear that a record is not handed over again."""
        ...


class Recorder(Protocol):
    """Where records go."""

    async def commit(self, record: Record) -> None:
        """Return once the record is durable."""
        ...

    def post(self, record: Record) -> None:
        """Hand the record over without waiting: for callers that are gone."""
        ...


def _whole() -> bool:
    return False


class Reply(msgspec.Struct, frozen=True):
    """What goes back to the caller: a head, and either a whole body or frames as they come.

    Whoever takes a reply with `frames` must iterate it to its end or `aclose` it: that is how the engine
    learns that the caller left.
    """

    status: int
    headers: Headers
    body: bytes = b""
    frames: AsyncIterator[bytes] | None = None
    summary: Summary | None = None
    broken: Callable[[], bool] = _whole
    """Tells, once the frames have ended, whether their last one is an error."""

    def __repr__(self) -> str:
        return f"Reply({self.status})"


class Summary(msgspec.Struct, frozen=True):
    """The decision behind a reply, for flow comments and metadata."""

    request_id: str
    model: str = ""
    provider: str = ""
    reason: str = ""
    attempts: int = 0
    fault: str = ""


class Overhearing(Protocol):
    """Who learns from the heads of answers that only pass through. Must not raise and must not wait."""

    def __call__(
        self,
        host: str,
        dialect: Dialect,
        request: Headers,
        answer: Headers,
        *,
        model: Callable[[], str],
        now: float,
        at: float,
    ) -> None:
        """Hear of one; `model` tells the one that was asked for, `now` is monotonic and `at` the calendar's."""
        ...


def deaf(
    host: str,
    dialect: Dialect,
    request: Headers,
    answer: Headers,
    *,
    model: Callable[[], str],
    now: float,
    at: float,
) -> None:
    """Learn nothing. Implements `Overhearing`."""


class Engine(Protocol):
    """The one thing that a front door knows. Raises nothing but cancellation."""

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one routed call."""
        ...


class Foreseen(msgspec.Struct, frozen=True):
    """What we would have done with a call that somebody else answers."""

    request: Request | None = None
    """None where the call could not be read."""
    plan: Plan | None = None
    alias: str = ""
    variant: str = ""
    directive: str = ""
    fault: Fault | None = None
    """What we would have answered, where we would not have served it."""


class Foreseer(Protocol):
    """Who says what would be done with a call, without doing it."""

    def foresee(self, snapshot: Snapshot) -> Foreseen:
        """Decide the call as it would be decided now; raises nothing and changes nothing."""
        ...

    def alias_of(self, dialect: Dialect, path: str, headers: Headers, body: bytes) -> str:
        """Return the alias that the call asks for, empty where its name is none; raises nothing."""
        ...


class Subscriber(Protocol):
    """Someone who hears of each record after it was handed over. Must not raise and must not wait."""

    def __call__(self, record: Record, /) -> None:
        """Hear of one record."""
        ...


type Subscribers = Sequence[Subscriber]
