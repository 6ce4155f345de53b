"""What time tells of secrets: nothing that a hundred thousand looks could find, and what the method would find.

Two kinds of attempts are made in turns that a coin decides, so that whatever else the machine does meets both alike.
The statistic is that of Mann and Whitney (1947): the chance that one of the first kind took longer than one of the
second, a half where the times are of one distribution. It asks nothing of the shape of the distributions.
"""

from __future__ import annotations

import gc
import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final, override

import pytest

from tests.e2e.serving import measured
from tests.fakes.access import add_user, cheap_passwords, logins_of
from tests.fakes.house import House, house
from tokenhub_core.access import passwords
from tokenhub_core.access.marks import Use
from tokenhub_core.admission import apikeys
from tokenhub_core.admission.apikeys import Book, Kept
from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.ports import Secret
from tokenhub_core.store import access as rows
from tokenhub_core.store.rows import micros
from tokenhub_core.types import KEY_PREFIX, ApiKey
from tokenhub_core.vault import throttle

LOOKS: Final = 100_000
"""Of each kind."""
LOGINS: Final = 500
SLOW_LOGINS: Final = 20
"""With passwords that are hashed at their full cost."""
SIGMAS: Final = 4.0
"""How far from a half chance may take the statistic: beyond it once in 16,000 runs."""


@dataclass(frozen=True)
class Compared:
    """Two kinds of attempts, in nanoseconds."""

    first: Sequence[int]
    second: Sequence[int]

    @property
    def chance(self) -> float:
        """That one of the first took longer than one of the second; ties count half."""
        return self._wins / (len(self.first) * len(self.second))

    @property
    def sigmas(self) -> float:
        """By how many standard deviations it is off a half; ties are taken into account."""
        n, m = len(self.first), len(self.second)
        ties = sum(t**3 - t for t in Counter([*self.first, *self.second]).values())
        variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
        return (self._wins - n * m / 2) / math.sqrt(variance)

    @property
    def _wins(self) -> float:
        ranks, seen = dict[int, float](), 0
        for value, times in sorted(Counter([*self.first, *self.second]).items()):
            ranks[value] = seen + (times + 1) / 2
            seen += times
        n = len(self.first)
        return sum(ranks[value] for value in self.first) - n * (n + 1) / 2

    def __str__(self) -> str:
        return (
            f"{len(self.first)} of each kind: medians {median(self.first) / 1000:.2f} and "
            f"{median(self.second) / 1000:.2f} µs, chance {self.chance:.4f}, {self.sigmas:+.1f} sigma"
        )


def test_the_statistic_is_mann_and_whitneys() -> None:
    """By hand: of nine pairs five are won and two tied."""
    told = Compared([1, 3, 5], [0, 3, 5])
    assert told.chance == (1 + 1.5 + 2.5) / 9
    assert Compared([1, 2], [1, 2]).sigmas == 0
    assert Compared(range(100, 200), range(100)).sigmas > 10


# --- keys


class Prefixed(Book):
    """Hashes only what begins like a key that it has."""

    @override
    def look_up(self, secret: str, now: float) -> ApiKey:
        if not any(secret.startswith(one.secrets[0].prefix) for one in self.kept.values()):
            raise client_fault("this API key is not known", kind=Kind.AUTH, cause="key_unknown")
        return super().look_up(secret, now)


def secret(known: str = "") -> str:
    """Return a secret that begins with these digits; the next one is another than it was, the rest is nobody's."""
    rest = secrets.token_hex(32)
    while known and rest[0] == known[-1]:
        rest = secrets.token_hex(32)
    return (KEY_PREFIX + known[:-1] + rest)[: len(KEY_PREFIX) + 64]


def looked_up(kind: type[Book], digits: int, looks: int) -> Compared:
    """Look wrong secrets up: some begin with so many digits of one that is known, the others with none."""
    pepper = apikeys.pepper(secrets.token_bytes(32))
    book = kind(pepper)
    right = [secret() for _ in range(8)]
    for number, one in enumerate(right):
        book.put(Kept(ApiKey(f"k{number}"), (apikeys.known(one, pepper, now=0),)))
    # The next digit, which is the first that is wrong, is given too.
    near = [secret(random.choice(right)[len(KEY_PREFIX) :][: digits + 1]) for _ in range(1000)]
    far = [secret() for _ in range(1000)]
    times: tuple[list[int], list[int]] = [], []
    gc.disable()
    try:
        for turn in range(looks):
            order = (0, 1) if random.random() < 0.5 else (1, 0)
            for which in order:
                shown = (near, far)[which][turn % 1000]
                began = time.perf_counter_ns()
                with suppress(TokenHubError):
                    book.look_up(shown, 0.0)
                times[which].append(time.perf_counter_ns() - began)
    finally:
        gc.enable()
    return Compared(*times)


@pytest.mark.load
@pytest.mark.parametrize("digits", [8, 63])
def test_how_much_of_a_key_is_right_does_not_show(digits: int) -> None:
    """Neither the digits that a key is shown by nor all but the last one take longer than none."""
    told = looked_up(Book, digits, LOOKS)
    measured(f"wrong keys with {digits} right digits and with none: {told}")
    assert abs(told.sigmas) < SIGMAS


@pytest.mark.load
def test_a_book_that_hashes_only_what_it_may_know_is_told_apart() -> None:
    """The method sees what it is there for, in a hundredth of the looks."""
    told = looked_up(Prefixed, 8, LOOKS // 100)
    measured(f"of a book that looks at the beginning first: {told}")
    assert told.sigmas > 10


# --- logins


async def logged_in(it: House, failures: int, tries: int) -> Compared:
    """Try wrong passwords of a user who exists and of one who does not, after so many wrong ones of both."""
    logins, numbers = logins_of(it), count()
    await add_user(it, "ada")
    names = ("ada", "eve")

    async def ready(name: str) -> str:
        """Let a name have failed so often, long ago; return an address that never did."""
        at = micros(logins._clock.now() - throttle.LONGEST - 1)
        mark = logins._marks.of(Use.ATTEMPT, f"user {name}")
        await logins._audit.commit(lambda connection: rows.put_attempts(connection, mark, failures, at))
        number = next(numbers)
        return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

    async def once(name: str) -> int:
        source = await ready(name)
        began = time.perf_counter_ns()
        with suppress(TokenHubError):
            await logins.user(name, Secret("wrong" * 3), source)
        return time.perf_counter_ns() - began

    return await in_turns(lambda: once(names[0]), lambda: once(names[1]), tries)


async def in_turns(
    first: Callable[[], Awaitable[int]], second: Callable[[], Awaitable[int]], tries: int
) -> Compared:
    """Do both so often, in an order that a coin decides."""
    times: tuple[list[int], list[int]] = [], []
    for _ in range(tries):
        for which in (0, 1) if random.random() < 0.5 else (1, 0):
            times[which].append(await (first, second)[which]())
    return Compared(*times)


@pytest.mark.load
@pytest.mark.timeout(900)
@pytest.mark.parametrize("failures", [0, throttle.FREE])
async def test_whether_a_user_exists_does_not_show(tmp_path: Path, failures: int) -> None:
    """Neither at first nor when the wrong password makes the next one wait; of hashing nothing hides the rest."""
    with cheap_passwords():
        async with house(tmp_path) as it:
            told = await logged_in(it, failures, LOGINS)
    measured(f"wrong passwords after {failures}, hashed cheaply, of a user and of nobody: {told}")
    assert abs(told.sigmas) < SIGMAS


@pytest.mark.load
@pytest.mark.timeout(900)
async def test_whether_a_user_exists_does_not_show_at_full_cost(tmp_path: Path) -> None:
    """With passwords as they are hashed."""
    async with house(tmp_path) as it:
        told = await logged_in(it, 0, SLOW_LOGINS)
    measured(f"wrong passwords at full cost, of a user and of nobody: {told}")
    assert abs(told.sigmas) < SIGMAS


@pytest.mark.load
async def test_a_login_that_hashes_nothing_for_nobody_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method sees what it is there for, in ten tries."""
    matches = passwords.matches
    monkeypatch.setattr(
        passwords, "matches", lambda stored, given: stored != passwords.NOBODY and matches(stored, given)
    )
    async with house(tmp_path) as it:
        told = await logged_in(it, 0, SLOW_LOGINS // 2)
    measured(f"of a login that hashes nothing for nobody: {told}")
    assert told.chance == 1
