"""What two dialects can both say survives the way from one to the other and back; and how streams end."""

from __future__ import annotations

import itertools
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects import pairs
from tests.dialects.pairs import CHATS, MODELS, PAIRS
from tokenhub_core.dialects.registry import dialect
from tokenhub_core.types import (
    Answer,
    Call,
    Delta,
    Dialect,
    Finished,
    Part,
    Role,
    Started,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    Tool,
    ToolArguments,
    ToolResult,
    ToolStarted,
    ToolUse,
    Turn,
    Usage,
    UsageSeen,
)

FLAT: Final = frozenset({Dialect.OPENAI_COMPLETIONS, Dialect.OLLAMA_GENERATE})
"""Dialects that have one text where others have turns and tools."""

both = pytest.mark.parametrize(
    ("client", "provider"), [pytest.param(*pair, id="-to-".join(pair)) for pair in PAIRS]
)
bounded = settings(max_examples=20, deadline=None)


# --- what is said ------------------------------------------------------------------------------------------


# Dialects trim blanks at the ends and take what begins like an object for one: neither is a text's own.
texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20).map(
    lambda word: f"a {word} z"
)
values = st.one_of(st.booleans(), st.integers(-9, 9), st.text('äb"\\\n{}', max_size=5), st.none())
arguments = st.dictionaries(st.text("abc", min_size=1, max_size=3), values, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Return turns of a user, a model and its tools, as every dialect of a chat has them."""
    turns = [Turn(Role.SYSTEM, (Text(draw(texts)),)), Turn(Role.USER, (Text(draw(texts)),))]
    for number in range(draw(st.integers(0, 2))):
        ids = [f"call_{number}{place}" for place in range(draw(st.integers(0, 3)))]
        uses = [ToolUse(id_, "look", orjson.dumps(draw(arguments)).decode()) for id_ in ids]
        turns.append(Turn(Role.ASSISTANT, (Text(draw(texts)), *uses)))
        if ids:
            turns.append(Turn(Role.TOOL, tuple(ToolResult(id_, (Text(draw(texts)),)) for id_ in ids)))
        turns.append(Turn(Role.USER, (Text(draw(texts)),)))
    return tuple(turns)


def told(turns: tuple[Turn, ...]) -> list[Any]:
    """Return what turns say, in their order; how they are cut into turns is each dialect's own."""
    said: list[Any] = []
    for turn in turns:
        for part in turn.parts:
            match part:
                case Text(text):
                    said.append((turn.role, text))
                case ToolUse(id_, name, given):
                    said.append((id_, name, orjson.loads(given)))
                case ToolResult(id_, content):
                    said.append((id_, *(each.text for each in content if isinstance(each, Text))))
    return said


def over(call: Call, provider: Dialect) -> Call:
    """Return a call as the provider's dialect reads what it is sent."""
    found = dialect(provider).render(call, model=MODELS[provider], max_output_tokens=None)
    return dialect(provider).parse(pairs.opened(provider, orjson.dumps(found.data)))


@both
@bounded
@given(turns=conversations(), cap=st.integers(16, 9999))
def test_a_conversation_comes_back(
    client: Dialect, provider: Dialect, turns: tuple[Turn, ...], cap: int
) -> None:
    """Texts, tool calls with their arguments, results by their ids, tools and the cap; one text where that is all."""
    tools: tuple[Tool, ...] = (
        Tool("look", "Looks.", {"type": "object", "properties": {"a": {"type": "string"}}}),
    )
    if FLAT & {client, provider}:
        turns, tools = turns[1:2], ()
    first = over(Call(provider, "m", turns, tools=tools, max_output_tokens=cap, temperature=0.5), client)
    again = over(over(first, provider), client)
    assert told(again.turns) == told(first.turns) == told(turns)
    assert [
        (tool.name, tool.description, dict(tool.schema)) for tool in again.tools if isinstance(tool, Tool)
    ] == [(tool.name, tool.description, dict(tool.schema)) for tool in tools]
    assert (again.max_output_tokens, again.temperature) == (cap, 0.5)


# --- what is answered --------------------------------------------------------------------------------------

ALIKE: Final = {
    StopReason.STOP_SEQUENCE: StopReason.END,
    StopReason.REFUSED: StopReason.FILTERED,
}
"""Reasons that some dialects have one word for."""


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Return an answer in words, with or without tool calls."""
    parts: list[Part] = [Text(draw(texts))]
    parts += [
        ToolUse(f"call_{place}", "look", orjson.dumps(draw(arguments)).decode())
        for place in range(draw(st.integers(0, 2)))
    ]
    reasons = [StopReason.TOOL_USE] if len(parts) > 1 else [StopReason.END, StopReason.LENGTH]
    usage = Usage(draw(st.integers(1, 999)), draw(st.integers(1, 999)))
    return Answer("x1", "served", tuple(parts), Stopped(draw(st.sampled_from(reasons))), usage, 1_700_000_000)


def plain(answer: Answer, *, flat: bool) -> Answer:
    """Return an answer that a dialect without tools can give."""
    return Answer("x1", "served", answer.parts[:1], Stopped(StopReason.END), answer.usage) if flat else answer


def seen(answer: Answer) -> tuple[Any, ...]:
    """Return what an answer says; ids of calls are made up where a dialect has none."""
    said = [
        part.text if isinstance(part, Text) else (part.name, orjson.loads(part.arguments))
        for part in answer.parts
        if isinstance(part, Text | ToolUse)
    ]
    return said, answer.stop.reason, answer.usage.input_tokens, answer.usage.output_tokens


def shown(answer: Answer, client: Dialect) -> Answer:
    """Return an answer as the client's dialect reads what it is sent."""
    found = dialect(client).render_answer(answer, request=pairs.asked(client))
    return dialect(client).parse_answer(orjson.loads(orjson.dumps(found.data)))


@both
@bounded
@given(answer=answers())
def test_an_answer_comes_back(client: Dialect, provider: Dialect, answer: Answer) -> None:
    """Text, tool calls, the reason and the counts, from a provider to a client of another dialect and back."""
    answer = plain(answer, flat=bool(FLAT & {client, provider}))
    first = shown(answer, provider)
    assert seen(shown(shown(first, client), provider)) == seen(first) == seen(answer)


@pytest.mark.parametrize("reason", [reason for reason in StopReason if reason is not StopReason.TOOL_USE])
@pytest.mark.parametrize("client", CHATS)
def test_a_reason_comes_through_or_is_named(client: Dialect, reason: StopReason) -> None:
    """Where a client's dialect has no word for why it stopped, the losses have."""
    answer = Answer("x1", "served", (Text("Hi."),), Stopped(reason, "odd"), Usage(1, 1))
    found = dialect(client).render_answer(answer, request=pairs.asked(client))
    read = dialect(client).parse_answer(orjson.loads(orjson.dumps(found.data))).stop.reason
    named = any(loss.startswith("stop_reason:") for loss in found.losses)
    assert named or ALIKE.get(read, read) is ALIKE.get(reason, reason)


# --- what is streamed --------------------------------------------------------------------------------------


def deltas(answer: Answer, pieces: int) -> list[Delta]:
    """Return an answer as a stream brings it, its texts and arguments in so many pieces."""
    found: list[Delta] = [Started("x1", "served", 1_700_000_000)]
    number = -1
    for part in answer.parts:
        match part:
            case Text(text):
                found += [TextDelta("".join(piece)) for piece in itertools.batched(text, pieces)]
            case ToolUse(id_, name, given):
                number += 1
                found.append(ToolStarted(number, id_, name))
                found += [ToolArguments(number, "".join(piece)) for piece in itertools.batched(given, pieces)]
    return [*found, Stopped(answer.stop.reason), UsageSeen(answer.usage), Finished()]


def heard(given: list[Delta]) -> tuple[Any, ...]:
    """Return what a stream says, in the form of `seen`, and how it ends."""
    said: list[Any] = [""]
    calls: dict[int, list[str]] = {}
    reason, usage = None, Usage()
    for delta in given:
        match delta:
            case TextDelta(text):
                said[0] += text
            case ToolStarted(index, _, name):
                calls[index] = [name, ""]
            case ToolArguments(index, fragment):
                calls[index][1] += fragment
            case Stopped(why):
                reason = why
            case UsageSeen(counts):
                usage = usage.merge(counts)
    said += [(name, orjson.loads(text)) for name, text in calls.values()]
    return said, reason, usage.input_tokens, usage.output_tokens, isinstance(given[-1], Finished)


@both
@bounded
@given(answer=answers(), pieces=st.integers(1, 9))
def test_a_stream_comes_back(client: Dialect, provider: Dialect, answer: Answer, pieces: int) -> None:
    """As a whole answer does, however it is cut; it ends where it ended."""
    answer = plain(answer, flat=bool(FLAT & {client, provider}))
    found = deltas(answer, pieces)
    for name in (provider, client, provider):
        found = pairs.read(name, [pairs.written(name, found)[0]])
        assert heard(found) == (*seen(answer), True)


@both
@bounded
@given(data=st.data())
def test_the_way_a_stream_is_cut_changes_nothing(
    client: Dialect, provider: Dialect, data: st.DataObject
) -> None:
    """Any split of the provider's bytes gives the client the same bytes, and the same losses."""
    raw = data.draw(st.sampled_from(pairs.inputs(provider, "streams"))).read_bytes()
    places = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=8))})
    chunks = [raw[begin:end] for begin, end in itertools.pairwise(places)]
    assert pairs.streamed(client, provider, *chunks) == pairs.streamed(client, provider, raw)


@both
def test_a_stream_that_was_cut_short_has_no_end(client: Dialect, provider: Dialect) -> None:
    """Whatever has come so far, a writer never ends by itself what the provider did not."""
    cut = 0
    for path in pairs.inputs(provider, "streams"):
        found = pairs.read(provider, [path.read_bytes()])
        ended = next((place for place, delta in enumerate(found) if isinstance(delta, Finished)), len(found))
        for place in range(0, ended + 1, 1 + ended // 8):
            written, _ = pairs.written(client, found[:place])
            assert not any(isinstance(delta, Finished) for delta in pairs.read(client, [written]))
            cut += 1
    assert cut
