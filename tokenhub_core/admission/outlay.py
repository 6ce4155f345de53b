"""The most that one attempt can use, which is what hard budgets hold for it. Pure.

Routing estimates what a call will probably cost. A limit that must hold needs what it can cost at most:

- Of its input, a token for each byte of text: no tokenizer that works on bytes makes more of it. Of media, whose
  tokens nobody can tell from outside, the estimate.
- Of its output, the caller's cap, at most the model's own, for each of the answers that were asked for.
- Of prices, the dearest that can be asked for a token: caches are written, thoughts are thought, tiers are reached.
"""

from __future__ import annotations

import math
from typing import Any, Final

from tokenhub_core.ports import Outlay
from tokenhub_core.routing import estimate, pricing
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.types import Candidate, Dialect, Json, Prices, Request

TURN_TOKENS: Final = 16
"""Role, separators and what else a vendor puts around one message, at most."""
UNCAPPED: Final = 32_768
"""Tokens of an answer without a cap from a model whose own maximum is not known."""
_MOST_ANSWERS: Final = 1_000_000
"""Beyond what any server answers at once; it keeps the product with a cap and a price below 2⁶³."""


def outlay(request: Request, candidate: Candidate, reserve: int) -> Outlay:
    """Return what an attempt can use; `reserve` is the plan's output reserve, for a call without a cap."""
    features, model = request.features, candidate.model
    if not request.dialect.billed:
        return Outlay(0, 0, 0, 0)
    expected = candidate.expected.input_tokens
    tokens = features.text_bytes + TURN_TOKENS * (features.turns + 1) + estimate.MEDIA_TOKENS * features.media
    tokens = max(tokens, expected)
    own, cap = model.max_output_tokens, features.max_output_tokens
    if request.dialect is Dialect.OPENAI_EMBEDDINGS:
        own, cap, reserve = 0, 0, 0
    most = (own or UNCAPPED) if cap is None else min(cap, own) if own else cap
    count = answers(request.data)
    likely = min(reserve, most)
    known = model.pricing_source != UNKNOWN_PRICE
    return Outlay(
        candidate.estimated_nanousd,
        dearest(model.prices, tokens, most * count) if known else None,
        expected + likely,
        tokens + most * count,
        capped=cap is not None,
    )


def dearest(prices: Prices, tokens: int, output: int) -> int:
    """Return the most nano-dollars that so many tokens in and out can cost."""
    sizes = (0, *(tier.above + 1 for tier in prices.tiers if tier.above < tokens))
    return max(_dearest(pricing.at(prices, size), tokens, output) for size in sizes)


def _dearest(prices: Prices, tokens: int, output: int) -> int:
    read = max(prices.input, prices.cache_read or 0.0, prices.cache_write or 0.0)
    written = max(prices.output, prices.reasoning or 0.0)
    return math.ceil(tokens * read + output * written)


def answers(data: Json) -> int:
    """Return how many answers a body asks for: `n`, `best_of`, a list of prompts, Gemini's `candidateCount`."""
    config = data.get("generationConfig") or data.get("generation_config")
    inner: Json = config if isinstance(config, dict) else {}
    told = [data.get("n"), data.get("best_of"), inner.get("candidateCount"), inner.get("candidate_count")]
    prompts = data.get("prompt")
    several = (
        len(prompts) if isinstance(prompts, list) and prompts and isinstance(prompts[0], str | list) else 1
    )
    return max(1, *map(_count, told)) * several


def _count(value: Any) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return min(value, _MOST_ANSWERS) if whole else 1
