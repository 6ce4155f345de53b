"""What happened: the attempts and the one record of an exchange."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tokenhub_core.types.answer import Usage
from tokenhub_core.types.fleet import Plan
from tokenhub_core.types.wire import Caller, Dialect


class Attempt(msgspec.Struct, frozen=True):
    """One try at one candidate. Times in milliseconds since the snapshot started."""

    n: int
    model: str
    provider: str
    started_ms: float
    ended_ms: float
    first_byte_ms: float | None = None
    status: int = 0
    """What the provider answered; 0 when it never did."""
    cause: str = ""
    """Empty on success, else the fault's low-cardinality label."""
    message: str = ""
    usage: Usage = Usage()
    cost_nanousd: int = 0
    change: str = ""
    """`reduced-max-tokens` or `escalated-context-overflow` where the machine changed the call, `resumed` where it
    goes on with an answer that broke off."""
    provider_request_id: str = ""
    blame: str = ""
    """Whose fault it was, by `errors.Blame`; empty on success."""
    step: str = ""
    """Of a call that several calls answer: which of them it was made for."""
    head_ms: float | None = None
    """When the head of its answer had come."""
    ttft_limit_ms: float | None = None
    """How long its first content could take, where that was not what the setting says."""
    silence_ms: float | None = None
    """The longest between two pieces of a stream, from its first content on."""
    stall_limit_ms: float | None = None
    """How long that could be, where it was known of the model."""


class Step(msgspec.Struct, frozen=True):
    """One of several calls that made an answer."""

    name: str
    model: str = ""
    """Who answered it, or was asked last."""
    provider: str = ""
    cost_nanousd: int = 0
    """The sum over its attempts."""
    verdict: str = ""
    """`final`: the answer is this one's. Of a judge, the name of the step that it chose, or `none`."""
    cause: str = ""
    """The label of the fault, empty where it answered."""
    plan: Plan | None = None
    """What it was decided by; None where it shares the decision of the call, which is the first step's."""


class Composition(msgspec.Struct, frozen=True):
    """How several calls made an answer; the text of none of them."""

    mode: str
    """`planning`, `adversarial`, `vote` or `refine`."""
    decided: str
    """Why the final answer is what it is, see `orchestration.asks.Composite`; empty where there is none."""
    steps: tuple[Step, ...] = ()
    """In the order in which they were asked."""
    most: int = 0
    """How many they could have been."""


class Shadow(msgspec.Struct, frozen=True):
    """What we would have done with a call that went its own way; the plan of it stands in its record.

    Money in nano-dollars, times in milliseconds. None: not known, and not guessed.
    """

    model: str = ""
    """The candidate that we would have asked first; empty where we would have asked nobody."""
    provider: str = ""
    same: bool = False
    """It is the very host that the call went to, for the same model: nothing would have changed."""
    nanousd: int | None = None
    """What the tokens that the call really had cost there."""
    price: str = ""
    """Where that price comes from, as `Model.pricing_source` says it."""
    paid: int | None = None
    """What they cost at the host that answered, by the price list."""
    paid_price: str = ""
    took_ms: float | None = None
    """From the whole request to the end of the answer."""
    expected_ms: float | None = None
    """The same at the candidate, for an answer of this length, as learned."""
    losses: tuple[str, ...] = ()
    """What of the call its dialect could not have carried."""
    fault: str = ""
    """The label of the fault that we would have answered with, empty where we would have served."""
    status: int = 0
    message: str = ""


class Outcome(StrEnum):
    """How an exchange ended."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    """The caller left before the end."""
    PASSED = "passed"
    """Not a call that is routed: handed through untouched."""


class Timings(msgspec.Struct, frozen=True):
    """Milliseconds since the snapshot started."""

    queue_ms: float = 0.0
    route_ms: float = 0.0
    ttft_ms: float | None = None
    total_ms: float = 0.0


class Record(msgspec.Struct, frozen=True):
    """The one fact about an exchange: written once, read by everything that counts, bills or shows."""

    id: str
    at: float
    outcome: Outcome
    status: int
    caller: Caller
    method: str
    path: str
    dialect: Dialect | None = None
    stream: bool = False
    origin_host: str = ""
    client_request_id: str = ""
    requested_model: str = ""
    alias: str = ""
    """The alias that stood for a model in this call, empty where none did."""
    variant: str = ""
    """The target that the alias came to, as it names it; empty for a pool."""
    model: str = ""
    provider: str = ""
    reason: str = ""
    directive: str = ""
    """`honoured`, `denied`, `invalid`, `ignored`, or empty where there was none."""
    usage: Usage = Usage()
    usage_estimated: bool = False
    cost_nanousd: int = 0
    """The sum over all attempts."""
    timings: Timings = Timings()
    attempts: tuple[Attempt, ...] = ()
    plan: Plan | None = None
    fault: str = ""
    """The fault's label, empty on success."""
    message: str = ""
    losses: tuple[str, ...] = ()
    identical: bool = False
    """The reply's bytes are the provider's own."""
    simulated: bool = False
    stop: str = ""
    shadow: Shadow | None = None
    """Set where the call went its own way and `plan` is only what we would have done with it."""
    composition: Composition | None = None
    """Set where several calls made the answer."""
