"""Shapes, schemas and repairs, for programs of every dialect before providers of every dialect."""

from __future__ import annotations

import orjson
import pytest

from tests.dialects.pairs import CHATS
from tests.shaping.speaking import BAD, COST, GOOD, SCHEMA, USED, Speaking, ask, bench, lines
from tokenhub_core.types import Dialect, Form, Outcome, StopReason, ToolUse

TALK = '<think>One?</think>Sure, here it is:\n\n```json\n{"n": 1}\n```\nAnything else?'
FLAT = {Dialect.OPENAI_COMPLETIONS, Dialect.OLLAMA_GENERATE}
WITH_TOOLS = [dialect for dialect in CHATS if dialect not in FLAT]
SHAPED = {"output_format": Form.JSON, "strip_think": True}

each_client = pytest.mark.parametrize("client", CHATS)
each_provider = pytest.mark.parametrize("provider", CHATS)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@each_way
@each_provider
@each_client
async def test_an_answer_has_the_shape_that_was_asked_for(
    client: Dialect, provider: Dialect, stream: bool
) -> None:
    """The text alone is another: usage, reason and end are the provider's; and it is not told as byte for byte."""
    one = bench(Speaking(provider, [TALK]), defaults=SHAPED)
    heard = await ask(one, client, stream=stream)
    assert (heard.text, heard.stop, heard.finished) == ('{"n": 1}', StopReason.END, True)
    assert (heard.usage.input_tokens, heard.usage.output_tokens) == (USED.input_tokens, USED.output_tokens)
    record = one.recorder.one
    assert (record.outcome, record.identical, record.cost_nanousd) == (Outcome.OK, False, COST)


@each_way
@each_provider
@each_client
async def test_an_answer_that_does_not_fit_is_asked_for_once_more(
    client: Dialect, provider: Dialect, stream: bool
) -> None:
    """The same model is told what does not fit; both attempts are paid, and told apart. A stream is held for it."""
    speaking = Speaking(provider, [BAD, GOOD])
    one = bench(speaking, defaults={"output_schema": SCHEMA, "buffered": True})
    heard = await ask(one, client, stream=stream)
    assert (heard.text, heard.finished, heard.failed) == (GOOD, True, None)
    record = one.recorder.one
    assert (record.outcome, record.cost_nanousd, record.reason) == (Outcome.OK, 2 * COST, "schema-repair")
    assert lines(record) == [(1, "invalid_output", "", COST), (2, "", "schema-repair", COST)]
    again = orjson.dumps(speaking.asked[1])
    assert b"/n" in again
    assert b"one" in again


@each_provider
@each_client
async def test_a_stream_that_does_not_fit_never_ends_as_if_it_did(client: Dialect, provider: Dialect) -> None:
    """The words have flowed; in place of the end stands the dialect's own error, and the cost is on record."""
    one = bench(Speaking(provider, [BAD]), defaults={"output_schema": SCHEMA})
    heard = await ask(one, client, stream=True)
    assert heard.text == BAD
    assert (heard.finished, heard.stop) == (False, None)
    assert heard.failed is not None
    assert "/n" in heard.failed.message
    assert heard.reply.broken()
    record = one.recorder.one
    assert (record.outcome, record.fault, record.status) == (Outcome.ERROR, "invalid_output", 422)
    assert (record.cost_nanousd, record.identical) == (COST, False)


@each_way
@each_client
async def test_an_answer_that_fails_twice_is_refused_with_its_place(client: Dialect, stream: bool) -> None:
    """422 in the caller's dialect; there is no third attempt, and the provider is as healthy as before."""
    speaking = Speaking(Dialect.OPENAI_CHAT, [BAD])
    one = bench(speaking, defaults={"output_schema": SCHEMA, "buffered": True})
    heard = await ask(one, client, stream=stream)
    assert (heard.reply.status, len(speaking.sent)) == (422, 2)
    assert "/n" in heard.raw.decode()
    record = one.recorder.one
    assert (record.outcome, record.fault, record.cost_nanousd) == (Outcome.ERROR, "invalid_output", 2 * COST)
    assert [cause for _, cause, _, _ in lines(record)] == ["invalid_output"] * 2
    assert one.health.standing("p", one.clock.monotonic()).available
    assert one.health.standing("p", one.clock.monotonic()).error_rate == 0


@each_way
@pytest.mark.parametrize("provider", WITH_TOOLS)
@pytest.mark.parametrize("client", WITH_TOOLS)
async def test_tool_calls_pass_by_shapes_and_schemas(
    client: Dialect, provider: Dialect, stream: bool
) -> None:
    """A model that calls a tool has not answered yet."""
    speaking = Speaking(
        provider, ["# Let me see."], stop=StopReason.TOOL_USE, call=ToolUse("c1", "f", '{"a":1}')
    )
    one = bench(speaking, defaults={"output_schema": SCHEMA, "output_format": Form.JSON})
    heard = await ask(one, client, stream=stream)
    assert (heard.calls, heard.stop, heard.finished) == (("f",), StopReason.TOOL_USE, True)
    assert one.recorder.one.outcome is Outcome.OK


@each_way
@each_client
async def test_text_is_cut_with_the_dialects_own_word_for_it(client: Dialect, stream: bool) -> None:
    """It has stopped for its length."""
    one = bench(
        Speaking(Dialect.OPENAI_CHAT, ["**eight** and more"]),
        defaults={"output_format": Form.TEXT, "output_max_tokens": 2},
    )
    heard = await ask(one, client, stream=stream)
    assert (heard.text, heard.stop) == ("eight an…", StopReason.LENGTH)
    assert heard.usage.output_tokens == USED.output_tokens
