"""What the two most used official SDKs make of answers that were shaped, repaired or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.shaping.speaking import BAD, GOOD, SCHEMA, USED, Heard, Speaking, ask, bench
from tokenhub_core.types import Dialect, Form

OPENAI, ANTHROPIC = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES
USER: Any = [{"role": "user", "content": "x"}]

each_provider = pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC])


class Counted(BaseModel):
    """What the schema of these scenes describes."""

    n: int


def serving(heard: Heard) -> Callable[[Any], httpx2.Response]:
    reply = heard.reply
    return lambda _: httpx2.Response(reply.status, headers=list(reply.headers), content=heard.raw)


def openai_sdk(heard: Heard) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(transport=httpx2.MockTransport(serving(heard)))
    return openai.OpenAI(api_key="x", base_url="http://x", max_retries=0, http_client=http)


def anthropic_sdk(heard: Heard) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(serving(heard)))
    return anthropic.Anthropic(api_key="x", base_url="http://x", max_retries=0, http_client=http)


@each_provider
async def test_a_repaired_answer_is_parsed_into_the_programs_own_type(provider: Dialect) -> None:
    """By the SDK's own structured outputs."""
    defaults = {"output_schema": SCHEMA, "output_format": Form.JSON}
    heard = await ask(
        bench(Speaking(provider, [BAD, f"```json\n{GOOD}\n```"]), defaults=defaults), OPENAI, stream=False
    )
    with openai_sdk(heard) as client:
        answer = client.chat.completions.parse(model="m", messages=USER, response_format=Counted)
    assert answer.choices[0].message.parsed == Counted(n=1)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == USED.output_tokens


@each_provider
async def test_a_shaped_stream_is_read_to_its_end(provider: Dialect) -> None:
    """By both, with reason and usage."""
    text = "<think>hm</think># Yes\n\n**Of course.**"
    defaults = {"output_format": Form.TEXT, "strip_think": True}
    more: dict[str, Any] = {"stream_options": {"include_usage": True}}
    heard = await ask(bench(Speaking(provider, [text]), defaults=defaults), OPENAI, stream=True, **more)
    with openai_sdk(heard) as client:
        chunks = list(client.chat.completions.create(model="m", messages=USER, stream=True))
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert (said, chunks[-1].usage is not None) == ("Yes\n\nOf course.", True)
    heard = await ask(bench(Speaking(provider, [text]), defaults=defaults), ANTHROPIC, stream=True)
    with (
        anthropic_sdk(heard) as other,
        other.messages.stream(model="m", max_tokens=9, messages=USER) as stream,
    ):
        message = stream.get_final_message()
    assert [block.text for block in message.content if block.type == "text"] == ["Yes\n\nOf course."]
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", USED.output_tokens)


@each_provider
async def test_an_invalid_answer_is_an_error_of_the_sdk(provider: Dialect) -> None:
    """422, with the place; neither tries again by itself."""
    defaults = {"output_schema": SCHEMA}
    heard = await ask(bench(Speaking(provider, [BAD]), defaults=defaults), OPENAI, stream=False)
    with openai_sdk(heard) as client, pytest.raises(openai.UnprocessableEntityError) as told:
        client.chat.completions.create(model="m", messages=USER)
    assert (told.value.param, told.value.code) == ("/n", "invalid_output")
    heard = await ask(bench(Speaking(provider, [BAD]), defaults=defaults), ANTHROPIC, stream=False)
    with anthropic_sdk(heard) as other, pytest.raises(anthropic.UnprocessableEntityError, match="/n"):
        other.messages.create(model="m", max_tokens=9, messages=USER)


@each_provider
async def test_an_invalid_stream_is_an_error_of_the_sdk_and_no_end(provider: Dialect) -> None:
    """Raised while the program reads, after the words that have flowed."""
    defaults = {"output_schema": SCHEMA}
    heard = await ask(bench(Speaking(provider, [BAD]), defaults=defaults), OPENAI, stream=True)
    assert b"[DONE]" not in heard.raw
    with openai_sdk(heard) as client, pytest.raises(openai.APIError, match="/n"):
        list(client.chat.completions.create(model="m", messages=USER, stream=True))
    heard = await ask(bench(Speaking(provider, [BAD]), defaults=defaults), ANTHROPIC, stream=True)
    assert b"message_stop" not in heard.raw
    with (
        anthropic_sdk(heard) as other,
        pytest.raises(anthropic.APIError, match="/n"),
        other.messages.stream(model="m", max_tokens=9, messages=USER) as stream,
    ):
        stream.get_final_message()
