"""What providers bill is what we count: thousands of calls of every kind, through the real pipeline and the simulator.

The simulator keeps an account of its own: what each request used, and how far the answer had come when it told so.
Callers speak five dialects to providers of five dialects, whole and streamed, with and without a cache; providers fail,
hang and stall at random, attempts are repeated and hedged, callers leave. Time is the loop's own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any, Final, override
from urllib.parse import urlsplit

import pytest
from msgspec import structs

from tests.e2e.serving import measured
from tests.fakes.engine import Bench
from tests.fakes.leaping import LeapingLoop
from tokenhub_core.admission import budgets
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.job import Hedging, Patience
from tokenhub_core.ports import Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.simulated import SimulatedTransport
from tokenhub_core.providers.simulation.asking import Ask
from tokenhub_core.providers.simulation.caching import PromptCache
from tokenhub_core.providers.simulation.frames import Reply as Written
from tokenhub_core.providers.simulation.playing import Cached, answer
from tokenhub_core.providers.simulation.wires import WIRES, dialect_at, read
from tokenhub_core.providers.simulator import Profile, Script
from tokenhub_core.types import (
    ANY,
    ApiKey,
    Attempt,
    Caller,
    Dialect,
    Json,
    Model,
    OnDisconnect,
    Prices,
    Provider,
    ProviderType,
    Record,
    Usage,
    header,
)

CALLS: Final = 12_500
"""Four in five are streams."""
AT_ONCE: Final = 100
CHAT, RESPONSES, ANTHROPIC, GEMINI, OLLAMA = SPOKEN = (
    Dialect.OPENAI_CHAT,
    Dialect.OPENAI_RESPONSES,
    Dialect.ANTHROPIC_MESSAGES,
    Dialect.GEMINI,
    Dialect.OLLAMA_CHAT,
)
PRICES: Final = Prices(3_000, 15_000, cache_read=300, cache_write=3_750)
PROVIDERS: Final = [
    Provider(
        f"p{number}",
        ProviderType.OPENAI_COMPATIBLE,
        (f"https://p{number}.example/v1beta" if dialect is GEMINI else f"https://p{number}.example",),
        dialect,
        on_disconnect=OnDisconnect.DRAIN if number % 2 else OnDisconnect.CANCEL,
    )
    for number, dialect in enumerate(SPOKEN)
]
MODELS: Final = [
    Model("m", provider.id, prices=replace(PRICES, output=15_000 + 1_000 * number), max_output_tokens=2_000)
    for number, provider in enumerate(PROVIDERS)
]
KEYS: Final = (ApiKey("k1", models=(ANY,), providers=(ANY,)), None)
FAULTS: Final = [
    *["ok"] * 60,
    *["500", "429:1", "hang", "disconnect", "error-body:500", "overflow"],
    *["lifecycle-hang", "lifecycle-error:429", "stall", "content-error:500", "reset", "truncate"],
]
REFUSALS: Final = ("500", "429", "disconnect", "overflow", "error-body", "lifecycle-error")
LONG: Final = "You are a patient teacher. " * 200


@dataclass
class Bill:
    """What a provider bills for one request."""

    id: str
    usage: Usage
    """Of the whole answer."""
    price: Prices
    refusal: int
    """How many frames must have been sent for a refusal to be among them; 0: it is served."""
    content: tuple[int, int]
    """The first frame that a user sees, and the first one after those."""
    telling: int
    """How many frames must have been sent for its last count to be among them; 0: it never is."""
    whole: bool
    opened: Usage
    """What its first frame tells."""
    sent: int = 0

    @property
    def told(self) -> bool:
        """Whether the provider has told its last count."""
        return 0 < self.telling <= self.sent

    @property
    def due(self) -> Usage:
        """What it bills: the answer as far as it was made when nobody read on."""
        if self.refusal:
            return self.opened if self.sent else Usage()
        if self.told:
            return self.usage
        begin, end = self.content
        made = 0.0 if self.whole else min(max(self.sent - begin, 0) / max(end - begin, 1), 1.0)
        return structs.replace(self.usage, output_tokens=round(self.usage.output_tokens * made))


def cost(price: Prices, usage: Usage) -> int:
    """Return nano-dollars, by the price list alone."""
    plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    return round(
        plain * price.input
        + usage.cache_read_tokens * (price.cache_read or 0)
        + usage.cache_write_tokens * (price.cache_write or 0)
        + usage.output_tokens * price.output
    )


class Billing(SimulatedTransport):
    """Providers that fail at random, and keep an account."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(profiles={"m": Profile()})
        self.bills: dict[str, Bill] = {}
        self._dice = dice
        self._caches = PromptCache()

    @override
    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        response = await super().send(request, timeouts)
        return _Counted(response, self.bills[header(response.headers, "x-request-id")])

    @override
    def _script(self, request: UpstreamRequest) -> Script:
        dice = self._dice
        fault = dice.choice(FAULTS)
        pace = Profile(ttft=dice.choice([0.0, 0.05, 1.5]), tokens_per_second=500, faults=(fault,))
        self._simulator.script("m", pace)
        script = super()._script(request)
        bill = self._bill(request, script, fault.partition(":")[0])
        self.bills[bill.id] = bill
        named = (one for one in script.headers if one[0] not in ("x-request-id", "request-id"))
        return replace(script, headers=(*named, ("x-request-id", bill.id)))

    def _bill(self, request: UpstreamRequest, script: Script, fault: str) -> Bill:
        url = urlsplit(request.url)
        target = f"{url.path}?{url.query}"
        dialect = dialect_at(url.path)
        assert dialect is not None
        reading = read(dialect, request.body, target)
        assert isinstance(reading, Ask)
        cached = Cached() if dialect is OLLAMA else self._caches.meet(reading)
        said = answer(reading, key="", seed=0, cached=cached)
        usage = Usage(
            said[0].input_tokens,
            sum(one.output_tokens for one in said),
            said[0].cache_read,
            said[0].cache_write,
            sum(one.reasoning_tokens for one in said),
        )
        price = next(one.prices for one in MODELS if f"{one.provider_id}." in (url.hostname or ""))
        number = f"bill-{len(self.bills)}"
        refused = len(script.frames) * (
            fault in REFUSALS or (fault == "content-error" and not reading.stream)
        )
        if not reading.stream:
            told = 1 if fault == "ok" else 0
            return Bill(number, usage, price, refused, (0, 1), told, True, Usage())
        parts = WIRES[dialect].stream(Written(reading, said, "", 0))
        begin, end = len(parts.opening), len(parts.opening) + len(parts.content)
        last = max(
            at for at, one in enumerate((*parts.opening, *parts.content, *parts.closing)) if counts(one)
        )
        tells = fault == "lifecycle-error" and dialect is ANTHROPIC
        opened = structs.replace(usage, output_tokens=1) if tells else Usage()
        # Half an answer can hold the last count of none.
        told = last + 1 if fault == "ok" else 0
        return Bill(number, usage, price, refused, (begin, end), told, False, opened)


def counts(frame: bytes) -> bool:
    """Tell whether a frame of a stream holds counts of tokens."""
    return any(word in frame for word in (b'"usage":{', b'"usageMetadata":{', b'"eval_count":'))


class _Counted:
    """An answer whose provider knows how much of it was sent."""

    def __init__(self, response: UpstreamResponse, bill: Bill) -> None:
        self._response, self._bill = response, bill
        self.status, self.headers = response.status, response.headers

    async def read(self, limit: int) -> bytes:
        body = await self._response.read(limit)
        self._bill.sent = 1
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        async for piece in self._response.chunks():
            self._bill.sent += 1
            yield piece

    def ease(self, *, gather: float, tick: float) -> None:
        self._response.ease(gather=gather, tick=tick)

    async def close(self) -> None:
        await self._response.close()


def body(dialect: Dialect, dice: random.Random, *, stream: bool) -> Json:
    """Return a call in this dialect."""
    words = dice.choice(
        ["echo: " + "word " * dice.choice([5, 100, 300]), "Tell me of the sea.", "please refuse"]
    )
    words = f"{dice.random()} {words}" if dice.random() < 0.2 else words
    system = dice.choice(["", "", LONG, LONG + str(dice.randrange(20))])
    cap = dice.choice([50, 300, 2_000])
    match dialect:
        case Dialect.OPENAI_RESPONSES:
            return {"model": "m", "input": words, "instructions": system or "Be brief.", "stream": stream,
                    "max_output_tokens": cap}  # fmt: skip
        case Dialect.ANTHROPIC_MESSAGES:
            marked = [{"type": "text", "text": system or "Be brief.", "cache_control": {"type": "ephemeral"}}]
            return {"model": "m", "max_tokens": cap, "stream": stream, "system": marked,
                    "messages": [{"role": "user", "content": words}]}  # fmt: skip
        case Dialect.GEMINI:
            return {"contents": [{"role": "user", "parts": [{"text": words}]}],
                    "systemInstruction": {"parts": [{"text": system or "Be brief."}]},
                    "generationConfig": {"maxOutputTokens": cap}}  # fmt: skip
        case Dialect.OLLAMA_CHAT:
            return {"model": "m", "stream": stream, "options": {"num_predict": cap},
                    "messages": [{"role": "system", "content": system or "Be brief."},
                                 {"role": "user", "content": words}]}  # fmt: skip
        case _:
            return {"model": "m", "stream": stream, "max_tokens": cap,
                    "messages": [{"role": "system", "content": system or "Be brief."},
                                 {"role": "user", "content": words}]}  # fmt: skip


def path(dialect: Dialect, *, stream: bool) -> str:
    gemini = (
        "/v1beta/models/m:streamGenerateContent?alt=sse" if stream else "/v1beta/models/m:generateContent"
    )
    return {
        CHAT: "/v1/chat/completions",
        RESPONSES: "/v1/responses",
        ANTHROPIC: "/v1/messages",
        GEMINI: gemini,
        OLLAMA: "/api/chat",
    }[dialect]


@dataclass
class Month:
    """Calls, some at once, and what both sides have written down."""

    dice: random.Random
    calls: int
    records: list[Record] = field(default_factory=list)

    async def play(self) -> None:
        loop = asyncio.get_running_loop()
        self.providers = Billing(self.dice)
        self.bench = bench = Bench(
            models=MODELS,
            providers=PROVIDERS,
            defaults={"hedge": 0.9},
            patience=Patience(connect=1, ttft=3, stall=2, whole=20),
            transport=self.providers,
            now=loop.time,
            hedging=Hedging(lambda *_: 500.0, RetryBudget(per_second=1000)),
        )
        self.began = round(bench.clock.now() * 1e6)
        for owner in ("all", "key:k1"):
            for unit in Unit:
                one = Budget(f"{owner} {unit}", owner, Period.TOTAL, unit, 10**15, created_at=self.began - 1)
                bench.ledger.install(one, UTC, at=self.began)
        for _ in range(0, self.calls, AT_ONCE):
            await asyncio.gather(*(self._call() for _ in range(min(AT_ONCE, self.calls))))
            # Who was left alone after a failure is asked again.
            await asyncio.sleep(600)
        await bench.executor.close()
        self.records = bench.recorder.records

    async def _call(self) -> None:
        dice = self.dice
        dialect, stream = dice.choice(SPOKEN), dice.random() < 0.8
        snapshot = structs.replace(
            self.bench.snapshot(
                body(dialect, dice, stream=stream), dialect, caller=Caller(key=dice.choice(KEYS))
            ),
            path=path(dialect, stream=stream),
        )
        task = asyncio.create_task(self.bench.engine.exchange(snapshot))
        if dice.random() < 0.1:
            asyncio.get_running_loop().call_later(dice.uniform(0, 2), task.cancel)
        with suppress(asyncio.CancelledError):
            reply = await task
            if reply.frames is not None:
                frames: Any = reply.frames
                left = dice.choice([0, 3, 40, *[10**6] * 7])
                while left and await anext(frames, None) is not None:
                    left -= 1
                await frames.aclose()


def played(seed: int, calls: int) -> Month:
    it = Month(random.Random(seed), calls)
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(it.play())
    return it


@dataclass
class Reckoning:
    """What came of comparing both sides, attempt by attempt."""

    told: int = 0
    """Attempts whose provider has told what it bills,"""
    nanousd: int = 0
    """and what that is."""
    refused: int = 0
    estimated: int = 0
    """Attempts whose answer was cut short: tokens in all, as billed and as counted."""
    due: int = 0
    counted: int = 0
    unheard: int = 0
    """Attempts that were given up before anything was heard of their provider that decides."""

    @classmethod
    def of(cls, month: Month) -> Reckoning:
        """Compare; what a provider has told is counted to the nano-dollar and once, what it refused not at all."""
        it, bills = cls(), month.providers.bills
        seen: set[str] = set()
        for record in month.records:
            assert record.cost_nanousd == sum(tried.cost_nanousd for tried in record.attempts)
            for tried in record.attempts:
                bill = bills.get(tried.provider_request_id)
                if bill is None or bill.sent < bill.refusal:
                    it.unheard += 1
                    assert tried.usage.output_tokens <= 1, tried
                    continue
                assert bill.id not in seen, "counted twice"
                seen.add(bill.id)
                it._compare(tried, bill)
            it._flagged(record, bills)
        missing = [
            bill for bill in bills.values() if bill.sent >= max(bill.refusal, 1) and bill.id not in seen
        ]
        assert not missing, missing
        return it

    def _flagged(self, record: Record, bills: Mapping[str, Bill]) -> None:
        """See that an estimate is said to be one: what the last attempt used is the record's own usage."""
        last = record.attempts[-1] if record.attempts else None
        bill = bills.get(last.provider_request_id) if last else None
        if last is not None and bill is not None and not bill.refusal and last.usage:
            assert record.usage_estimated is not bill.told, (record, bill)

    def _compare(self, tried: Attempt, bill: Bill) -> None:
        if bill.refusal:
            assert tried.usage == bill.due, (tried, bill)
            self.refused += 1
        elif bill.told:
            assert (tried.usage, tried.cost_nanousd) == (bill.usage, cost(bill.price, bill.usage)), tried
            self.told += 1
            self.nanousd += tried.cost_nanousd
        else:
            self.estimated += 1
            self.due += bill.due.input_tokens + bill.due.output_tokens
            self.counted += tried.usage.input_tokens + tried.usage.output_tokens

    @property
    def error(self) -> float:
        """By how much the estimates are wrong in all, as a share."""
        return abs(self.counted - self.due) / self.due


def check(month: Month) -> Reckoning:
    """Hold the records to the providers' accounts, and the ledger to the records."""
    found = Reckoning.of(month)
    standings = month.bench.ledger.standings(month.began)
    for owner in ("all", "key:k1"):
        mine = [one for one in month.records if owner in budgets.owners(one.caller)]
        for unit in Unit:
            standing = standings[f"{owner} {unit}"]
            assert (standing.spent, standing.held) == (sum(budgets.used(unit, one) for one in mine), 0)
    assert found.error <= 0.02, found
    return found


def test_what_providers_bill_is_what_is_counted() -> None:
    """Three hundred calls: what was told to the nano-dollar and once, what was cut short within two per cent."""
    found = check(played(1, 300))
    assert min(found.told, found.refused, found.estimated, found.unheard) > 10, found


@pytest.mark.load
@pytest.mark.timeout(3600)
def test_what_providers_bill_is_what_is_counted_over_ten_thousand_streams() -> None:
    """The same over a long time."""
    month = played(2, CALLS)
    found = check(month)
    assert found.told > CALLS / 2, found
    attempts = sum(len(one.attempts) for one in month.records)
    streams = sum(one.stream for one in month.records)
    measured(
        f"{CALLS} calls ({streams} streams), {attempts} attempts: {found.told} told by their providers, "
        f"{found.nanousd // 1000} micro-dollars billed and counted; {found.refused} refused; {found.estimated} "
        f"cut short, {found.due} tokens billed, {found.counted} counted, {found.error:.2%} apart; "
        f"{found.unheard} unheard of"
    )
