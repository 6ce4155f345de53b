"""The common pool of limits: the supervisor's and Redis's keep one contract."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.fakes import redis as fake
from tests.patience import PATIENCE
from tokenhub_core import redispool
from tokenhub_core.admission.pool import (
    MINUTE,
    PRESENT,
    Claim,
    Grant,
    Nonces,
    Reservoir,
    Stock,
    expected,
    part,
)
from tokenhub_core.redispool import RedisPool
from tokenhub_core.types import KeyLimits

type Draw = Callable[[str, Claim], Awaitable[Grant]]


class Since:
    """What may have drained by now: the pools go by clocks that nobody turns by hand."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def left(self, units: int, rate: int) -> range:
        """Return how many units may be left where so many were at the beginning, and nobody drew since."""
        return range(units, units + math.ceil((time.monotonic() - self._begun) * rate / 60) + 2)


@pytest.fixture(params=["supervisor", "redis"])
async def draw(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Draw]:
    """Draw as a process of this name."""
    if request.param == "supervisor":
        reservoir = Reservoir()

        async def kept(process: str, claim: Claim) -> Grant:
            return reservoir.draw(process, claim, int(time.monotonic() * 1000))

        yield kept
        return
    if why := fake.missing():
        pytest.skip(why)
    # A draw that was given up may have been made all the same: here each is waited for, and made once.
    monkeypatch.setattr(redispool, "WAIT", PATIENCE)
    monkeypatch.setattr(redispool, "_CONNECT", PATIENCE)
    with fake.redis(tmp_path) as server:
        pools: dict[str, RedisPool] = {}

        async def asked(process: str, claim: Claim) -> Grant:
            grant = await pools.setdefault(process, RedisPool.at(server.url, process)).draw(claim)
            assert grant is not None
            return grant

        yield asked
        for pool in pools.values():
            await pool.close()


async def test_of_two_processes_both_draw_from_one_limit(draw: Draw) -> None:
    """What one has drawn is not there for the other, who hears how long to wait."""
    claim = Claim("key:k", requests=2, want_requests=1)
    first, second = await draw("one", claim), await draw("two", claim)
    assert (first.requests, second.requests) == (1, 1)
    assert (first.left_requests, second.left_requests) == (1, 0)

    third = await draw("one", claim)

    assert third.requests == 0
    assert 0 < third.wait_requests <= MINUTE // 2
    assert third.processes == 2


async def test_tokens_are_settled_by_what_was_used(draw: Draw) -> None:
    """What goes back can be drawn again, and what was used beyond it cannot."""
    since, rate = Since(), 1000
    claim = Claim("key:k", tokens=rate, want_tokens=900)
    assert (await draw("one", claim)).tokens == 900
    assert (await draw("two", claim)).tokens in since.left(100, rate)

    back = Claim("key:k", tokens=rate, more_tokens=-800)
    assert (await draw("one", back)).left_tokens in since.left(800, rate)
    over = Claim("key:k", tokens=rate, want_tokens=500, more_tokens=1800)
    assert (await draw("one", over)).tokens == 0


async def test_whoever_may_not_come_in_takes_no_tokens(draw: Draw) -> None:
    """A call that is refused for its number leaves the tokens to others."""
    since, rate = Since(), 1000
    claim = Claim("key:k", requests=1, tokens=rate, want_requests=1, want_tokens=600)
    assert (await draw("one", claim)).tokens == 600

    refused = await draw("one", claim)

    assert (refused.requests, refused.tokens) == (0, 0)
    assert refused.left_tokens in since.left(400, rate)


async def test_subjects_do_not_meet_and_a_word_without_one_only_tells_of_a_process(draw: Draw) -> None:
    """Each key has its own; a process that is idle is counted as there all the same."""
    claim = Claim("key:a", requests=1, want_requests=1)
    assert (await draw("one", claim)).requests == 1
    assert (await draw("one", Claim("key:b", requests=1, want_requests=1))).requests == 1

    assert await draw("two", Claim("")) == Grant(0, 0, 0, 0, 0, 0, 2)


@given(
    rate=st.integers(1, 50),
    asked=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 5)), min_size=1, max_size=60),
)
def test_no_more_is_given_in_any_time_than_the_limit_allows(rate: int, asked: list[tuple[int, int]]) -> None:
    """In any t minutes at most rate + rate * t, whoever draws; whoever waits as long as is said gets the rest."""
    pool, now, given_at = Reservoir(), 0, list[tuple[int, int]]()
    for number, (pause, want) in enumerate(asked):
        now += pause
        grant = pool.draw(f"p{number % 3}", Claim("s", requests=rate, want_requests=want), now)
        given_at.append((now, grant.requests))
        if grant.wait_requests and want <= rate:
            now += grant.wait_requests
            rest = want - grant.requests
            again = pool.draw("p", Claim("s", requests=rate, want_requests=rest), now)
            assert again.requests == rest
            given_at.append((now, rest))
    for start in range(len(given_at)):
        total = 0
        for at, units in given_at[start:]:
            total += units
            assert total * MINUTE <= rate * MINUTE + rate * (at - given_at[start][0])


def test_a_pool_begins_full() -> None:
    """Whatever its clock says: also one that has just begun to count."""
    claim = Claim("s", requests=2, tokens=30, want_requests=2, want_tokens=30)
    assert Reservoir().draw("one", claim, 0) == Grant(2, 30, 0, 0, 0, 0, 1)


def test_a_process_that_is_silent_is_not_counted_any_more() -> None:
    """Those that are left have larger parts, should the pool be gone."""
    pool = Reservoir()
    pool.draw("one", Claim(""), 0)

    assert pool.draw("two", Claim(""), PRESENT - 1).processes == 2
    assert pool.draw("two", Claim(""), PRESENT).processes == 1


def test_who_was_not_heard_of_for_two_minutes_is_forgotten_and_has_everything() -> None:
    """By then its buckets are full again; nobody who was heard of loses what is counted."""
    pool = Reservoir()
    claim = Claim("old", requests=1, want_requests=1)
    for subject in ("old", "young"):
        pool.draw("one", structs.replace(claim, subject=subject), 0)
    pool.draw("one", structs.replace(claim, subject="young"), 2 * MINUTE)
    assert pool._kept.keys() == {"old", "young"}

    pool.draw("one", structs.replace(claim, subject="new"), 2 * MINUTE + 1)

    assert pool._kept.keys() == {"young", "new"}
    assert pool.draw("one", claim, 2 * MINUTE + 1).requests == 1
    assert pool.draw("one", structs.replace(claim, subject="young"), 2 * MINUTE + 1).requests == 0


def test_what_is_not_used_in_time_is_lost_and_tokens_go_back_as_far_as_they_cannot_have_drained() -> None:
    """Whoever keeps what it drew would use it beside what has drained meanwhile."""
    stock = Stock()
    stock.put(Grant(1, 1000, 500, 1500, left_requests=3, left_tokens=4), 10.0)
    assert (stock.waits, stock.left) == ((0.5, 1.5), (3, 4))
    stock.expire(11.9, 6000)
    assert (stock.requests, stock.tokens, stock.more) == (1, 1000, 0)

    stock.expire(13.0, 6000)

    assert (stock.requests, stock.tokens, stock.more) == (0, 0, -700)


@pytest.mark.parametrize(
    ("limit", "of", "mine"), [(10, 2, 5), (10, 3, 3), (1, 4, 1), (0, 2, 0), (None, 2, None)]
)
def test_a_part_is_even_and_at_least_one(limit: int | None, of: int, mine: int | None) -> None:
    """A limit of nothing stays one; how long an answer may be is not divided."""
    assert part(KeyLimits(limit, limit, limit, 7), of) == KeyLimits(mine, mine, mine, 7)
    assert part(KeyLimits(limit, 60 * of, 70 * of, 7), of) == KeyLimits(mine, 60, 70, 7)


@pytest.mark.parametrize(
    ("hint", "reserved", "drawn"), [(0, 1000, 1250), (1250, 1100, 1375), (1250, 100, 1094), (1, 0, 1)]
)
def test_what_is_drawn_follows_what_calls_set_aside(hint: int, reserved: int, drawn: int) -> None:
    """A quarter more at once, and less by an eighth at a time."""
    assert expected(hint, reserved) == drawn


def test_a_nonce_stands_until_its_end_or_is_replaced() -> None:
    """Whoever is first is told its own value, everybody else the first one; what has ended is not kept."""
    nonces = Nonces()
    assert nonces.put("a", b"1", 0, 10, replace=False) == b"1"
    assert nonces.put("a", b"2", 9, 20, replace=False) == b"1"
    assert nonces.put("a", b"2", 9, 20, replace=True) == b"2"
    assert nonces.put("a", b"3", 19, 30, replace=False) == b"2"
    assert nonces.put("a", b"3", 20, 30, replace=False) == b"3"
    assert nonces.put("b", b"4", 30, 40, replace=False) == b"4"
    assert nonces._kept == {"b": (b"4", 40)}
