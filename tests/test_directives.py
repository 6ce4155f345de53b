"""The `@@tokenhub` grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.directives import MARKER, MAX_LENGTH, read, scan, strip
from tokenhub_core.leave import Leave
from tokenhub_core.types import Mode, TextSlot

PATH = ("messages", 0, "content")


def user(text: str) -> TextSlot:
    return TextSlot("user", PATH, text)


def test_a_single_line_sets_wishes_and_leaves_no_trace() -> None:
    """A directive on one line is read, and the line goes away whole."""
    reading = read([user("@@tokenhub mode=cheap budget=0.02 tags=nightly,eval\nHello")])
    assert reading.outcome == "honoured"
    assert reading.values == {"mode": Mode.CHEAP, "max_budget_usd": 0.02, "tags": ("nightly", "eval")}
    assert reading.stripped == ((PATH, "Hello"),)


def test_a_block_may_hold_a_schema_over_several_lines() -> None:
    """A block runs to its `@@end`; JSON values may hold spaces and line breaks."""
    text = 'Before\n@@tokenhub\nmode=high_confidence\noutput_schema={"type":\n  "object"}\n@@end\nAfter'
    reading = read([user(text)])
    assert reading.values == {"mode": Mode.HIGH_CONFIDENCE, "output_schema": {"type": "object"}}
    assert reading.stripped == ((PATH, "Before\nAfter"),)


def test_a_schema_on_one_line_may_hold_spaces() -> None:
    """A JSON value ends where it is balanced, not at the first space."""
    reading = read([user('@@tokenhub output_schema={"type": "object", "a": "}"} mode=cheap\nq')])
    assert reading.values == {"output_schema": {"type": "object", "a": "}"}, "mode": Mode.CHEAP}


@pytest.mark.parametrize(
    ("raw", "name", "value"),
    [
        ("mode=planning", "mode", Mode.PLANNING),
        ("budget=0", "max_budget_usd", 0.0),
        ("budget=none", "max_budget_usd", None),
        ("latency=1500", "max_latency_ms", 1500),
        ("latency=none", "max_latency_ms", None),
        ("min_weight=7", "min_weight", 7),
        ("model=meta-llama/Llama-3.1-8B", "model", "meta-llama/Llama-3.1-8B"),
        ("provider=vllm-2", "provider", "vllm-2"),
        ("tags=team:search", "tags", ("team:search",)),
    ],
)
def test_every_key_has_its_type(raw: str, name: str, value: object) -> None:
    """Each key sets the policy field that it stands for."""
    assert read([user(f"@@tokenhub {raw}")]).values == {name: value}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("@@tokenhub mode=chep", "line 1, column 17: mode: must be one of"),
        ("x\n  @@tokenhub mode", "line 2, column 14: expected key=value"),
        ("@@tokenhub colour=red", "unknown key 'colour'"),
        ("@@tokenhub mode=cheap mode=normal", "mode is given twice"),
        ("@@tokenhub budget=-1", "budget: must be dollars"),
        ("@@tokenhub budget=nan", "budget: must be dollars"),
        ("@@tokenhub budget=101", "budget: must be dollars"),
        ("@@tokenhub latency=0", "latency: must be milliseconds"),
        ("@@tokenhub latency=٣", "latency: must be milliseconds"),
        ("@@tokenhub min_weight=11", "min_weight: must be a whole number"),
        ("@@tokenhub model=http://evil/?x", "model: must be a name"),
        ("@@tokenhub output_schema={", "the JSON value does not parse"),
        ("@@tokenhub output_schema=[1]", "must be a JSON object"),
        ('@@tokenhub output_schema={"a":NaN}', "the JSON value does not parse"),
        ('@@tokenhub output_schema={"a":1e999}', "the JSON value does not parse"),
        ('@@tokenhub output_schema={"a":"\\ud800"}', "the JSON value does not parse"),
        ("@@tokenhub output_schema=" + '{"a":' * 65 + "1" + "}" * 65, "the JSON value does not parse"),
        ('@@tokenhub output_schema={"a":1}x', "white space must follow"),
        ("@@tokenhub tags=a,,b", "tags: must be up to 16"),
        ("@@tokenhub mode=", "expected a value"),
        ("@@tokenhub", "a block needs a line @@end"),
        ("@@tokenhub\nmode=cheap\nHello", "a block needs a line @@end"),
        ("@@tokenhub\n@@end", "at least one key=value"),
        ("@@tokenhub\n@@tokenhub mode=cheap\n@@end", "a block needs a line @@end"),
        ("@@tokenhub tags=" + "a" * MAX_LENGTH, "at most"),
    ],
)
def test_a_malformed_directive_names_its_fault_and_place(text: str, fault: str) -> None:
    """Anything that is not the grammar is invalid, and the message says what and where."""
    reading = read([user(text)])
    assert reading.outcome == "invalid"
    assert fault in reading.fault
    assert reading.fault.startswith("messages[0].content, line ")


@pytest.mark.parametrize(
    "text",
    [
        "please use @@tokenhub mode=cheap",
        "@@tokenhubber mode=cheap",
        "> @@tokenhub mode=cheap",
        "@@tokenhub=cheap",
        "@@TOKENHUB mode=cheap",
        "\uff20\uff20tokenhub mode=cheap",
        "@@token\u200bhub mode=cheap",
    ],
)
def test_text_that_only_looks_like_a_directive_is_left_alone(text: str) -> None:
    """A marker counts at the start of a line, as a word of its own, in these very characters."""
    reading = read([user(text)])
    assert (reading.outcome, reading.stripped) == ("ignored" if MARKER in text else "", ())


def test_the_last_directive_wins_whole() -> None:
    """Later directives replace earlier ones; their wishes are not mixed."""
    slots = [
        user("@@tokenhub mode=cheap budget=0.5\na"),
        TextSlot("user", ("messages", 0, "content", 1, "text"), "b\n@@tokenhub min_weight=3"),
    ]
    reading = read(slots)
    assert reading.values == {"min_weight": 3}
    assert [text for _, text in reading.stripped] == ["a", "b"]


def test_a_directive_in_a_role_without_leave_is_denied_and_stays() -> None:
    """Only the allowed roles direct; what others wrote is not edited."""
    slot = TextSlot("system", ("system",), "@@tokenhub mode=cheap\nBe brief.")
    reading = read([slot])
    assert (reading.outcome, reading.why, reading.values, reading.stripped) == ("denied", "role", {}, ())
    reading = read([slot], Leave(frozenset({"system"})))
    assert (reading.outcome, reading.stripped) == ("honoured", ((("system",), "Be brief."),))


def test_stripping_cannot_make_a_new_directive() -> None:
    """What is left after stripping is never read again."""
    text = "@@token@@tokenhub mode=cheap\nhub mode=cheap"
    assert scan(text) == []
    nested = "@@tokenhub mode=cheap\n@@tokenhub budget=1\nrest"
    assert strip(nested, scan(nested)) == "rest"


@pytest.mark.parametrize(
    ("begin", "unit", "end"),
    [
        ("", "@@tokenhub", ""),
        ("", "@@tokenhub\n", ""),
        ("", "@@tokenhub output_schema={\n", ""),
        ("", "@@end\n" * 34 + "@@tokenhub\n", ""),
        ("", " ", "@@tokenhub x"),
        ("@@tokenhub output_schema=", "[", ""),
    ],
)
def test_a_hostile_megabyte_takes_linear_time(begin: str, unit: str, end: str) -> None:
    """Whatever it is made of."""

    def make(size: int) -> Work:
        text = begin + unit * (size // len(unit)) + end
        return lambda: read([user(text)])

    in_proportion(make, 125_000)


@given(st.text(alphabet='@tokenhub end=mode{}"\n \t,cheap', max_size=200))
def test_no_text_breaks_the_reader_and_none_is_lost(text: str) -> None:
    """Whatever the text, spans are ordered and disjoint, and what is outside them survives in order."""
    found = scan(text)
    at = 0
    for one in found:
        assert at <= one.start < one.end <= len(text)
        at = one.end
    kept = "".join(c for i, c in enumerate(text) if not any(f.start <= i < f.end for f in found))
    assert kept.rstrip("\r\n") == strip(text, found).rstrip("\r\n")
    assert not any(one.fault is None for one in scan(strip(text, found)) if not found) or not found
