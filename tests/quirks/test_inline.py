"""Tool calls in a model's text."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.quirks.base import Found
from tokenhub_core.quirks.inline import CallScanner, inline_tool_calls
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    TextDelta,
    Tool,
    ToolArguments,
    ToolChoice,
    ToolStarted,
)

type Told = list[str | tuple[str, str]]

OFFERED = ("sum", "get_weather")
CALL = '{"name": "sum", "arguments": {"a": [1, 2], "b": "}</tool_call>"}}'
SUM = ("sum", '{"a": [1, 2], "b": "}</tool_call>"}')


def told(pieces: list[str]) -> Told:
    """Return what is found in an answer that comes in pieces: words, and calls as name and arguments."""
    scanner = CallScanner(OFFERED)
    found: list[Found] = [delta for piece in pieces for delta in scanner.feed(piece)]
    whole: Told = []
    calls = 0
    for delta in [*found, *scanner.flush()]:
        last = whole[-1] if whole else None
        match delta, last:
            case TextDelta(text), str(before):
                whole[-1] = before + text
            case TextDelta(text), _:
                whole.append(text)
            case ToolStarted(index, "", name), _:
                assert index == calls
                calls += 1
                whole.append((name, ""))
            case ToolArguments(index, fragment), (str(name), str(before)):
                assert index == calls - 1
                whole[-1] = (name, before + fragment)
            case _:
                pytest.fail(f"{delta} behind {last}")
    return whole


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Hermes and Qwen
        (f"<tool_call>\n{CALL}\n</tool_call>", [SUM]),
        (f"Adding.\n<tool_call>{CALL}</tool_call>\n", ["Adding.\n", SUM]),
        (f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", [SUM, SUM]),
        (f"<tool_call>{CALL}\n{CALL}</tool_call>", [SUM, SUM]),
        (f"<tool_call>{CALL}</tool_call>\n\nDone.", [SUM, "\n\nDone."]),
        ('<tool_call>{"arguments": {"a": 1}, "name": "sum"}</tool_call>', [("sum", '{"a":1}')]),
        ('<tool_call>{"name": "sum", "parameters": {"a": 1}}</tool_call>', [("sum", '{"a": 1}')]),
        ('<tool_call>{"name": "sum", "arguments": "{\\"a\\": 1}"}</tool_call>', [("sum", '{"a": 1}')]),
        ('<tool_call>{"name": "sum"}</tool_call>', [("sum", "{}")]),
        ('<tool_call>{"name": "sum", "arguments": {}, "id": "x{"}</tool_call>.', [("sum", "{}"), "."]),
        (
            '<tool_call>{"type": "function", "function": {"name": "sum", "arguments": {}}}</tool_call>',
            [("sum", "{}")],
        ),
        # the model stops at its closing tag, or forgets a bracket
        (f"<tool_call>{CALL}", [SUM]),
        (f"<tool_call>{CALL}</tool_", [SUM]),
        ('<tool_call>{"name": "sum", "arguments": {"a": 1}</tool_call>.', [("sum", '{"a": 1}'), "."]),
        ('<tool_call>{"name": "sum", "arguments": {"a": 1</tool_call>.', [("sum", '{"a": 1'), "."]),
        # Llama
        ('<function=get_weather>{"city": "Oslo"}</function>', [("get_weather", '{"city": "Oslo"}')]),
        ("Now <function=sum></function>.", ["Now ", ("sum", "{}"), "."]),
        ('<function=sum> {"a": 1} </function>', [("sum", '{"a": 1}')]),
        # a fence
        (f"```tool_call\n{CALL}\n```\nDone.", [SUM, "\nDone."]),
        (f"```tool_call{CALL}```", [SUM]),
        # nothing but words
        ("a < b, `x`, <b>, ```python\n1\n```", ["a < b, `x`, <b>, ```python\n1\n```"]),
        ("The tag <tool_call> begins a call.", ["The tag <tool_call> begins a call."]),
        ("```tool_calls\n```", ["```tool_calls\n```"]),
        ("<function=other>{}</function>", ["<function=other>{}</function>"]),
        ("<function=sum>(1)", ["<function=sum>(1)"]),
        (
            '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
            ['<tool_call>{"name": "rm", "arguments": {}}</tool_call>'],
        ),
        (
            '<tool_call>{"arguments": {}, "name": "rm"}</tool_call>',
            ['<tool_call>{"arguments": {}, "name": "rm"}</tool_call>'],
        ),
        ("<tool_call>{sum}</tool_call>", ["<tool_call>{sum}</tool_call>"]),
        ('<tool_call>{"name": "sum", "arg', ['<tool_call>{"name": "sum", "arg']),
        ('<tool_call>{"name": "sum", "arguments": 7}.', ['<tool_call>{"name": "sum", "arguments": 7}.']),
        ("<tool_call>\n  ", ["<tool_call>\n  "]),
        ("<tool_ca", ["<tool_ca"]),
        ("<function=su", ["<function=su"]),
        ("\n \n", ["\n \n"]),
        # words that begin like a call, and a call behind them
        (f"<tool_call><tool_call>{CALL}</tool_call>", ["<tool_call>", SUM]),
        (f"<<tool_call>{CALL}", ["<", SUM]),
        (f"````tool_call {CALL}```", ["`", SUM]),
    ],
)
def test_calls_are_told_from_words(text: str, wanted: Told) -> None:
    """In whatever way they are written; what only looks like a call stays words to the letter."""
    assert told([text]) == wanted
    assert told(list(text)) == wanted


_TEXTS = st.lists(
    st.sampled_from(
        [
            *(
                "<tool_call>",
                "</tool_call>",
                "<function=sum>",
                "</function>",
                "```tool_call\n",
                "```",
                "<",
                "`",
            ),
            *('{"name": "sum", "arguments": {', '{"name": "rm", "arguments": {', '{"x": [1], "name": "sum"}'),
            *(
                '{"name": "sum", "arguments": {}}',
                '{"arguments": {"a": "',
                "}",
                "{",
                "]",
                '"',
                "\\",
                ",",
                " ",
                "\n",
            ),
            *("a", "é", "</", "<tool", "_call>", "<function=", "sum>"),
        ]
    ),
    max_size=14,
).map("".join)


@given(_TEXTS, st.lists(st.integers(1, 25), max_size=20))
def test_where_the_text_is_cut_does_not_matter(text: str, sizes: list[int]) -> None:
    """Any split tells the same words and the same calls."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    whole = told([text])
    assert told([*pieces, text[at:]]) == whole
    assert told(list(text)) == whole
    if not any(isinstance(part, tuple) for part in whole):
        assert "".join(map(str, whole)) == text


_WORDS = st.text(st.sampled_from("ab <`{}é.\n"), max_size=12)
_ARGUMENTS = st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers() | st.none(), max_size=3)


@given(st.lists(st.tuples(_WORDS, _ARGUMENTS), min_size=1, max_size=4), _WORDS)
def test_calls_come_out_as_they_went_in(calls: list[tuple[str, dict[str, object]]], tail: str) -> None:
    """Words around well-formed calls lose no more than white space, and the arguments are to the letter."""
    text, wanted, words = "", [], ""
    for before, arguments in calls:
        written = json.dumps(arguments, ensure_ascii=False)
        text += f'{before}<tool_call>{{"name": "sum", "arguments": {written}}}</tool_call>'
        wanted.append(("sum", written))
        words += before
    found = told([text + tail])
    assert [part for part in found if isinstance(part, tuple)] == wanted
    left = "".join(part for part in found if isinstance(part, str))
    assert re.sub(r"\s", "", left) == re.sub(r"\s", "", words + tail)


def test_what_cannot_be_a_call_is_not_held_back() -> None:
    """Words leave at once; of a call the name and then every piece of its arguments."""
    scanner = CallScanner(OFFERED)
    assert scanner.feed("a <") == [TextDelta("a ")]
    assert scanner.feed("b") == [TextDelta("<b")]
    assert scanner.feed("<functional") == [TextDelta("<functional")]
    assert scanner.feed("<function=x") == [TextDelta("<function=x")]
    assert scanner.feed("<tool_call>") == []
    assert scanner.feed('{"name": "sum", "arguments": ') == []
    assert scanner.feed('{"a"') == [ToolStarted(0, "", "sum"), ToolArguments(0, '{"a"')]
    assert scanner.feed(": 1") == [ToolArguments(0, ": 1")]
    assert scanner.feed("}") == [ToolArguments(0, "}")]
    assert scanner.feed("}</tool_call>") == []
    assert scanner.feed("Done") == [TextDelta("Done")]


def test_an_object_of_unheard_length_is_words() -> None:
    """What might be a call is not held back for ever."""
    text = '<tool_call>{"arguments": {"a": "' + "x" * 70_000
    scanner = CallScanner(OFFERED)
    found = scanner.feed(text)
    assert sum(len(delta.text) for delta in found if isinstance(delta, TextDelta)) == len(text)
    assert told([text + '"}, "name": "sum"}']) == told([text, '"}, "name": "sum"}'])


@pytest.mark.parametrize(
    "unit",
    [
        *("<", "`", " ", "<tool_call>", "<tool_call>{", "<function=", "<function=sum>", "```tool_call "),
        '<tool_call>{"',
        *('<tool_call>{"name":"rm","arguments":{"', '<tool_call>{"name":"sum","arguments":{"', f"<tool_call>{CALL}"),
    ],
)  # fmt: skip
def test_adversarial_text_takes_time_in_proportion(unit: str) -> None:
    """In one piece and in many."""

    def make(size: int) -> Work:
        text = unit * (size // len(unit))

        def work() -> None:
            CallScanner(OFFERED).feed(text)
            scanner = CallScanner(OFFERED)
            for at in range(0, len(text), 3):
                scanner.feed(text[at : at + 3])

        return work

    in_proportion(make, 8_000)


def test_an_object_that_begins_with_much_space_takes_time_in_proportion() -> None:
    """It is looked at from its beginning only as long as it is short."""

    def make(size: int) -> Work:
        def work() -> None:
            scanner = CallScanner(OFFERED)
            scanner.feed("<tool_call>{")
            for _ in range(size):
                scanner.feed("  ")

        return work

    in_proportion(make, 3_500)


def test_only_offered_tools_are_looked_for() -> None:
    """Without tools, or where none may be called, the text is left alone."""
    plain = Call(Dialect.OPENAI_CHAT, "m", ())
    with_tools = Call(Dialect.OPENAI_CHAT, "m", (), tools=(Tool("sum"),))
    barred = Call(Dialect.OPENAI_CHAT, "m", (), tools=(Tool("sum"),), tool_choice=ToolChoice(Choice.NONE))
    assert inline_tool_calls(plain).scanner is None
    assert inline_tool_calls(barred).scanner is None
    assert inline_tool_calls(with_tools).scanner is not None
