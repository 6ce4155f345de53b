"""The full fixtures hold every field that the official SDK knows: what a new version of it adds shows here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from anthropic.types import (
    ContentBlockParam,
    DocumentBlockParam,
    Message,
    MessageParam,
    OutputConfigParam,
    ToolParam,
)
from anthropic.types.message_create_params import MessageCreateParamsBase, MessageCreateParamsStreaming
from anthropic.types.thinking_config_adaptive_param import ThinkingConfigAdaptiveParam
from pydantic import TypeAdapter

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.types import Json

HOME = Path(__file__).parents[2] / "golden" / "anthropic_messages"
REQUEST: Json = orjson.loads((HOME / "requests" / "full.json").read_bytes())
ANSWER: Json = orjson.loads((HOME / "answers" / "full.json").read_bytes())
ASKED = ANTHROPIC_MESSAGES.open(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}')


def blocks(kind: str) -> Iterator[Json]:
    """Yield the blocks of this type in the messages of the full request."""
    for message in REQUEST["messages"]:
        content = message["content"]
        if isinstance(content, list):
            yield from (block for block in content if block["type"] == kind)


def known(boxes: Any) -> set[str]:
    return {name for box in boxes for name in box}


@pytest.mark.parametrize(
    ("params", "seen"),
    [
        (MessageCreateParamsBase, known([REQUEST])),
        (MessageCreateParamsStreaming, known([REQUEST])),
        (OutputConfigParam, known([REQUEST["output_config"]])),
        (ThinkingConfigAdaptiveParam, known([REQUEST["thinking"]])),
        (DocumentBlockParam, known(blocks("document"))),
        (ToolParam, known(REQUEST["tools"])),
    ],
)
def test_the_full_request_has_every_field_that_the_sdk_knows(params: type, seen: set[str]) -> None:
    """A field that is missing here is one that nobody has thought about yet."""
    assert set(params.__annotations__) <= seen


def test_the_full_answer_has_every_field_that_the_sdk_knows() -> None:
    """As in the request."""
    assert set(Message.model_fields) <= set(ANSWER)


def test_the_full_answer_is_restored() -> None:
    """Within the dialect nothing is lost, and the SDK takes what we write."""
    answer = ANTHROPIC_MESSAGES.parse_answer(ANSWER)
    rendered = ANTHROPIC_MESSAGES.render_answer(answer, request=ASKED)
    Message.model_validate(rendered.data)
    assert rendered.data == ANSWER
    assert rendered.losses == ()


def test_the_sdk_takes_the_full_request_as_we_write_it() -> None:
    """Its own types accept every block."""
    call = ANTHROPIC_MESSAGES.parse(ANTHROPIC_MESSAGES.open(orjson.dumps(REQUEST)))
    rendered = ANTHROPIC_MESSAGES.render(call, model="claude-x", max_output_tokens=None)
    for message in rendered.data["messages"]:
        TypeAdapter(MessageParam).validate_python(message)
        content = message["content"]
        for block in content if isinstance(content, list) else ():
            TypeAdapter(ContentBlockParam).validate_python(block)
