"""What is left of a credential's windows, between answers too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.admission.headers import Metric, Seen
from tokenhub_core.admission.limits import FREE, Call, Limits, Numbers, Room, limited
from tokenhub_core.errors import Kind

CALL = Call("m", 100, 50)


def requests(
    remaining: float, limit: float | None = 10, resets: float | None = 60, *, by_model: bool = False
) -> Seen:
    return Seen(Metric.REQUESTS, "", limit, remaining, resets, by_model)


def known(*seen: Seen, now: float = 0.0) -> Limits:
    limits = Limits()
    limits.tell(seen, None, "m", now)
    return limits


def test_nothing_is_held_back_before_the_first_answer() -> None:
    """Nobody has said anything yet."""
    limits = Limits()
    assert limits.room(CALL, 0.0) is FREE
    assert limits.take(CALL, 0.0).places == ()


def test_parallel_calls_do_not_all_see_the_same_remaining() -> None:
    """Ten were left: ten are sent, and the eleventh waits for the reset."""
    limits = known(requests(10))
    for _ in range(10):
        assert limits.room(CALL, 1.0).wait == 0
        limits.take(CALL, 1.0)
    room = limits.room(CALL, 1.0)
    assert (room.wait, room.why, room.some) == (59.0, "requests", False)


def test_an_answer_counts_what_was_sent_before_it_and_not_what_came_after() -> None:
    """Of five calls the third one's answer says 7: the two behind it are still to be subtracted."""
    limits = known(requests(10))
    calls = [limits.take(CALL, 2.0 * n) for n in range(5)]
    for one in calls[:2]:
        limits.land(one)
    limits.tell([requests(7)], calls[2], "m", 10.0)
    limits.land(calls[2])
    for _ in range(5):
        assert limits.room(CALL, 10.0).wait == 0
        limits.take(CALL, 10.0)
    assert limits.room(CALL, 10.0).wait > 0


def test_the_word_of_an_earlier_call_that_is_answered_later_is_old() -> None:
    """It says what was left before the others were counted."""
    limits = known(requests(10))
    first, second = limits.take(CALL, 0.0), limits.take(CALL, 5.0)
    limits.tell([requests(1)], second, "m", 6.0)
    limits.land(second)
    limits.tell([requests(9)], first, "m", 7.0)
    limits.land(first)
    limits.take(CALL, 8.0)
    assert limits.room(CALL, 8.0).wait > 0


def test_a_call_may_be_overtaken_on_its_way() -> None:
    """Sent a moment earlier and not answered: it may not be in the figure, so it is subtracted; an old one is in it."""
    limits = known(requests(10))
    old, near, told = limits.take(CALL, 0.0), limits.take(CALL, 9.5), limits.take(CALL, 10.0)
    limits.tell([requests(1)], told, "m", 11.0)
    limits.land(told)
    assert limits.room(CALL, 11.0).wait > 0
    limits.land(near)
    assert limits.room(CALL, 11.0).wait == 0
    limits.land(old)
    assert limits.room(CALL, 11.0).wait == 0


def test_a_token_bucket_fills_up_steadily() -> None:
    """6,000 tokens a minute, empty: a call of 150 fits after a second and a half, not at the full reset."""
    limits = known(Seen(Metric.TOKENS, "", 6000, 0, 60, refills=True))
    assert limits.room(CALL, 0.0).wait == pytest.approx(1.5)
    assert limits.room(CALL, 1.0).wait == pytest.approx(0.5)
    assert limits.room(CALL, 1.6).wait == 0


def test_a_fixed_window_gives_nothing_before_its_reset_and_its_limit_then() -> None:
    """Ten more, and not without end: our own calls are subtracted from those too."""
    limits = known(requests(0))
    assert limits.room(CALL, 59.9).wait == pytest.approx(0.1)
    for _ in range(10):
        assert limits.room(CALL, 60.0).wait == 0
        limits.land(limits.take(CALL, 60.0))
    assert limits.room(CALL, 60.0).wait == 60.0
    assert limits.room(CALL, 120.0).wait == 0


def test_a_window_whose_size_nobody_told_is_forgotten_at_its_reset() -> None:
    """There is nothing to fill it up to."""
    limits = known(requests(0, limit=None))
    assert limits.room(CALL, 59.0).wait == pytest.approx(1.0)
    assert limits.room(CALL, 60.0).wait == 0
    assert limits.shown(60.0) == []


def test_what_is_told_of_a_model_holds_for_that_model() -> None:
    """Another one of the same key goes on; what is told of the key holds for both."""
    limits = known(requests(0, by_model=True))
    assert limits.room(CALL, 0.0).wait > 0
    assert limits.room(Call("other", 100, 50), 0.0).wait == 0
    limits.tell([requests(0)], None, "m", 0.0)
    assert limits.room(Call("other", 100, 50), 0.0).wait > 0
    limits.tell([requests(0, by_model=True)], None, "", 0.0)
    assert [one.model for one in limits.shown(0.0)] == ["m", ""]


def test_where_a_key_and_a_model_wait_equally_long_it_is_the_keys_limit_that_is_told() -> None:
    """It holds for every other model too."""
    limits = known(requests(0), Seen(Metric.TOKENS, "", 1000, 0, 60, by_model=True))
    assert (limits.room(CALL, 0.0).wait, limits.room(CALL, 0.0).why) == (60.0, "requests")


def test_each_metric_counts_what_it_is_made_of() -> None:
    """Input, output, both together, and a share that no call's size says anything of."""
    for metric, most in ((Metric.INPUT_TOKENS, 100), (Metric.OUTPUT_TOKENS, 50), (Metric.TOKENS, 150)):
        limits = known(Seen(metric, "", 1000, most, 60))
        assert limits.room(CALL, 0.0).wait == 0
        limits.take(CALL, 0.0)
        assert limits.room(CALL, 0.0).why == metric
    share = known(Seen(Metric.SHARE, "5h", 1.0, 0.001, 60))
    share.take(CALL, 0.0)
    assert share.room(CALL, 0.0).wait == 0
    assert known(Seen(Metric.SHARE, "5h", 1.0, 0.0, 60)).room(CALL, 0.0) == Room(60.0, "share", share=0.0)


def test_less_than_is_needed_is_told_from_nothing() -> None:
    """Estimates are rough: whoever is alone may still be asked."""
    assert known(Seen(Metric.TOKENS, "", 1000, 20, 60)).room(CALL, 0.0).some
    assert not known(Seen(Metric.TOKENS, "", 1000, 20, 60), requests(0)).room(CALL, 0.0).some


def test_a_call_larger_than_the_whole_limit_fits_where_the_window_is_full() -> None:
    """It would wait for ever otherwise; the provider decides. The next one waits until it is full again."""
    for refills in (False, True):
        limits = known(Seen(Metric.TOKENS, "", 100, 100, 60, refills=refills))
        assert limits.room(CALL, 0.0).wait == 0
        limits.take(CALL, 0.0)
        assert limits.room(CALL, 10.0).wait == 50.0


def test_an_answer_without_a_figure_changes_nothing() -> None:
    """A limit alone says nothing of what is left."""
    limits = known(Seen(Metric.REQUESTS, "", 10, None, 60))
    assert limits.shown(0.0) == []


def test_models_are_told_apart_up_to_a_bound() -> None:
    """Callers choose names at the hosts that they call."""
    limits = Limits()
    for n in range(500):
        limits.tell([requests(1, by_model=True)], None, f"m{n}", 0.0)
    assert len(limits.shown(0.0)) == 200


def test_a_call_that_nobody_hears_of_again_is_not_awaited_for_ever() -> None:
    """After a quarter of an hour it counts as arrived: what a stranger's answer says has it in its figure."""
    for later, left in ((900.0, 8), (901.0, 9)):
        limits = known(requests(10, resets=10_000))
        limits.take(CALL, 0.0)
        limits.take(CALL, later)
        limits.tell([requests(10, resets=10_000)], None, "m", later)
        assert limits.shown(later)[0].remaining == left


def test_a_call_to_a_model_that_was_forgotten_meanwhile_is_over_all_the_same() -> None:
    """Its window went when too many others came."""
    limits = known(requests(5, by_model=True))
    sent = limits.take(CALL, 0.0)
    for n in range(200):
        limits.tell([requests(1, by_model=True)], None, f"m{n}", 0.0)
    limits.land(sent)
    assert "m" not in [one.model for one in limits.shown(0.0)]


def test_a_window_that_was_forgotten_is_not_shown_beside_one_that_holds() -> None:
    """At its reset, where its size was never told."""
    limits = known(requests(0, limit=None), Seen(Metric.TOKENS, "", 1000, 20, 600))
    assert [one.metric for one in limits.shown(60.0)] == [Metric.TOKENS]


def test_the_fault_tells_when_the_first_can_serve() -> None:
    """429 for what passes, 503 where only our own keys are at fault, and never more than an hour."""
    fault = limited([("a", Room(30.2, "requests")), ("b", Room(7.5, "cooling")), ("b", Room(9, "tokens"))])
    assert (fault.kind, fault.http_status, fault.retry_after) == (Kind.RATE_LIMITED, 429, 7.5)
    assert fault.message == (
        "no credential of b or 1 more can take this call for another 8 s (cooling, requests, tokens)"
    )
    money = limited([("a", Room(90_000.0, "exhausted")), ("b", Room(95_000.0, "refused"))])
    assert (money.kind, money.http_status, money.retry_after) == (Kind.QUOTA, 429, 3600.0)
    assert (money.cause, money.code) == ("credentials_parked", "insufficient_quota")
    every = [("a", Room(5.0, why)) for why in ("exhausted", "refused", "denied")]
    assert limited(every).kind is Kind.QUOTA
    assert (
        limited([("a", Room(5.0, "refused"))]).http_status,
        limited([("a", Room(5.0, "denied"))]).kind,
    ) == (
        503,
        Kind.NO_CANDIDATE,
    )


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.sampled_from(["send", "send", "answer"]), st.floats(0, 3)), max_size=120),
)
def test_no_more_is_sent_than_a_window_holds(limit: int, events: list[tuple[str, float]]) -> None:
    """However calls are sent and answered, in whichever order: a true server never says 429 in its window."""
    limits, now, resets = Limits(), 0.0, 50.0
    counted = 1
    limits.tell([requests(limit - counted, limit, resets)], None, "m", now)
    waiting: list[tuple[float, Numbers]] = []
    for kind, pause in events:
        now += pause
        if now >= resets:
            break
        if kind == "send":
            if limits.room(CALL, now).wait == 0:
                counted += 1
                waiting.append((limit - counted, limits.take(CALL, now)))
            continue
        if waiting:
            left, numbers = waiting.pop(int(pause * 1000) % len(waiting))
            limits.tell([requests(left, limit, resets - now)], numbers, "m", now)
            limits.land(numbers)
        assert counted <= limit
    assert counted <= limit
