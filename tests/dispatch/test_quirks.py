"""Models with quirks, through the whole engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.fakes.engine import ANTHROPIC, OPENAI, PAIR, Bench, chat, message
from tests.fakes.transport import Scripted, ScriptedTransport, completion, json, stream
from tokenhub_core.dialects import sse
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.bodies import Bodies
from tokenhub_core.types import Candidate, Dialect, Json, Terms

A = Dialect.ANTHROPIC_MESSAGES
READING = frozenset({"inline_tool_calls", "thinking_tags"})
TEXT = (
    '<think>\nOslo?\n</think>\n\nLet me see.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
)
CHAT_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]
DONE = b"data: [DONE]\n\n"


def bench(*answers: Scripted | Exception, quirks: frozenset[str]) -> tuple[Bench, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    models = [replace(PAIR[0], quirks=quirks)]
    return Bench(transport=transport, models=models, providers=(OPENAI,)), transport


def chunk(finish: str | None = None, **delta: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse.frame(orjson.dumps({"id": "c", "model": "m", "choices": [choice]}))


def spoken(text: str, size: int) -> Scripted:
    pieces = [chunk(content=text[at : at + size]) for at in range(0, len(text), size)]
    return stream(chunk(role="assistant", content=""), *pieces, chunk("stop"), DONE)


def events(raw: bytes) -> list[Json]:
    return [orjson.loads(event.data) for event in sse.Parser().feed(raw) if event.data != b"[DONE]"]


def put_together(raw: bytes) -> tuple[str, str, str, list[str], str]:
    """Return reasoning, text, arguments, tool names and finish reason of a chat stream."""
    choices = [choice for event in events(raw) for choice in event["choices"]]
    deltas = [choice["delta"] for choice in choices]
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    return (
        "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "".join(delta.get("content") or "" for delta in deltas),
        "".join(call.get("arguments", "") for call in calls),
        [call["name"] for call in calls if "name" in call],
        choices[-1]["finish_reason"],
    )


async def test_a_whole_answer_is_repaired_for_a_caller_of_the_same_dialect() -> None:
    """Reasoning, text and calls stand where an SDK looks for them."""
    one, transport = bench(json(completion(TEXT)), quirks=READING)
    asked = orjson.dumps(chat(tools=CHAT_TOOLS))
    _, body = await one.ask(asked)
    assert transport.sent[0].body == asked
    choice = orjson.loads(body)["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"] == "Oslo?"
    assert choice["message"]["content"] == "Let me see.\n"
    assert call["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert call["id"]
    record = one.recorder.one
    assert (record.stop, record.identical, record.losses) == ("tool_use", False, ())


async def test_a_whole_answer_is_repaired_for_a_caller_of_another_dialect() -> None:
    """As blocks, thinking first."""
    one, _ = bench(json(completion(TEXT)), quirks=READING)
    _, body = await one.ask(message(tools=TOOLS, model="gpt-4o"), A)
    answer = orjson.loads(body)
    thinking, text, use = answer["content"]
    assert (thinking["thinking"], text["text"]) == ("Oslo?", "Let me see.\n")
    assert (use["name"], use["input"]) == ("f", {"x": 1})
    assert answer["stop_reason"] == "tool_use"


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_stream_is_repaired_for_a_caller_of_the_same_dialect(size: int) -> None:
    """Wherever the provider cut its text; half a tag is never seen."""
    one, _ = bench(spoken(TEXT, size), quirks=READING)
    reply, raw = await one.ask(chat(tools=CHAT_TOOLS, stream=True))
    assert put_together(raw) == ("Oslo?", "Let me see.\n", '{"x": 1}', ["f"], "tool_calls")
    assert raw.endswith(DONE)
    assert dict(reply.headers)["content-type"].startswith("text/event-stream")
    assert (one.recorder.one.stop, one.recorder.one.identical) == ("tool_use", False)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_stream_is_repaired_for_a_caller_of_another_dialect(size: int) -> None:
    """As blocks, one after the other."""
    one, _ = bench(spoken(TEXT, size), quirks=READING)
    _, raw = await one.ask(message(tools=TOOLS, model="gpt-4o", stream=True), A)
    told = events(raw)
    deltas = [event["delta"] for event in told if event["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == "Oslo?"
    assert "".join(delta.get("text", "") for delta in deltas) == "Let me see.\n"
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"x": 1}'
    kinds = [event["content_block"]["type"] for event in told if event["type"] == "content_block_start"]
    assert kinds == ["thinking", "text", "tool_use"]
    assert told[-2]["delta"]["stop_reason"] == "tool_use"


async def test_what_is_held_back_at_the_end_is_words() -> None:
    """Half a tag that never became one reaches the caller."""
    one, _ = bench(spoken("a <tool", 1), quirks=READING)
    _, raw = await one.ask(chat(tools=CHAT_TOOLS, stream=True))
    assert put_together(raw)[1] == "a <tool"


async def test_half_a_tag_commits_nobody() -> None:
    """A provider that fails before it has said anything for certain is followed by another try."""
    broken = stream(chunk(content="<thi"), b'data: {"error": {"message": "busy", "code": 503}}\n\n')
    one, transport = bench(broken, spoken("Hi", 1), quirks=READING)
    _, raw = await one.ask(chat(stream=True))
    assert len(transport.sent) == 2
    assert put_together(raw)[1] == "Hi"


async def test_without_quirks_the_answer_passes_to_the_letter() -> None:
    """The repairs are nobody else's affair."""
    usage: Json = {"stream": True, "stream_options": {"include_usage": True}}
    for answer, wanted in ((json(completion(TEXT)), {}), (spoken(TEXT, 7), usage)):
        one, _ = bench(answer, quirks=frozenset())
        _, raw = await one.ask({**chat(tools=CHAT_TOOLS), **wanted})
        assert raw == b"".join(answer.pieces)
        assert one.recorder.one.identical


async def test_a_repair_of_the_call_alone_leaves_the_answer_as_it_is() -> None:
    """The call is written anew, the answer passes."""
    answer = json(completion("Hi"))
    one, transport = bench(answer, quirks=frozenset({"merge_turns"}))
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    _, raw = await one.ask({**chat(), "messages": turns})
    assert transport.sent[0].body is not None
    assert orjson.loads(transport.sent[0].body)["messages"] == [{"role": "user", "content": "a\n\nb"}]
    assert raw == answer.pieces[0]


async def test_a_tool_goes_by_another_name_and_comes_back_under_its_own() -> None:
    """The caller never sees the provider's."""
    name = "files." + "read_" * 20
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}]

    class Echo(ScriptedTransport):
        async def send(self, request: Any, timeouts: Any) -> Scripted:
            (tool,) = orjson.loads(request.body)["tools"]
            call = {"index": 0, "id": "x", "type": "function"}
            call["function"] = {"name": tool["function"]["name"], "arguments": "{}"}
            self.answers = [stream(chunk(tool_calls=[call]), chunk("tool_calls"), DONE)]
            return await super().send(request, timeouts)

    transport = Echo()
    models = [replace(PAIR[0], quirks=frozenset({"tool_names"}))]
    one = Bench(transport=transport, models=models, providers=(OPENAI,))
    _, raw = await one.ask(chat(tools=tools, stream=True))
    assert put_together(raw)[3] == [name]
    assert len(orjson.loads(transport.sent[0].body or b"")["tools"][0]["function"]["name"]) == 64


def test_what_a_repair_cannot_say_is_a_loss_of_the_body() -> None:
    """It is told with what the dialect cannot carry."""
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b", "name": "bob"}]
    request = DIALECTS[Dialect.OPENAI_CHAT].open(orjson.dumps({**chat(seed=1), "messages": turns}))
    bodies = Bodies(request, DIALECTS)
    model = replace(PAIR[1], quirks=frozenset({"merge_turns"}))
    made = bodies.render(Candidate(model, ANTHROPIC, 0.0, Terms(), 0, dialect=ANTHROPIC.dialect), None)
    assert set(made.losses) == {"name", "seed"}


def test_vectors_are_not_repaired() -> None:
    """A call without a conversation passes, whatever its model needs otherwise."""
    raw = b'{"model": "gpt-4o", "input": "x"}'
    bodies = Bodies(DIALECTS[Dialect.OPENAI_EMBEDDINGS].open(raw), DIALECTS)
    model = replace(PAIR[0], quirks=READING)
    embedding = Dialect.OPENAI_EMBEDDINGS
    made = bodies.render(Candidate(model, OPENAI, 0.0, Terms(), 0, dialect=embedding), None)
    assert (made.data, made.answers.idle) == (raw, True)
