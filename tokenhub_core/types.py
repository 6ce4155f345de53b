"""The nouns of the house, in the order in which data flows through it.

    Snapshot → Request → (Directives) → Policy → Fleet → Plan → Attempt → Delta/Answer → Record

Every value is frozen; whoever wants another one makes it. Money is counted in integer nano-dollars (a token
of a $0.05-per-million model costs 50), wall time in seconds since the epoch, durations in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

type Json = dict[str, Any]
"""A decoded JSON object. `Any` because the wire decides; each dialect narrows what it reads."""

type Headers = tuple[tuple[str, str], ...]
"""Header fields in order of arrival, names in lower case, repeats kept."""

NANO: Final = 1_000_000_000
"""Nano-dollars per dollar."""


def header(headers: Headers, name: str, default: str = "") -> str:
    """Return the first value of `name` (lower case), or `default`."""
    for key, value in headers:
        if key == name:
            return value
    return default


# --- 1. What arrived ---------------------------------------------------------------------------------------


class Lane(StrEnum):
    """Who read the client's HTTP."""

    HANDOFF = "handoff"
    INSPECT = "inspect"
    DIRECT = "direct"


class Dialect(StrEnum):
    """A wire format that clients and providers speak."""

    OPENAI_CHAT = "openai_chat"
    ANTHROPIC_MESSAGES = "anthropic_messages"


@dataclass(frozen=True, slots=True)
class Origin:
    """The host that an intercepted call was meant for."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """Return the base URL, without a default port and without a trailing slash."""
        default = {"https": 443, "http": 80}.get(self.scheme)
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the peer, the way it came, and what it says of itself."""

    peer: str = ""
    lane: Lane = Lane.DIRECT
    mode: str = ""
    """The mitmproxy mode (`regular`, `reverse`, `socks5`, …), empty for the side server."""
    proxy_user: str = ""
    program: str = ""
    """The User-Agent's first product, at most 80 characters."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One request, exactly as it came. `path` includes the query."""

    id: str
    """Made by us; the client's own id stays in its headers."""
    method: str
    path: str
    headers: Headers
    body: bytes = field(repr=False)
    received_at: float
    started: float
    """Monotonic; every duration of the record counts from here."""
    dialect: Dialect = Dialect.OPENAI_CHAT
    """What its host and path say it speaks."""
    origin: Origin | None = None
    caller: Caller = Caller()


# --- 2. What it asks ---------------------------------------------------------------------------------------


class Need(StrEnum):
    """A capability without which a model cannot serve a call."""

    TOOLS = "tools"
    VISION = "vision"
    FILES = "files"
    AUDIO = "audio"
    JSON_SCHEMA = "json_schema"


@dataclass(frozen=True, slots=True)
class Features:
    """What routing has to know of a call; read in one walk over the decoded body."""

    model: str
    stream: bool = False
    max_output_tokens: int | None = None
    """The caller's cap; None where it set none."""
    needs: frozenset[Need] = frozenset()
    text_bytes: int = 0
    """UTF-8 bytes of everything that becomes input tokens, images and other media left out."""
    media: int = 0
    """How many images, files and audio parts."""
    turns: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A call as its own dialect reads it. `data` is `body` decoded: never changed in place."""

    dialect: Dialect
    body: bytes = field(repr=False)
    data: Json = field(repr=False)
    features: Features = field(repr=False)


@dataclass(frozen=True, slots=True)
class TextSlot:
    """One piece of text that a directive may stand in, and where it stands in the body."""

    role: str
    """`user`, `assistant`, `system`, `developer`. Tool results and documents are never slots."""
    path: tuple[str | int, ...]
    text: str


class Role(StrEnum):
    """Whose turn it is, in the canonical conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text."""

    text: str
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """An image by URL or by value (`media_type` and base64 `data`)."""

    url: str = ""
    media_type: str = ""
    data: str = field(default="", repr=False)
    detail: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model calls a tool. `arguments` is JSON text, as it was produced."""

    id: str
    name: str
    arguments: str
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer to one tool call."""

    id: str
    content: tuple[Part, ...]
    is_error: bool = False
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought. `signature` and `redacted` are valid at the provider that made them only."""

    text: str = ""
    signature: str = ""
    redacted: str = field(default="", repr=False)
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model declined, in its own words."""

    text: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A part that only its own dialect understands: kept there, listed as a loss elsewhere."""

    dialect: Dialect
    kind: str
    raw: Json = field(repr=False)


type Part = Text | Image | ToolUse | ToolResult | Reasoning | Refusal | Opaque


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `schema` is JSON Schema."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    strict: bool | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)


class Choice(StrEnum):
    """How free the model is to call tools."""

    AUTO = "auto"
    REQUIRED = "required"
    NONE = "none"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The tool choice; `name` with `Choice.NAMED`. `parallel` None means the caller did not say."""

    kind: Choice = Choice.AUTO
    name: str = ""
    parallel: bool | None = None


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Structured output: any JSON object, or one that fits `schema`."""

    schema: Mapping[str, Any] | None = None
    name: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A chat call in no dialect: what a writer needs to say it in another one.

    `rest` keeps the fields that the reader knew no canonical place for, by their wire names; a writer of the
    same dialect puts them back, a writer of another lists them as losses.
    """

    dialect: Dialect
    model: str
    turns: tuple[Turn, ...]
    stream: bool = False
    tools: tuple[Tool | Opaque, ...] = ()
    tool_choice: ToolChoice | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    output: OutputFormat | None = None
    user: str = ""
    include_usage: bool = False
    """The caller of a stream wants to see the usage (dialects that always send it set True)."""
    rest: Mapping[str, Any] = field(default_factory=dict)


# --- 3. What is allowed and wanted -------------------------------------------------------------------------


class Mode(StrEnum):
    """Which weights score the candidates."""

    CHEAP = "cheap"
    NORMAL = "normal"
    HIGH_CONFIDENCE = "high_confidence"
    PLANNING = "planning"
    ADVERSARIAL = "adversarial"


@dataclass(frozen=True, slots=True)
class Policy:
    """The merged wishes and limits for one call. None means no limit. `why` names each field's source."""

    mode: Mode = Mode.NORMAL
    max_budget_usd: float | None = None
    max_latency_ms: int | None = None
    min_weight: int = 0
    model: str | None = None
    """The model to serve; None leaves the choice to the scores."""
    provider: str | None = None
    """Only this provider may serve."""
    fallback: bool = True
    """Whether another model may stand in when the named one fails."""
    output_schema: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)


# --- 4. Who could serve ------------------------------------------------------------------------------------


class ProviderType(StrEnum):
    """Which adapter speaks to a provider."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    VLLM = "vllm"
    OPENAI_COMPATIBLE = "openai_compatible"
    SIMULATOR = "simulator"
    ORIGIN = "origin"
    """The host that an intercepted call was meant for, with the caller's own credential."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An endpoint that serves models. `endpoints` are base URLs, tried in turn where there are several."""

    id: str
    type: ProviderType
    endpoints: tuple[str, ...]
    dialect: Dialect = Dialect.OPENAI_CHAT
    enabled: bool = True
    cred_store: str = "none"
    """`vault`, `env:NAME`, `memory`, `caller` or `none`: where the credential is read at use."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Nano-dollars per token."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float | None = None
    """None: cached input costs like other input."""
    cache_write: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model at one provider. The same `id` may stand at several providers."""

    id: str
    provider_id: str
    upstream: str = ""
    """Its name at the provider; empty means `id`."""
    weight: int = 5
    max_context_tokens: int = 0
    """0: unknown."""
    max_output_tokens: int = 0
    """0: unknown."""
    prices: Prices = Prices()
    pricing_source: str = "manual"
    enabled: bool = True
    lacks: frozenset[Need] = frozenset()
    """Capabilities known to be missing; what is not known is assumed to be there."""

    @property
    def name(self) -> str:
        """Return the name that the provider knows it by."""
        return self.upstream or self.id


@dataclass(frozen=True, slots=True)
class Standing:
    """What routing sees of a provider's health at one moment."""

    available: bool = True
    probing: bool = False
    """Half-open: one trial call may go through."""
    error_rate: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """The frozen view of everything that could serve; swapped whole when anything changes."""

    version: int = 0
    providers: Mapping[str, Provider] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    by_id: Mapping[str, tuple[Model, ...]] = field(default_factory=dict)
    """Derived from `models` by `routing.fleet.build`."""


class Skipped(StrEnum):
    """Why a model was not eligible. The first reason that applies, in this order, is counted."""

    DISABLED = "disabled"
    NO_ADAPTER = "no_adapter"
    NOT_REQUESTED = "not_requested"
    WEIGHT_BELOW_MINIMUM = "weight_below_minimum"
    CAPABILITY_MISSING = "capability_missing"
    CONTEXT_OVERFLOW = "context_overflow"
    BUDGET_EXCEEDED = "budget_exceeded"
    NO_CREDENTIAL = "no_credential"
    HEALTH_DOWN = "health_down"


@dataclass(frozen=True, slots=True)
class Skip:
    """One model that was left out, and why."""

    model: str
    provider: str
    reason: Skipped
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """The four terms of a score, each already weighted; their sum is the score."""

    cost: float = 0.0
    latency: float = 0.0
    failure: float = 0.0
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to serve the call. Lower scores are better."""

    model: Model
    provider: Provider
    score: float
    terms: Terms
    estimated_nanousd: int
    """Input estimate plus the output reserve."""
    pinned: bool = False
    """The caller named this model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered candidates of one call, and everything that explains the order."""

    policy: Policy
    candidates: tuple[Candidate, ...]
    skips: tuple[Skip, ...]
    input_tokens: int
    output_tokens: int
    reason: str
    """`routed-hint-exact`, `routed-weight-N` or `routed-origin`."""
    fleet_version: int = 0
    lone: bool = False
    """Bad health alone had emptied the list: the one candidate is to be tried in spite of it."""


# --- 5. What was produced ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `input_tokens` includes what was read from and written to a cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    """Includes reasoning."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def merge(self, other: Usage) -> Usage:
        """Return the per-field maximum: providers repeat and accumulate counts, so a sum counts twice."""
        return Usage(
            max(self.input_tokens, other.input_tokens),
            max(self.output_tokens, other.output_tokens),
            max(self.cache_read_tokens, other.cache_read_tokens),
            max(self.cache_write_tokens, other.cache_write_tokens),
            max(self.reasoning_tokens, other.reasoning_tokens),
        )

    def __bool__(self) -> bool:
        return bool(self.input_tokens or self.output_tokens)


class StopReason(StrEnum):
    """Why a model stopped."""

    END = "end"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_USE = "tool_use"
    FILTERED = "filtered"
    REFUSED = "refused"
    PAUSED = "paused"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Started:
    """A stream's first word: the provider's id and model name."""

    id: str = ""
    model: str = ""
    created: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More reasoning; `signature` and `redacted` come whole."""

    text: str = ""
    signature: str = ""
    redacted: str = ""


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """More of a refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """The model begins to call a tool. `index` tells parallel calls apart, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """A fragment of the JSON text of a tool call's arguments."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The model stopped. `raw` is the wire's own word, `sequence` the stop sequence it met."""

    reason: StopReason
    raw: str = ""
    sequence: str = ""


@dataclass(frozen=True, slots=True)
class UsageSeen:
    """Token counts so far."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished:
    """The dialect's terminal event. A stream without it was cut short."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The provider reported an error inside its stream; `status` is what it would have been as a response."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Unread:
    """Something in the stream that has no canonical form; `kind` goes to the list of losses."""

    kind: str


type Delta = (
    Started
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolStarted
    | ToolArguments
    | Stopped
    | UsageSeen
    | Finished
    | Failed
    | Unread
)

type Content = TextDelta | ReasoningDelta | RefusalDelta | ToolStarted | ToolArguments
"""The deltas that a user can see: the first of them commits the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer in no dialect."""

    id: str
    model: str
    parts: tuple[Part, ...]
    stop: Stopped
    usage: Usage
    created: int = 0
    rest: Mapping[str, Any] = field(default_factory=dict)


# --- 6. What happened --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
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
    """`reduced-max-tokens` or `escalated-context-overflow` where the machine changed the call."""
    provider_request_id: str = ""


class Outcome(StrEnum):
    """How an exchange ended."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    """The caller left before the end."""
    PASSED = "passed"
    """Not a call that is routed: handed through untouched."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds since the snapshot started."""

    queue_ms: float = 0.0
    route_ms: float = 0.0
    ttft_ms: float | None = None
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
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
