"""Thoughts and their seals: whose they are, who gets them back, and who does not."""

from __future__ import annotations

import base64

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.types import (
    Answer,
    Audio,
    Call,
    Delta,
    Dialect,
    Finished,
    Image,
    Json,
    Logprob,
    MediaDelta,
    Part,
    Reasoning,
    ReasoningDelta,
    Role,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    ToolArguments,
    ToolStarted,
    ToolUse,
    Turn,
    Unread,
    Usage,
)

REQUEST = ANTHROPIC_MESSAGES.open(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}')
ENVELOPE = "tokenhub-seal:carried:"


def shown(*parts: Part) -> list[Json]:
    """Return the blocks that a client gets of an answer of another dialect."""
    answer = Answer("a", "m", parts, Stopped(StopReason.END), Usage())
    found: list[Json] = ANTHROPIC_MESSAGES.render_answer(answer, request=REQUEST).data["content"]
    return found


def returned(*blocks: Json, **members: object) -> Call:
    """Return the call in which a client sends these blocks back."""
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": list(blocks)},
        {"role": "user", "content": "y"},
    ]
    body = {"model": "m", "max_tokens": 9, "messages": messages, **members}
    return ANTHROPIC_MESSAGES.parse(ANTHROPIC_MESSAGES.open(orjson.dumps(body)))


def provided(call: Call) -> Rendered:
    return ANTHROPIC_MESSAGES.render(call, model="claude", max_output_tokens=None)


def streamed(*deltas: Delta) -> tuple[list[Json], tuple[str, ...]]:
    """Return the blocks that a client puts together from a stream, and the losses."""
    writer = ANTHROPIC_MESSAGES.writer(request=REQUEST, created=1, fallback_id="f")
    raw = b"".join(map(writer.write, (*deltas, Stopped(StopReason.END), Finished())))
    blocks: list[Json] = []
    for event in sse.Parser().feed(raw):
        match orjson.loads(event.data):
            case {"type": "content_block_start", "content_block": dict(block)}:
                blocks.append(block)
            case {"delta": {"type": "thinking_delta", "thinking": str(text)}}:
                blocks[-1]["thinking"] += text
            case {"delta": {"type": "text_delta", "text": str(text)}}:
                blocks[-1]["text"] += text
            case {"delta": {"type": "signature_delta", "signature": str(signature)}}:
                blocks[-1]["signature"] += signature
    return blocks, writer.losses()


THOUGHTS: tuple[Reasoning, ...] = (
    Reasoning("hm", "anthropic_messages:s"),
    Reasoning("", "anthropic_messages:s"),
    Reasoning(redacted="anthropic_messages:d"),
    Reasoning("hm", "openai_chat:s"),
    Reasoning(redacted="gemini:d"),
    Reasoning("hm"),
    Reasoning("so", redacted="openai_responses:e", id="rs_1", summary=True),
    Reasoning(redacted="openai_responses:e", id="rs_1"),
    Reasoning("so", id="rs_2", summary=True),
)


@pytest.mark.parametrize("thought", THOUGHTS)
def test_a_thought_survives_the_way_to_a_client_and_back(thought: Reasoning) -> None:
    """Whoever had it, with everything that is known of it."""
    assert returned(*shown(thought)).turns[1].parts == (thought,)


@pytest.mark.parametrize("thought", THOUGHTS)
def test_a_streamed_thought_survives_it_too(thought: Reasoning) -> None:
    """Text in pieces, the seal at the end."""
    text = [ReasoningDelta(letter, id=thought.id, summary=thought.summary) for letter in thought.text]
    seal = ReasoningDelta(
        "", thought.signature, thought.redacted, thought.id, part=0, summary=thought.summary
    )
    blocks, losses = streamed(*text, seal, TextDelta("a"))
    assert returned(*blocks).turns[1].parts == (thought, Text("a"))
    assert losses == ()


def test_anthropic_is_given_its_own_thoughts_and_no_others() -> None:
    """A block without its signature is rejected there, so it is dropped, and told."""
    rendered = provided(returned(*(block for thought in THOUGHTS for block in shown(thought))))
    assert rendered.data["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "thinking", "thinking": "", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
    ]
    assert rendered.losses == ("part:thinking", "thinking.signature")


def test_a_call_of_another_dialect_gives_anthropic_its_thoughts_back() -> None:
    """That is what the seals are for."""
    turn = Turn(Role.ASSISTANT, (Reasoning("hm", "anthropic_messages:s"), Text("a")))
    call = Call(Dialect.OPENAI_CHAT, "m", (Turn(Role.USER, (Text("x"),)), turn))
    rendered = provided(call)
    assert rendered.data["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "hm",
        "signature": "s",
    }
    assert rendered.losses == ()


def test_a_message_of_foreign_thoughts_alone_goes() -> None:
    """No message is empty."""
    rendered = provided(returned(*shown(Reasoning("hm"))))
    assert [message["role"] for message in rendered.data["messages"]] == ["user", "user"]


def test_a_budget_for_thinking_goes_with_the_thought_that_it_demands() -> None:
    """Where the results of a call are sent without the thought before the call, the API rejects a budget."""
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    budget = {"type": "enabled", "budget_tokens": 1024}
    foreign, own = (shown(thought)[0] for thought in (THOUGHTS[3], THOUGHTS[0]))
    dropped = provided(returned(foreign, use, thinking=budget))
    assert "thinking" not in dropped.data
    assert dropped.losses == ("part:thinking", "thinking.signature", "thinking")
    assert provided(returned(own, use, thinking=budget)).data["thinking"] == budget
    adaptive = {"type": "adaptive"}
    assert provided(returned(foreign, use, thinking=adaptive)).data["thinking"] == adaptive


def test_the_seal_of_a_tool_call_travels_in_a_block_before_it() -> None:
    """A client gives it back, and the call has it again; Anthropic never sees it."""
    signed, plain = ToolUse("t", "f", '{"a":1}', signature="gemini:s"), ToolUse("u", "g", "{}")
    blocks = shown(signed, plain)
    assert [block["type"] for block in blocks] == ["thinking", "tool_use", "tool_use"]
    call = returned(*blocks)
    assert call.turns[1].parts == (signed, plain)
    rendered = provided(call)
    assert [block["type"] for block in rendered.data["messages"][1]["content"]] == ["tool_use", "tool_use"]
    assert rendered.losses == ("thinking.signature",)
    streamed_blocks, _ = streamed(ToolStarted(0, "t", "f", "gemini:s"), ToolArguments(0, '{"a":1}'))
    assert streamed_blocks[0] == blocks[0]
    assert [block["type"] for block in streamed_blocks] == ["thinking", "tool_use"]


SEALS: tuple[Reasoning, ...] = (
    Reasoning("", "gemini:s"),
    Reasoning(redacted="openai_responses:e", id="rs_1"),
    Reasoning(redacted="gemini:d"),
)


@pytest.mark.parametrize("seal", SEALS)
def test_an_answer_ends_with_its_text_and_not_with_a_seal(seal: Reasoning) -> None:
    """Clients take the last block for the answer: the seal goes before the text, and comes back from there."""
    blocks = shown(Text("a"), Reasoning("hm"), Text("b"), Text("c"), seal)
    assert [block["type"] for block in blocks[2:]] == [shown(seal)[0]["type"], "text", "text"]
    assert returned(*blocks).turns[1].parts[2:] == (seal, Text("b"), Text("c"))
    assert shown(ToolUse("t", "f", "{}"), seal)[1:] == shown(seal)


@pytest.mark.parametrize("seal", SEALS)
def test_a_seal_that_ends_a_stream_after_its_text_is_lost(seal: Reasoning) -> None:
    """The text is out already, and nothing may follow it."""
    delta = ReasoningDelta("", seal.signature, seal.redacted, seal.id)
    assert streamed(TextDelta("a"), delta) == ([{"type": "text", "text": "a"}], ("thinking.signature",))


@pytest.mark.parametrize("seal", SEALS)
@pytest.mark.parametrize("last", [TextDelta("b"), ToolStarted(0, "t", "f"), ReasoningDelta("hm", "gemini:t")])
def test_a_seal_in_the_middle_of_a_stream_stays_where_it_is(seal: Reasoning, last: Delta) -> None:
    """What comes next shows that the answer goes on."""
    delta = ReasoningDelta("", seal.signature, seal.redacted, seal.id)
    blocks, losses = streamed(TextDelta("a"), delta, last)
    assert blocks[1:2] == shown(seal)
    assert ([block["type"] for block in blocks][::2], losses) == (["text", blocks[2]["type"]], ())


@settings(max_examples=80, deadline=None)
@given(
    st.binary(max_size=8)
    | st.sampled_from([b"[]", b"1", b'{"tool":4}', b'{"signature":[],"id":{},"summary":"x"}'])
)
def test_an_envelope_that_somebody_changed_is_an_unsigned_thought(inner: bytes) -> None:
    """Never an error: the client may send what it likes."""
    block = {"type": "thinking", "thinking": "hm", "signature": ENVELOPE + base64.b64encode(inner).decode()}
    assert returned(block).turns[1].parts == (Reasoning("hm"),)


def test_media_and_tokens_in_a_stream_are_told() -> None:
    """Sound leaves its words, pictures nothing, log probabilities nothing."""
    blocks, losses = streamed(
        TextDelta("a", (Logprob("a", 0),)), MediaDelta(Audio(transcript="b")), MediaDelta(Image("https://x"))
    )
    assert blocks == [{"type": "text", "text": "ab"}]
    assert losses == ("logprobs", "part:audio", "part:image")


def test_blocks_of_thinking_are_counted_and_details_of_a_stop_are_told() -> None:
    """Two blocks in a row are two thoughts; what a stream says of a refusal has no canonical place."""
    reader = ANTHROPIC_MESSAGES.reader()
    found: list[Delta] = []
    for index in range(2):
        block = {"type": "thinking", "thinking": "t", "signature": "s"}
        event = {"type": "content_block_start", "index": index, "content_block": block}
        found += reader.read("content_block_start", orjson.dumps(event))
    stop = {"stop_reason": "refusal", "stop_details": {"type": "refusal"}, "container": None}
    found += reader.read("message_delta", orjson.dumps({"type": "message_delta", "delta": stop}))
    assert found == [
        ReasoningDelta("t", "anthropic_messages:s"),
        ReasoningDelta("t", "anthropic_messages:s", part=1),
        Unread("stop_details", beside=True),
        Stopped(StopReason.REFUSED, "refusal"),
    ]
