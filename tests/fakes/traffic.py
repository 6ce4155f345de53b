"""An hour of calls that never were: records as the engine would write them, the same for the same seed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from tokenhub_core.types import Attempt, Caller, Dialect, Features, Outcome, Plan, Policy, Record, Usage
from tokenhub_core.types.record import Timings

MODELS: Final = (
    # Model, provider, milliseconds for a token, dollars for a million tokens in and out, share of failures.
    ("gpt-4o", "openai", 9.0, 2.5, 10.0, 0.01),
    ("gpt-4o-mini", "openai", 6.0, 0.15, 0.6, 0.02),
    ("claude-haiku-4-5", "anthropic", 5.0, 1.0, 5.0, 0.01),
    ("llama-3.1-8b", "local", 14.0, 0.0, 0.0, 0.12),
)
_WEIGHTS: Final = (3, 5, 4, 1)
_PROGRAMS: Final = ("support-bot", "nightly-report", "code-review", "search")
_HOSTS: Final = {"openai": "api.openai.com", "anthropic": "api.anthropic.com", "local": "127.0.0.1"}


def records(number: int, *, until: float, over: float = 3600.0, seed: int = 7) -> Iterator[Record]:
    """Yield so many records, the oldest first, spread over the `over` seconds before `until` (of the epoch)."""
    dice = Random(seed)
    for at in range(number):
        yield _record(f"req_{seed:04d}{at:08d}", until - over * (1 - at / number), dice)


def _record(name: str, at: float, dice: Random) -> Record:
    ((model, provider, pace, price_in, price_out, failing),) = dice.choices(MODELS, _WEIGHTS)
    usage = Usage(round(dice.lognormvariate(6.6, 0.9)), round(dice.lognormvariate(5.2, 0.7)))
    first = dice.lognormvariate(5.7, 0.4)
    total = first + pace * usage.output_tokens * dice.uniform(0.8, 1.3)
    failed = dice.random() < failing
    cost = 0 if failed else round((usage.input_tokens * price_in + usage.output_tokens * price_out) * 1000)
    attempt = Attempt(
        n=1,
        model=model,
        provider=provider,
        started_ms=1.0,
        ended_ms=first if failed else total,
        first_byte_ms=None if failed else first,
        status=503 if failed else 200,
        cause="http_503" if failed else "",
        blame="provider" if failed else "",
        usage=Usage() if failed else usage,
        cost_nanousd=cost,
    )
    return Record(
        id=name,
        at=at,
        outcome=Outcome.ERROR if failed else Outcome.OK,
        status=503 if failed else 200,
        caller=Caller(program=dice.choice(_PROGRAMS)),
        method="POST",
        path="/v1/chat/completions",
        dialect=Dialect.OPENAI_CHAT,
        stream=dice.random() < 0.6,
        origin_host=_HOSTS[provider],
        requested_model=model if dice.random() < 0.7 else "*",
        model="" if failed else model,
        provider="" if failed else provider,
        reason="routed-hint-exact",
        usage=Usage() if failed else usage,
        cost_nanousd=cost,
        timings=Timings(ttft_ms=None if failed else first, total_ms=first if failed else total),
        attempts=(attempt,),
        plan=Plan(Policy(), (), (), 0, 0, "", features=Features(model, text_bytes=2_000), context="small"),
        fault="http_503" if failed else "",
        message="The provider is overloaded." if failed else "",
    )
