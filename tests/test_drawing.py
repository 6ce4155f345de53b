"""Limits on callers over several processes, with the pool there, slow and gone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.serving import eventually
from tests.fakes import redis as fake
from tests.fakes.house import House, house
from tests.fakes.leaping import LeapingLoop
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.admission import drawing
from tokenhub_core.admission.drawing import Drawing
from tokenhub_core.admission.pool import Claim, Grant, Reservoir
from tokenhub_core.admission.quotas import nanoseconds
from tokenhub_core.admission.throttle import Stay, Throttle
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Caller, Dialect, KeyLimits

CALLER: Final = Caller(peer="192.0.2.1")
LIMIT: Final = 10


class Pool:
    """One process's way to a pool that may be gone, on a clock that stands still until it is moved."""

    def __init__(self, reservoir: Reservoir, name: str) -> None:
        self.reservoir = reservoir
        self.name = name
        self.there = True
        self.hangs = False
        self.now = 100.0

    async def draw(self, claim: Claim) -> Grant | None:
        if self.hangs:
            await asyncio.Event().wait()
        return self.reservoir.draw(self.name, claim, int(self.now * 1000)) if self.there else None


class Process:
    """A process that counts together with others."""

    def __init__(self, reservoir: Reservoir, name: str, limits: KeyLimits) -> None:
        self.pool = Pool(reservoir, name)
        self.told: list[bool] = []
        self.drawing = Drawing(self.pool, lambda: self.pool.now, told=self.told.append)
        self.throttle = Throttle(addresses=limits)
        self.throttle.share(self.drawing.stocks)

    async def enter(self, tokens: int = 0) -> Stay | None:
        """Make a call; None where it is refused."""
        who = self.throttle.subject(CALLER, ())
        assert who is not None
        await self.drawing.arrive(*who, 0)
        stay = self.throttle.visit(CALLER, (), self.instant)
        assert stay is not None
        try:
            stay.enter(self.instant)
            stay.reserve(tokens, self.instant)
        except TokenHubError:
            return None
        return stay

    @property
    def instant(self) -> int:
        return nanoseconds(self.pool.now)


def processes(limits: KeyLimits, many: int = 2) -> list[Process]:
    reservoir = Reservoir()
    return [Process(reservoir, str(number), limits) for number in range(many)]


async def count(several: list[Process], calls: int) -> int:
    return sum([await several[number % len(several)].enter() is not None for number in range(calls)])


async def test_all_processes_together_let_in_what_the_limit_says() -> None:
    """Three of them, asked in turn, and one of them alone, come to the same number."""
    limits = KeyLimits(requests_per_minute=LIMIT)

    assert await count(processes(limits, 3), 40) == LIMIT
    assert await count(processes(limits, 3)[:1], 40) == LIMIT


async def test_tokens_that_a_call_did_not_use_are_there_for_another_process() -> None:
    """They go back to the pool when it ends, whichever process made it."""
    limits = KeyLimits(requests_per_minute=LIMIT, tokens_per_minute=4000)
    one, two = processes(limits)
    stay = await one.enter(1000)
    assert stay is not None
    assert await two.enter(3500) is None

    stay.leave(100, one.instant)
    await one.drawing.close()
    assert one.drawing._posts == set()

    looks = Claim("address:192.0.2.1", requests=LIMIT, tokens=4000)
    assert one.pool.reservoir.draw("x", looks, int(one.pool.now * 1000)).left_requests == LIMIT - 2
    assert await two.enter(3500) is not None


async def test_tokens_that_were_drawn_and_not_used_go_back() -> None:
    """With the next draw, as far as they cannot have drained meanwhile: 200 of 6,000 a minute, in two seconds."""
    (one,) = processes(KeyLimits(tokens_per_minute=6000), 1)
    who = one.throttle.subject(CALLER, ())
    assert who is not None
    await one.drawing.arrive(*who, 9000)
    assert one.drawing.stocks.of(who[0]).left[1] == 6000 - 1024 - 3000

    one.pool.now += 2
    await one.drawing.arrive(*who, 0)

    assert one.drawing.stocks.of(who[0]).left[1] == 6000 - 1024


async def test_a_long_call_is_settled_when_it_ends() -> None:
    """What was at hand when it began is forgotten by then; what it did not use goes back all the same."""
    (one,) = processes(KeyLimits(tokens_per_minute=4000), 1)
    stay = await one.enter(1000)
    assert stay is not None
    await one.enter(0)
    one.pool.now += 100
    await one.drawing.renew()
    assert [*one.drawing.stocks.items()] == []

    used = 2500
    stay.leave(used, one.instant)
    await one.drawing.close()

    assert one.pool.reservoir.draw("x", Claim("address:192.0.2.1", tokens=4000), 200_000).left_tokens == 2500


async def test_without_the_pool_each_lets_in_its_part_and_begins_with_nothing() -> None:
    """What was drawn before is not given out twice; afterwards both together keep to the limit."""
    both = processes(KeyLimits(requests_per_minute=LIMIT))
    assert await count(both, 20) == LIMIT
    for one in both:
        one.pool.there = False
    assert await count(both, 20) == 0
    assert [one.told for one in both] == [[False], [False]]

    for one in both:
        one.pool.now += 60

    assert await count(both, 40) == LIMIT


async def test_a_process_that_has_never_met_the_pool_takes_itself_for_one_of_two(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It lets in half of the limit, and the log says so, and when that is over."""
    (one,) = processes(KeyLimits(requests_per_minute=LIMIT), 1)
    one.pool.there = False
    assert await count([one], 1) == 0
    one.pool.now += 60
    assert await count([one], 20) == LIMIT // 2
    one.pool.there = True
    await one.drawing.renew()
    assert caplog.messages == [
        "limits on callers are not shared: each of 2 processes lets in its part",
        "limits on callers are shared again",
    ]


def test_a_call_waits_for_the_pool_for_a_twentieth_of_a_second() -> None:
    """One that hangs counts as gone then."""

    async def met() -> float:
        (one,) = processes(KeyLimits(requests_per_minute=LIMIT), 1)
        one.pool.hangs = True
        begun = asyncio.get_running_loop().time()
        await one.enter()
        assert one.told == [False]
        return asyncio.get_running_loop().time() - begun

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        assert runner.run(met()) == pytest.approx(0.05)


async def test_nobody_waits_for_a_pool_that_does_not_answer() -> None:
    """The first call waits a moment, those after it do not ask; when it is back it is asked again."""
    (one,) = processes(KeyLimits(requests_per_minute=LIMIT), 1)
    await one.drawing.renew()
    one.pool.hangs = True
    await one.enter()
    assert one.told == [False]

    async def never(claim: Claim) -> Grant | None:
        raise AssertionError(claim)

    asked, one.pool.draw = one.pool.draw, never  # type: ignore[method-assign] # nobody may ask
    await one.enter()
    one.pool.draw = asked  # type: ignore[method-assign] # as it was
    one.pool.hangs = False
    await one.drawing.renew()

    assert one.told == [False, True]
    assert await one.enter() is not None


async def test_a_call_that_never_fits_is_told_so_before_anything_is_taken() -> None:
    """413, as where one process counts alone; what was drawn for it is there for the next one."""
    (one,) = processes(KeyLimits(tokens_per_minute=4000), 1)
    who = one.throttle.subject(CALLER, ())
    assert who is not None
    await one.drawing.arrive(*who, 0)
    stay = one.throttle.visit(CALLER, (), one.instant)
    assert stay is not None

    with pytest.raises(TokenHubError) as refused:
        stay.reserve(4001, one.instant)

    assert (refused.value.fault.http_status, refused.value.fault.cause) == (413, "address_tokens_too_many")
    assert await one.enter(1000) is not None


async def test_who_was_not_let_in_gives_nothing_back_and_who_leaves_does_it_once() -> None:
    """Else a refused call would make room for others, and one that ends twice would for two."""
    (one,) = processes(KeyLimits(requests_per_minute=1, tokens_per_minute=4000), 1)
    stay = await one.enter(1000)
    assert stay is not None
    stranger = one.throttle.visit(CALLER, (), one.instant)
    assert stranger is not None
    with pytest.raises(TokenHubError):
        stranger.enter(one.instant)

    stranger.leave(0, one.instant)
    for _ in range(2):
        stay.leave(100, one.instant)
    await one.drawing.close()

    assert stay._account.calls == 0
    left = one.pool.reservoir.draw("x", Claim("address:192.0.2.1", tokens=4000), int(one.pool.now * 1000))
    assert left.left_tokens == 4000 - 100 - one.drawing.stocks.of("address:192.0.2.1").tokens


async def test_what_ends_while_the_pool_is_gone_is_not_told_later() -> None:
    """Nobody hears of it then: the pool that comes back knows nothing of what was drawn, either."""
    source = Pool(Reservoir(), "quiet")
    drawing = Drawing(source, lambda: source.now)
    stocks, limits = drawing.stocks, KeyLimits(tokens_per_minute=4000)
    asked: list[Claim] = []

    async def lost(claim: Claim) -> Grant | None:
        asked.append(claim)
        return None

    source.draw = lost  # type: ignore[method-assign] # it hears, and does not answer
    stocks.of("s").more = 70
    drawing.settle("s", limits)
    await drawing.close()
    assert ([claim.more_tokens for claim in asked], stocks.up) == ([70], False)
    stocks.of("s").more = 80
    drawing.settle("s", limits)
    await drawing.close()

    assert len(asked) == 1


async def test_only_whoever_rests_is_forgotten() -> None:
    """What a caller's calls set aside is remembered for a minute, and longer for who comes again."""
    (one,) = processes(KeyLimits(requests_per_minute=LIMIT), 1)
    await one.enter()
    one.pool.now += 61
    one.drawing.stocks.of("address:192.0.2.2").until = one.pool.now
    await one.drawing.renew()
    assert len([*one.drawing.stocks.items()]) == 2

    one.pool.now += 1
    await one.drawing.renew()

    assert [subject for subject, _ in one.drawing.stocks.items()] == ["address:192.0.2.2"]


@pytest.mark.parametrize(
    ("dialect", "prefix"), [(Dialect.OPENAI_CHAT, "x-"), (Dialect.ANTHROPIC_MESSAGES, "anthropic-")]
)
async def test_a_caller_is_told_what_is_left_to_all_processes(dialect: Dialect, prefix: str) -> None:
    """Of requests and tokens, as the pool said when the call was drawn for; where nothing is limited, nothing."""
    one, two = processes(KeyLimits(requests_per_minute=LIMIT, tokens_per_minute=4000))
    await two.enter()
    stay = await one.enter()
    assert stay is not None

    told = stay.headers(dialect, now=one.instant, at=0)

    left = sorted(value for name, value in told if "remaining" in name)
    assert left == sorted([str(LIMIT - 2), str(4000 - 2 * 1024)])
    assert all(name.startswith(f"{prefix}ratelimit-") for name, _ in told)
    (free,) = processes(KeyLimits(max_output_tokens=1), 1)
    unlimited = await free.enter()
    assert unlimited is not None
    assert unlimited.headers(dialect, now=free.instant, at=0) == ()


def test_a_process_says_again_and_again_that_it_is_there() -> None:
    """For as long as it serves: every two and a half seconds, and twice as often while the pool is gone."""
    (one,) = processes(KeyLimits(requests_per_minute=LIMIT), 1)
    asked, moments = list[Claim](), list[float]()

    async def heard(claim: Claim) -> Grant | None:
        await asyncio.sleep(0)
        asked.append(claim)
        moments.append(asyncio.get_running_loop().time())
        if len(asked) == 4:
            raise asyncio.CancelledError
        return None if len(asked) == 2 else Grant()

    one.pool.draw = heard  # type: ignore[method-assign] # it is gone once
    with asyncio.Runner(loop_factory=LeapingLoop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(one.drawing.keep())
    assert asked == [Claim("")] * 4
    assert one.told == [False, True]
    assert [later - earlier for earlier, later in pairwise(moments)] == [2.5, 1.25, 2.5]


# --- with Redis --------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(folder: Path, url: str) -> AsyncIterator[list[House]]:
    """Run two servers that share nothing but Redis."""
    settings = {"REDIS_URL": url, "ALLOW_PRIVATE": "localhost", "ADDRESS_REQUESTS_PER_MINUTE": str(LIMIT)}
    async with (
        FakeProvider() as provider,
        house(folder / "one", settings=settings) as one,
        house(folder / "two", settings=settings) as two,
    ):
        for it in (one, two):
            await it.provider(provider, "p", "m")
        yield [one, two]


async def calls(houses: list[House], many: int) -> list[int]:
    told = await asyncio.gather(*(houses[number % len(houses)].chat("m") for number in range(many)))
    return [one.status for one in told]


def drained(began: float) -> int:
    """Return how many more may have been let in since then: of ten a minute one in six seconds, and one begun."""
    return 1 + math.ceil((time.monotonic() - began) * LIMIT / 60)


async def shared(it: House) -> bool:
    return b"tokenhub_limits_shared 1.0" in (await it.ask("GET", "/metrics")).body


async def unshared(it: House) -> bool:
    return not await shared(it)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_with_redis_two_servers_keep_one_limit_and_without_it_they_are_never_unlimited(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or stopped in its tracks: no call waits for it, none is let in that may not be, and it comes back."""
    # A busy machine must not look like a Redis that is gone.
    usual = drawing.WAIT
    monkeypatch.setattr(drawing, "WAIT", PATIENCE)
    if why := fake.missing():
        pytest.skip(why)
    with fake.redis(tmp_path) as server:
        async with served(tmp_path, server.url) as houses:
            for it in houses:
                await eventually(partial(shared, it))
            began = time.monotonic()
            told = await calls(houses, 30)
            assert set(told) == {200, 429}
            assert told.count(200) <= LIMIT + drained(began)

            monkeypatch.setattr(drawing, "WAIT", usual)
            if how == "killed":
                server.stop()
            else:
                server.pause()
            for it in houses:
                await eventually(partial(unshared, it))
            assert (await calls(houses, 20)).count(200) <= 1 + drained(began)

            monkeypatch.setattr(drawing, "WAIT", PATIENCE)
            if how == "killed":
                server.start()
            else:
                server.resume()
            for it in houses:
                await eventually(partial(shared, it))
