"""Estimates before the fact: tokens from bytes, money from tokens."""

from __future__ import annotations

import math
from typing import Final

from tokenhub_core.types import Features, Model, Prices, Usage

BYTES_PER_TOKEN: Final = 4
MEDIA_TOKENS: Final = 1_000
"""For one image or file: the middle of what vendors count for a picture of ordinary size."""
TURN_TOKENS: Final = 4
"""Role and separators of one message."""
DEFAULT_OUTPUT_TOKENS: Final = 512
"""What an answer is taken to have where the caller set no cap."""


def input_tokens(features: Features) -> int:
    """Return the estimated input tokens of a call."""
    text = math.ceil(features.text_bytes / BYTES_PER_TOKEN)
    return text + MEDIA_TOKENS * features.media + TURN_TOKENS * features.turns


def output_tokens(features: Features, model: Model) -> int:
    """Return the output reserve at this model: the caller's cap, bounded by the model's."""
    wanted = features.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    return min(wanted, model.max_output_tokens) if model.max_output_tokens else wanted


def cost(prices: Prices, usage: Usage) -> int:
    """Return what `usage` costs in whole nano-dollars.

    Cached input is priced apart where the provider prices it apart, and like other input where it does not.
    """
    read = prices.input if prices.cache_read is None else prices.cache_read
    write = prices.input if prices.cache_write is None else prices.cache_write
    plain = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
    return round(
        plain * prices.input
        + usage.cache_read_tokens * read
        + usage.cache_write_tokens * write
        + usage.output_tokens * prices.output
    )
