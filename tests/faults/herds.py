"""F19 and F29 to F31: what many calls do to a provider that fails, flaps, or comes back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from tests.faults import off
from tests.faults.case import Case, Lab
from tests.faults.world import Turn, World
from tests.patience import PATIENCE
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.health.tracker import HealthTracker, Rules, State

_DOWN: Final = Fault(Kind.TRANSIENT, Blame.PROVIDER, "down", cause="http_500")


async def _burst(turn: Turn) -> None:
    """A provider that fails every call is left alone after five of them, and nobody notices."""
    turn.slot.first.script("*", ["500"])
    for _ in range(12):
        got = await turn.call()
        turn.whole(got, turn.slot.spare)
    assert len(turn.slot.first.requests) <= 5, len(turn.slot.first.requests)


def _flapping(rounds: int, seed: int) -> tuple[list[float], int]:
    """Ask a provider that is up for five seconds and down for five; return its ejections and all changes of state."""
    tracker, chance = HealthTracker(), random.Random(seed)
    ejections, changes, now = [], 0, 0.0
    while now < rounds:
        now += chance.uniform(0.02, 0.1)
        if tracker.admit("a", now):
            if now % 10 < 5:
                tracker.succeeded("a", now + 0.01, 5.0, started=now)
            else:
                tracker.failed("a", _DOWN, now + 0.01, started=now)
        for moved in tracker.transitions():
            # Degraded is used like healthy: between the two nothing changes for anybody.
            if State.DEGRADED in (moved.before, moved.after) and State.DOWN not in (
                moved.before,
                moved.after,
            ):
                continue
            changes += 1
            if moved.after is State.DOWN:
                view = tracker.snapshot(now)["a"]
                assert view.cooldown_until is not None
                ejections.append(view.cooldown_until - now)
    return ejections, changes


async def _flaps(lab: Lab, n: int) -> None:
    ejections: list[float] = []
    for seed in range(n):
        ejections, changes = _flapping(600, seed)
        assert changes / 10 <= 6, f"{changes} changes of state in ten minutes"
        assert ejections[-1] > 2 * ejections[0], ejections
    lab.told["ejections"] = [round(one) for one in ejections]


async def _herd(lab: Lab, n: int) -> None:
    """A provider comes back with sixty calls waiting: one looks first, and then twice as many each time."""
    # In a place of its own: what other cases have taught of these providers decides who is asked first.
    async with lab.alone() as it:
        health = it.executor.means.health
        health._rules = Rules(ejection=0.2)
        for number in range(n):
            turn = it.turn(
                number * len(it.slots),
                apart=True,
                caller="openai",
                speaks="openai",
                spare_speaks="openai",
                stream=True,
            )
            await _comes_back(it, turn, lab)


async def _comes_back(it: World, turn: Turn, lab: Lab) -> None:
    means, first = it.executor.means, turn.slot.first
    name = turn.providers[0]
    for _ in range(5):
        means.health.failed(name, _DOWN, means.clock.monotonic())
    until = means.health.snapshot(means.clock.monotonic())[name].cooldown_until
    assert until is not None
    # A minute later, when its failures are no reason any more to ask others first.
    window = means.health._all[name].window
    window.calls, window.errors = [0] * len(window.calls), [0] * len(window.errors)
    first.profile = replace(first.profile, ttft=0.15)
    try:
        await asyncio.sleep(max(until - means.clock.monotonic(), 0) + 0.01)
        gots = await asyncio.gather(*(turn.call() for _ in range(40)))
    finally:
        first.profile = replace(first.profile, ttft=0.0)
    assert [got.status for got in gots] == [200] * 40
    # What arrived before the first answer of that provider was out is what the herd did to it.
    begun = sorted(one.at for one in first.requests)
    at_once = [sum(1 for other in begun if at <= other < at + 0.14) for at in begun]
    assert begun, "nobody has looked whether it is back"
    assert at_once[0] == 1, f"{at_once[0]} calls looked at once"
    # And with its first answer not everybody comes.
    wave = [at for at in begun if begun[0] + 0.14 <= at < begun[0] + 0.29]
    lab.told["after_the_first"] = max(lab.told.get("after_the_first", 0), len(wave))
    assert len(wave) <= 2, f"{len(wave)} calls came with its first answer"


async def _ramps(lab: Lab, n: int) -> None:
    """After the probe's answer two go through, then four, and so on: a second collapse is seen before it is one."""
    waves: list[int] = []
    for number in range(n):
        chance, tracker = random.Random(number), HealthTracker()
        for _ in range(5):
            tracker.failed("a", _DOWN, 0.0)
        now, waves = 40.0, []
        while len(waves) < 4:
            admitted = [at / 1000 + now for at in range(500) if tracker.admit("a", at / 1000 + now)]
            waves.append(len(admitted))
            under_way = admitted
            chance.shuffle(under_way)
            now += 1.0
            for started in under_way:
                tracker.succeeded("a", now, 5.0, started=started)
        assert waves[0] == 1, waves
        assert all(later <= 2 * earlier for earlier, later in pairwise(waves)), waves
    lab.told["waves"] = waves


async def _comes_back_slowly(lab: Lab, n: int) -> None:
    await _ramps(lab, n)
    await _herd(lab, max(1, n // 10))


async def _storm(lab: Lab, n: int) -> None:
    """Everybody is down: attempts stay within a fifth of the calls and ten a second for each provider."""
    it = await lab.world()
    for number in range(n):
        turn = it.turn(number * len(it.slots))
        # Health must not help: the budget alone has to hold.
        it.executor.means.health._rules = Rules(eject_after=10**9, eject_rate=None, degraded_after=10**9)
        try:
            turn.slot.first.script("*", ["503"])
            began = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                gots = await asyncio.gather(*(turn.call() for _ in range(100)))
            took = time.monotonic() - began
        finally:
            it.executor.means.health._rules = Rules()
        assert {got.status for got in gots} <= {502, 503}, {got.status for got in gots}
        firsts = 2 * len(gots)  # each call is entitled to one attempt at each of the two
        # A budget is a window of ten seconds, so a burst may use all of it at once.
        most = firsts * 1.2 + 2 * 10 * (10 + took)
        lab.told |= {"calls": len(gots), "attempts": turn.asked, "most": round(most)}
        assert turn.asked <= most, (turn.asked, most)


@contextmanager
def _no_budget(lab: Lab) -> Iterator[None]:
    del lab
    withdraw: Any = RetryBudget.withdraw
    RetryBudget.withdraw = lambda *_: True  # type: ignore[method-assign] # what the control is
    try:
        yield
    finally:
        RetryBudget.withdraw = withdraw  # type: ignore[method-assign]


CASES: Final = (
    Case(
        "F19",
        "a provider fails every call",
        "it is left alone after five of them; the other one serves everybody",
        "health: ejection, and the error rate before it",
        "nothing is held against anybody",
        lambda lab, n: lab.turns(
            n, _burst, apart=True, caller="openai", speaks="openai", spare_speaks="openai"
        ),
        off.patched(HealthTracker, "failed", off.returning(None)),
    ),
    Case(
        "F29",
        "a provider is up for five seconds and down for five, for ten minutes",
        "it rests longer each time, and its state changes at most six times a minute",
        "ejections grow and are forgiven slowly",
        "earlier ejections are forgotten",
        _flaps,
        off.patched(HealthTracker, "_recent", off.returning(0)),
        lanes=(),
        quick=True,
    ),
    Case(
        "F30",
        "a provider comes back while hundreds wait for it",
        "one call looks; after its answer two go, then four: never more than twice what was just answered",
        "one probe at a time, then a ramp",
        "everybody goes at once",
        _comes_back_slowly,
        off.patched(HealthTracker, "_open", off.returning(True)),
        red=1,
    ),
    Case(
        "F31",
        "every provider answers 503 to a hundred calls at once",
        "attempts stay within 1.2 times what calls are entitled to, and ten a second",
        "the retry budget",
        "every retry is paid for",
        _storm,
        _no_budget,
        n=5,
        red=1,
    ),
)
