"""Estimates before the fact: tokens from bytes, time from tokens, money from tokens.

Each is taken from what was learned of the model (`Estimates`), and where nothing was, from a rule of thumb.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, Protocol

from tokenhub_core.routing import pricing
from tokenhub_core.types import Bond, Expected, Features, Model, Need, Prices, Provider, Usage

BYTES_PER_TOKEN: Final = 4
MEDIA_TOKENS: Final = 1_000
"""For one image or file: the middle of what vendors count for a picture of ordinary size."""
TURN_TOKENS: Final = 4
"""Role and separators of one message."""
LEAST_CACHED: Final = 1_024
"""Input tokens; of shorter calls vendors cache nothing (OpenAI, Anthropic and Google say 1,024 or more)."""
DEFAULT_OUTPUT_TOKENS: Final = 512
"""What an answer is taken to have where the caller set no cap."""

_STRUCTURED: Final = frozenset({Need.TOOLS, Need.JSON_SCHEMA})
_WIDEST: Final = 3.0
"""The reserve for an answer without a cap is at most this much larger, relatively, than the expected one."""


class Writing(StrEnum):
    """What the text of a call mostly is, as far as its features tell without reading it.

    Schemas, tool calls and their results are JSON and code, at about three bytes a token where prose has four to
    five, and a call that brings tools is made of little else: so the needs tell these two kinds apart at no cost.
    """

    PROSE = "prose"
    STRUCTURED = "structured"


class Estimates(Protocol):
    """What was learned of models. None: nothing yet, the rule of thumb holds."""

    def tokens_per_byte(self, model: str, writing: Writing) -> float | None:
        """Return the input tokens of one UTF-8 byte of text."""
        ...

    def tokens_per_medium(self, model: str) -> float | None:
        """Return the input tokens of one image, file or piece of sound."""
        ...

    def input_error(self, model: str, writing: Writing) -> float:
        """Return the moving average of the relative error of the input estimate; 0 where nothing was learned."""
        ...

    def answer(self, program: str, model: str) -> tuple[float, float] | None:
        """Return the mean length of this model's answers to this program in tokens, and its relative error."""
        ...

    def latency_ms(self, model: str, provider: str, tokens: float) -> float | None:
        """Return the time to the end of an answer of so many tokens."""
        ...

    def warmth(self, model: str, provider: str, age: float) -> float | None:
        """Return the share of a call's input that is read from a cache by the next one, `age` seconds later."""
        ...


class Unlearned:
    """The estimates of someone who has seen nothing: the rules of thumb hold."""

    def tokens_per_byte(self, model: str, writing: Writing) -> float | None:
        """Return None."""

    def tokens_per_medium(self, model: str) -> float | None:
        """Return None."""

    def input_error(self, model: str, writing: Writing) -> float:
        """Return 0."""
        return 0.0

    def answer(self, program: str, model: str) -> tuple[float, float] | None:
        """Return None."""

    def latency_ms(self, model: str, provider: str, tokens: float) -> float | None:
        """Return None."""

    def warmth(self, model: str, provider: str, age: float) -> float | None:
        """Return None."""


UNLEARNED: Final = Unlearned()


def writing(features: Features) -> Writing:
    """Return what the text of the call mostly is."""
    return Writing.PROSE if features.needs.isdisjoint(_STRUCTURED) else Writing.STRUCTURED


def input_tokens(features: Features, model: str = "", learned: Estimates = UNLEARNED) -> int:
    """Return the estimated input tokens of a call at this model."""
    rate = learned.tokens_per_byte(model, writing(features))
    text = math.ceil(features.text_bytes / BYTES_PER_TOKEN if rate is None else features.text_bytes * rate)
    media = 0
    if features.media:
        each = learned.tokens_per_medium(model)
        media = math.ceil(features.media * (MEDIA_TOKENS if each is None else each))
    return text + media + TURN_TOKENS * features.turns


def output_tokens(features: Features, model: Model, learned: Estimates = UNLEARNED, program: str = "") -> int:
    """Return the output reserve at this model, which money is set aside for: the caller's cap, bounded by the model's.

    Where the caller set no cap it is what this program's answers from this model have, and their usual error more.
    """
    wanted = features.max_output_tokens
    if not wanted:
        seen = learned.answer(program, model.id)
        wanted = DEFAULT_OUTPUT_TOKENS
        if seen is not None:
            mean, error = seen
            wanted = math.ceil(mean * (1 + min(error, _WIDEST)))
    return min(wanted, model.max_output_tokens) if model.max_output_tokens else wanted


def expected(
    features: Features,
    model: Model,
    provider: Provider,
    learned: Estimates = UNLEARNED,
    program: str = "",
    *,
    reserved: tuple[int, int, int] | None = None,
    cached: int = 0,
) -> Expected:
    """Return what the call is expected to be here: what its score is made of.

    Unlike the reserve, the expected answer is as long as this program's answers from this model were on average,
    never longer than the reserve, and `cached` input tokens cost what cached ones do: the reserve knows of no cache,
    because a limit has to hold if the cache misses. `latency_ms` is 0 where nothing was learned of it. `reserved` is
    what `reserve` gives, from whoever has it already.
    """
    tokens, output, nanousd = reserved or reserve(features, model, learned, program)
    seen = learned.answer(program, model.id)
    shorter = seen is not None and seen[0] < output
    if seen is not None and shorter:
        output = math.ceil(seen[0])
    if shorter or cached:
        nanousd = cost(model.prices, Usage(tokens, output, cached))
    time = learned.latency_ms(model.id, provider.id, output) or 0.0
    return Expected(tokens, output, nanousd, time, learned.input_error(model.id, writing(features)), cached)


def cached_tokens(tokens: int, bond: Bond, learned: Estimates) -> int:
    """Return how many of a call's input tokens the one that served the conversation before is likely to have cached.

    A cache can hold what was sent before, so the learned share is one of the former call's input. 0 where nothing was
    learned: nobody is taken to have a cache.
    """
    if bond.tokens < LEAST_CACHED:
        return 0
    share = learned.warmth(bond.model, bond.provider, bond.age)
    return 0 if share is None else min(tokens, int(share * bond.tokens))


def reserve(
    features: Features, model: Model, learned: Estimates = UNLEARNED, program: str = ""
) -> tuple[int, int, int]:
    """Return the input tokens, the output reserve and what both cost in nano-dollars."""
    tokens = input_tokens(features, model.id, learned)
    output = output_tokens(features, model, learned, program)
    return tokens, output, cost(model.prices, Usage(input_tokens=tokens, output_tokens=output))


def cost(prices: Prices, usage: Usage) -> int:
    """Return what `usage` costs in whole nano-dollars; the rules are those of `pricing`."""
    return pricing.cost(prices, usage)
