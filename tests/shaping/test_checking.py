"""When an answer is checked, and when it is asked for once more."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.fakes.engine import Bench
from tests.shaping.speaking import BAD, COST, GOOD, SCHEMA, Speaking, ask, bench, lines
from tokenhub_core.preparing import Rules
from tokenhub_core.types import Dialect, Form, Json, Outcome, StopReason

OPENAI = Dialect.OPENAI_CHAT
OWN: Json = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def scene(*texts: str, stop: StopReason = StopReason.END, **more: Any) -> tuple[Bench, Speaking]:
    speaking = Speaking(OPENAI, texts, stop=stop)
    return bench(speaking, **more), speaking


async def refused(one: Bench, **more: Any) -> int:
    return (await ask(one, OPENAI, stream=False, **more)).reply.status


async def test_an_answer_that_fits_passes_byte_for_byte() -> None:
    """To look at it changes nothing of it, streamed or not."""
    for stream in (False, True):
        one, _ = scene(GOOD, defaults={"output_schema": SCHEMA})
        heard = await ask(one, OPENAI, stream=stream)
        assert (heard.text, one.recorder.one.identical) == (GOOD, True)


async def test_a_fence_is_taken_off_only_where_the_form_says_so() -> None:
    """A schema alone means the text as it is."""
    fenced = f"```json\n{GOOD}\n```"
    one, _ = scene(fenced, defaults={"output_schema": SCHEMA})
    assert await refused(one) == 422
    one, speaking = scene(fenced, defaults={"output_schema": SCHEMA, "output_format": Form.JSON})
    assert (await refused(one), len(speaking.sent)) == (200, 1)


async def test_the_second_try_is_told_what_was_wrong_with_the_first() -> None:
    """The same model gets the conversation, its answer, the place and the schema once more."""
    one, speaking = scene(BAD, GOOD, defaults={"output_schema": SCHEMA})
    await ask(one, OPENAI, stream=False, text="How many?")
    first, second = speaking.asked
    assert second["model"] == first["model"]
    assert second["response_format"] == first["response_format"]
    assert second["messages"][:-2] == first["messages"]
    assert second["messages"][-2] == {"role": "assistant", "content": BAD}
    assert "/n" in second["messages"][-1]["content"]


async def test_xml_is_checked_and_asked_for_as_xml() -> None:
    """By the parser that expands nothing."""
    bomb = '<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'
    one, speaking = scene(bomb, "<a/>", defaults={"output_format": Form.XML})
    heard = await ask(one, OPENAI, stream=False)
    assert heard.text == "<a/>"
    assert "XML alone" in speaking.asked[1]["messages"][-1]["content"]


async def test_the_calls_own_schema_counts_where_the_policy_says_so() -> None:
    """Else it is between the caller and the provider."""
    one, _ = scene(BAD)
    assert await refused(one, response_format=OWN) == 200
    one, speaking = scene(BAD, GOOD, defaults={"validate": True})
    heard = await ask(one, OPENAI, stream=False, response_format=OWN)
    assert (heard.text, len(speaking.sent)) == (GOOD, 2)
    one, _ = scene(BAD, defaults={"validate": True})
    assert await refused(one) == 200


async def test_a_bad_schema_is_refused_before_anybody_is_asked() -> None:
    """Whoever brings it."""
    bad = {"properties": {"a": {"type": "strin"}}}
    one, speaking = scene(GOOD, defaults={"validate": True})
    own = {"type": "json_schema", "json_schema": {"name": "n", "schema": bad}}
    heard = await ask(one, OPENAI, stream=False, response_format=own)
    assert (heard.reply.status, speaking.sent) == (400, [])
    assert orjson.loads(heard.raw)["error"]["param"] == "response_format.json_schema.schema.properties.a.type"
    text = f"@@tokenhub output_schema={orjson.dumps(bad).decode()}\nHello"
    assert (await refused(one, text=text), speaking.sent) == (400, [])


async def test_an_answer_that_was_cut_off_is_not_asked_for_again() -> None:
    """It would be cut off at the same cap."""
    one, speaking = scene('{"n":', stop=StopReason.LENGTH, defaults={"output_schema": SCHEMA})
    assert (await refused(one), len(speaking.sent)) == (422, 1)


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({"defaults": {"max_budget_usd": COST * 1.5 / 1e9}}, 1),
        ({"defaults": {"max_budget_usd": 1}}, 2),
        ({"rules": Rules(max_attempts=1)}, 1),
        ({"rules": Rules(max_attempts=2)}, 2),
    ],
)
async def test_the_second_try_is_within_the_limits_of_the_call(more: dict[str, Any], sent: int) -> None:
    """What the first has cost counts, and so do attempts."""
    wishes = {**more.pop("defaults", {}), "output_schema": SCHEMA}
    one, speaking = scene(BAD, GOOD, defaults=wishes, **more)
    await ask(one, OPENAI, stream=False, max_tokens=10)
    assert len(speaking.sent) == sent


async def test_a_second_try_that_fails_leaves_the_reason_of_the_first() -> None:
    """What its caller has to know is why there is no answer."""

    class Failing(Speaking):
        async def send(self, request: Any, timeouts: Any) -> Any:
            answer = await super().send(request, timeouts)
            if len(self.sent) == 2:
                answer.status = 500
            return answer

    one = bench(Failing(OPENAI, [BAD]), defaults={"output_schema": SCHEMA})
    heard = await ask(one, OPENAI, stream=False)
    assert heard.reply.status == 422
    assert [line[:3] for line in lines(one.recorder.one)] == [
        (1, "invalid_output", ""),
        (2, "http_500", "schema-repair"),
    ]


async def test_who_leaves_in_the_second_try_has_got_nothing() -> None:
    """That the first answer came to its end makes it no answer."""
    reached = asyncio.Event()

    class Waiting(Speaking):
        async def send(self, request: Any, timeouts: Any) -> Any:
            answer = await super().send(request, timeouts)
            if len(self.sent) == 2:
                reached.set()
                await asyncio.Event().wait()
            return answer

    one = bench(Waiting(OPENAI, [BAD]), defaults={"output_schema": SCHEMA})
    asking = asyncio.create_task(ask(one, OPENAI, stream=False))
    await reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert one.recorder.one.outcome is Outcome.CANCELLED


async def test_of_several_answers_none_would_be_checked() -> None:
    """So they are refused, and not half checked."""
    one, speaking = scene(GOOD, defaults={"output_schema": SCHEMA})
    assert (await refused(one, n=2), speaking.sent) == (400, [])


async def test_a_refusal_is_an_answer() -> None:
    """A model that declines has not failed to fit."""
    one, speaking = scene("I will not.", stop=StopReason.REFUSED, defaults={"output_schema": SCHEMA})
    assert (await refused(one), len(speaking.sent)) == (200, 1)


async def test_a_stream_is_held_until_it_has_passed() -> None:
    """Its head, too: a stream that does not fit is refused by its status, not by an event."""
    one, speaking = scene(GOOD, defaults={"output_schema": SCHEMA, "buffered": True})
    heard = await ask(one, OPENAI, stream=True)
    assert (heard.text, heard.finished, len(speaking.sent)) == (GOOD, True, 1)
    assert one.recorder.one.outcome is Outcome.OK


async def test_a_long_thought_that_is_stripped_is_no_silence() -> None:
    """It commits the answer: what a provider says before its words is not held against it, nor in memory."""
    text = "<think>" + "hm, " * 40_000 + "</think>Yes"
    one = bench(Speaking(OPENAI, [text], size=4), defaults={"strip_think": True})
    heard = await ask(one, OPENAI, stream=True)
    assert (heard.text, heard.finished) == ("Yes", True)


async def test_without_a_wish_nothing_is_looked_at() -> None:
    """An answer that no schema is asked of passes whatever it is."""
    one, _ = scene(BAD)
    heard = await ask(one, OPENAI, stream=False)
    assert (heard.text, one.recorder.one.identical) == (BAD, True)


async def test_a_wish_that_the_operator_has_made_is_not_unmade_by_a_text() -> None:
    """A directive may ask for a check, and not for none."""
    one, _ = scene("no", defaults={"validate": True, "buffered": True})
    text = "@@tokenhub validate=off buffered=off strip_think=on\nHello"
    heard = await ask(one, OPENAI, stream=False, text=text)
    assert dict(heard.reply.headers)["x-tokenhub-directive"] == "honoured; denied=validate,buffered"
