"""Simulated answers: shapes that the official SDKs accept, and what the caller asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from tokenhub_core.providers.catalogue import Catalogue, load
from tokenhub_core.providers.simulator import (
    MARK,
    SIMULATED_MODELS,
    Ending,
    Profile,
    Script,
    play,
    simulated_fleet,
    simulated_profile,
)
from tokenhub_core.types import Dialect, ProviderType, header

OPENAI, ANTHROPIC = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES
BOTH = (OPENAI, ANTHROPIC)
EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "days": {"type": "integer"}},
    "required": ["city", "unit"],
}


def body(dialect: Dialect, text: str = "Say hello", **rest: Any) -> bytes:
    base: dict[str, Any] = {"model": "some-model", "messages": [{"role": "user", "content": text}]}
    if dialect is ANTHROPIC:
        base["max_tokens"] = 1000
    return orjson.dumps({**base, **rest})


def tool(dialect: Dialect, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if dialect is OPENAI:
        return {"type": "function", "function": {"name": name, "parameters": schema}}
    return {"name": name, "input_schema": schema}


def joined(script: Script) -> bytes:
    return b"".join(data for _, data in script.frames)


def completion(raw: bytes, **rest: Any) -> ChatCompletion:
    return ChatCompletion.model_validate_json(joined(play(OPENAI, raw, **rest)))


def message(raw: bytes, **rest: Any) -> Message:
    return Message.model_validate_json(joined(play(ANTHROPIC, raw, **rest)))


def chunks(script: Script) -> Iterator[ChatCompletionChunk]:
    lines = joined(script).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return (ChatCompletionChunk.model_validate_json(line.removeprefix("data: ")) for line in lines[:-2])


def events(script: Script) -> list[RawMessageStreamEvent]:
    found = []
    for block in joined(script).decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        raw = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {raw['type']}"
        if raw["type"] != "ping":  # the SDK drops it before it looks at types
            found.append(EVENTS.validate_python(raw))
    return found


# --- shapes ------------------------------------------------------------------------------------------------


def test_a_whole_openai_answer_is_one_to_the_sdk() -> None:
    """Strictly: no field missing, none of a wrong type; the usage adds up."""
    answer = completion(body(OPENAI, "What is the capital of France?"), created=1_700_000_000)
    text = answer.choices[0].message.content
    assert text is not None
    assert "What is the capital of France?" in text
    assert "simulated" in text
    assert "some-model" in text
    assert (answer.model, answer.created, answer.choices[0].finish_reason) == (
        "some-model",
        1_700_000_000,
        "stop",
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == -(-len(text.encode()) // 4)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_openai_answer_is_one_to_the_sdk() -> None:
    """The pieces make the whole answer, and usage comes only where it was asked for."""
    found = list(chunks(play(OPENAI, body(OPENAI, stream=True))))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in found)
    assert 'You asked: "Say hello".' in text
    assert found[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in found if chunk.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in found)
    counted = list(chunks(play(OPENAI, body(OPENAI, stream=True, stream_options={"include_usage": True}))))
    assert counted[-1].choices == []
    assert counted[-1].usage is not None
    assert counted[-1].usage.completion_tokens > 10


def test_a_whole_anthropic_answer_is_one_to_the_sdk() -> None:
    """As for OpenAI."""
    answer = message(body(ANTHROPIC, "What is the capital of France?"))
    block = answer.content[0]
    assert block.type == "text"
    assert "capital of France" in block.text
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens == -(-len(block.text.encode()) // 4)


def test_a_streamed_anthropic_answer_is_one_to_the_sdk() -> None:
    """Events in the order that the SDK's accumulator demands, and cumulative usage."""
    found = events(play(ANTHROPIC, body(ANTHROPIC, stream=True)))
    assert found[0].type == "message_start"
    assert [event.type for event in found[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(
        event.delta.text
        for event in found
        if event.type == "content_block_delta" and event.delta.type == "text_delta"
    )
    assert 'You asked: "Say hello".' in text
    last = found[-2]
    assert last.type == "message_delta"
    assert last.usage.output_tokens == -(-len(text.encode()) // 4)


@pytest.mark.parametrize("dialect", BOTH)
def test_every_simulated_answer_is_marked(dialect: Dialect) -> None:
    """Good ones, streams and errors alike."""
    for raw in (body(dialect), body(dialect, stream=True), b"broken"):
        assert MARK in play(dialect, raw).headers


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=300), st.integers(1, 60), st.integers(0, 9))
def test_streamed_and_whole_answers_say_the_same(text: str, limit: int, seed: int) -> None:
    """For any question and cap, the pieces add up to the whole, in both dialects."""
    openai = completion(body(OPENAI, text, max_tokens=limit), seed=seed)
    streamed = chunks(play(OPENAI, body(OPENAI, text, max_tokens=limit, stream=True), seed=seed))
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == openai.choices[0].message.content
    assert openai.usage is not None
    assert openai.usage.completion_tokens <= limit
    assert message(body(ANTHROPIC, text, max_tokens=limit), seed=seed).usage.output_tokens <= limit


def test_the_same_call_gets_the_same_answer() -> None:
    """Every difference comes from an argument."""
    raw = body(OPENAI)
    assert play(OPENAI, raw, seed=1) == play(OPENAI, raw, seed=1)
    assert play(OPENAI, raw, seed=1) != play(OPENAI, raw, seed=2)
    assert play(OPENAI, raw, call_number=0) != play(OPENAI, raw, call_number=1)


# --- what the caller asked for -----------------------------------------------------------------------------


def test_the_cap_ends_the_answer_and_says_so() -> None:
    """`length` and `max_tokens`, and never a broken character."""
    short = completion(body(OPENAI, "x" + "é" * 50, max_completion_tokens=5))
    assert (short.choices[0].message.content or "").endswith("é")
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens <= 5
    assert message(body(ANTHROPIC, "é" * 50, max_tokens=5)).stop_reason == "max_tokens"


def test_a_stop_sequence_ends_the_answer_before_it() -> None:
    """The earliest one counts; Anthropic names it."""
    openai = completion(body(OPENAI, stop=["simulated", "asked"]))
    assert openai.choices[0].message.content == "You "
    anthropic = message(body(ANTHROPIC, stop_sequences=["simulated", "asked"]))
    assert (anthropic.stop_reason, anthropic.stop_sequence) == ("stop_sequence", "asked")


def test_a_tool_that_is_named_is_called_with_fitting_arguments() -> None:
    """The arguments fit the schema and take their text from the question."""
    question = "Please use get_weather for the weather in Paris."
    openai = completion(body(OPENAI, question, tools=[tool(OPENAI, "get_weather", WEATHER)]))
    calls = openai.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert orjson.loads(calls[0].function.arguments) == {"city": "Paris", "unit": "c"}
    assert openai.choices[0].finish_reason == "tool_calls"
    anthropic = message(body(ANTHROPIC, question, tools=[tool(ANTHROPIC, "get_weather", WEATHER)]))
    block = anthropic.content[0]
    assert block.type == "tool_use"
    assert block.input == {"city": "Paris", "unit": "c"}
    assert anthropic.stop_reason == "tool_use"


@pytest.mark.parametrize("dialect", BOTH)
def test_tools_that_nobody_asked_for_are_left_alone(dialect: Dialect) -> None:
    """Offering is not asking; `none` forbids."""
    tools = [tool(dialect, "get_weather", WEATHER)]
    none: Any = "none" if dialect is OPENAI else {"type": "none"}
    for raw in (
        body(dialect, "Tell me a joke", tools=tools),
        body(dialect, "use get_weather", tools=tools, tool_choice=none),
    ):
        assert b'"tool' not in joined(play(dialect, raw))


@pytest.mark.parametrize("dialect", BOTH)
def test_a_forced_tool_is_called_whatever_the_question(dialect: Dialect) -> None:
    """Required means any, named means that one."""
    tools = [tool(dialect, name, {"type": "object"}) for name in ("first", "second")]
    required: Any = "required" if dialect is OPENAI else {"type": "any"}
    named: Any = (
        {"type": "function", "function": {"name": "second"}}
        if dialect is OPENAI
        else {"type": "tool", "name": "second"}
    )
    assert b'"first"' in joined(play(dialect, body(dialect, "Hi", tools=tools, tool_choice=required)))
    assert b'"second"' in joined(play(dialect, body(dialect, "Hi", tools=tools, tool_choice=named)))


def test_several_tools_are_called_in_parallel_unless_forbidden() -> None:
    """With ids and indexes that tell them apart, streamed in pieces."""
    question = "use get_weather and get_time"
    tools = [tool(OPENAI, name, WEATHER) for name in ("get_weather", "get_time")]
    calls: dict[int, str] = {}
    for chunk in chunks(play(OPENAI, body(OPENAI, question, tools=tools, stream=True))):
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function is not None
            calls[call.index] = calls.get(call.index, "") + (call.function.arguments or "")
    assert [orjson.loads(text)["unit"] for text in calls.values()] == ["c", "c"]
    single = completion(body(OPENAI, question, tools=tools, parallel_tool_calls=False))
    assert len(single.choices[0].message.tool_calls or []) == 1
    theirs = [tool(ANTHROPIC, name, WEATHER) for name in ("get_weather", "get_time")]
    found = events(play(ANTHROPIC, body(ANTHROPIC, question, tools=theirs, stream=True)))
    assert [event.index for event in found if event.type == "content_block_start"] == [0, 1]
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert len(message(body(ANTHROPIC, question, tools=theirs, tool_choice=choice)).content) == 1


def test_tool_results_are_answered_with_what_they_said() -> None:
    """The loop of an agent ends: after the results comes text."""
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "use get_weather"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
    ]
    openai = completion(body(OPENAI, messages=messages, tools=[tool(OPENAI, "get_weather", WEATHER)]))
    assert 'The tool get_weather answered: "18 degrees".' in (openai.choices[0].message.content or "")
    use = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "18 degrees"}]}
    messages = [
        {"role": "user", "content": "use get_weather"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    anthropic = message(body(ANTHROPIC, messages=messages, tools=[tool(ANTHROPIC, "get_weather", WEATHER)]))
    block = anthropic.content[0]
    assert block.type == "text"
    assert 'The tool get_weather answered: "18 degrees".' in block.text


def test_a_schema_is_answered_with_an_instance() -> None:
    """Structured output is what was asked for, in both dialects."""
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}
    openai = completion(body(OPENAI, "the weather in Paris", response_format=form))
    assert orjson.loads(openai.choices[0].message.content or "") == {"city": "Paris", "unit": "c"}
    form = {"format": {"type": "json_schema", "schema": WEATHER}}
    block = message(body(ANTHROPIC, "the weather in Paris", output_config=form)).content[0]
    assert block.type == "text"
    assert orjson.loads(block.text) == {"city": "Paris", "unit": "c"}
    plain = completion(body(OPENAI, response_format={"type": "json_object"}))
    assert "simulated" in orjson.loads(plain.choices[0].message.content or "")["answer"]


def test_images_do_not_count_as_text() -> None:
    """A megabyte of base64 is not a quarter of a million tokens."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    content = [{"type": "text", "text": "What is this?"}, part]
    answer = completion(body(OPENAI, messages=[{"role": "user", "content": content}]))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens < 50


# --- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "raw"),
    [
        (OPENAI, b"{"), (OPENAI, b"[]"), (OPENAI, b'{"model":"m"}'), (OPENAI, b'{"model":"m","messages":[]}'),
        (OPENAI, b'{"model":5,"messages":[{}]}'), (OPENAI, b'{"model":"m","messages":["x"]}'),
        (ANTHROPIC, b'{"model":"m","messages":[{"role":"user","content":"x"}]}'),
    ],
)  # fmt: skip
def test_a_request_that_is_none_gets_the_dialects_400(dialect: Dialect, raw: bytes) -> None:
    """As the real ones answer."""
    script = play(dialect, raw)
    assert script.status == 400
    assert orjson.loads(joined(script))["error"]["type"] == "invalid_request_error"


def test_faults_follow_each_other_by_call_and_the_last_one_stays() -> None:
    """The call's number is an argument, so a script needs no memory."""
    profile = Profile(faults=("500", "status:429:7", "hang", "disconnect", "ok"))
    scripts = [play(OPENAI, body(OPENAI), profile=profile, call_number=at) for at in range(7)]
    assert [script.status for script in scripts] == [500, 429, 0, 0, 200, 200, 200]
    assert header(scripts[1].headers, "retry-after") == "7"
    assert [script.ending for script in scripts[2:4]] == [Ending.HANG, Ending.CLOSED]


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("fault", "ending", "content", "terminal"),
    [
        ("lifecycle-hang", Ending.HANG, False, False),
        ("lifecycle-error:429", Ending.CLEAN, False, False),
        ("stall", Ending.HANG, True, False),
        ("content-error:529", Ending.CLEAN, True, False),
        ("reset", Ending.RESET, True, False),
        ("truncate", Ending.CLOSED, True, False),
        ("no-terminal", Ending.CLEAN, True, False),
        ("error-body:503", Ending.CLEAN, False, False),
        ("ok", Ending.CLEAN, True, True),
    ],
)
def test_a_streams_fault_stops_where_it_says(
    dialect: Dialect, fault: str, ending: Ending, *, content: bool, terminal: bool
) -> None:
    """Opening, content and end are there or not, as named."""
    script = play(dialect, body(dialect, stream=True), profile=Profile(faults=(fault,)))
    raw = joined(script)
    assert (script.status, script.ending) == (200, ending)
    assert (b"You " in raw) is content
    assert (b"[DONE]" in raw or b"message_stop" in raw) is terminal
    assert (b'"error"' in raw) is ("error" in fault)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("fault", ["stall", "reset", "truncate", "lifecycle-hang"])
def test_a_whole_answers_fault_falls_short_of_its_announced_length(dialect: Dialect, fault: str) -> None:
    """That is how HTTP itself can tell."""
    script = play(dialect, body(dialect), profile=Profile(faults=(fault,)))
    assert len(joined(script)) < int(header(script.headers, "content-length"))
    assert script.ending is not Ending.CLEAN


@pytest.mark.parametrize("dialect", BOTH)
def test_other_faults_look_as_they_do_in_the_wild(dialect: Dialect) -> None:
    """An overflow is a 400 in the vendor's words, an error body hides in a 200, and bad JSON is none."""
    overflow = play(dialect, body(dialect), profile=Profile(faults=("overflow",)))
    assert overflow.status == 400
    assert b"context length" in joined(overflow) or b"prompt is too long" in joined(overflow)
    hidden = play(dialect, body(dialect), profile=Profile(faults=("error-body:529",)))
    assert (hidden.status, "error" in orjson.loads(joined(hidden))) == (200, True)
    broken = play(dialect, body(dialect), profile=Profile(faults=("bad-json",)))
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(joined(broken))


@pytest.mark.parametrize("fault", ["", "okay", "200", "status:700", "hang:5", "stall-ish", "content-error:x"])
def test_a_fault_that_nobody_knows_is_refused_when_it_is_written(fault: str) -> None:
    """A test that scripts nothing would pass for the wrong reason."""
    with pytest.raises(ValueError, match="unknown fault"):
        Profile(faults=(fault,))


def test_delays_follow_the_profile() -> None:
    """The first byte after `ttft`, the rest at the model's pace."""
    script = play(OPENAI, body(OPENAI, stream=True), profile=Profile(ttft=0.5, tokens_per_second=100))
    delays = [delay for delay, _ in script.frames]
    assert delays[0] == 0.5
    said = sum(c.choices[0].delta.content is not None for c in chunks(script))
    assert said > 10
    assert 0.3 < sum(delays[1:]) < 1.5
    whole = play(OPENAI, body(OPENAI), profile=Profile(ttft=0.5, tokens_per_second=100))
    assert sum(delay for delay, _ in whole.frames) == pytest.approx(sum(delays), rel=0.1)


# --- the fleet ---------------------------------------------------------------------------------------------


def test_a_fleet_of_two_dialects_has_their_providers_and_models_of_every_price() -> None:
    """Public names with the catalogue's prices and sizes; different weights and paces."""
    providers, models = simulated_fleet(load(), dialects=BOTH)
    assert [(p.id, p.type, p.dialect) for p in providers] == [
        ("sim-openai", ProviderType.SIMULATOR, OPENAI),
        ("sim-anthropic", ProviderType.SIMULATOR, ANTHROPIC),
    ]
    ids = {model.id for model in models}
    assert {"gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "claude-3-5-haiku-latest"} <= ids
    assert len(models) == sum(one.dialect in BOTH for one in SIMULATED_MODELS)
    assert all(model.prices.input > 0 and model.max_context_tokens > 0 for model in models)
    assert len({model.weight for model in models}) > 4
    assert len({simulated_profile(model.id).tokens_per_second for model in models}) > 4


def test_the_fleet_of_all_dialects_names_every_model_at_a_price() -> None:
    """With all dialects there are four providers; each says what else it speaks."""
    providers, models = simulated_fleet(load())
    assert [(p.id, p.dialect) for p in providers] == [
        ("sim-openai", OPENAI),
        ("sim-anthropic", ANTHROPIC),
        ("sim-gemini", Dialect.GEMINI),
        ("sim-ollama", Dialect.OLLAMA_CHAT),
    ]
    spoken = {p.dialect for p in providers} | {one for p in providers for one in p.also}
    assert spoken == set(Dialect)
    assert {model.id for model in models} == {one.id for one in SIMULATED_MODELS}
    assert all(model.prices.input > 0 and model.max_context_tokens > 0 for model in models)


def test_a_provider_says_only_what_was_asked_for() -> None:
    """A fleet without a dialect names neither its providers nor its models."""
    providers, models = simulated_fleet(load(), dialects=frozenset({OPENAI, Dialect.OPENAI_RESPONSES}))
    assert [(p.id, p.also) for p in providers] == [("sim-openai", (Dialect.OPENAI_RESPONSES,))]
    assert "text-embedding-3-small" not in {model.id for model in models}


def test_a_model_that_the_catalogue_does_not_know_is_left_out() -> None:
    """Nothing is invented."""
    _, models = simulated_fleet(Catalogue(b"{}"))
    assert models == ()
    assert simulated_profile("nobody") == Profile()
