"""What other processes tell of a provider: a hint that one's own answers outweigh, and one probe over all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.admission.pool import Nonces
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.health.tracker import HealthTracker, News, Rules, State, Told
from tokenhub_core.hearsay import LEASE, Permits

DOWN = Fault(Kind.TRANSIENT, Blame.PROVIDER, "boom", cause="http_500")
RULES = Rules()


class Process:
    """One process's health, and what it has told."""

    def __init__(self) -> None:
        self.told: list[News] = []
        self.tracker = HealthTracker()
        self.tracker.share(self.told.append, lambda _: True)

    def fail(self, times: int, now: float) -> None:
        for _ in range(times):
            self.tracker.failed("a", DOWN, now)

    def state(self, now: float) -> State:
        return self.tracker.snapshot(now)["a"].state


def ejected(now: float = 0.0) -> Process:
    one = Process()
    one.fail(RULES.eject_after, now)
    return one


def news(told: Told = Told.DOWN, *, age: float = 0.0, seconds: float = 30.0) -> News:
    return News("a", told, age, seconds, "http_500", 1)


def test_an_ejection_is_told_at_once_with_what_is_left_of_it() -> None:
    """And again for as long as it lasts, older each time."""
    one = ejected()
    assert [(it.told, it.age, it.seconds, it.reason) for it in one.told] == [
        (Told.DOWN, 0.0, 30.0, DOWN.label)
    ]
    (again,) = one.tracker.seen(10.0)
    assert (again.age, again.seconds, again.episode) == (10.0, 20.0, one.told[0].episode)
    assert one.tracker.seen(30.0) == []


def test_a_process_that_knows_nothing_takes_an_ejection_over_for_as_long_as_it_lasts() -> None:
    """It makes no call to find out, tells nobody what it has only heard, and is half-open at the same time."""
    two = Process()
    two.tracker.heard(news(seconds=12.0), 100.0)
    assert not two.tracker.admit("a", 111.9)
    assert two.tracker.seen(105.0) == two.told == []
    assert two.state(112.0) is State.HALF_OPEN
    moved = two.tracker.transitions()[0]
    assert (moved.after, moved.reason) == (State.DOWN, "told http_500")


def test_what_is_only_heard_is_short() -> None:
    """However long the other one rests: after thirty seconds a probe of its own decides."""
    two = Process()
    two.tracker.heard(news(seconds=300.0), 0.0)
    assert two.state(RULES.hearsay - 0.1) is State.DOWN
    assert two.state(RULES.hearsay) is State.HALF_OPEN


def test_an_answer_of_its_own_since_then_outweighs_what_is_told() -> None:
    """The provider answers here: what was seen elsewhere before that is past."""
    two = Process()
    two.tracker.succeeded("a", 100.0, 5.0)
    two.tracker.heard(news(age=2.0), 101.0)
    assert two.state(101.0) is State.HEALTHY


def test_after_a_recent_answer_one_fault_of_its_own_is_enough() -> None:
    """It is not ejected by what others tell, but warned; an answer clears that."""
    two = Process()
    two.tracker.succeeded("a", 100.0, 5.0)
    two.tracker.heard(news(), 101.0)
    assert two.state(101.0) is State.DEGRADED
    assert two.tracker.admit("a", 101.0)
    two.fail(1, 101.0)
    assert two.state(101.0) is State.DOWN
    assert two.tracker.seen(101.0) != []

    three = Process()
    three.tracker.succeeded("a", 100.0, 5.0)
    three.tracker.heard(news(), 101.0)
    three.tracker.succeeded("a", 102.0, 5.0)
    three.fail(1, 102.0)
    assert three.state(102.0) is State.HEALTHY


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_ends_an_ejection_that_was_only_heard_of(begun: bool) -> None:
    """A call that was under way is answered, or has begun to be: the provider is there for this process."""
    two = Process()
    two.tracker.admit("a", 100.0)
    two.tracker.heard(news(), 101.0)
    assert two.state(101.0) is State.DOWN
    if begun:
        two.tracker.began("a", 102.0, started=100.0)
    else:
        two.tracker.succeeded("a", 102.0, 5.0, started=100.0)
    assert two.state(102.0) is State.HEALTHY


def test_an_answer_does_not_end_an_ejection_of_its_own() -> None:
    """A provider that flaps would talk itself back in."""
    one = ejected()
    one.tracker.succeeded("a", 1.0, 5.0, started=-1.0)
    assert one.state(1.0) is State.DOWN


def test_a_probe_that_is_answered_brings_the_provider_back_where_it_was_only_heard_of() -> None:
    """By steps, as after a probe of its own."""
    one, two = ejected(), Process()
    two.tracker.heard(one.told[0], 0.0)
    assert one.tracker.admit("a", 30.0)
    one.tracker.succeeded("a", 30.0, 5.0, started=30.0)
    assert one.told[-1].told is Told.UP

    two.tracker.heard(one.told[-1], 30.0)

    assert two.state(30.0) is State.HEALTHY
    assert [two.tracker.admit("a", 30.0) for _ in range(3)] == [True, True, False]


def test_a_process_that_has_ejected_it_itself_probes_itself() -> None:
    """That it is there for another one does not say that it is here; what is older than its ejection says nothing."""
    two = ejected(100.0)
    two.tracker.heard(news(Told.UP, age=5.0), 101.0)
    assert two.state(101.0) is State.DOWN
    two.tracker.heard(news(Told.UP, age=0.5), 101.0)
    assert two.state(101.0) is State.HALF_OPEN
    assert [two.tracker.admit("a", 101.0) for _ in range(2)] == [True, False]


def test_a_probe_under_way_is_not_disturbed() -> None:
    """Its own verdict is worth more than what is told meanwhile."""
    one = ejected()
    assert one.tracker.admit("a", 30.0)
    one.tracker.heard(news(), 30.5)
    one.tracker.heard(news(Told.UP), 30.5)
    assert one.state(30.5) is State.HALF_OPEN
    one.tracker.succeeded("a", 31.0, 5.0, started=30.0)
    assert one.state(31.0) is State.HEALTHY


def test_what_was_removed_is_forgotten_by_all() -> None:
    """Its ejection was that of another address or credential."""
    one, two = ejected(), Process()
    two.tracker.heard(one.told[0], 0.0)
    one.tracker.forget("a")
    two.tracker.heard(one.told[-1], 1.0)
    assert two.tracker.admit("a", 1.0)
    assert two.tracker.snapshot(1.0) == {}


@given(st.lists(st.tuples(st.sampled_from(["ok", "down", "up", "old"]), st.floats(0, 20)), max_size=40))
def test_where_every_own_call_is_answered_nothing_that_is_told_ejects_for_long(
    events: list[tuple[str, float]],
) -> None:
    """Whatever is told, a provider without a fault of its own is usable again after `hearsay` seconds of silence."""
    two, now = Process(), 0.0
    for what, pause in events:
        now += pause
        match what:
            case "ok" if two.tracker.admit("a", now):
                two.tracker.succeeded("a", now, 1.0, started=now)
                assert two.tracker.standing("a", now).available
            case "down":
                two.tracker.heard(news(seconds=300.0), now)
            case "old":
                two.tracker.heard(news(age=30.0), now)
            case "up":
                two.tracker.heard(news(Told.UP), now)
    assert two.tracker.standing("a", now + RULES.hearsay * (1 + RULES.jitter)).available


# --- one probe over all


class Source:
    """What processes have in common, or nothing while it is gone."""

    def __init__(self) -> None:
        self.nonces = Nonces()
        self.now = 100.0
        self.there = True

    async def nonce(self, name: str, value: bytes, seconds: float, *, replace: bool) -> bytes | None:
        now = round(self.now * 1000)
        if not self.there:
            return None
        return self.nonces.put(name, value, now, now + round(seconds * 1000), replace=replace)


def permits(source: Source, *names: str) -> list[Permits]:
    return [Permits(source, name, lambda: source.now) for name in names]


async def test_one_of_many_may_probe() -> None:
    """Whoever asks first; when it does not, another one may soon."""
    source = Source()
    both = permits(source, "one", "two")
    for it in both:
        await it.look({"a": False})
    assert [it.permits("a") for it in both] == [True, False]

    source.now += LEASE
    assert [it.permits("a") for it in both] == [False, False]
    for it in reversed(both):
        await it.look({"a": False})
    assert [it.permits("a") for it in both] == [False, True]


async def test_a_probe_keeps_its_permit_and_gives_it_back_with_its_verdict() -> None:
    """Also one that takes longer than the permit lasts."""
    source = Source()
    one, two = permits(source, "one", "two")
    await one.look({"a": False})
    for _ in range(10):
        source.now += LEASE / 3
        await one.look({"a": True})
        assert not two.permits("a")
        await two.look({"a": False})
        assert (one.permits("a"), two.permits("a")) == (True, False)

    await one.look({})
    source.now += 0.01
    await two.look({"a": False})

    assert two.permits("a")


async def test_without_an_answer_each_is_on_its_own() -> None:
    """Nobody is kept from looking because something is gone."""
    source = Source()
    source.there = False
    both = permits(source, "one", "two")
    for it in both:
        await it.look({"a": False})
    assert [it.permits("a") for it in both] == [True, True]


async def test_who_wants_to_probe_wakes_whoever_asks() -> None:
    """The next call need not wait for the next look."""
    (one,) = permits(Source(), "one")
    assert not one.wanted.is_set()
    assert not one.permits("a")
    assert one.wanted.is_set()


def test_a_tracker_probes_only_where_it_is_permitted() -> None:
    """A half-open provider without a permit is resting for this process."""
    tracker, may = HealthTracker(), [False]
    tracker.share(lambda _: None, lambda _: may[0])
    for _ in range(RULES.eject_after):
        tracker.failed("a", DOWN, 0.0)
    assert not tracker.admit("a", 30.0)
    assert tracker.half_open(30.0) == {"a": False}
    may[0] = True
    assert tracker.admit("a", 30.0)
    assert tracker.half_open(30.0) == {"a": True}
