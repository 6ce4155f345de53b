"""How long a model's streams may take to begin: what follows from what was learned, and what the operator says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.routing.test_spread import DONE, begun, record
from tokenhub_core.errors import ConfigError
from tokenhub_core.routing.deadlines import LATE, STALLED, Deadlines, Own, limit, own, parsed
from tokenhub_core.routing.spread import ENOUGH, KEEP, Spreads
from tokenhub_core.types import Attempt

SECONDS = st.floats(0.05, 3600)


def late(limit_ms: float | None) -> Attempt:
    return structs.replace(DONE, first_byte_ms=None, cause=LATE, ttft_limit_ms=limit_ms)


def taught(*attempts: Attempt) -> Deadlines:
    spreads = Spreads()
    deadlines = Deadlines(spreads.after)
    for attempt in attempts:
        spreads.learn(record(attempt))
        deadlines.learn(record(attempt))
    return deadlines


def quick(milliseconds: float = 300.0) -> Deadlines:
    return taught(*[begun(milliseconds)] * 4 * ENOUGH)


@pytest.mark.parametrize(
    ("learned", "tokens", "seconds"),
    [
        (0.3, 0, 10.0),
        (9.0, 0, 10.0),
        (25.0, 0, 25.0),
        (25.0, 5_000, 30.0),
        (0.3, 200_000, 120.0),
        (119.0, 0, 119.0),
        (500.0, 0, 120.0),
        (math.inf, 0, 120.0),
    ],
)
def test_the_limit_is_what_was_learned_between_floor_and_setting(
    learned: float, tokens: int, seconds: float
) -> None:
    """A second for each thousand tokens that have to be read first; where nothing is known the setting holds."""
    assert limit(learned, tokens, floor=10.0, most=120.0) == seconds


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)).map(sorted),
    st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)).map(sorted),
    SECONDS,
    SECONDS,
)
def test_who_takes_longer_is_waited_for_longer(
    learned: list[float], tokens: list[int], floor: float, most: float
) -> None:
    """It grows with what was learned and with the input, and never leaves what the operator has set."""
    less = limit(learned[0], tokens[0], floor=floor, most=most)
    more = limit(learned[1], tokens[1], floor=floor, most=most)
    assert min(floor, most) <= less <= more <= most


def test_four_times_the_slowest_of_a_hundred_are_waited_for() -> None:
    """At most a tenth more, as the buckets are."""
    deadlines = taught(*[begun(100.0)] * 190, *[begun(2_000.0)] * 10)
    assert 8.0 <= deadlines.learned("m", "p") <= 8.8


def test_of_a_model_with_few_streams_nothing_is_known() -> None:
    """And what is known of a provider says nothing of another one."""
    assert taught(*[begun(300.0)] * (ENOUGH - 1)).learned("m", "p") == math.inf
    assert quick().learned("m", "q") == math.inf


def test_what_is_learned_later_is_heard_of() -> None:
    """A model that was asked about before anything was known."""
    spreads = Spreads()
    deadlines = Deadlines(spreads.after)
    assert deadlines.learned("m", "p") == math.inf
    for _ in range(4 * ENOUGH):
        spreads.learn(record(begun(300.0)))
        deadlines.learn(record(begun(300.0)))
    assert deadlines.learned("m", "p") < 2


def test_a_quantile_is_not_read_off_for_each_call() -> None:
    """Reading one off costs more than a look into a table, and it hardly moves."""
    asked: list[str] = []

    def after(model: str, provider: str, share: float) -> float:
        asked.append(f"{model} {provider} {share}")
        return 300.0

    deadlines = Deadlines(after)
    for _ in range(20):
        assert deadlines.learned("m", "p") == 1.2
        deadlines.learn(record(begun(300.0)))
    assert asked == ["m p 0.99"]


def test_a_limit_that_was_too_short_is_doubled_until_a_stream_begins() -> None:
    """A model that has become slow shows no times that could be learned: each try is given more."""
    deadlines = quick()
    usual = deadlines.learned("m", "p")
    deadlines.learn(record(late(10_000.0)))
    assert deadlines.learned("m", "p") == 20.0
    deadlines.learn(record(late(20_000.0)))
    assert deadlines.learned("m", "p") == 40.0
    deadlines.learn(record(begun(30_000.0)))
    assert deadlines.learned("m", "p") == usual


def test_streams_that_are_late_together_double_it_once() -> None:
    """A hundred that hang in the same moment are one sign, not a hundred."""
    deadlines = quick()
    for _ in range(100):
        deadlines.learn(record(late(10_000.0)))
    assert deadlines.learned("m", "p") == 20.0


@pytest.mark.parametrize(
    "other",
    [late(None), structs.replace(late(10_000.0), cause="http_500"), structs.replace(late(1e4), provider="q")],
    ids=["setting", "failed", "elsewhere"],
)
def test_only_its_own_limit_is_a_sign(other: Attempt) -> None:
    """Who ran into the setting, failed, or was late elsewhere says nothing of the limit here."""
    deadlines = quick()
    usual = deadlines.learned("m", "p")
    deadlines.learn(record(other))
    assert deadlines.learned("m", "p") == usual


def test_whole_answers_say_nothing_of_beginnings() -> None:
    """They come in one piece."""
    deadlines = quick()
    usual = deadlines.learned("m", "p")
    deadlines.learn(record(late(10_000.0), stream=False))
    assert deadlines.learned("m", "p") == usual


def test_strangers_cannot_fill_the_table() -> None:
    """Programs name the models that they ask for."""
    deadlines = Deadlines(lambda *_: 300.0)
    for number in range(KEEP + 10):
        deadlines.learned(f"m{number}", "p")
        deadlines.learn(record(structs.replace(late(1_000.0), model=f"m{number}")))
        deadlines.learned(f"m{number}", "p")
    assert len(deadlines._beginnings._known) <= KEEP
    assert len(deadlines._beginnings._missed) == KEEP


# --- silences


def silent(milliseconds: float) -> Attempt:
    return structs.replace(begun(300.0), silence_ms=milliseconds)


def given_up(limit_ms: float | None) -> Attempt:
    return structs.replace(silent(5.0), cause=STALLED, stall_limit_ms=limit_ms)


def test_four_times_the_longest_silence_of_the_last_three_hundred_is_waited_for() -> None:
    """At most a tenth more, as the buckets are; one that is longer ago is forgotten."""
    longest = silent(5_000.0)
    deadlines = taught(*[silent(100.0)] * 800, longest, *[silent(100.0)] * 300)
    assert 20.0 <= deadlines.silence("m", "p") <= 22.0
    deadlines = taught(*[silent(100.0)] * 800, longest, *[silent(100.0)] * 352)
    assert deadlines.silence("m", "p") < 0.5


def test_of_a_model_with_few_streams_no_silence_is_known() -> None:
    """And what is known of a provider says nothing of another one."""
    assert taught(*[silent(100.0)] * (ENOUGH - 1)).silence("m", "p") == math.inf
    deadlines = taught(*[silent(100.0)] * 4 * ENOUGH)
    assert deadlines.silence("m", "p") < 0.5
    assert deadlines.silence("m", "q") == math.inf


def test_whoever_was_cut_off_may_only_have_been_thinking() -> None:
    """It counts as a silence that was longer than its limit, so that the next ones are waited for at once."""
    deadlines = taught(*[silent(100.0)] * 400)
    assert deadlines.silence("m", "p") < 0.5
    deadlines.learn(record(given_up(30_000.0)))
    assert deadlines.silence("m", "p") >= 120.0


@pytest.mark.parametrize(
    "other",
    [
        given_up(None),
        structs.replace(silent(60_000.0), cause="reset"),
        structs.replace(silent(60_000.0), provider="q"),
        structs.replace(silent(60_000.0), silence_ms=None),
    ],
    ids=["setting", "broken", "elsewhere", "held"],
)
def test_only_streams_that_went_well_say_how_silent_they_are(other: Attempt) -> None:
    """Who ran into the setting, broke off, or was read elsewhere says nothing of the silences here."""
    deadlines = taught(*[silent(100.0)] * 4 * ENOUGH)
    usual = deadlines.silence("m", "p")
    for _ in range(ENOUGH):
        deadlines.learn(record(other))
    deadlines.learn(record(silent(60_000.0), stream=False))
    assert deadlines.silence("m", "p") == usual


# --- what the operator says


RULES = parsed(["azure/gpt-5*=ttft:300", "gpt-5*=ttft:60+stall:30", "llama3:8b = stall:5"])


@pytest.mark.parametrize(
    ("model", "provider", "found"),
    [
        ("gpt-5-mini", "azure", Own("azure/gpt-5*", 300.0)),
        ("gpt-5-mini", "openai", Own("gpt-5*", 60.0, 30.0)),
        ("llama3:8b", "ollama", Own("llama3:8b", None, 5.0)),
        ("gpt-4o", "openai", None),
    ],
)
def test_the_first_rule_that_a_model_matches_counts(model: str, provider: str, found: Own | None) -> None:
    """By its id, or by its provider and its id."""
    assert own(RULES, model, provider) == found


@pytest.mark.parametrize(
    "item",
    [
        "gpt-5",
        "=ttft:5",
        "gpt-5=",
        "gpt-5=60",
        "gpt-5=ttft",
        "gpt-5=ttft:soon",
        "gpt-5=ttft:0",
        "gpt-5=ttft:3601",
        "gpt-5=ttft:nan",
        "gpt-5=first:5",
        "gpt-5=ttft:5+ttft:6",
        "gpt-5=ttft:5+",
    ],
)
def test_what_makes_no_sense_is_named(item: str) -> None:
    """With what it must be."""
    with pytest.raises(ConfigError, match="must be model=ttft:SECONDS") as refused:
        parsed(["gpt-4o=ttft:5", item])
    assert repr(item) in str(refused.value)
