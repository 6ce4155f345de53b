"""Nobody spends more than a hard budget: a hundred callers at its edge, through the real pipeline and the simulator.

Time is the loop's own and leaps. Providers fail, hang and stall at random, streams are hedged, callers leave: whatever
comes, the sum over the records stays within every budget as long as callers say how long an answer may be.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, override
from urllib.parse import urlsplit

import orjson
import pytest
from msgspec import structs

from tests.fakes.engine import Bench, chat
from tests.fakes.leaping import LeapingLoop
from tokenhub_core.admission import budgets
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.job import Hedging, Patience
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.http.decisions import shown as of_plan
from tokenhub_core.ports import Outlay, Reservation, Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.simulated import SimulatedTransport
from tokenhub_core.providers.simulator import Profile, Script, dialect_at, play
from tokenhub_core.routing import decision
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.types import (
    ANY,
    ApiKey,
    Caller,
    Dialect,
    Model,
    Outcome,
    Prices,
    Provider,
    ProviderType,
    Record,
    Snapshot,
    Usage,
)

CALLERS = 100
LONGEST = 600
"""Output tokens of the models."""


def key(name: str, project: str = "") -> ApiKey:
    return ApiKey(name, models=(ANY,), providers=(ANY,), project=project)


KEYS = (key("k1", "web"), key("k2", "web"), key("k3"), None)
FAULTS = [
    *["ok"] * 40,
    *["500", "429:1", "hang", "disconnect", "lifecycle-hang", "stall", "reset", "truncate", "bad-json"],
]
MODELS = [
    Model("dear", "p", prices=Prices(3_000, 15_000), max_output_tokens=LONGEST),
    Model("dear", "q", prices=Prices(2_500, 10_000, cache_write=4_000), max_output_tokens=LONGEST),
    Model("cheap", "q", prices=Prices(100, 400), max_output_tokens=LONGEST),
]
PROVIDERS = [
    Provider("p", ProviderType.OPENAI_COMPATIBLE, ("https://p.example",), Dialect.ANTHROPIC_MESSAGES),
    Provider("q", ProviderType.OPENAI_COMPATIBLE, ("https://q.example",), Dialect.OPENAI_CHAT),
]


PROFILES = {"dear": Profile(), "cheap": Profile()}
_DOWN = Fault(Kind.INTERNAL, Blame.US, "the store is down", cause="store_unavailable", status=503)


class Careless(Ledger):
    """Looks before each attempt and holds nothing, as ledgers do that check first and charge later."""

    @override
    def reserve(
        self, snapshot: Snapshot, nanousd: int, outlay: Callable[[], Outlay] | None = None
    ) -> Reservation:
        if fault := self.admit(snapshot.caller, snapshot.received_at):
            raise TokenHubError(fault)
        nobody = structs.replace(snapshot, caller=Caller(key=key("nobody")))
        lines, self._lines = self._lines, {}
        try:
            return super().reserve(nobody, nanousd, outlay)
        finally:
            self._lines = lines


class Chance(SimulatedTransport):
    """Providers whose mood changes with each request."""

    def __init__(self, dice: random.Random, look: Callable[[], None]) -> None:
        super().__init__()
        self._dice = dice
        self._look = look

    @override
    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        self._look()
        return await super().send(request, timeouts)

    @override
    def _script(self, request: UpstreamRequest) -> Script:
        path = urlsplit(request.url).path
        dialect = dialect_at(path)
        assert dialect is not None
        profile = Profile(
            ttft=self._dice.choice([0.0, 0.05, 1.5]),
            tokens_per_second=500,
            faults=(self._dice.choice(FAULTS),),
        )
        return play(dialect, request.body, target=path, profile=profile, call_number=0, created=0)


@dataclass
class Round:
    """A hundred calls at once."""

    dice: random.Random
    ledger: Ledger
    capped: bool = True
    records: list[Record] = field(default_factory=list)

    async def play(self) -> None:
        loop = asyncio.get_running_loop()
        self.bench = bench = Bench(
            models=MODELS,
            providers=PROVIDERS,
            defaults={"hedge": 0.9},
            patience=Patience(connect=1, ttft=3, stall=2, whole=4),
            transport=Chance(self.dice, self.look),
            now=loop.time,
            hedging=Hedging(lambda *_: 100.0, RetryBudget(per_second=1000)),
            ledger=self.ledger,
        )
        self.budgets = [*self._budgets(round(bench.clock.now() * 1e6))]
        for one in self.budgets:
            self.ledger.install(one, UTC, at=one.created_at)
        await asyncio.gather(*(self._call() for _ in range(CALLERS)))
        await bench.executor.close()
        self.records = bench.recorder.records

    def _budgets(self, now: int) -> Iterator[Budget]:
        """Return budgets that a part of the calls fits into."""
        per_call = {Unit.USD: 10_000_000, Unit.TOKENS: 1_500, Unit.REQUESTS: 1}
        for owner, calls in (("all", 60), ("key:k1", 20), ("project:web", 40), ("key:k3", 15)):
            for unit in Unit:
                limit = int(per_call[unit] * calls * self.dice.uniform(0.3, 1.5))
                yield Budget(f"{owner} {unit}", owner, Period.TOTAL, unit, limit, created_at=now - 1_000_000)

    def look(self) -> None:
        """Look at every budget while requests are on their way."""
        if self.capped:
            for standing in self.ledger.standings(self.budgets[0].created_at).values():
                assert standing.left >= 0, "more is held than there is"

    async def _call(self) -> None:
        dice, bench = self.dice, self.bench
        await asyncio.sleep(dice.choice([0.0, 0.0, 0.3, 1.0]))
        body = chat(
            "echo: " + "word " * dice.choice([5, 100, 470]), model=dice.choice(["dear", "dear", "cheap"])
        )
        if self.capped:
            body |= {"max_tokens": dice.choice([50, 300, 5_000])}
        body["stream"] = dice.random() < 0.7
        snapshot = bench.snapshot(body, caller=Caller(key=dice.choice(KEYS)))
        task = asyncio.create_task(bench.engine.exchange(snapshot))
        if dice.random() < 0.2:
            asyncio.get_running_loop().call_later(dice.uniform(0, 1), task.cancel)
        with suppress(asyncio.CancelledError):
            reply = await task
            if reply.frames is not None:
                frames: Any = reply.frames
                left = dice.choice([0, 3, 10**6, 10**6, 10**6])
                while left and await anext(frames, None) is not None:
                    left -= 1
                await frames.aclose()

    def over(self) -> dict[str, tuple[int, int]]:
        """Return of every budget by how much it was overspent, and what one answer can cost at most."""
        found = {}
        for budget in self.budgets:
            mine = [one for one in self.records if budget.owner in budgets.owners(one.caller)]
            spent = sum(budgets.used(budget.unit, one) for one in mine)
            standing = self.ledger.standings(budget.created_at)[budget.id]
            assert (standing.spent, standing.held) == (spent, 0), "the ledger is not the sum of the records"
            one_answer = {Unit.USD: LONGEST * 15_000, Unit.TOKENS: LONGEST, Unit.REQUESTS: 0}[budget.unit]
            found[budget.id] = (spent - budget.limit, one_answer)
        return found


def played(seed: int, ledger: Ledger, *, capped: bool = True) -> Round:
    it = Round(random.Random(seed), ledger, capped)
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(it.play())
    return it


def test_nothing_is_overspent_by_a_hundred_at_the_edge() -> None:
    """Ten rounds: retries, hedges, streams, aborts, and twelve budgets in three units, some of them for every call."""
    served = refused = hedged = 0
    for seed in range(10):
        it = played(seed, Ledger())
        assert all(over <= 0 for over, _ in it.over().values()), it.over()
        served += sum(one.outcome is Outcome.OK for one in it.records)
        refused += sum(one.fault == "budget_exhausted" for one in it.records)
        hedged += sum(any(tried.cause == "hedge_lost" for tried in one.attempts) for one in it.records)
    assert (served > 200, refused > 200, hedged > 20) == (True, True, True), (served, refused, hedged)


def test_a_ledger_that_checks_first_and_charges_later_is_noticed() -> None:
    """The same callers overspend as soon as nothing is held for those under way."""
    it = played(0, Careless())
    assert any(over > 0 for over, _ in it.over().values())


def test_without_caps_the_last_answer_is_all_that_is_too_much() -> None:
    """Who does not say how long an answer may be gets one; no budget ends more than one longest answer too late."""
    over = [one for seed in range(5) for one in played(seed, Ledger(), capped=False).over().values()]
    assert all(excess <= most for excess, most in over), over


async def test_an_answer_without_a_cap_may_be_the_last() -> None:
    """It is longer than anybody could know; the budget is overdrawn by less than the answer, and then it is over."""
    bench = Bench(
        models=MODELS, providers=PROVIDERS, transport=SimulatedTransport(profiles=PROFILES, speed=0)
    )
    now = round(bench.clock.now() * 1e6)
    bench.ledger.install(Budget("b", "all", Period.TOTAL, Unit.TOKENS, 1_150), UTC, at=now)
    reply, _ = await bench.ask(chat("echo: " + "word " * 470, model="cheap"))
    assert reply.status == 200
    assert 1_150 < bench.ledger.standings(now)["b"].spent < 1_150 + LONGEST
    assert (await bench.ask(chat(model="cheap")))[0].status == 402


@pytest.mark.load
@pytest.mark.timeout(3600)
def test_nothing_is_overspent_in_a_thousand_rounds() -> None:
    """The same a hundred times as often."""
    for seed in range(1000):
        it = played(seed, Ledger())
        assert all(over <= 0 for over, _ in it.over().values()), (seed, it.over())


async def test_a_cheaper_candidate_may_serve_what_the_dear_one_may_not() -> None:
    """A refusal for want of money takes one candidate out and no other: what still fits is tried, within the limit."""
    bench = Bench(
        models=MODELS, providers=PROVIDERS, transport=SimulatedTransport(profiles=PROFILES, speed=0)
    )
    now = round(bench.clock.now() * 1e6)
    bench.ledger.install(Budget("b", "all", Period.TOTAL, Unit.USD, 400_000), UTC, at=now)
    reply, _ = await bench.ask(chat(model="dear", max_tokens=100))
    record = bench.recorder.one
    assert (reply.status, record.model, len(record.attempts)) == (200, "cheap", 1)
    assert 0 < record.cost_nanousd <= 400_000
    assert record.plan is not None
    stored = decision.shown(record.plan)
    (left_out,) = [one for one in of_plan(stored)["exclusions"] if one["reason"] == "budget_exceeded"]
    assert {one["model"] for one in left_out["models"]} == {"dear"}
    assert "The budget of all calls has $0.0004 left" in left_out["models"][0]["detail"]
    again = recompute(stored)
    assert [one.model.id for one in again.candidates] == [one.model.id for one in record.plan.candidates]
    assert again.skips == record.plan.skips


async def test_a_refusal_is_nobodys_failure() -> None:
    """No provider is asked or blamed, no SDK asks again, and the caller reads what is left and until when."""
    bench = Bench()
    now = round(bench.clock.now() * 1e6)
    bench.ledger.install(Budget("b", "key:k1", Period.MONTH, Unit.USD, 1_000), UTC, at=now)
    caller = Caller(key=key("k1"))
    reply, body = await bench.ask(chat(max_tokens=100), caller=caller)
    error = orjson.loads(body)["error"]
    assert (reply.status, error["type"], error["code"]) == (402, "insufficient_quota", "budget_exhausted")
    assert error["message"].startswith(
        "The budget of key k1 has $0.000001 left: $0.00 of $0.000001 of this month"
    )
    assert "It begins anew at " in error["message"]
    record = bench.recorder.one
    assert (record.attempts, record.fault, record.cost_nanousd) == ((), "budget_exhausted", 0)
    seen = bench.health.snapshot(bench.clock.monotonic())
    assert all((view.calls, view.last_error, view.probing) == (0, "", False) for view in seen.values())
    reply, body = await bench.ask(
        {"model": "gpt-4o", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
        Dialect.ANTHROPIC_MESSAGES,
        caller=caller,
    )
    assert (reply.status, orjson.loads(body)["error"]["type"]) == (402, "billing_error")
    # Somebody else's calls go on.
    assert (await bench.ask(chat(max_tokens=100)))[0].status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_near_the_end_of_a_budget_is_told(stream: bool) -> None:
    """In a header of the answer, with what is left after it; and not before a threshold."""
    bench = Bench()
    now = round(bench.clock.now() * 1e6)
    budget = Budget("b", "all", Period.TOTAL, Unit.REQUESTS, 4)
    bench.ledger.install(budget, UTC, at=now)

    async def left() -> str:
        reply, _ = await bench.ask(chat(max_tokens=5, stream=stream))
        return dict(reply.headers).get("x-tokenhub-budget", "")

    assert await left() == ""
    second, third = await left(), await left()
    assert third == 'left=1, limit=4, unit=requests, id="b"'
    # A stream's head leaves before its record: it knows what is held for it, and has crossed nothing yet.
    assert second == ("" if stream else 'left=2, limit=4, unit=requests, id="b"')
    await left()
    reply, _ = await bench.ask(chat(max_tokens=5, stream=stream))
    assert (reply.status, dict(reply.headers)["x-tokenhub-budget"]) == (
        402,
        third.replace("left=1", "left=0"),
    )


async def test_a_count_of_tokens_is_free() -> None:
    """Whatever is left."""
    bench = Bench()
    now = round(bench.clock.now() * 1e6)
    bench.ledger.install(Budget("b", "all", Period.TOTAL, Unit.USD, 0), UTC, at=now)
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hi"}]}
    reply, _ = await bench.ask(body, Dialect.ANTHROPIC_COUNT_TOKENS)
    assert reply.status == 200
    assert Usage() == bench.recorder.one.usage


async def test_a_store_that_fails_counts_a_call_once() -> None:
    """The answer is withheld and the money is gone: it is counted by the first record, and not by the second."""
    bench = Bench()
    now = round(bench.clock.now() * 1e6)
    bench.ledger.install(Budget("b", "all", Period.TOTAL, Unit.REQUESTS, 10), UTC, at=now)
    broken = iter([True])

    def before() -> None:
        if next(broken, False):
            raise TokenHubError(_DOWN)

    bench.recorder.before = before
    reply, _ = await bench.ask(chat(max_tokens=5))
    assert reply.status == 503
    assert bench.ledger.standings(now)["b"].spent == 1
