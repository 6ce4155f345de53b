"""What parks a credential, for how long, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.admission.headers import DAY, HOUR, Metric, Seen
from tokenhub_core.admission.parking import Parked, Place, Reason, Sentence, parked, sentence
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Dialect

CHAT, MESSAGES = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES
AT = datetime(2026, 12, 5, 12, tzinfo=UTC).timestamp()
HERE = Place("p", "default")


def fault(
    kind: Kind, code: str = "", message: str = "no", status: int = 429, wait: float | None = None
) -> Fault:
    return Fault(kind, Blame.CREDENTIAL, message, code=code, upstream_status=status, retry_after=wait)


def moment(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc] # year, month, day, …


@pytest.mark.parametrize(
    "harmless",
    [
        fault(Kind.RATE_LIMITED, wait=7.0),
        fault(Kind.FORBIDDEN, status=451),
        Fault(Kind.AUTH, Blame.CREDENTIAL, "gone", cause="no_credential"),
        Fault(Kind.TRANSIENT, Blame.PROVIDER, "boom"),
        Fault(Kind.INVALID, Blame.CLIENT, "bad"),
        Fault(Kind.NOT_FOUND, Blame.US, "no such model"),
    ],
)
def test_what_passes_or_is_somebody_elses_fault_parks_nothing(harmless: Fault) -> None:
    """A burst, a caller's mistake, a provider's breakdown, a key that was taken away meanwhile."""
    assert sentence(CHAT, harmless, at=AT) is None


@pytest.mark.parametrize(
    ("dialect", "given", "until"),
    [
        (MESSAGES, fault(Kind.QUOTA, "enforced_spend_limit_reached"), moment(2027, 1, 1)),
        (CHAT, fault(Kind.QUOTA, "billing_hard_limit_reached"), moment(2027, 1, 1)),
        (
            MESSAGES,
            fault(Kind.QUOTA, message="You will regain access on 2026-12-20 at 09:30 UTC.", status=400),
            moment(2026, 12, 20, 9, 30),
        ),
        (MESSAGES, fault(Kind.QUOTA, message="You will regain access on 2026-13-40."), None),
        (CHAT, fault(Kind.QUOTA, message="regain access on 2026-12-20"), None),
        (CHAT, fault(Kind.QUOTA, "insufficient_quota"), None),
        (CHAT, fault(Kind.QUOTA, "insufficient_quota", wait=120.0), AT + 120),
        (MESSAGES, fault(Kind.QUOTA, "billing_error", status=402), None),
    ],
)
def test_a_limit_ends_when_its_answer_or_its_vendor_says(
    dialect: Dialect, given: Fault, until: float | None
) -> None:
    """Else a back-off decides: a prepaid balance has no date."""
    assert sentence(dialect, given, at=AT) == Sentence(Reason.EXHAUSTED, until, by_model=False)


def test_a_day_of_googles_is_one_models_and_ends_at_midnight_in_california() -> None:
    """Whatever its RetryInfo says, which is that of a minute's quota."""
    seen = (Seen(Metric.REQUESTS, "day", 50, 0, 3600, by_model=True),)
    given = sentence(Dialect.GEMINI, fault(Kind.QUOTA, wait=31.0), seen, at=AT)
    assert given == Sentence(Reason.EXHAUSTED, moment(2026, 12, 6, 8), by_model=True)


def test_a_denial_is_about_a_model_and_a_refusal_about_the_key() -> None:
    """403 may be the model's or the call's; 401 is never."""
    assert sentence(CHAT, fault(Kind.FORBIDDEN, status=403), at=AT) == Sentence(
        Reason.DENIED, None, by_model=True
    )
    assert sentence(CHAT, fault(Kind.AUTH, status=401), at=AT) == Sentence(
        Reason.REFUSED, None, by_model=False
    )


def test_a_back_off_doubles_up_to_six_hours() -> None:
    """A minute for a refused key, then two; since when it has been parked stays what it was."""
    known: Parked | None = None
    rests = []
    at = AT
    for _ in range(12):
        known = parked(known, HERE, Sentence(Reason.REFUSED, None, by_model=False), "http_401", at=at)
        rests.append(known.until - at)
        at = known.until
    assert rests[:3] == [60, 120, 240]
    assert rests[-1] == 6 * HOUR
    assert known is not None
    assert (known.since, known.failures) == (AT, 12)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(Reason))
def test_no_parking_is_without_end_or_over_at_once(until: float, reason: Reason) -> None:
    """Whatever an answer asks for: at least a second, at most two months."""
    one = parked(None, HERE, Sentence(reason, until, by_model=False), "x", at=AT)
    assert 1 <= one.until - AT <= 62 * DAY


@pytest.mark.parametrize(("asked", "rests"), [(-5.0, 1.0), (0.5, 1.0), (1.5, 1.5), (100 * DAY, 62 * DAY)])
def test_a_parking_ends_when_it_was_asked_for_within_its_bounds(asked: float, rests: float) -> None:
    """What is over already ends in a second, and what is too far away in two months."""
    given_ = Sentence(Reason.EXHAUSTED, AT + asked, by_model=False)
    assert parked(None, HERE, given_, "x", at=AT).until == AT + rests
