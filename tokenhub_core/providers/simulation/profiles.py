"""How simulated models behave: pace and scripted faults, and the table of the public models that are played.

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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tokenhub_core.providers.simulation.asking import names
from tokenhub_core.types import Dialect

_WITH_STATUS: Final = frozenset({"lifecycle-error", "content-error", "error-body"})
_PLAIN: Final = names(
    """ok overflow hang disconnect lifecycle-hang stall reset truncate no-terminal bad-json"""
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A scripted fault: its name, and the status and `Retry-After` where it has them."""

    name: str
    status: int = 0
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """How a simulated model behaves. `ttft` in seconds."""

    ttft: float = 0.0
    tokens_per_second: float = 0.0
    """0: no pause between words."""
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.faults:
            fault(name)

    def at(self, number: int) -> Fault:
        """Return what the call of this number meets, counted from 0."""
        return fault(_nth(self.faults, number))


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A public model that the simulator stands in for. `dialect` is its provider's main one."""

    id: str
    dialect: Dialect
    weight: int
    profile: Profile
    listed: str = ""
    """Its name in the catalogue, where that has another one: local models are priced like hosted ones."""


_O: Final = Dialect.OPENAI_CHAT
_A: Final = Dialect.ANTHROPIC_MESSAGES
_G: Final = Dialect.GEMINI
_L: Final = Dialect.OLLAMA_CHAT
_E: Final = Dialect.OPENAI_EMBEDDINGS

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
    SimulatedModel("gemini-3.1-pro-preview", _G, 10, Profile(0.90, 90)),
    SimulatedModel("gemini-3-flash-preview", _G, 7, Profile(0.40, 160)),
    SimulatedModel("gemini-2.5-pro", _G, 8, Profile(0.80, 100)),
    SimulatedModel("gemini-2.5-flash", _G, 5, Profile(0.35, 180)),
    SimulatedModel("gemini-2.5-flash-lite", _G, 3, Profile(0.25, 220)),
    SimulatedModel("gemini-2.0-flash", _G, 3, Profile(0.30, 170)),
    SimulatedModel("llama3.3:70b", _L, 5, Profile(0.60, 30), "llama-3.3-70b-instruct"),
    SimulatedModel("llama3.1:8b", _L, 2, Profile(0.20, 60), "llama-3.1-8b-instruct"),
    SimulatedModel("qwen3:32b", _L, 4, Profile(0.40, 40), "qwen3-32b"),
    SimulatedModel("qwen3:8b", _L, 3, Profile(0.20, 70), "qwen3-8b"),
    SimulatedModel("qwen3-vl:30b", _L, 4, Profile(0.30, 60), "qwen3-vl-30b-a3b"),
    SimulatedModel("gpt-oss:20b", _L, 4, Profile(0.30, 60), "gpt-oss-20b"),
    SimulatedModel("text-embedding-3-large", _E, 1, Profile(0.10)),
    SimulatedModel("text-embedding-3-small", _E, 1, Profile(0.08)),
)


def simulated_profile(model: str) -> Profile:
    """Return how a simulated model behaves; an unknown one answers without delay."""
    return next((one.profile for one in SIMULATED_MODELS if one.id == model), Profile())


def fault(text: str) -> Fault:
    """Read a fault's name; raises `ValueError` for an unknown one."""
    name, _, rest = text.partition(":")
    if name == "status":
        name, _, rest = rest.partition(":")
    if name.isdecimal() and 400 <= int(name) <= 599:
        return Fault("status", int(name), rest)
    if name in _WITH_STATUS and (not rest or rest.isdecimal()):
        return Fault(name, int(rest or 500))
    if name in _PLAIN and not rest:
        return Fault(name)
    raise ValueError(f"unknown fault {text!r}")


def _nth(faults: Sequence[str], number: int) -> str:
    return faults[min(number, len(faults) - 1)] if faults else "ok"
