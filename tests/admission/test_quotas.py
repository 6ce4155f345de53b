"""What is counted of callers' limits: exactly, in bounded memory, and never forgotten to anybody's gain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.admission.quotas import MINUTE, SECOND, Account, Accounts, Bucket, nanoseconds
from tokenhub_core.types import KeyLimits


def taken(bucket: Bucket, units: int, rate: int, now: int) -> bool:
    """Take units if they fit."""
    if bucket.wait(units, rate, now) != 0:
        return False
    bucket.take(units, rate, now)
    return True


def test_a_bucket_holds_a_minute_and_drains_steadily() -> None:
    """Sixty at once, then one a second, to the nanosecond."""
    bucket = Bucket()
    assert all(taken(bucket, 1, 60, 0) for _ in range(60))
    assert bucket.wait(1, 60, 0) == SECOND
    assert bucket.wait(1, 60, SECOND - 1) == 1
    assert not taken(bucket, 1, 60, SECOND - 1)
    assert taken(bucket, 1, 60, SECOND)
    assert bucket.wait(1, 60, SECOND) == SECOND


def test_a_rate_that_divides_no_minute_is_not_rounded() -> None:
    """Seven a minute: after any number of minutes just that many have been let in."""
    bucket, count = Bucket(), 0
    for step in range(7 * 50 + 1):
        while taken(bucket, 1, 7, step * MINUTE // 7):
            count += 1
    # The last step is a nanosecond short of a unit wherever the division was not exact, and never beyond one.
    assert count == 7 + 7 * 50


def test_what_never_fits_is_told_apart_from_what_has_to_wait() -> None:
    """More than a minute holds never fits; nothing at all fits a limit of nothing, and nothing of it drains."""
    bucket = Bucket()
    assert bucket.wait(10, 10, 0) == 0
    assert bucket.wait(11, 10, 0) is None
    assert bucket.wait(1, 0, 0) is None
    assert bucket.wait(0, 0, 0) == 0
    bucket.take(5, 0, 0)
    assert bucket.wait(0, 0, 10 * MINUTE) is None
    assert bucket.until_empty(0, 0) == MINUTE


def test_what_is_left_is_told_in_whole_units() -> None:
    """Half a unit is none, and a debt beyond the limit leaves none."""
    bucket = Bucket()
    bucket.take(4, 10, 0)
    assert (bucket.left(10, 0), bucket.until_empty(10, 0)) == (6, 24 * SECOND)
    assert bucket.left(10, 3 * SECOND) == 6
    assert bucket.left(10, 6 * SECOND) == 7
    bucket.take(20, 10, 6 * SECOND)
    assert bucket.left(10, 6 * SECOND) == 0


def test_a_clock_that_stands_still_or_is_read_late_changes_nothing() -> None:
    """A time before the last one counts as that one: nothing drains twice, nothing comes back."""
    bucket = Bucket()
    bucket.take(10, 10, 5 * SECOND)
    assert bucket.level(10, 0) == 10 * MINUTE
    bucket.take(0, 10, 0)
    assert bucket.level(10, 5 * SECOND) == 10 * MINUTE


def test_a_reservation_becomes_what_was_used() -> None:
    """At once all of the rest comes back; more than was set aside is counted too."""
    bucket = Bucket()
    bucket.take(80, 100, 0)
    bucket.settle(80, 30, 100, since=0, now=0)
    assert bucket.left(100, 0) == 70
    bucket.take(10, 100, 0)
    bucket.settle(10, 90, 100, since=0, now=0)
    assert bucket.level(100, 0) == 120 * MINUTE


def test_what_has_drained_is_not_given_back_as_well() -> None:
    """A call that ends after its reservation has drained frees nothing that others hold now."""
    bucket = Bucket()
    bucket.take(100, 100, 0)
    bucket.take(100, 100, MINUTE)
    bucket.settle(100, 0, 100, since=0, now=MINUTE)
    assert bucket.left(100, MINUTE) == 0
    bucket.settle(100, 0, 100, since=MINUTE, now=MINUTE + 30 * SECOND)
    assert bucket.level(100, MINUTE + 30 * SECOND) == 0


CALLS = st.lists(
    st.tuples(
        st.integers(0, MINUTE),  # how long after the one before it comes
        st.integers(1, 60),  # what it reserves
        st.integers(0, 60),  # what it uses of that, at most
        st.integers(0, 3 * MINUTE),  # how long it takes
    ),
    max_size=30,
)


@given(rate=st.integers(1, 60), calls=CALLS)
def test_no_window_ever_sees_more_than_its_limit_and_one_burst(
    rate: int, calls: list[tuple[int, int, int, int]]
) -> None:
    """Whatever is reserved, used and given back when: in no window is more used than the rate allows and a minute's."""
    bucket, now = Bucket(), 0
    ends: list[tuple[int, int, int, int]] = []
    used: list[tuple[int, int]] = []
    for gap, reserve, at_most, takes in calls:
        now += gap
        for end, since, taken_, spent in sorted(one for one in ends if one[0] <= now):
            bucket.settle(taken_, spent, rate, since=since, now=end)
        ends = [one for one in ends if one[0] > now]
        if taken(bucket, reserve, rate, now):
            spent = min(at_most, reserve)
            used.append((now, spent))
            ends.append((now + takes, now, reserve, spent))
    for first in range(len(used)):
        total = 0
        for at, units in used[first:]:
            total += units
            assert total * MINUTE <= rate * MINUTE + rate * (at - used[first][0])


@given(rate=st.integers(1, 50), gaps=st.lists(st.integers(0, 20 * SECOND), min_size=1, max_size=40))
def test_the_wait_that_is_told_is_just_enough(rate: int, gaps: list[int]) -> None:
    """Who comes back after it is let in, who comes a nanosecond earlier is not."""
    bucket, now = Bucket(), 0
    for gap in gaps:
        now += gap
        wait = bucket.wait(1, rate, now)
        assert wait is not None
        if wait:
            assert bucket.wait(1, rate, now + wait - 1) != 0
            now += wait
        assert taken(bucket, 1, rate, now)


def test_another_rate_holds_from_now_on() -> None:
    """What was taken stays taken, and drains at the new rate."""
    bucket = Bucket()
    bucket.take(60, 60, 0)
    assert bucket.left(120, 0) == 60
    assert bucket.wait(1, 30, 0) == 62 * SECOND


def test_seconds_become_nanoseconds() -> None:
    """As the accounts count them."""
    assert nanoseconds(1.5) == 1_500_000_000


# --- accounts -----------------------------------------------------------------------------------------------

LIMITS = KeyLimits(requests_per_minute=60, tokens_per_minute=600)


def test_each_caller_has_an_account_of_his_own() -> None:
    """And gets it again, with the limits of now."""
    accounts = Accounts()
    ann = accounts.of("ann", LIMITS, 0)
    busy(ann, "requests")
    assert accounts.of("bob", LIMITS, 0) is not ann
    other = KeyLimits(concurrency=1)
    assert accounts.of("ann", other, 0) is ann
    assert ann.limits == other


def busy(account: Account, how: str) -> None:
    """Make an account one that does not rest."""
    if how == "calls":
        account.calls = 1
    elif how == "requests":
        account.requests.take(60, 60, 0)
    else:
        account.tokens.take(600, 600, 0)


@given(how=st.sampled_from(["calls", "requests", "tokens"]))
def test_an_account_that_could_be_reset_is_not_forgotten(how: str) -> None:
    """A call under way, and a request or a token that has not drained, keep it, whoever else comes."""
    accounts = Accounts(most=10)
    busy(accounts.of("ann", LIMITS, 0), how)
    ann = accounts.of("ann", LIMITS, 0)
    for number in range(100):
        accounts.of(f"stranger {number}", LIMITS, MINUTE - 1)
    assert accounts.of("ann", LIMITS, MINUTE - 1) is ann
    assert len(accounts) <= 10


def test_an_account_at_rest_is_forgotten_when_others_come() -> None:
    """Idle ones go, some with each that is new, so that memory follows those who call."""
    accounts = Accounts()
    for number in range(100):
        accounts.of(f"stranger {number}", LIMITS, 0).requests.take(1, 60, 0)
    assert len(accounts) == 100
    for number in range(40):
        accounts.of(f"newcomer {number}", LIMITS, MINUTE).requests.take(1, 60, MINUTE)
    assert len(accounts) == 40


def test_where_there_is_no_room_newcomers_share_one_account() -> None:
    """More addresses than are remembered buy nobody more than one address's limit."""
    accounts = Accounts(most=3)
    for number in range(3):
        busy(accounts.of(f"known {number}", LIMITS, 0), "calls")
    first = accounts.of("new", LIMITS, 0)
    assert accounts.of("newer", LIMITS, 0) is first
    assert len(accounts) == 3


def test_a_busy_account_does_not_stand_in_the_way_of_idle_ones() -> None:
    """One with a call that lasts is put last, and those behind it can be forgotten."""
    accounts = Accounts(most=5)
    for number in range(4):
        busy(accounts.of(f"busy {number}", LIMITS, 0), "calls")
    idle = accounts.of("idle", LIMITS, 0)
    shared = accounts.of("new", LIMITS, 0)  # has looked at the four busy ones only
    assert accounts.of("idle", LIMITS, 0) is idle
    assert accounts.of("newer", LIMITS, 0) is not shared  # has met the idle one
    assert len(accounts) == 5


def test_an_account_can_begin_with_nothing_at_hand() -> None:
    """Of what is limited everything counts as used, and drains from then on; nothing is counted of the rest."""
    account = Account()
    account.limits = KeyLimits(requests_per_minute=60)
    account.requests.take(10, 60, 0)
    account.fill(SECOND)
    assert account.requests.level(60, SECOND) == 60 * MINUTE
    assert account.requests.wait(1, 60, SECOND) == SECOND
    assert account.tokens.level(600, SECOND) == 0


def test_what_is_not_limited_any_more_keeps_no_account() -> None:
    """A limit that was lifted has nothing left to reset."""
    account = Account()
    account.limits = LIMITS
    busy(account, "tokens")
    assert not account.rests(0)
    account.limits = KeyLimits(requests_per_minute=60)
    assert account.rests(0)
