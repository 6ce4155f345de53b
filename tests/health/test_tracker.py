"""Provider health: five faults eject, or half of many; a probe brings back, and callers' mistakes change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.health.tracker import HealthTracker, Rules, State, Transition
from tokenhub_core.types import Standing

DOWN = Fault(Kind.TRANSIENT, Blame.PROVIDER, "boom", cause="http_500")
WRONG = Fault(Kind.INVALID, Blame.CLIENT, "bad field", cause="http_400")
LOCKED = Fault(Kind.AUTH, Blame.CREDENTIAL, "bad key", cause="http_401")
GONE = Fault(Kind.CANCELLED, Blame.CLIENT, "the caller left")


def limited(retry_after: float | None) -> Fault:
    return Fault(Kind.RATE_LIMITED, Blame.CREDENTIAL, "slow down", cause="http_429", retry_after=retry_after)


def fail(tracker: HealthTracker, times: int, now: float, provider: str = "a") -> None:
    for _ in range(times):
        tracker.failed(provider, DOWN, now)


def ejected(now: float = 0.0) -> HealthTracker:
    tracker = HealthTracker()
    fail(tracker, 5, now)
    return tracker


def state(tracker: HealthTracker, now: float) -> State:
    return tracker.snapshot(now)["a"].state


def test_an_unknown_provider_is_taken_for_healthy() -> None:
    """Nothing has been held against it yet."""
    tracker = HealthTracker()
    assert tracker.standing("a", 0.0) == Standing()
    assert tracker.admit("a", 0.0)
    tracker.released("a")
    assert tracker.snapshot(0.0) == {}


def test_two_faults_in_a_row_degrade_and_five_eject() -> None:
    """A success in between starts the count anew."""
    tracker = HealthTracker()
    fail(tracker, 1, 0.0)
    assert state(tracker, 0.0) is State.HEALTHY
    fail(tracker, 1, 0.0)
    assert state(tracker, 0.0) is State.DEGRADED
    assert tracker.standing("a", 0.0).available
    fail(tracker, 2, 0.0)
    tracker.succeeded("a", 0.0, 10.0)
    fail(tracker, 4, 0.0)
    assert state(tracker, 0.0) is State.DEGRADED
    fail(tracker, 1, 0.0)
    assert state(tracker, 0.0) is State.DOWN
    assert not tracker.standing("a", 0.0).available
    assert not tracker.admit("a", 29.9)


def test_after_the_ejection_one_probe_goes_through() -> None:
    """Everybody else waits for its verdict."""
    tracker = ejected()
    assert tracker.standing("a", 30.0) == Standing(available=True, probing=True, error_rate=1.0)
    assert tracker.admit("a", 30.0)
    assert not tracker.admit("a", 30.0)
    assert not tracker.standing("a", 30.0).available
    tracker.succeeded("a", 31.0, 5.0)
    assert state(tracker, 31.0) is State.HEALTHY
    assert tracker.admit("a", 31.0)
    assert tracker.admit("a", 31.0)


def test_a_failed_probe_ejects_for_longer_up_to_five_minutes() -> None:
    """30 s times the number of ejections."""
    tracker, now = ejected(), 0.0
    for seconds in (30.0, 60.0, 90.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0, 300.0):
        assert not tracker.admit("a", now + seconds - 0.1)
        now += seconds
        assert tracker.admit("a", now)
        tracker.failed("a", DOWN, now)


def test_a_single_success_does_not_make_a_flapping_provider_forgiven() -> None:
    """The next ejection is longer; five calm minutes take one back."""
    tracker = ejected()
    assert tracker.admit("a", 30.0)
    tracker.succeeded("a", 30.0, 5.0)
    fail(tracker, 5, 35.0)
    assert tracker.snapshot(35.0)["a"].cooldown_until == 95.0
    assert tracker.admit("a", 95.0)
    tracker.succeeded("a", 95.0, 5.0)
    assert tracker.snapshot(95.0 + 299)["a"].ejections == 2
    assert tracker.snapshot(95.0 + 300)["a"].ejections == 1
    fail(tracker, 5, 95.0 + 600)
    assert tracker.snapshot(95.0 + 600)["a"].cooldown_until == 95.0 + 630


@pytest.mark.parametrize("fault", [WRONG, GONE, LOCKED, limited(None)])
def test_a_probe_without_a_verdict_lets_the_next_one_probe(fault: Fault) -> None:
    """Neither a cancelled call nor a caller's mistake says anything about the provider."""
    tracker = ejected()
    assert tracker.admit("a", 30.0)
    tracker.failed("a", fault, 31.0)
    assert state(tracker, 31.0) is State.HALF_OPEN
    assert tracker.admit("a", 31.0)
    tracker.released("a")
    assert tracker.admit("a", 31.0)


def test_a_lost_probe_does_not_keep_a_provider_out_for_ever() -> None:
    """After ten minutes without a word another call may probe."""
    tracker = ejected()
    assert tracker.admit("a", 30.0)
    assert not tracker.admit("a", 629.9)
    assert tracker.admit("a", 630.0)
    assert not tracker.admit("a", 630.0)


def test_results_that_arrive_during_an_ejection_change_nothing() -> None:
    """Calls that were sent before it neither end it nor make it longer."""
    tracker = ejected()
    tracker.succeeded("a", 10.0, 5.0)
    fail(tracker, 5, 20.0)
    assert state(tracker, 29.9) is State.DOWN
    assert state(tracker, 30.0) is State.HALF_OPEN


def test_a_straggler_is_not_the_probe() -> None:
    """Where reports say when their call started, only the probe's own decides."""
    tracker = ejected()
    assert tracker.admit("a", 30.0)
    tracker.succeeded("a", 31.0, 5.0, started=-1.0)
    tracker.failed("a", DOWN, 31.0, started=-1.0)
    tracker.failed("a", WRONG, 31.0, started=-1.0)
    tracker.released("a", started=-1.0)
    assert state(tracker, 31.0) is State.HALF_OPEN
    assert not tracker.admit("a", 31.0)
    tracker.succeeded("a", 32.0, 5.0, started=30.0)
    assert state(tracker, 32.0) is State.HEALTHY


def test_nobody_probes_without_being_admitted() -> None:
    """A success in the half-open state that no probe reports is a straggler's, too."""
    tracker = ejected()
    tracker.succeeded("a", 30.0, 5.0)
    fail(tracker, 1, 30.0)
    assert state(tracker, 30.0) is State.HALF_OPEN


def test_the_error_rate_is_that_of_the_last_minute() -> None:
    """Never of a lifetime."""
    tracker = HealthTracker()
    tracker.failed("a", DOWN, 0.0)
    for second in range(0, 50, 10):
        tracker.succeeded("a", float(second), 5.0)
    assert tracker.standing("a", 50.0).error_rate == pytest.approx(1 / 6)
    assert tracker.standing("a", 60.0).error_rate == 0.0
    assert tracker.snapshot(60.0)["a"].calls == 4
    assert tracker.snapshot(1e9)["a"].calls == 0


def test_the_latency_is_a_slow_average_of_successes() -> None:
    """The first sample counts whole, then nine parts old and one part new; nonsense counts nothing."""
    tracker = HealthTracker()
    tracker.failed("a", DOWN, 0.0)
    tracker.succeeded("a", 0.0, 100.0)
    assert tracker.standing("a", 0.0).latency_ms == 100.0
    tracker.succeeded("a", 0.0, 200.0)
    for nonsense in (-1.0, float("nan"), float("inf")):
        tracker.succeeded("a", 0.0, nonsense)
    assert tracker.standing("a", 0.0).latency_ms == pytest.approx(110.0)


@pytest.mark.parametrize("kind", [Kind.AUTH, Kind.QUOTA, Kind.RATE_LIMITED])
def test_what_a_credential_meets_says_nothing_of_its_provider(kind: Kind) -> None:
    """Refused, out of money or too fast: with another key the same provider serves."""
    tracker = HealthTracker()
    tracker.failed("a", Fault(kind, Blame.CREDENTIAL, "no", retry_after=60.0), 0.0)
    assert tracker.admit("a", 0.0)
    assert tracker.standing("a", 0.0) == Standing()


def test_transitions_are_drained_once_and_in_order() -> None:
    """The shell logs and publishes them."""
    tracker = ejected()
    assert tracker.admit("a", 31.0)
    tracker.succeeded("a", 32.0, 5.0)
    assert tracker.transitions() == [
        Transition("a", State.HEALTHY, State.DEGRADED, 0.0, "http_500"),
        Transition("a", State.DEGRADED, State.DOWN, 0.0, "http_500"),
        Transition("a", State.DOWN, State.HALF_OPEN, 31.0, "cooled_down"),
        Transition("a", State.HALF_OPEN, State.HEALTHY, 32.0, "probe_succeeded"),
    ]
    assert tracker.transitions() == []


def test_a_view_shows_what_happened() -> None:
    """What the admin API prints."""
    tracker = HealthTracker()
    tracker.succeeded("a", 3.0, 80.0)
    fail(tracker, 2, 4.0)
    view = tracker.snapshot(5.0)["a"]
    assert (view.consecutive_errors, view.last_error, view.last_error_at) == (2, "http_500", 4.0)
    assert (view.last_success_at, view.calls) == (3.0, 3)
    assert view.error_rate == pytest.approx(2 / 3)
    assert (view.cooldown_until, view.probing, view.ejections) == (None, False, 0)


def test_idle_providers_are_forgotten_after_an_hour() -> None:
    """And a provider that was changed or removed, at once."""
    tracker = HealthTracker()
    tracker.succeeded("a", 0.0, 5.0)
    tracker.succeeded("b", 1.0, 5.0)
    tracker.prune(3600.0)
    assert set(tracker.snapshot(3600.0)) == {"b"}
    tracker.forget("b")
    tracker.forget("b")
    assert tracker.snapshot(3600.0) == {}


def test_undrained_transitions_stay_bounded() -> None:
    """A shell that never drains loses the oldest, not memory."""
    tracker = HealthTracker()
    for second in range(1000):
        fail(tracker, 2, float(second))
        tracker.succeeded("a", float(second), 5.0)
    assert len(tracker.transitions()) == 256


def recovered(now: float = 30.0) -> HealthTracker:
    tracker = ejected()
    assert tracker.admit("a", now)
    tracker.succeeded("a", now, 5.0, started=now)
    return tracker


def wave(tracker: HealthTracker, now: float) -> list[float]:
    """Return when those were admitted who may go within half a second."""
    return [now + at / 1000 for at in range(500) if tracker.admit("a", now + at / 1000)]


def test_a_provider_that_is_back_gets_its_load_by_steps() -> None:
    """Two calls, then four, and so on; past the last step any number."""
    tracker, sizes = recovered(), []
    for now in range(31, 38):
        calls = wave(tracker, float(now))
        sizes.append(len(calls))
        for started in calls:
            tracker.succeeded("a", now + 0.6, 5.0, started=started)
    assert sizes == [2, 4, 8, 16, 32, 500, 500]


def test_a_fault_on_the_way_back_halves_the_load() -> None:
    """One is no reason to send everybody away again; five in a row are."""
    tracker = recovered()
    for now in (31.0, 32.0):
        for started in wave(tracker, now):
            tracker.succeeded("a", now + 0.6, 5.0, started=started)
    calls = wave(tracker, 33.0)
    tracker.failed("a", DOWN, 33.6, started=calls[0])
    for started in calls[1:]:
        tracker.released("a", started=started)
    assert (len(calls), len(wave(tracker, 34.0)), state(tracker, 34.9)) == (8, 4, State.HEALTHY)


def test_a_stream_on_the_way_back_holds_its_place_until_it_begins() -> None:
    """That it has begun is what the step waits for; how long it goes on is not. Its end counts no second time."""
    tracker = recovered()
    first, second = wave(tracker, 31.0)
    assert not tracker.standing("a", 32.0).available
    tracker.began("a", 32.0, started=first)
    assert tracker.admit("a", 32.1)
    tracker.succeeded("a", 33.0, 5.0, started=first)
    assert not tracker.admit("a", 33.0)
    tracker.released("a", started=second)
    assert tracker.admit("a", 33.1)


def test_a_call_that_is_lost_on_the_way_back_does_not_hold_the_others_up_for_ever() -> None:
    """After ten minutes without a word its place is free."""
    tracker = recovered()
    assert len(wave(tracker, 31.0)) == 2
    assert not tracker.admit("a", 600.0)
    assert tracker.admit("a", 632.0)


def test_ejections_end_at_different_moments() -> None:
    """Up to a tenth longer, by chance."""
    tracker = HealthTracker(random=lambda: 0.5)
    fail(tracker, 5, 0.0)
    assert tracker.snapshot(0.0)["a"].cooldown_until == pytest.approx(31.5)


# --- failing often, and never five times in a row


def mixed(
    tracker: HealthTracker, answers: str, now: float = 0.0, *, provider: str = "a", every: float = 0.0
) -> float:
    """Play calls one after another, `x` for a fault and `.` for an answer; return when the last one ended."""
    for number, what in enumerate(answers):
        now = now + (every if number else 0.0)
        if what == "x":
            tracker.failed(provider, DOWN, now)
        else:
            tracker.succeeded(provider, now, 5.0)
    return now


def beside(*, faults: int = 0, of: int = 20) -> HealthTracker:
    """Return a tracker that knows another provider, which has failed so many of its calls."""
    tracker = HealthTracker()
    mixed(tracker, "x." * faults + "." * (of - 2 * faults), provider="b")
    return tracker


def test_a_provider_that_fails_half_of_its_calls_is_ejected() -> None:
    """It never fails five in a row, and another one does better: the twentieth call of a minute decides."""
    tracker = beside()
    mixed(tracker, "..xx" * 4 + "..x")
    assert state(tracker, 0.0) is not State.DOWN
    fail(tracker, 1, 0.0)
    assert state(tracker, 0.0) is State.DOWN
    assert tracker.snapshot(0.0)["a"].cooldown_until == 30.0
    assert tracker.transitions()[-1] == Transition("a", State.HEALTHY, State.DOWN, 0.0, "failure_rate")


def test_scattered_faults_eject_nobody() -> None:
    """Four of ten are not half."""
    tracker = beside()
    mixed(tracker, "x..x.x..x." * 50)
    assert state(tracker, 0.0) is State.HEALTHY


def test_few_calls_are_no_share() -> None:
    """Nineteen calls in a minute, however many of them failed; those of the minute before are over."""
    tracker = beside()
    now = mixed(tracker, "xxxx." * 3 + "xxxx", every=0.1)
    assert state(tracker, now) is State.DEGRADED
    slowly = beside()
    mixed(slowly, "." * 20, 300.0, provider="b")
    now = mixed(slowly, "xx.." * 100, every=4.0)
    assert state(slowly, now) is not State.DOWN


@pytest.mark.parametrize(
    ("faults", "of", "after"),
    [
        (0, 0, State.DEGRADED),
        (0, 1, State.DEGRADED),
        (6, 20, State.DEGRADED),
        (4, 20, State.DOWN),
    ],
    ids=["nobody", "hardly-known", "no-better", "better"],
)
def test_where_nobody_does_better_nobody_is_ejected(faults: int, of: int, after: State) -> None:
    """Where all fail alike each of them is one more chance: leaving one alone would make failures of calls."""
    tracker = beside(faults=faults, of=of)
    mixed(tracker, "..xx" * 5)
    assert state(tracker, 0.0) is after


def test_whoever_is_out_is_nobody_who_does_better() -> None:
    """It cannot be asked, whatever it did before."""
    tracker = beside(of=100)
    fail(tracker, 5, 0.0, provider="b")
    mixed(tracker, "..xx" * 5)
    assert state(tracker, 0.0) is State.DEGRADED


def test_what_was_before_a_return_is_not_held_against_a_provider() -> None:
    """It is back after half a minute, when its faults are still in the window: one more does not send it away."""
    tracker = beside()
    mixed(tracker, "..xx" * 5)
    mixed(tracker, "." * 20, 31.0, provider="b")
    assert tracker.admit("a", 31.0)
    tracker.succeeded("a", 31.0, 5.0, started=31.0)
    fail(tracker, 2, 32.0)
    assert tracker.standing("a", 32.0).error_rate > 0.5
    assert state(tracker, 32.0) is State.DEGRADED
    mixed(tracker, "..xx" * 5, 41.0)
    assert state(tracker, 41.0) is State.DOWN
    assert tracker.snapshot(41.0)["a"].cooldown_until == 41.0 + 60


def test_the_share_can_be_changed_and_switched_off() -> None:
    """Also while a server runs."""
    tracker = beside()
    tracker.renew(Rules(eject_rate=None))
    mixed(tracker, "..xx" * 50)
    assert state(tracker, 0.0) is State.DEGRADED
    tracker.renew(Rules(eject_rate=0.3))
    fail(tracker, 1, 0.0)
    assert state(tracker, 0.0) is State.DOWN


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("x..."), max_size=80), st.floats(0.5, 1))
def test_only_the_share_that_was_set_ejects(answers: list[str], share: float) -> None:
    """However faults are strewn: without five in a row and below the share a provider stays."""
    tracker = beside()
    tracker.renew(Rules(eject_rate=share, eject_after=10**9))
    faults = 0
    for calls, what in enumerate(answers, 1):
        faults += what == "x"
        mixed(tracker, what)
        if state(tracker, 0.0) is State.DOWN:
            assert what == "x"
            assert calls >= 20
            assert faults >= share * calls
            return
        assert what != "x" or calls < 20 or faults < share * calls


EVENTS = st.tuples(
    st.sampled_from(["ask", "ask", "ok", "fault", "client", "release", "straggler"]), st.floats(0, 40)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_at_most_one_probe_is_in_flight(events: list[tuple[str, float]]) -> None:
    """However calls come and end, a half-open provider sees one of them at a time."""
    tracker, now = ejected(), 0.0
    probe: float | None = None
    calls: list[float] = []
    for event, pause in events:
        now = now + pause
        before = state(tracker, now)
        if before is not State.HALF_OPEN:
            probe = None
        if event == "ask":
            admitted = tracker.admit("a", now)
            if before in (State.DOWN, State.HALF_OPEN):
                assert admitted == (before is not State.DOWN and probe is None)
            if admitted and before is State.HALF_OPEN:
                probe = now
            elif admitted:
                calls.append(now)
            continue
        late = event == "straggler" or probe is None
        started = (calls.pop(0) if calls else -1.0) if late else probe
        match event:
            case "ok":
                tracker.succeeded("a", now, 5.0, started=started)
            case "fault" | "straggler":
                tracker.failed("a", DOWN, now, started=started)
            case "client":
                tracker.failed("a", WRONG, now, started=started)
            case _:
                tracker.released("a", started=started)
        if not late:
            probe = None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [WRONG, GONE, Fault(Kind.OVERFLOW, Blame.CLIENT, "x"), Fault(Kind.BUDGET, Blame.US, "x")]
            ),
            st.floats(0, 100),
        ),
        max_size=40,
    ),
    st.integers(0, 6),
)
def test_callers_mistakes_change_nothing(mistakes: list[tuple[Fault, float]], faults: int) -> None:
    """A tracker that saw any number of them equals one that saw none."""
    seen, spared = HealthTracker(), HealthTracker()
    fail(seen, faults, 0.0)
    fail(spared, faults, 0.0)
    now = 0.0
    for fault, pause in mistakes:
        now += pause
        seen.failed("a", fault, now)
        assert seen.standing("a", now) == spared.standing("a", now)
    assert seen.snapshot(now) == spared.snapshot(now)
    assert seen.transitions() == spared.transitions()
