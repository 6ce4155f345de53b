"""All repairs of one call, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from tokenhub_core.dialects.openai_chat.kept import Kept
from tokenhub_core.quirks.repairs import UNTOUCHED, AnswerRepairs, repaired
from tokenhub_core.quirks.table import QUIRKS, unknown
from tokenhub_core.types import (
    Answer,
    Call,
    Delta,
    Dialect,
    Failed,
    Finished,
    Image,
    Logprob,
    MediaDelta,
    Reasoning,
    ReasoningDelta,
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
    Unread,
    Usage,
    UsageSeen,
)

LONG = "files/" + "read_" * 20
CALL = Call(
    Dialect.OPENAI_CHAT,
    "m",
    (Turn(Role.USER, (Text("a"),)), Turn(Role.TOOL, (ToolResult("call:1", (Text("r"),)),))),
    tools=(Tool("sum"), Tool(LONG)),
)
INLINE = '<tool_call>{"name": "sum", "arguments": {}}</tool_call>'
END = Stopped(StopReason.END, "stop")


class Played:
    """A reader that reads what the scene has written for it."""

    def __init__(self, *deltas: Delta) -> None:
        self._deltas = deltas

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        return self._deltas

    def end(self) -> Sequence[Delta]:
        return (Finished(),)


def streamed(repairs: AnswerRepairs, *deltas: Delta) -> list[Delta]:
    reader = repairs.reader(Played(*deltas))
    return [*reader.read("", b""), *reader.end()]


def answer(*parts: Text | ToolUse | Reasoning | Image, stop: Stopped = END) -> Answer:
    return Answer("id", "m", parts, stop, Usage())


def test_without_repairs_everything_is_the_very_same() -> None:
    """The call, the reader and the answer; a name that no repair has says nothing."""
    whole, reader = answer(Text("<think>a</think>b")), Played()
    for quirks in ([], ["unheard_of"], ["merge_turns"]):
        none = repaired(CALL, quirks)
        assert none.call is CALL
        assert none.answers.idle
        assert none.answers.reader(reader) is reader
        assert none.answers.answer(whole)[0] is whole
    assert UNTOUCHED.idle


def test_names_that_no_repair_has_are_told() -> None:
    """For whoever takes them from a human."""
    assert unknown(["thinking_tags", "b", "a"]) == ["a", "b"]
    assert unknown(QUIRKS) == []


def test_repairs_build_on_each_other() -> None:
    """All of them at once, in the order of the table: one call, each loss once."""
    done = repaired(CALL, frozenset(QUIRKS))
    names = [tool.name for tool in done.call.tools if isinstance(tool, Tool)]
    assert done.answers.names == {names[1]: LONG}
    (turn,) = done.call.turns
    assert turn.role is Role.USER
    assert len(done.answers.scanners) == 3
    short = f'<tool_call>{{"name": "{names[1]}", "arguments": {{}}}}</tool_call>'
    mended, _ = done.answers.answer(answer(Text(f"hm</think>{short}")))
    assert mended.parts == (Reasoning("hm"), ToolUse("", LONG, "{}"))


def test_thoughts_are_read_before_calls() -> None:
    """A call that the model only thinks of is none."""
    repairs = repaired(CALL, {"inline_tool_calls", "thinking_tags"}).answers
    mended, losses = repairs.answer(answer(Text(f"<think>{INLINE}</think>\nNow {INLINE}")))
    assert mended.parts == (Reasoning(INLINE), Text("Now "), ToolUse("", "sum", "{}"))
    assert mended.stop == Stopped(StopReason.TOOL_USE)
    assert losses == ()


def test_a_stream_tells_what_a_whole_answer_does() -> None:
    """In deltas, and with the same stop reason."""
    repairs = repaired(CALL, {"inline_tool_calls", "thinking_tags"}).answers
    pieces = ("<thi", "nk>hm</think>N", "ow <tool", INLINE[5:20], INLINE[20:])
    assert streamed(repairs, Started("c"), *map(TextDelta, pieces), END) == [
        Started("c"),
        ReasoningDelta("hm"),
        TextDelta("N"),
        TextDelta("ow "),
        ToolStarted(0, "", "sum"),
        ToolArguments(0, "{}"),
        Stopped(StopReason.TOOL_USE),
        Finished(),
    ]


def test_a_cap_is_still_told_as_one() -> None:
    """Calls that the cap cut off are not ready to be made."""
    repairs = repaired(CALL, {"inline_tool_calls"}).answers
    capped = Stopped(StopReason.LENGTH, "length")
    assert streamed(repairs, TextDelta(INLINE), capped)[-2:] == [capped, Finished()]
    assert repairs.answer(answer(Text("no call")))[0].stop == END


def test_what_is_held_back_leaves_before_anything_else() -> None:
    """But not for what is no content: counts come anywhere, and an error must not make an answer of half a tag."""
    repairs = repaired(CALL, {"inline_tool_calls"}).answers
    picture = MediaDelta(Image(url="u"))
    seen = UsageSeen(Usage(1))
    assert streamed(
        repairs, TextDelta("a<tool"), seen, picture, TextDelta("<"), Failed(500, "", ""), END
    ) == [
        *(
            TextDelta("a"),
            seen,
            TextDelta("<tool"),
            picture,
            Failed(500, "", ""),
            TextDelta("<"),
            END,
            Finished(),
        )
    ]


def test_calls_of_both_kinds_are_counted_together() -> None:
    """A call that the provider tells as such never shares a number with one that was written."""
    repairs = repaired(CALL, {"inline_tool_calls"}).answers
    told = streamed(
        repairs,
        TextDelta(INLINE),
        ToolStarted(0, "x", "sum"),
        ToolArguments(0, "{1}"),
        ToolStarted(1, "y", "sum"),
        TextDelta(INLINE),
        ToolArguments(0, "{2}"),
    )
    assert [(delta.index, delta.id) for delta in told if isinstance(delta, ToolStarted)] == [
        *((0, ""), (1, "x"), (2, "y"), (3, ""))
    ]
    assert [(delta.index, delta.fragment) for delta in told if isinstance(delta, ToolArguments)] == [
        *((0, "{}"), (1, "{1}"), (3, "{}"), (1, "{2}"))
    ]


def test_names_come_back_in_every_answer() -> None:
    """In whole ones and in streams, and those that were not rewritten as they are."""
    repairs = repaired(CALL, {"tool_names"}).answers
    (short,) = repairs.names
    use = ToolUse("1", short, "{}")
    assert repairs.answer(answer(use, replace(use, name="sum")))[0].parts == (
        *(replace(use, name=LONG), replace(use, name="sum")),
    )
    assert streamed(repairs, ToolStarted(0, "1", short)) == [ToolStarted(0, "1", LONG), Finished()]


def test_tokens_stay_with_words_that_were_left_alone() -> None:
    """Where a text was taken apart they would be told of the wrong words, and their loss is told instead."""
    repairs = repaired(CALL, {"thinking_tags"}).answers
    tokens = (Logprob("b", -1.0),)
    plain = Text("b", {"x": 1}, tokens)
    rest = Kept({"logprobs.refusal": [], "z": 1}, images="images")
    whole = structs.replace(answer(plain), rest=rest)
    assert repairs.answer(whole) == (whole, ())
    mended, losses = repairs.answer(structs.replace(whole, parts=(replace(plain, text="<think>a</think>b"),)))
    assert mended.parts == (Reasoning("a"), Text("b"))
    assert losses == ("x", "logprobs")
    assert isinstance(mended.rest, Kept)
    assert (mended.rest, mended.rest.spelling) == ({"z": 1}, {"images": "images"})
    assert streamed(repairs, TextDelta("<think>a</think>b", tokens), TextDelta("c", tokens)) == [
        *(ReasoningDelta("a"), TextDelta("b"), Unread("logprobs"), TextDelta("c", tokens), Finished())
    ]


def test_thoughts_of_two_blocks_stay_two() -> None:
    """As the model has thought them."""
    repairs = repaired(CALL, {"thinking_tags"}).answers
    mended, _ = repairs.answer(answer(Text("<think>a</think><think>b</think>c")))
    assert mended.parts == (Reasoning("a"), Reasoning("b"), Text("c"))
