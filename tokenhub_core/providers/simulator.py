"""The built-in stand-in for well-known public models: believable answers, scripted faults, no network.

`play` turns a request into a `Script`: what to send and when, as a value. The in-process transport
(`simulated`) plays scripts with the loop's clock, and a test server plays them over real sockets. Nothing here
remembers anything: which call it is, and the seed, are arguments, so the same call gets the same answer.

Faults are named by short words, in `Profile.faults`, one per call of a model; the last one stands for all
further calls:

    ok                  a good answer
    500, 429:7          that status, with `Retry-After` where a number follows
    overflow            a context overflow in the dialect's own words
    hang                the request is read and never answered
    disconnect          the connection is closed without an answer
    lifecycle-hang      a stream opens and says nothing more
    lifecycle-error:429 a stream opens, then an error event with what would have been that status
    stall               half an answer, then silence
    content-error:500   half an answer, then an error event
    reset, truncate     half an answer, then the connection is reset, or closed without the end that HTTP demands
    no-terminal         the whole text and a clean end of the body, but no terminal event
    bad-json            a success that is not JSON
    error-body:500      a success that holds an error
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tokenhub_core.providers import rendering
from tokenhub_core.providers.catalogue import Catalogue, priced
from tokenhub_core.providers.endpoints import SIMULATED_SCHEME
from tokenhub_core.providers.playing import Ask, Said, answer, read
from tokenhub_core.types import Dialect, Headers, Model, Provider, ProviderType

MARK: Final = ("x-tokenhub-simulated", "1")
"""The header that every simulated answer carries."""


class Ending(StrEnum):
    """What happens after a script's last frame."""

    CLEAN = "clean"
    HANG = "hang"
    RESET = "reset"
    CLOSED = "closed"
    """The connection is closed before HTTP's own end of the body, or before any answer where `status` is 0."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a provider does with one request. `status` 0: it never answers.

    `frames` are pairs of a delay in seconds and the bytes that follow it. A body that is not streamed announces
    its length in `headers`, also where the frames then fall short of it.
    """

    status: int
    headers: Headers
    frames: tuple[tuple[float, bytes], ...]
    ending: Ending = Ending.CLEAN


@dataclass(frozen=True, slots=True)
class Profile:
    """How a simulated model behaves. `ttft` in seconds."""

    ttft: float = 0.0
    tokens_per_second: float = 0.0
    """0: no pause between words."""
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.faults:
            _fault(name)


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A public model that the simulator stands in for."""

    id: str
    dialect: Dialect
    weight: int
    profile: Profile


@dataclass(frozen=True, slots=True)
class _Fault:
    name: str
    status: int = 0
    retry_after: str = ""


_WITH_STATUS: Final = frozenset({"lifecycle-error", "content-error", "error-body"})
_PLAIN: Final = frozenset(
    {
        "ok",
        "overflow",
        "hang",
        "disconnect",
        "lifecycle-hang",
        "stall",
        "reset",
        "truncate",
        "no-terminal",
        "bad-json",
    }
)

_O: Final = Dialect.OPENAI_CHAT
_A: Final = Dialect.ANTHROPIC_MESSAGES

# Weight is how much a model is trusted with, 1 to 10; pace is what users of the real ones see, roughly.
SIMULATED_MODELS: Final = (
    SimulatedModel("gpt-5.5", _O, 10, Profile(0.60, 70)),
    SimulatedModel("gpt-5.4", _O, 9, Profile(0.55, 75)),
    SimulatedModel("gpt-5.4-mini", _O, 6, Profile(0.30, 140)),
    SimulatedModel("gpt-5.4-nano", _O, 3, Profile(0.20, 200)),
    SimulatedModel("gpt-5", _O, 8, Profile(0.60, 70)),
    SimulatedModel("gpt-5-mini", _O, 5, Profile(0.35, 120)),
    SimulatedModel("gpt-4.1", _O, 7, Profile(0.40, 90)),
    SimulatedModel("gpt-4.1-mini", _O, 4, Profile(0.30, 130)),
    SimulatedModel("gpt-4o", _O, 6, Profile(0.35, 110)),
    SimulatedModel("gpt-4o-2024-08-06", _O, 6, Profile(0.35, 110)),
    SimulatedModel("gpt-4o-mini", _O, 3, Profile(0.25, 150)),
    SimulatedModel("o4-mini", _O, 7, Profile(0.80, 100)),
    SimulatedModel("claude-opus-4-7", _A, 10, Profile(0.70, 60)),
    SimulatedModel("claude-sonnet-4-6", _A, 8, Profile(0.50, 80)),
    SimulatedModel("claude-sonnet-4-5", _A, 8, Profile(0.50, 80)),
    SimulatedModel("claude-sonnet-4-5-20250929", _A, 8, Profile(0.50, 80)),
    SimulatedModel("claude-sonnet-4-20250514", _A, 7, Profile(0.50, 80)),
    SimulatedModel("claude-haiku-4-5", _A, 5, Profile(0.30, 150)),
    SimulatedModel("claude-haiku-4-5-20251001", _A, 5, Profile(0.30, 150)),
    SimulatedModel("claude-3-5-haiku-latest", _A, 3, Profile(0.30, 120)),
)

_PROVIDERS: Final = (
    Provider("sim-openai", ProviderType.SIMULATOR, (f"{SIMULATED_SCHEME}://openai",), _O),
    Provider("sim-anthropic", ProviderType.SIMULATOR, (f"{SIMULATED_SCHEME}://anthropic",), _A),
)


def simulated_fleet(catalogue: Catalogue) -> tuple[tuple[Provider, ...], tuple[Model, ...]]:
    """Return the simulated providers and their models under public names, prices and sizes.

    A model that the catalogue does not know is left out: nothing is invented.
    """
    vendors = {_O: ("sim-openai", "openai"), _A: ("sim-anthropic", "anthropic")}
    models = []
    for one in SIMULATED_MODELS:
        provider, vendor = vendors[one.dialect]
        entry = catalogue.lookup(one.id, vendor)
        if entry is not None:
            models.append(priced(Model(one.id, provider, weight=one.weight), entry))
    return _PROVIDERS, tuple(models)


def simulated_profile(model: str) -> Profile:
    """Return how a simulated model behaves; an unknown one answers without delay."""
    return next((one.profile for one in SIMULATED_MODELS if one.id == model), Profile())


def play(
    dialect: Dialect,
    body: bytes,
    *,
    seed: int = 0,
    profile: Profile | None = None,
    call_number: int = 0,
    created: int = 0,
) -> Script:
    """Return what a simulated model does with a request body.

    `call_number` counts the model's calls from 0 and picks the fault; `created` is the answer's own time stamp,
    in seconds since the epoch. The same arguments give the same script.
    """
    behaviour = profile or Profile()
    key = hashlib.blake2b(b"%d/%d/" % (seed, call_number) + body, digest_size=12).hexdigest()
    stage = _Stage(dialect, key, created, behaviour)
    try:
        ask = read(dialect, body)
    except ValueError as exc:
        return stage.error(400, str(exc))
    fault = _fault(_nth(behaviour.faults, call_number))
    match fault.name:
        case "status":
            return stage.error(fault.status, _words(fault.status), retry_after=fault.retry_after)
        case "overflow":
            return stage.overflow()
        case "hang":
            return Script(0, (), (), Ending.HANG)
        case "disconnect":
            return Script(0, (), (), Ending.CLOSED)
        case "bad-json":
            return stage.whole(b'{"choices":[' if dialect is _O else b'{"type":"message","content":[')
        case _:
            said = answer(ask, key=key, seed=seed)
            return stage.stream(ask, said, fault) if ask.stream else stage.answer(ask, said, fault)


@dataclass(frozen=True, slots=True)
class _Stage:
    """What all scripts of one call share."""

    dialect: Dialect
    key: str
    created: int
    profile: Profile

    @property
    def request_id(self) -> str:
        return f"req_{self.key}"

    @property
    def answer_id(self) -> str:
        return f"chatcmpl-{self.key}" if self.dialect is _O else f"msg_{self.key}"

    def headers(self, kind: str) -> Headers:
        name = "x-request-id" if self.dialect is _O else "request-id"
        return (("content-type", kind), (name, self.request_id), MARK)

    def whole(
        self, body: bytes, *, status: int = 200, delay: float | None = None, extra: Headers = ()
    ) -> Script:
        headers = (*self.headers("application/json"), ("content-length", str(len(body))), *extra)
        return Script(status, headers, ((self.profile.ttft if delay is None else delay, body),))

    def error(self, status: int, message: str, *, retry_after: str = "", code: str = "") -> Script:
        body = rendering.error(self.dialect, status, message, id=self.request_id, code=code)
        extra = (("retry-after", retry_after),) if retry_after else ()
        return self.whole(body, status=status, extra=extra)

    def overflow(self) -> Script:
        if self.dialect is _O:
            message = (
                "This model's maximum context length is 128000 tokens. However, your messages resulted in 200000 "
                "tokens. Please reduce the length of the messages."
            )
            return self.error(400, message, code="context_length_exceeded")
        return self.error(400, "prompt is too long: 250000 tokens > 200000 maximum")

    def answer(self, ask: Ask, said: Said, fault: _Fault) -> Script:
        rate = self.profile.tokens_per_second
        delay = self.profile.ttft + (said.output_tokens / rate if rate else 0.0)
        if fault.name in ("error-body", "lifecycle-error", "content-error"):
            message = _words(fault.status)
            return self.whole(
                rendering.error(self.dialect, fault.status, message, id=self.request_id), delay=delay
            )
        body = rendering.whole(ask, said, id=self.answer_id, created=self.created)
        script = self.whole(body, delay=delay)
        half = ((delay, body[: len(body) // 2]),)
        match fault.name:
            case "lifecycle-hang":
                return replace(script, frames=(), ending=Ending.HANG)
            case "stall":
                return replace(script, frames=half, ending=Ending.HANG)
            case "reset":
                return replace(script, frames=half, ending=Ending.RESET)
            case "truncate":
                return replace(script, frames=half, ending=Ending.CLOSED)
            case _:
                return script

    def stream(self, ask: Ask, said: Said, fault: _Fault) -> Script:
        frames = rendering.stream(ask, said, id=self.answer_id, created=self.created)
        half = frames.content[: max(1, len(frames.content) // 2)]
        failure = rendering.error_event(
            self.dialect, fault.status or 500, _words(fault.status), id=self.request_id
        )
        parts: Sequence[bytes]
        ending = Ending.CLEAN
        match fault.name:
            case "error-body":
                parts = (failure,)
            case "lifecycle-hang":
                parts, ending = frames.opening, Ending.HANG
            case "lifecycle-error":
                parts = (*frames.opening, failure)
            case "content-error":
                parts = (*frames.opening, *half, failure)
            case "stall":
                parts, ending = (*frames.opening, *half), Ending.HANG
            case "reset":
                parts, ending = (*frames.opening, *half), Ending.RESET
            case "truncate":
                parts, ending = (*frames.opening, *half), Ending.CLOSED
            case "no-terminal":
                parts = (*frames.opening, *frames.content)
            case _:
                parts = (*frames.opening, *frames.content, *frames.closing)
        return Script(200, self.headers("text/event-stream; charset=utf-8"), self._timed(parts, said), ending)

    def _timed(self, parts: Sequence[bytes], said: Said) -> tuple[tuple[float, bytes], ...]:
        rate = self.profile.tokens_per_second
        step = said.output_tokens / rate / len(parts) if rate else 0.0
        return tuple((self.profile.ttft if at == 0 else step, part) for at, part in enumerate(parts))


def _nth(faults: Sequence[str], number: int) -> str:
    return faults[min(number, len(faults) - 1)] if faults else "ok"


def _fault(text: str) -> _Fault:
    """Read a fault's name; raises `ValueError` for an unknown one."""
    name, _, rest = text.partition(":")
    if name == "status":
        name, _, rest = rest.partition(":")
    if name.isdecimal() and 400 <= int(name) <= 599:
        return _Fault("status", int(name), rest)
    if name in _WITH_STATUS and (not rest or rest.isdecimal()):
        return _Fault(name, int(rest or 500))
    if name in _PLAIN and not rest:
        return _Fault(name)
    raise ValueError(f"unknown fault {text!r}")


def _words(status: int) -> str:
    said = {
        401: "Incorrect API key provided",
        429: "Rate limit reached",
        503: "Overloaded",
        529: "Overloaded",
    }
    return f"{said.get(status, 'The server had an error')} (simulated)"
