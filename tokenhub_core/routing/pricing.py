"""What tokens cost: whole nano-dollars from prices per token.

Where a vendor asks more for long calls, it is the whole call that is dearer and not only what is above the line:
so the tier follows from the input tokens, cached ones included, and holds for every token in and out (the price
lists of Anthropic, Google and OpenAI say "prompts over 200k tokens" or the like). A tier begins above its line; a
call of exactly 200,000 tokens still has the lower price.

Thoughts are a part of the output and are priced apart where the vendor does so. A batch's share is not applied
here: batches are not routed, so no call that is priced is one.
"""

from __future__ import annotations

from dataclasses import replace

from tokenhub_core.types import Prices, Usage


def at(prices: Prices, input_tokens: int) -> Prices:
    """Return the prices that hold for a call of so many input tokens, without tiers.

    What the tier does not price apart follows the tier: cached input costs what its input costs. Thoughts that had
    a price of their own keep it where it is the higher one.
    """
    tier = next((tier for tier in reversed(prices.tiers) if input_tokens > tier.above), None)
    if tier is None:
        return replace(prices, tiers=()) if prices.tiers else prices
    thoughts = prices.reasoning
    return Prices(
        input=tier.input,
        output=tier.output,
        cache_read=tier.cache_read,
        cache_write=tier.cache_write,
        reasoning=None if thoughts is None else max(thoughts, tier.output),
        batch=prices.batch,
    )


def cost(prices: Prices, usage: Usage) -> int:
    """Return what `usage` costs in whole nano-dollars.

    Cached input is priced apart where the provider prices it apart, and like other input where it does not; so are
    thoughts and output.
    """
    if prices.tiers:
        prices = at(prices, usage.input_tokens)
    read = prices.input if prices.cache_read is None else prices.cache_read
    write = prices.input if prices.cache_write is None else prices.cache_write
    # No part is larger than its whole, whatever a provider says: it would be billed for tokens that nobody sent.
    cached = min(usage.cache_read_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    thoughts = 0 if prices.reasoning is None else min(usage.reasoning_tokens, usage.output_tokens)
    return round(
        (usage.input_tokens - cached - written) * prices.input
        + cached * read
        + written * write
        + (usage.output_tokens - thoughts) * prices.output
        + thoughts * (prices.reasoning or 0.0)
    )
