"""The built-in stand-in for well-known public models: believable answers, scripted faults, no network.

`play` turns a request into a `Script`: what to send and when, as a value. Nothing in it remembers anything: which
call it is, and the seed, are arguments, so the same call gets the same answer. `Simulator` is the vendors with
their memories: it finds the dialect by the path, counts each model's calls, knows which models there are and which
prompts are cached. The in-process transport (`simulated`) plays its scripts with the loop's clock, and test servers
play them over real sockets. What a fault's name means stands in `simulation.profiles`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import orjson

from tokenhub_core.providers.catalogue import Catalogue, priced
from tokenhub_core.providers.endpoints import SIMULATED_SCHEME
from tokenhub_core.providers.simulation import errors
from tokenhub_core.providers.simulation.asking import Ask, RejectedError, Told
from tokenhub_core.providers.simulation.caching import PromptCache
from tokenhub_core.providers.simulation.frames import Reply
from tokenhub_core.providers.simulation.playing import Cached, answer
from tokenhub_core.providers.simulation.profiles import (
    SIMULATED_MODELS,
    Fault,
    Profile,
    SimulatedModel,
    simulated_profile,
)
from tokenhub_core.providers.simulation.wires import WIRES, dialect_at, missing, model_at, read, stream_type
from tokenhub_core.types import Dialect, Headers, Json, Model, Provider, ProviderType

__all__ = [
    "MARK",
    "SIMULATED_MODELS",
    "SPOKEN",
    "Ending",
    "Profile",
    "Script",
    "SimulatedModel",
    "Simulator",
    "dialect_at",
    "play",
    "simulated_fleet",
    "simulated_profile",
]

MARK: Final = ("x-tokenhub-simulated", "1")
"""The header that every simulated answer carries."""

SPOKEN: Final = frozenset(Dialect)
"""The dialects that the default fleet names: those that have a module in `dialects.registry`."""


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


def _provider(name: str, path: str, *dialects: Dialect) -> Provider:
    endpoint = f"{SIMULATED_SCHEME}://{name}{path}"
    return Provider(f"sim-{name}", ProviderType.SIMULATOR, (endpoint,), dialects[0], also=dialects[1:])


# Beside each provider the vendor in the catalogue whose prices it takes.
_PROVIDERS: Final = (
    (
        "openai",
        _provider(
            "openai",
            "",
            Dialect.OPENAI_CHAT,
            Dialect.OPENAI_RESPONSES,
            Dialect.OPENAI_COMPLETIONS,
            Dialect.OPENAI_EMBEDDINGS,
        ),
    ),
    (
        "anthropic",
        _provider("anthropic", "", Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS),
    ),
    ("google", _provider("gemini", "/v1beta", Dialect.GEMINI)),
    ("", _provider("ollama", "", Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE)),
)


def simulated_fleet(
    catalogue: Catalogue, *, dialects: Collection[Dialect] = SPOKEN
) -> tuple[tuple[Provider, ...], tuple[Model, ...]]:
    """Return the simulated providers and their models under public names, prices and sizes.

    Only what speaks one of `dialects` is there. A model that the catalogue does not know is left out: nothing is
    invented.
    """
    providers, models = [], []
    for vendor, provider in _PROVIDERS:
        if provider.dialect not in dialects:
            continue
        providers.append(replace(provider, also=tuple(one for one in provider.also if one in dialects)))
        for one in SIMULATED_MODELS:
            if one.dialect not in (provider.dialect, *providers[-1].also):
                continue
            entry = catalogue.lookup(one.listed or one.id, vendor)
            if entry is not None:
                models.append(priced(Model(one.id, provider.id, weight=one.weight), entry))
    return tuple(providers), tuple(models)


class Simulator:
    """All vendors at once, behind their paths; they remember calls and prompts.

    `profiles` overrides how the named models behave, and adds models of these names. With `any_model` there is no
    model that a vendor does not have.
    """

    def __init__(
        self, *, profiles: Mapping[str, Profile] | None = None, seed: int = 0, any_model: bool = False
    ) -> None:
        self._profiles = dict(profiles or {})
        self._seed = seed
        self._known = None if any_model else {one.id for one in SIMULATED_MODELS} | set(self._profiles)
        self._calls: dict[str, int] = {}
        self._cache = PromptCache()

    def script(self, model: str, profile: Profile) -> None:
        """Say how a model behaves from now on; its calls are counted anew. `*` is every other model."""
        self._profiles[model] = profile
        self._calls.pop(model, None)
        if self._known is not None:
            self._known.add(model)

    def respond(self, method: str, target: str, body: bytes, *, host: str = "", created: int = 0) -> Script:
        """Return what the vendor does with a request. `host` tells whose models a list of models is to name."""
        if method == "GET":
            return _models(target, host)
        dialect = dialect_at(target)
        if dialect is None:
            message = f"Invalid URL ({method} {target.partition('?')[0]})"
            refusal = RejectedError(message, status=404, code="unknown_url")
            return _Stage(Dialect.OPENAI_CHAT, "", created, Profile()).error(refusal)
        model = model_at(target, body)
        number = self._calls.get(model, 0)
        self._calls[model] = number + 1
        profile = self._profiles.get(model) or self._profiles.get("*") or simulated_profile(model)
        stage = _stage(dialect, body, seed=self._seed, number=number, created=created, profile=profile)
        try:
            reading = read(dialect, body, target)
            if self._known is not None and reading.model not in self._known:
                raise missing(dialect, reading.model)
        except RejectedError as exc:
            return stage.error(exc)
        cached = self._cache.meet(reading) if isinstance(reading, Ask) else Cached()
        return stage.play(reading, profile.at(number), seed=self._seed, cached=cached)


def play(
    dialect: Dialect,
    body: bytes,
    *,
    target: str = "",
    seed: int = 0,
    profile: Profile | None = None,
    call_number: int = 0,
    created: int = 0,
) -> Script:
    """Return what a simulated model does with a request body, whatever the model's name.

    `target` is the request target, where the dialect says something in it. `call_number` counts the model's calls
    from 0 and picks the fault; `created` is the answer's own time stamp, in seconds since the epoch. The same
    arguments give the same script.
    """
    behaviour = profile or Profile()
    stage = _stage(dialect, body, seed=seed, number=call_number, created=created, profile=behaviour)
    try:
        reading = read(dialect, body, target)
    except RejectedError as exc:
        return stage.error(exc)
    return stage.play(reading, behaviour.at(call_number), seed=seed, cached=Cached())


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

    def headers(self, kind: str) -> Headers:
        name = WIRES[self.dialect].request_id
        return (("content-type", kind), *(((name, self.request_id),) if name else ()), MARK)

    def whole(
        self, body: bytes, *, status: int = 200, delay: float | None = None, extra: Headers = ()
    ) -> Script:
        headers = (*self.headers("application/json"), ("content-length", str(len(body))), *extra)
        return Script(status, headers, ((self.profile.ttft if delay is None else delay, body),))

    def error(self, said: RejectedError, *, retry_after: str = "") -> Script:
        body = errors.error(self.dialect, said, request_id=self.request_id)
        extra = (("retry-after", retry_after),) if retry_after else ()
        return self.whole(body, status=said.status, extra=extra)

    def play(self, reading: Ask | Told, fault: Fault, *, seed: int, cached: Cached) -> Script:
        """Return the script of a request that the vendor accepts."""
        match fault.name:
            case "status":
                return self.error(_trouble(fault.status), retry_after=fault.retry_after)
            case "overflow":
                return self.error(errors.overflow(self.dialect))
            case "hang":
                return Script(0, (), (), Ending.HANG)
            case "disconnect":
                return Script(0, (), (), Ending.CLOSED)
            case "bad-json":
                return self.whole(WIRES[self.dialect].broken)
        if isinstance(reading, Told):
            return self.answer(reading.body, 0, fault)
        said = answer(reading, key=self.key, seed=seed, cached=cached)
        reply = Reply(reading, said, self.key, self.created)
        tokens = sum(one.output_tokens for one in said)
        if reading.stream:
            return self.stream(reply, tokens, fault)
        return self.answer(WIRES[self.dialect].whole(reply), tokens, fault)

    def answer(self, body: bytes, tokens: int, fault: Fault) -> Script:
        rate = self.profile.tokens_per_second
        delay = self.profile.ttft + (tokens / rate if rate else 0.0)
        if fault.name in ("error-body", "lifecycle-error", "content-error"):
            failure = errors.error(self.dialect, _trouble(fault.status), request_id=self.request_id)
            return self.whole(failure, delay=delay)
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

    def stream(self, reply: Reply, tokens: int, fault: Fault) -> Script:
        frames = WIRES[self.dialect].stream(reply)
        half = (*frames.opening, *frames.content[: max(1, len(frames.content) // 2)])
        parts: Sequence[bytes]
        ending = Ending.CLEAN
        match fault.name:
            case "error-body":
                parts = (self._failure(reply.ask, fault, 0),)
            case "lifecycle-hang":
                parts, ending = frames.opening, Ending.HANG
            case "lifecycle-error":
                parts = (*frames.opening, self._failure(reply.ask, fault, len(frames.opening)))
            case "content-error":
                parts = (*half, self._failure(reply.ask, fault, len(half)))
            case "stall":
                parts, ending = half, Ending.HANG
            case "reset":
                parts, ending = half, Ending.RESET
            case "truncate":
                parts, ending = half, Ending.CLOSED
            case "no-terminal":
                parts = (*frames.opening, *frames.content)
            case _:
                parts = (*frames.opening, *frames.content, *frames.closing)
        return Script(200, self.headers(stream_type(reply.ask)), self._timed(parts, tokens), ending)

    def _failure(self, ask: Ask, fault: Fault, frames: int) -> bytes:
        said = _trouble(fault.status or 500)
        return errors.error_frame(
            self.dialect, said, request_id=self.request_id, frames=frames, array=ask.array
        )

    def _timed(self, parts: Sequence[bytes], tokens: int) -> tuple[tuple[float, bytes], ...]:
        rate = self.profile.tokens_per_second
        step = tokens / rate / len(parts) if rate and parts else 0.0
        return tuple((self.profile.ttft if at == 0 else step, part) for at, part in enumerate(parts))


def _stage(
    dialect: Dialect, body: bytes, *, seed: int, number: int, created: int, profile: Profile
) -> _Stage:
    key = hashlib.blake2b(b"%d/%d/" % (seed, number) + body, digest_size=12).hexdigest()
    return _Stage(dialect, key, created, profile)


def _trouble(status: int) -> RejectedError:
    said = {
        401: "Incorrect API key provided",
        429: "Rate limit reached",
        503: "Overloaded",
        529: "Overloaded",
    }
    return RejectedError(f"{said.get(status, 'The server had an error')} (simulated)", status=status)


def _models(target: str, host: str) -> Script:
    """Return the list of models in the form that the path asks for: also what a health probe asks for."""
    path = target.partition("?")[0]
    data: Json
    if path.endswith("/api/tags"):
        named = [one.id for one in SIMULATED_MODELS if one.dialect is Dialect.OLLAMA_CHAT]
        data = {
            "models": [
                {"name": name, "model": name, "size": 1, "details": {"format": "gguf"}} for name in named
            ]
        }
    elif "/v1beta/" in path or host == "gemini":
        named = [one.id for one in SIMULATED_MODELS if one.dialect is Dialect.GEMINI]
        methods = ["generateContent", "countTokens"]
        data = {
            "models": [{"name": f"models/{name}", "supportedGenerationMethods": methods} for name in named]
        }
    else:
        dialects = {
            "anthropic": (Dialect.ANTHROPIC_MESSAGES,),
            "ollama": (Dialect.OLLAMA_CHAT,),
        }.get(host, (Dialect.OPENAI_CHAT, Dialect.OPENAI_EMBEDDINGS))
        named = [one.id for one in SIMULATED_MODELS if one.dialect in dialects]
        data = {"object": "list", "data": [{"id": name, "object": "model"} for name in named]}
    body = orjson.dumps(data)
    headers = (("content-type", "application/json"), ("content-length", str(len(body))), MARK)
    return Script(200, headers, ((0.0, body),))
