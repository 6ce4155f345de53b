"""Several calls whose answers have a shape or have to fit: those to the caller's question do, those to ours do not."""

from __future__ import annotations

import orjson
import pytest

from tests.fakes.engine import chat
from tests.orchestration.talking import Heard, bench
from tests.orchestration.test_composing import content, streamed

SCHEMA = '{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}'


def judging(one: Heard) -> bool:
    return "Which one is best?" in one.texts[-1]


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_are_shaped_before_the_judge_sees_them(stream: bool) -> None:
    """What was thought aloud is left out of every vote, and out of what the caller gets."""
    seen: list[str] = []

    def says(one: Heard) -> str:
        if judging(one):
            seen.extend(one.texts)
            return '{"best": 1}'
        return f"<think>hm</think>{one.model} says"

    it, _ = bench(says)
    _, body = await it.ask(chat("@@tokenhub mode=vote strip_think=on\nHow much?", model="a", stream=stream))
    said = streamed(body)[0] if stream else content(body)
    assert said == f"{it.recorder.one.model} says"
    assert seen
    assert not any("think" in text for text in seen)


async def test_a_vote_that_does_not_fit_is_repaired_once_and_then_does_not_count() -> None:
    """The others do; what the repair cost is in the record, and our own question is held to no schema."""

    def says(one: Heard) -> str:
        if judging(one):
            return '{"best": 1}'
        return '{"m": 1}' if one.model == "a" else '{"n": 2}'

    it, talking = bench(says)
    reply, body = await it.ask(chat(f"@@tokenhub mode=vote output_schema={SCHEMA}\nHow much?", model="*"))
    record = it.recorder.one
    assert (reply.status, orjson.loads(content(body))) == (200, {"n": 2})
    made = record.composition
    assert made is not None
    assert {step.model: step.cause for step in made.steps if step.name.startswith("voter")} == {
        "a": "invalid_output",
        "b": "",
        "c": "",
    }
    assert [one.change for one in record.attempts if one.model == "a"] == ["", "schema-repair"]
    assert record.cost_nanousd == talking.billed


async def test_where_no_answer_fits_the_caller_hears_that() -> None:
    """A 422, and no answer that looks like one."""
    it, _ = bench(lambda one: '{"best": 1}' if judging(one) else "none")
    reply, body = await it.ask(chat(f"@@tokenhub mode=refine output_schema={SCHEMA}\nHow much?", model="a"))
    assert (reply.status, b"does not fit" in body) == (422, True)
