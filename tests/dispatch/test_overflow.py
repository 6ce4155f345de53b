"""Calls that are too long: a smaller cap first, then larger models of the plan and nobody else, then a clear error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.engine import Bench, chat, message
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch import classify
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Alias, Attempt, Dialect, Model, Need, Prices, Provider, ProviderType, Target
from tokenhub_core.types.aliases import Strategy

FULL = Profile(faults=("overflow",))
HOUSE = Provider("p", ProviderType.SIMULATOR, ("sim://openai",))
SMALL = Model("gpt-4o", "p", weight=6, max_context_tokens=8_000, prices=Prices(100, 400))
LARGE = Model("gpt-4.1-mini", "p", weight=6, max_context_tokens=400_000, prices=Prices(200, 800))
LARGEST = Model("gpt-4.1", "p", weight=6, max_context_tokens=1_000_000, prices=Prices(300, 900))


def house(*models: Model, full: Sequence[str] = ("gpt-4o",), **more: Any) -> Bench:
    return Bench(dict.fromkeys(full, FULL), models, [HOUSE], **more)


def tried(attempts: Sequence[Attempt]) -> list[tuple[str, str]]:
    return [(attempt.model, attempt.change) for attempt in attempts]


async def test_a_call_that_overflows_shrinks_and_then_goes_to_a_larger_model() -> None:
    """The caller gets its answer, and is told what became of the call."""
    bench = house(SMALL, LARGE)
    reply, _ = await bench.ask(chat(max_tokens=7_900))
    assert reply.status == 200
    assert ("x-tokenhub-reason", "escalated-context-overflow") in reply.headers
    assert tried(bench.recorder.one.attempts) == [
        ("gpt-4o", ""),
        ("gpt-4o", "reduced-max-tokens"),
        ("gpt-4.1-mini", "escalated-context-overflow"),
    ]


@pytest.mark.parametrize(
    ("outside", "more"),
    [
        ({"weight": 4}, {"defaults": {"min_weight": 5}}),
        ({"prices": Prices(1e6, 1e6)}, {"defaults": {"max_budget_usd": 0.05}}),
        ({"lacks": frozenset({Need.CHAT})}, {}),
        ({"enabled": False}, {}),
        ({"id": "o4-mini"}, {"aliases": [Alias("big", (Target("gpt-*"),), Strategy.POOL)]}),
    ],
    ids=["weight", "budget", "capability", "disabled", "pool"],
)
async def test_a_larger_model_outside_the_policy_is_not_escalated_to(
    outside: dict[str, Any], more: dict[str, Any]
) -> None:
    """It would hold the call, and it is not asked: the next larger one within every limit is."""
    bench = house(SMALL, replace(LARGE, **outside), LARGEST, **more)
    pool = {"model": "big"} if "aliases" in more else {}
    reply, _ = await bench.ask(chat(max_tokens=1_000, **pool))
    assert reply.status == 200
    assert [name for name, _ in tried(bench.recorder.one.attempts)] == ["gpt-4o", "gpt-4.1"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", [Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES])
async def test_when_nobody_holds_the_call_the_caller_reads_it_in_its_own_dialect(
    dialect: Dialect, stream: bool
) -> None:
    """Two models overflow, whatever they speak: the last word is an overflow, and not a failure of providers."""
    bench = house(SMALL, LARGE, full=("gpt-4o", "gpt-4.1-mini"))
    call = chat if dialect is Dialect.OPENAI_CHAT else message
    reply, body = await bench.ask(call(model="gpt-4o", stream=stream, max_tokens=100), dialect)
    fault = classify.classify(dialect, reply.status, reply.headers, body, now=0.0)
    assert (reply.status, fault.kind) == (400, Kind.OVERFLOW)
    assert len(bench.recorder.one.attempts) == 2


async def test_a_call_that_is_too_long_for_the_whole_fleet_is_not_sent() -> None:
    """It is told before anybody is asked, and costs nothing."""
    bench = house(SMALL)
    reply, body = await bench.ask(message("x" * 40_000, model="gpt-4o"), Dialect.ANTHROPIC_MESSAGES)
    fault = classify.classify(Dialect.ANTHROPIC_MESSAGES, reply.status, reply.headers, body, now=0.0)
    assert (reply.status, fault.kind) == (400, Kind.OVERFLOW)
    assert bench.recorder.one.attempts == ()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("message", ["No model may serve this call.", "prompt is too long: 9 tokens > 8"])
def test_every_dialect_tells_an_overflow_so_that_its_programs_know_it(dialect: Dialect, message: str) -> None:
    """By its code, or where the dialect has none by the words that programs look for, said once."""
    error = DIALECTS[dialect].error(Fault(Kind.OVERFLOW, Blame.CLIENT, message), request_id="r")
    fault = classify.classify(dialect, error.status, error.headers, error.body, now=0.0)
    assert fault.kind is Kind.OVERFLOW
    assert fault.message.lower().count("too long") <= 2
