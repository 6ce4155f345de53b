"""What finished calls teach about models, and what estimates make of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.routing import estimate
from tokenhub_core.routing.estimate import DEFAULT_OUTPUT_TOKENS, Writing
from tokenhub_core.routing.learning import KEEP, Average, Key, Learner, Measure
from tokenhub_core.types import (
    Attempt,
    Caller,
    Features,
    Model,
    Need,
    Outcome,
    Plan,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Record,
    Usage,
)

PROSE = Features(model="*", text_bytes=4_000, turns=0)
TOOLS = structs.replace(PROSE, needs=frozenset({Need.TOOLS}))
MODEL = Model("m", "p", max_output_tokens=4_000, prices=Prices(10, 20))
PROVIDER = Provider("p", ProviderType.VLLM, ("https://x.example",))
DONE = Attempt(1, "m", "p", 100.0, 1_100.0, 300.0, 200, usage=Usage(1_000, 100))


def record(
    attempt: Attempt = DONE, features: Features = PROSE, program: str = "cli", **changes: object
) -> Record:
    asked = Plan(Policy(), (), (), 0, 0, "", features=features, context="small")
    made = Record(
        id="r",
        at=0.0,
        outcome=Outcome.OK,
        status=200,
        caller=Caller(program=program),
        method="POST",
        path="/",
        stream=True,
        attempts=(attempt,),
        plan=asked,
    )
    return structs.replace(made, **changes)


def used(input_tokens: int, output_tokens: int = 100) -> Attempt:
    return structs.replace(DONE, usage=Usage(input_tokens, output_tokens))


def taught(*records: Record) -> Learner:
    learner = Learner()
    for one in records:
        learner.learn(one)
    return learner


def test_input_is_counted_as_the_provider_counted_it() -> None:
    """4,000 bytes were 800 tokens at this model, so they will be again; another model keeps the rule of thumb."""
    learner = taught(record(used(800)))
    assert estimate.input_tokens(PROSE, "m", learner) == 800
    assert estimate.input_tokens(PROSE, "other", learner) == 1_000


def test_prose_and_structured_text_are_told_apart() -> None:
    """JSON and code have fewer bytes a token; calls that bring tools are made of them."""
    learner = taught(record(used(800)), record(used(1_300), TOOLS))
    assert estimate.input_tokens(PROSE, "m", learner) == 800
    assert estimate.input_tokens(TOOLS, "m", learner) == 1_300


def test_turns_are_not_counted_as_text() -> None:
    """What belongs to a message's frame is taken off before the rate is learned, and put on again after."""
    framed = structs.replace(PROSE, turns=10)
    learner = taught(record(used(840), framed))
    assert learner.tokens_per_byte("m", Writing.PROSE) == pytest.approx(0.2)
    assert estimate.input_tokens(framed, "m", learner) == 840


def test_media_are_learned_apart_from_their_text() -> None:
    """What stands above the text's own tokens is the pictures'."""
    pictures = structs.replace(PROSE, media=2)
    learner = taught(record(used(1_000)), record(used(1_000 + 2 * 700), pictures))
    assert estimate.input_tokens(pictures, "m", learner) == 1_000 + 2 * 700
    assert learner.tokens_per_byte("m", Writing.PROSE) == pytest.approx(0.25)


def test_the_error_of_the_estimate_is_shown() -> None:
    """It is the average of how far off the estimate was before it heard the truth."""
    learner = taught(record(used(1_000)), record(used(1_250)))
    assert learner.input_error("m", Writing.PROSE) == pytest.approx(0.2)
    assert estimate.expected(PROSE, MODEL, PROVIDER, learner).input_error == pytest.approx(0.2)
    assert Learner().input_error("m", Writing.PROSE) == 0.0


def test_estimates_follow_a_change() -> None:
    """A tokenizer that is replaced is unlearned within some fifty calls, and the error tells of it first."""
    learner = taught(*[record(used(1_000))] * 50)
    learner.learn(record(used(2_000)))
    assert learner.input_error("m", Writing.PROSE) > 0.04
    for _ in range(50):
        learner.learn(record(used(2_000)))
    assert learner.tokens_per_byte("m", Writing.PROSE) == pytest.approx(0.5, rel=0.01)


def test_answers_are_as_long_as_this_programs_were() -> None:
    """By program and model; a program that is new gets everybody's mean; an unknown model the rule of thumb."""
    learner = taught(record(used(1_000, 50)), record(used(1_000, 350), program="other"))
    lengths = [
        estimate.expected(PROSE, MODEL, PROVIDER, learner, program).output_tokens
        for program in ("cli", "other", "third")
    ]
    assert lengths == [50, 350, 200]
    unknown = estimate.expected(PROSE, replace(MODEL, id="x"), PROVIDER, learner, "cli")
    assert unknown.output_tokens == DEFAULT_OUTPUT_TOKENS


def test_the_callers_cap_and_the_models_bound_every_estimate() -> None:
    """Nobody answers longer than it may."""
    learner = taught(record(used(1_000, 9_000)))
    capped = structs.replace(PROSE, max_output_tokens=300)
    assert estimate.expected(capped, MODEL, PROVIDER, learner).output_tokens == 300
    assert estimate.expected(PROSE, MODEL, PROVIDER, learner).output_tokens == 4_000


def test_a_cap_stays_the_reserve_however_short_answers_were() -> None:
    """Money is set aside for what may come; the score is made of what is likely."""
    learner = taught(record(used(1_000, 50)))
    capped = structs.replace(PROSE, max_output_tokens=2_000)
    assert estimate.output_tokens(capped, MODEL, learner, "cli") == 2_000
    assert estimate.expected(capped, MODEL, PROVIDER, learner, "cli").output_tokens == 50


def test_time_is_first_token_and_pace() -> None:
    """200 ms to the first content, then 800 ms for 100 tokens: 300 tokens take 2,600 ms."""
    learner = taught(record())
    assert learner.latency_ms("m", "p", 300) == pytest.approx(200 + 300 * 8)
    assert estimate.expected(PROSE, MODEL, PROVIDER, learner, "cli").latency_ms == pytest.approx(1_000)


def test_time_is_the_models_own_and_only_then_its_providers() -> None:
    """Two models of one provider are told apart; a third one gets the provider's mean; elsewhere nothing is known."""
    slow = structs.replace(DONE, model="slow", ended_ms=8_300.0)
    learner = taught(record(), record(slow))
    quick, mean = learner.latency_ms("m", "p", 100), learner.latency_ms("new", "p", 100)
    assert quick == pytest.approx(1_000)
    assert learner.latency_ms("slow", "p", 100) == pytest.approx(8_200)
    assert mean == pytest.approx((1_000 + 8_200) / 2)
    assert learner.latency_ms("m", "q", 100) is None


def test_an_answer_in_one_piece_teaches_pace() -> None:
    """It does not say when it began, so the first token is where streams have taught that it is."""
    whole = structs.replace(DONE, first_byte_ms=1_100.0)
    assert taught(record(whole, stream=False)).latency_ms("m", "p", 100) == pytest.approx(1_000)
    assert taught(record(), record(whole, stream=False)).latency_ms("m", "p", 100) == pytest.approx(1_000)


@pytest.mark.parametrize(
    "useless",
    [
        record(outcome=Outcome.ERROR),
        record(outcome=Outcome.CANCELLED),
        record(structs.replace(DONE, cause="http_500")),
        record(attempts=()),
        record(plan=None),
    ],
)
def test_what_was_not_answered_teaches_no_estimate(useless: Record) -> None:
    """Errors and callers who left say nothing of lengths and times."""
    assert taught(useless).averages() == {}


def test_a_lost_race_tells_only_that_it_would_have_been_later() -> None:
    """Cut off after 900 ms it was no quicker than that: later than the average it counts, sooner it says nothing."""
    lost = structs.replace(DONE, first_byte_ms=None, cause="hedge_lost", usage=Usage(1_000))
    elsewhere = structs.replace(DONE, n=2, provider="q")
    early, late = (structs.replace(lost, ended_ms=100.0 + ms) for ms in (150.0, 900.0))
    learner = taught(record(), record(attempts=(early, elsewhere)))
    assert learner.averages()[Key(Measure.TTFT, "m", "p")].mean == 200
    learner.learn(record(attempts=(late, elsewhere)))
    assert learner.averages()[Key(Measure.TTFT, "m", "p")].mean == 550
    # Of a provider that has never answered nothing is known.
    assert Key(Measure.TTFT, "m", "p") not in taught(record(attempts=(late, elsewhere))).averages()


def test_our_own_estimates_are_not_learned_from() -> None:
    """A count that we made up would only confirm itself; times are still seen."""
    measures = {key.measure for key in taught(record(usage_estimated=True)).averages()}
    assert measures == {Measure.TTFT}


@pytest.mark.parametrize(
    "cut", [record(stop="length"), record(structs.replace(DONE, change="reduced-max-tokens"))]
)
def test_an_answer_that_was_cut_short_teaches_no_length(cut: Record) -> None:
    """Its length is the cap's, not the model's."""
    assert Measure.OUTPUT not in {key.measure for key in taught(cut).averages()}


def test_a_provider_that_miscounts_cannot_make_a_model_look_bottomless() -> None:
    """Rates are held within what can be true, so the context window stays a limit."""
    nothing, everything = taught(record(used(1))), taught(record(used(10**12)))
    assert estimate.input_tokens(PROSE, "m", nothing) == 200
    assert estimate.input_tokens(PROSE, "m", everything) == 6_000


def test_a_restart_goes_on_from_exactly_where_it_was() -> None:
    """What is kept is all there is."""
    before = taught(record(), record(used(900, 80)), record(used(1_200, 30), TOOLS))
    after = Learner(before.averages().items())
    for learner in (before, after):
        learner.learn(record(used(777, 77)))
    assert after.averages() == before.averages()


def test_only_what_changed_is_saved_again() -> None:
    """Asking for the changes ends them."""
    learner = taught(record())
    assert {key for key, _ in learner.changes()} == set(learner.averages())
    assert learner.changes() == []
    learner.learn(record(usage_estimated=True))
    assert {key.measure for key, _ in learner.changes()} == {Measure.TTFT}


def test_averages_do_not_grow_without_end() -> None:
    """Programs are named by strangers; the average longest unchanged makes room."""
    learner = Learner((Key(Measure.OUTPUT, "m", f"p{n}"), Average(1.0)) for n in range(KEEP))
    learner.learn(record())
    assert len(learner.averages()) == KEEP
    assert Key(Measure.OUTPUT, "m", "p0") not in learner.averages()


@pytest.mark.parametrize(
    "bad", [Average(math.nan), Average(-1.0), Average(1.0, math.inf), Average(1.0, 0.0, 0)]
)
def test_a_stored_average_that_cannot_be_true_is_forgotten(bad: Average) -> None:
    """Nothing that is no number reaches an estimate."""
    assert Learner([(Key(Measure.TOKENS, "m", "prose"), bad)]).averages() == {}


numbers = st.integers(-(2**62), 2**62)
times = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, times, times, times), max_size=6), st.integers(0, 10**7))
def test_no_record_can_make_an_estimate_that_is_no_number(
    told: list[tuple[int, int, float, float, float]], size: int
) -> None:
    """Whatever providers tell, estimates are whole, finite and not negative."""
    learner = Learner()
    for tokens, output, begun, first, ended in told:
        attempt = structs.replace(
            DONE, usage=Usage(tokens, output), started_ms=begun, first_byte_ms=first, ended_ms=ended
        )
        learner.learn(record(attempt, structs.replace(PROSE, media=size % 2)))
    ask = structs.replace(PROSE, text_bytes=size, media=1, turns=3)
    found = estimate.expected(ask, MODEL, PROVIDER, learner, "cli")
    assert found.input_tokens >= 0
    assert 0 <= found.output_tokens <= MODEL.max_output_tokens
    assert math.isfinite(found.latency_ms)
    assert found.latency_ms >= 0
    assert found.nanousd >= 0
