"""Calls in several steps by directive, through the real pipeline: one answer, one record, nothing overspent."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from typing import Protocol, runtime_checkable

import orjson
import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from openai.types.chat import ChatCompletion

from tests.fakes.engine import ANTHROPIC, OPENAI, PAIR, Bench, chat, message
from tests.fakes.keys import limited
from tests.orchestration.talking import THREE, Heard, bench, model, read
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.leave import Leave, Leaves
from tokenhub_core.orchestration.purse import Purse
from tokenhub_core.ports import Reply
from tokenhub_core.preparing import Rules
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.routing.decision import pack, unpack
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.store.rows import entry, plan_json
from tokenhub_core.types import Caller, Dialect, Json, Outcome, Prices, Trust, header

VOTE = "@@tokenhub mode=vote\nHow much is it?"
REFINE = "@@tokenhub mode=refine iterations=1\nHow much is it?"
ADVERSARIAL = "@@tokenhub mode=adversarial iterations=2\nHow much is it?"


def texts(one: Heard) -> str:
    """Answer with the name; a judge is told by its question, and likes the second answer that it sees."""
    return '{"best": 2}' if "Which one is best?" in one.texts[-1] else f"{one.model} says"


HELD = asyncio.Event()
"""What nobody waits for."""


@runtime_checkable
class Closing(Protocol):
    """Frames that can be left."""

    async def aclose(self) -> None:
        """End them."""


def content(body: bytes) -> str:
    return str(orjson.loads(body)["choices"][0]["message"]["content"])


def streamed(body: bytes) -> tuple[str, list[str]]:
    """Return the text of a stream, and its comments."""
    lines = [line for line in body.decode().split("\n") if line]
    chunks = [orjson.loads(line[6:]) for line in lines if line.startswith("data: {")]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    return "".join(said), [line for line in lines if line.startswith(":")]


def told(reply: Reply, name: str) -> str:
    return header(reply.headers, f"x-tokenhub-{name}")


# --- one answer


@pytest.mark.parametrize(("asked", "steps"), [(VOTE, 4), (ADVERSARIAL, 5), (REFINE, 2)])
@pytest.mark.parametrize("stream", [False, True])
async def test_several_calls_make_one_answer_and_one_record(asked: str, steps: int, stream: bool) -> None:
    """The caller gets one completion; the record holds every attempt by step, and costs what was billed."""
    it, talking = bench(texts)
    reply, body = await it.ask(chat(asked, model="a", stream=stream))
    record = it.recorder.one
    said = streamed(body)[0] if stream else content(body)
    assert (reply.status, told(reply, "directive"), told(reply, "steps")) == (200, "honoured", str(steps))
    assert said == f"{record.model} says"
    made = record.composition
    assert made is not None
    assert told(reply, "mode") == made.mode
    assert [one.step for one in record.attempts] == [one.name for one in made.steps]
    assert (len(made.steps), made.most, [one.n for one in record.attempts]) == (
        steps,
        steps,
        [*range(1, steps + 1)],
    )
    assert record.cost_nanousd == talking.billed == it.ledger.spent_nanousd
    assert record.cost_nanousd == sum(one.cost_nanousd for one in made.steps)
    assert it.ledger.reserved_nanousd == 0


async def test_the_usage_is_what_all_steps_used() -> None:
    """What the completion tells of tokens is what the caller is charged for."""
    it, _ = bench(texts)
    _, body = await it.ask(chat(VOTE, model="a"))
    usage = ChatCompletion.model_validate_json(body).usage
    attempts = it.recorder.one.attempts
    assert usage is not None
    assert usage.prompt_tokens == sum(one.usage.input_tokens for one in attempts)
    assert usage.completion_tokens == sum(one.usage.output_tokens for one in attempts) == 20


async def test_the_directive_is_shown_to_nobody() -> None:
    """No step's messages hold it."""
    it, talking = bench(texts)
    await it.ask(chat(ADVERSARIAL, model="a"))
    assert not any("@@tokenhub" in text for one in talking.heard for text in one.texts)


async def test_a_stream_tells_of_its_steps_in_comments() -> None:
    """While steps run the caller hears of each; the answer follows as deltas and ends as streams end."""
    it, _ = bench(texts)
    reply, body = await it.ask(chat(ADVERSARIAL, model="a", stream=True))
    assert header(reply.headers, "content-type") == "text/event-stream"
    names = ["answer", "critique-1", "refine-1", "critique-2", "refine-2"]
    assert streamed(body)[1] == [f": {name} answered" for name in names]
    assert body.endswith(b"data: [DONE]\n\n")


async def test_silence_is_broken_by_signs_of_life() -> None:
    """A step that takes long keeps the caller's connection alive."""
    waiting = asyncio.Event()
    it, _ = bench(lambda one: waiting, patience=Patience(tick=0.01, whole=0.2))
    reply, body = await it.ask(chat("@@tokenhub mode=refine latency=300\nHi", model="a", stream=True))
    assert reply.status == 200
    assert b": keep-alive\n\n" in body
    assert b'"error"' in body


async def test_an_anthropic_caller_is_answered_in_its_dialect() -> None:
    """The steps' models speak chat completions; caller and SDK see a message."""
    it, _ = bench(texts)
    _, body = await it.ask(message(VOTE, model="a"), Dialect.ANTHROPIC_MESSAGES)
    answer = Message.model_validate_json(body)
    assert (answer.type, answer.content[0].type) == ("message", "text")
    assert answer.usage.output_tokens == 20


# --- what a step is shown


async def test_turns_images_and_tools_go_into_every_step() -> None:
    """Earlier turns, a picture and the tools are there for the voters and for the judge, who may not call them."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = {"role": "user", "content": [{"type": "text", "text": VOTE}, picture]}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Before"},
        {"role": "assistant", "content": "And then"},
        asked,
    ]
    it, talking = bench(texts)
    await it.ask(chat(model="a", tools=tools, messages=turns, temperature=0.3, max_tokens=50))
    for one in talking.heard:
        assert [m["role"] for m in one.body["messages"]] == ["system", "user", "assistant", "user"]
        assert [part["type"] for part in one.body["messages"][3]["content"]][1] == "image_url"
        assert one.body["tools"] == tools
    voters, judge = talking.heard[:3], talking.heard[3].body
    assert all(one.body["temperature"] == 0.3 and one.body["max_tokens"] == 50 for one in voters)
    assert "temperature" not in judge
    assert judge["tool_choice"] == "none"
    assert judge["messages"][0]["content"] != "Be brief."


async def test_the_tool_calls_of_the_final_answer_are_kept() -> None:
    """The answer that was chosen calls a tool: so does the caller's completion, streamed or not."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}

    def says(one: Heard) -> Json:
        return {"content": None, "tool_calls": [call]}

    for stream in (False, True):
        it, _ = bench(says)
        _, body = await it.ask(chat(VOTE, model="a", stream=stream))
        if stream:
            assert b'"name":"f"' in body
            assert b'"finish_reason":"tool_calls"' in body
        else:
            choice = ChatCompletion.model_validate_json(body).choices[0]
            assert choice.finish_reason == "tool_calls"
            assert choice.message.tool_calls is not None


@pytest.mark.parametrize(
    ("dialect", "body", "path"),
    [
        (Dialect.OPENAI_COMPLETIONS, {"model": "a", "prompt": ADVERSARIAL}, "/v1/completions"),
        (Dialect.OLLAMA_GENERATE, {"model": "a", "prompt": ADVERSARIAL, "stream": False}, "/api/generate"),
        (
            Dialect.OLLAMA_CHAT,
            {"model": "a", "messages": [{"role": "user", "content": ADVERSARIAL}]},
            "/api/chat",
        ),
        (Dialect.OPENAI_RESPONSES, {"model": "a", "input": ADVERSARIAL}, "/v1/responses"),
        (
            Dialect.GEMINI,
            {"contents": [{"role": "user", "parts": [{"text": ADVERSARIAL}]}]},
            "/v1beta/models/a:streamGenerateContent?alt=sse",
        ),
    ],
)
async def test_every_dialect_has_modes(dialect: Dialect, body: Json, path: str) -> None:
    """Those without turns, and those that stream by their path, too."""
    it, talking = bench(texts)
    snapshot = it.snapshot(body, dialect)
    reply = await it.engine.exchange(structs.replace(snapshot, path=path))
    out = await read(reply.frames) if reply.frames is not None else reply.body
    assert reply.status == 200, reply.body
    assert b"a says" in out
    assert len(talking.heard) == 5


# --- who is asked


async def test_voters_are_other_models_at_other_providers() -> None:
    """Two providers: the first two voters are at one each; the third is the model that is left."""
    it, talking = bench(texts)
    await it.ask(chat(VOTE, model="a"))
    made = it.recorder.one.composition
    assert made is not None
    assert [(one.model, one.provider) for one in made.steps[:3]] == [("a", "p"), ("c", "q"), ("b", "p")]
    assert talking.heard[3].model == "a"


async def test_a_voter_that_fails_over_does_not_take_anothers_model_first() -> None:
    """Four models, two voters: the one whose model is broken is helped by a model that nobody else begins with."""
    fleet = (*THREE, model("d", "q", 1))
    it, talking = bench(lambda one: 500 if one.model == "a" else texts(one), fleet)
    await it.ask(chat("@@tokenhub mode=vote voters=2\nHi", model="a"))
    made = it.recorder.one.composition
    assert made is not None
    assert [one.model for one in made.steps[:2]] == ["d", "c"]
    assert talking.heard[0].model == "a"


async def test_a_named_model_votes_alone() -> None:
    """`model=b` names the voters; the judge is whoever is best at it."""
    numbers = itertools.count()
    it, talking = bench(lambda one: texts(one) if "best" in texts(one) else f"{next(numbers)}")
    await it.ask(chat("@@tokenhub mode=vote model=b\nHi", model="a"))
    assert [one.model for one in talking.heard] == ["b", "b", "b", "a"]


async def test_a_key_bounds_the_models_of_every_step() -> None:
    """No step, and no failover within one, goes to a model that the key is not good for."""
    it, talking = bench(lambda one: 500 if one.model == "b" else texts(one))
    caller = Caller(key=limited(models=("b", "c")))
    reply, _ = await it.ask(chat(ADVERSARIAL, model="c"), caller=caller)
    assert reply.status == 200
    assert {one.model for one in talking.heard} == {"b", "c"}


async def test_the_decision_that_is_recorded_makes_the_same_plan_again() -> None:
    """The plan of the first step is the record's, and follows from what is stored with it."""
    it, _ = bench(texts)
    await it.ask(chat(VOTE, model="a"))
    plan = it.recorder.one.plan
    assert plan is not None
    stored = unpack(orjson.loads(orjson.dumps(pack(plan))))
    again = recompute(stored)
    assert unpack(orjson.loads(orjson.dumps(pack(again)))) == stored


@pytest.mark.parametrize(
    ("asked", "own"), [(VOTE, {"judge"}), (ADVERSARIAL, {"critique-1", "refine-1", "critique-2", "refine-2"})]
)
async def test_each_later_steps_decision_makes_its_plan_again(asked: str, own: set[str]) -> None:
    """A step that was decided for itself has its decision in the record, and each follows from what is stored."""
    it, _ = bench(texts)
    await it.ask(chat(asked, model="a"))
    record = it.recorder.one
    stored = entry({"decision": plan_json(record.plan, record.composition)} if record.plan else {})
    steps = stored["decision"]["steps"]
    assert record.composition is not None
    plans = {one.name: one.plan for one in record.composition.steps if one.plan is not None}
    assert set(steps) == set(plans) == own
    for name, told in steps.items():
        again = recompute(told)
        recorded = unpack(orjson.loads(orjson.dumps(pack(plans[name]))))
        assert unpack(orjson.loads(orjson.dumps(pack(again)))) == told == recorded
        assert {one.model for one in record.attempts if one.step == name} <= {
            one.model.id for one in again.candidates
        }


# --- failures


async def test_a_voter_that_fails_is_left_out() -> None:
    """One provider is down for good: two voters are left, and the judge chooses among them."""
    it, talking = bench(lambda one: 400 if one.model == "c" and "says" in texts(one) else texts(one))
    reply, body = await it.ask(chat(VOTE, model="a"))
    made = it.recorder.one.composition
    assert made is not None
    assert (reply.status, made.decided) == (200, "judge")
    assert [one.cause for one in made.steps] == ["", "http_400", "", ""]
    assert content(body) in {"a says", "b says"}
    assert it.recorder.one.cost_nanousd == talking.billed


async def test_a_judge_that_fails_costs_no_answer() -> None:
    """The answer is the first one; record and header say that nobody judged."""
    it, _ = bench(lambda one: 400 if "best" in texts(one) else texts(one))
    reply, body = await it.ask(chat(VOTE, model="a"))
    assert (content(body), told(reply, "reason")) == ("a says", "vote-first")


@pytest.mark.parametrize("stream", [False, True])
async def test_when_all_fail_the_caller_gets_an_error_with_a_status(stream: bool) -> None:
    """Nobody answers: an error in the caller's dialect, before a stream has begun, with all attempts on record."""
    it, talking = bench(lambda one: 400)
    reply, body = await it.ask(chat(VOTE, model="a", stream=stream))
    record = it.recorder.one
    assert (reply.status, record.outcome) == (400, Outcome.ERROR)
    assert "error" in orjson.loads(body)
    assert len(record.attempts) == len(talking.heard) == 3
    assert (record.cost_nanousd, it.ledger.reserved_nanousd) == (0, 0)


async def test_agreement_ends_the_voters_that_are_left() -> None:
    """Two models say the same: the third is stopped, accounted for, and its attempt says why."""
    waiting = asyncio.Event()
    it, talking = bench(lambda one: waiting if one.model == "b" else "42")
    _, body = await it.ask(chat(VOTE, model="a"))
    record = it.recorder.one
    assert record.composition is not None
    assert (content(body), record.composition.decided, talking.cancelled) == ("42", "agreement", 1)
    assert [(one.name, one.cause) for one in record.composition.steps] == [
        ("voter-1", ""),
        ("voter-2", ""),
        ("voter-3", "agreed"),
    ]
    assert [one.cause for one in record.attempts if one.model == "b"] == ["step_stopped"]
    assert it.health.standing("p", it.clock.monotonic()).error_rate == 0
    assert it.ledger.reserved_nanousd == 0


async def test_at_the_deadline_what_is_there_is_the_answer() -> None:
    """One voter hangs: its share of the time passes, and the others' answers go to the judge."""
    it, talking = bench(
        lambda one: asyncio.Event() if one.model == "b" and "says" in texts(one) else texts(one)
    )
    reply, _ = await it.ask(chat("@@tokenhub mode=vote latency=400\nHi", model="a"))
    made = it.recorder.one.composition
    assert made is not None
    assert (reply.status, made.decided) == (200, "judge")
    assert [one.cause for one in made.steps] == ["", "", "step_deadline", ""]
    assert talking.cancelled == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_ends_every_step(stream: bool) -> None:
    """All attempts under way are cancelled and settled; one record says that the caller left."""
    waiting, calls = asyncio.Event(), itertools.count(1)
    it, talking = bench(
        lambda one: "first" if stream and one.model == "a" else waiting if next(calls) == 3 else HELD
    )
    snapshot = it.snapshot(chat(VOTE, model="a", stream=stream))
    if stream:
        reply = await it.engine.exchange(snapshot)
        assert reply.frames is not None
        assert isinstance(reply.frames, Closing)
        await reply.frames.aclose()
    else:
        task = asyncio.create_task(it.engine.exchange(snapshot))
        await waiting.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    record = it.recorder.one
    assert record.outcome is Outcome.CANCELLED
    assert talking.cancelled == (2 if stream else 3)
    assert [one.cause for one in record.attempts].count("client_cancelled") == talking.cancelled
    assert len(record.attempts) == 3
    assert record.composition is not None
    assert [one.name for one in record.composition.steps] == ["voter-1", "voter-2", "voter-3"]
    assert it.ledger.reserved_nanousd == 0


# --- money


@pytest.mark.parametrize("limit", [2_600_000, 10_000_000])
async def test_a_budget_that_cannot_carry_all_steps_begins_none(limit: int) -> None:
    """There is money for two steps of five: nobody is asked, nothing is spent, and the error says why."""
    it, talking = bench(texts)
    now = round(it.clock.now() * 1_000_000)
    it.ledger.install(Budget("b", "all", Period.TOTAL, Unit.USD, limit), UTC, at=now)
    reply, body = await it.ask(chat(ADVERSARIAL, model="a", max_tokens=500))
    enough = limit > 5_000_000
    assert (reply.status, len(talking.heard)) == ((200, 5) if enough else (402, 0)), body
    assert it.ledger.spent_nanousd <= limit


async def test_the_budget_of_the_call_holds_for_all_steps_together() -> None:
    """What the call may cost is shared out: models that are too dear for a step's share are not asked."""
    fleet = (model("a", "p", 10), model("b", "q", 1))
    dear = replace(fleet[0], prices=Prices(15_000, 30_000))
    it, talking = bench(texts, (dear, fleet[1]))
    reply, _ = await it.ask(chat("@@tokenhub mode=refine budget=0.02\nHi", model="a", max_tokens=500))
    assert reply.status == 200
    assert {one.model for one in talking.heard} == {"b"}
    assert it.recorder.one.cost_nanousd <= 20_000_000


async def test_a_budget_below_one_steps_share_is_refused() -> None:
    """A budget that no model can keep to is an error before anybody is asked."""
    it, talking = bench(texts)
    reply, _ = await it.ask(chat("@@tokenhub mode=vote budget=0.000001\nHi", model="a"))
    assert (reply.status, talking.heard) == (402, [])


@given(
    st.integers(0, 10_000),
    st.integers(1, 20),
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=40),
)
def test_a_purse_is_never_overspent(limit: int, steps: int, course: list[tuple[bool, float]]) -> None:
    """Whatever begins and ends in whatever order: as long as each step keeps to its share, so do all together."""
    purse, opened = Purse(limit, steps), list[tuple[str, int]]()
    for number, (begins, part) in enumerate(course):
        if begins and purse.steps:
            share = purse.begin(str(number))
            assert share is not None
            opened.append((str(number), share))
        elif opened:
            name, share = opened.pop(0)
            purse.end(name, int(share * part))
        assert purse.spent + sum(purse.promised.values()) <= limit


# --- what is refused


@pytest.mark.parametrize(
    "more",
    [{"n": 2}, {"prompt": ["a", "b"]}],
)
async def test_a_call_for_several_answers_has_no_mode(more: Json) -> None:
    """A mode gives one answer; who asks for more is told."""
    it, talking = bench(texts)
    reply, body = await it.ask(chat(VOTE, model="a", **more))
    assert (reply.status, talking.heard) == (400, [])
    assert b"gives one answer" in body


async def test_a_conversation_that_its_provider_keeps_has_no_mode() -> None:
    """Other models could not see it."""
    it, _ = bench(texts)
    asked = {"model": "a", "input": VOTE, "previous_response_id": "resp_1"}
    reply, body = await it.ask(asked, Dialect.OPENAI_RESPONSES)
    assert (reply.status, orjson.loads(body)["error"]["param"]) == (400, "previous_response_id")


async def test_counting_tokens_has_no_mode() -> None:
    """What gives no answer in words cannot be voted on."""
    it = Bench()
    asked = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": VOTE}]}
    reply, body = await it.ask(asked, Dialect.ANTHROPIC_COUNT_TOKENS)
    assert reply.status == 400
    assert b"for answers in words" in body


@pytest.mark.parametrize(
    ("asked", "ceiling", "outcome"),
    [
        ("mode=vote voters=4", 5, "honoured"),
        ("mode=vote voters=5", 5, "denied; mode"),
        ("mode=adversarial iterations=3", 5, "denied; mode"),
        ("mode=vote voters=5 tags=x", 5, "honoured; denied=mode"),
        ("mode=vote voters=2", 2, "denied; mode"),
        ("mode=adversarial", 1, "denied; mode"),
        ("mode=planning", 1, "honoured"),
    ],
)
async def test_a_directive_makes_no_more_steps_than_the_ceiling(
    asked: str, ceiling: int, outcome: str
) -> None:
    """What would take more is not honoured, and the call stays one call."""
    rules = Rules(leaves=Leaves(Leave(max_steps=ceiling)))
    it, talking = bench(texts, rules=rules)
    reply, _ = await it.ask(chat(f"@@tokenhub {asked}\nHi", model="a"))
    assert told(reply, "directive") == outcome
    assert (len(talking.heard) == 1) is ("mode" in outcome or "planning" in asked)


async def test_a_key_can_lower_the_ceiling_and_not_raise_it() -> None:
    """Three steps for one key, whatever the operator's five; a hundred for another one are five."""
    for most, voters, honoured in ((3, 3, False), (3, 2, True), (100, 5, False)):
        it, _ = bench(texts)
        caller = Caller(key=limited(trust=Trust(max_steps=most)))
        reply, _ = await it.ask(chat(f"@@tokenhub mode=vote voters={voters}\nHi", model="a"), caller=caller)
        assert (told(reply, "directive") == "honoured") is honoured


async def test_the_simulator_is_asked_in_every_step() -> None:
    """The built-in simulator answers modes, too: two models disagree, and its judge gives no verdict."""
    it = Bench(profiles={"gpt-4o": Profile()}, models=PAIR, providers=(OPENAI, ANTHROPIC))
    reply, body = await it.ask(chat(VOTE))
    assert (reply.status, told(reply, "reason"), told(reply, "simulated")) == (200, "vote-first", "true")
    assert ChatCompletion.model_validate_json(body).choices[0].message.content
