"""The `@@tokenhub` grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.directives import MARKER, MAX_LENGTH, Reading, may_stand_in, read, scan, strip
from tokenhub_core.leave import Leave
from tokenhub_core.orchestration.asks import Way
from tokenhub_core.types import Form, Mode, TextSlot

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
        ("durable=true", "durable", True),
        ("durable=false", "durable", False),
        ("output_format=xml", "output_format", Form.XML),
        ("strip_think=on", "strip_think", True),
        ("validate=off", "validate", False),
        ("buffered=on", "buffered", True),
        ("resume=on", "resume", True),
        ("output_max_tokens=1", "output_max_tokens", 1),
        ("output_max_tokens=1000000", "output_max_tokens", 1_000_000),
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
        ("@@tokenhub min_weight=0000000109", "min_weight: must be a whole number from 0 to 10"),
        ("@@tokenhub latency=0000000019999999", "latency: must be milliseconds from 1 to 3600000, or none"),
        ("@@tokenhub model=http://evil/?x", "model: must be a name"),
        ("@@tokenhub output_schema={", "the JSON value does not parse"),
        ("@@tokenhub output_schema=[1, 2]", "must be a JSON object"),
        ('@@tokenhub output_schema={"a":NaN}', "the JSON value does not parse"),
        ('@@tokenhub output_schema={"a":1e999}', "the JSON value does not parse"),
        ('@@tokenhub output_schema={"a":"\\ud800"}', "the JSON value does not parse"),
        ("@@tokenhub output_schema=" + '{"a":' * 65 + "1" + "}" * 65, "the JSON value does not parse"),
        ('@@tokenhub output_schema={"a":1}x', "white space must follow"),
        ("@@tokenhub output_schema=[1]x", "white space must follow the value"),
        ("@@tokenhub tags=a,,b", "tags: must be up to 16"),
        ("@@tokenhub durable=yes", "durable: must be true or false"),
        ("@@tokenhub durable={}", "durable: must be true or false"),
        ("@@tokenhub output_format=yaml", "output_format: must be one of json, "),
        ("@@tokenhub output_format={}", "output_format: must be one of json, "),
        ("@@tokenhub strip_think=true", "strip_think: must be on or off"),
        ("@@tokenhub output_max_tokens=0", "output_max_tokens: must be a whole number"),
        ("@@tokenhub output_max_tokens=1000001", "output_max_tokens: must be a whole number"),
        ("@@tokenhub output_max_tokens=00000000019999999", "output_max_tokens: must be a whole number"),
        ("@@tokenhub output_max_tokens=٣", "output_max_tokens: must be a whole number"),
        ("@@tokenhub output_max_tokens=1.5", "output_max_tokens: must be a whole number"),
        ("@@tokenhub output_max_tokens={}", "output_max_tokens: must be a whole number"),
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


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("```\nx\n```\n@@tokenhub mode=cheap\nHi", "```\nx\n```\nHi"),
        ("~~~~ text\nx\n~~~~~\n@@tokenhub mode=cheap", "~~~~ text\nx\n~~~~~"),
        ("```a`b```\n@@tokenhub mode=cheap", "```a`b```"),
        ("@@tokenhub mode=cheap\n```\nx", "```\nx"),
        ("   @@tokenhub mode=cheap\nHi", "Hi"),
        ("@@tokenhub\tmode=cheap\r\nHi", "Hi"),
        ("@@tokenhub mode=cheap\n```\n@@tokenhub tags=a\n```", "```\n@@tokenhub tags=a\n```"),
    ],
)
def test_a_directive_beside_code_is_one(text: str, left: str) -> None:
    """A fence that was closed, one that is none, and one that comes later hide nothing; what is in it stays."""
    reading = read([user(text)])
    assert (reading.outcome, reading.values) == ("honoured", {"mode": Mode.CHEAP})
    assert reading.stripped == ((PATH, left),)


@pytest.mark.parametrize(
    "text",
    [
        "```\n~~~\n@@tokenhub mode=cheap\n```",
        "````\n```\n@@tokenhub mode=cheap",
        "```\n``` x\n@@tokenhub mode=cheap\n```",
        "~~~ a`b\n@@tokenhub mode=cheap",
        "   ```\n@@tokenhub mode=cheap\n```",
        "    @@tokenhub mode=cheap",
        "\t@@tokenhub mode=cheap",
        "@@tokenhub\u00a0mode=cheap",
        "@@tokenhub\u2028mode=cheap",
        "@@tokenhub\vmode=cheap",
        "Hi\v@@tokenhub mode=cheap",
    ],
)
def test_code_is_no_directive(text: str) -> None:
    """As CommonMark has it: what closes a fence is as long and of the same signs; four spaces are code."""
    assert read([user(text)]) == Reading("ignored")


@pytest.mark.parametrize("text", ["@@tokenhub mode=cheap\u00a0tags=a", "@@tokenhub mode=cheap\u3000tags=a"])
def test_only_ascii_parts_the_wishes(text: str) -> None:
    """Another space is a part of a value, which then is none."""
    assert read([user(text)]).outcome == "invalid"


def test_only_the_last_words_of_the_user_count() -> None:
    """All texts of the last message that has any, and of the system every one; the prompts of a batch are one."""
    leave = Leave(frozenset({"user", "system"}))
    directive = "@@tokenhub tags=a\nx"
    earlier = TextSlot("user", ("messages", 1, "content"), directive)
    last = [TextSlot("user", ("messages", 3, "content", n, "text"), directive) for n in (0, 1)]
    system = TextSlot("system", ("messages", 0, "content"), directive)
    answer = TextSlot("assistant", ("messages", 4, "content"), directive)
    reading = read([system, earlier, *last, answer], leave)
    assert [path for path, _ in reading.stripped] == [system.path, last[0].path, last[1].path]
    prompts = [TextSlot("user", ("prompt", n), directive) for n in (0, 1)]
    assert [path for path, _ in read(prompts).stripped] == [("prompt", 0), ("prompt", 1)]
    words = [TextSlot("user", ("messages", 3, "content"), "Hi")]
    assert read([earlier, *words]) == Reading("ignored")


def test_what_is_denied_is_told_beside_what_is_honoured() -> None:
    """Roles, wishes and signatures, each once; the values are those of the last that holds."""
    slots = [
        TextSlot("system", ("system",), "@@tokenhub mode=cheap"),
        user("@@tokenhub tags=a\n@@tokenhub budget=9\n@@tokenhub budget=8\nHi"),
    ]
    reading = read(slots, limits={"max_budget_usd": 1.0})
    assert (reading.outcome, reading.why) == ("honoured", "denied=role,budget")
    assert reading.values == {"tags": ("a",)}
    assert reading.stripped == ((PATH, "@@tokenhub budget=9\n@@tokenhub budget=8\nHi"),)


def test_the_first_fault_is_told_and_what_is_good_is_kept() -> None:
    """For whoever goes on in spite of it."""
    reading = read([user("@@tokenhub x=1\n@@tokenhub tags=a\n@@tokenhub y=1")])
    assert (reading.outcome, reading.values) == ("invalid", {"tags": ("a",)})
    assert "line 1, column 12" in reading.fault
    assert "'x'" in reading.fault
    assert reading.stripped == ((PATH, "@@tokenhub x=1\n@@tokenhub y=1"),)


@pytest.mark.parametrize(
    ("body", "may"), [(b"@@tokenhub", True), (b'"\\u0040@tokenhub"', True), (b"tokenhub", False)]
)
def test_a_body_that_holds_none_is_known_by_its_bytes(body: bytes, may: bool) -> None:
    """No text of it needs to be looked at."""
    assert may_stand_in(body) is may


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
        ("@@tokenhub mode=cheap\n", "```\n", ""),
        ("", "```\n@@tokenhub mode=cheap\n", ""),
        ("", "@@tokenhub mode=cheap\n~~~\n", ""),
        ("```", "`", "\n@@tokenhub mode=cheap"),
        ("", "@@tokenhub[", ""),
        ("", "@@tokenhub[a] mode=cheap\n", ""),
        ("", "@@tokenhub mode=cheap\n", ""),
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


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        ("mode=vote", {"mode": Way.VOTE}),
        ("mode=vote voters=2", {"mode": Way.VOTE, "voters": 2}),
        ("mode=vote voters=10", {"mode": Way.VOTE, "voters": 10}),
        ("iterations=2 mode=adversarial", {"mode": Way.ADVERSARIAL, "iterations": 2}),
        ("mode=refine iterations=1", {"mode": Way.REFINE, "iterations": 1}),
    ],
)
def test_a_mode_says_how_many(raw: str, values: dict[str, object]) -> None:
    """Modes that make several calls of one have a number of their own."""
    assert read([user(f"@@tokenhub {raw}")]).values == values


@pytest.mark.parametrize(
    "raw",
    [
        *(
            "voters=3",
            "iterations=1",
            "mode=cheap voters=3",
            "mode=vote iterations=2",
            "mode=refine voters=2",
        ),
        *("mode=vote voters=1", "mode=vote voters=11", "mode=vote voters=x", "mode=vote voters=3.0"),
        *(
            "mode=refine iterations=0",
            "mode=refine iterations=11",
            "mode=refine iterations=٣",
            'mode={"a":1}',
        ),
    ],
)
def test_a_number_without_its_mode_or_beyond_its_bounds_is_malformed(raw: str) -> None:
    """Nobody has to guess what three voters of a cheap call would be."""
    assert read([user(f"@@tokenhub {raw}")]).outcome == "invalid"
