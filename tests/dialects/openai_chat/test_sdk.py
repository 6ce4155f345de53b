"""The full fixtures hold every field that the official SDK knows: what a new version of it adds shows here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartParam,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionTokenLogprob,
)
from openai.types.chat import chat_completion as whole
from openai.types.chat.chat_completion_content_part_input_audio_param import (
    ChatCompletionContentPartInputAudioParam,
)
from openai.types.chat.chat_completion_content_part_param import File, FileFile
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsBase,
    CompletionCreateParamsStreaming,
)
from pydantic import BaseModel, TypeAdapter

from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import Json

type Golden = Callable[[str, object], None]

HOME = Path(__file__).parents[2] / "golden" / "openai_chat"
REQUEST: Json = orjson.loads((HOME / "requests" / "full.json").read_bytes())
ANSWER: Json = orjson.loads((HOME / "answers" / "full.json").read_bytes())
ASKED = OPENAI_CHAT.open(b'{"model":"asked","messages":[{"role":"user"}]}')


def parts(kind: str) -> Iterator[Json]:
    """Yield the parts of this type in the messages of the full request."""
    for message in REQUEST["messages"]:
        content = message["content"]
        if isinstance(content, list):
            yield from (part for part in content if part["type"] == kind)


def known(boxes: Any) -> set[str]:
    return {name for box in boxes for name in box}


@pytest.mark.parametrize(
    ("params", "seen"),
    [
        (CompletionCreateParamsBase, known([REQUEST])),
        (CompletionCreateParamsStreaming, known([REQUEST])),
        (
            ChatCompletionAssistantMessageParam,
            known(message for message in REQUEST["messages"] if message["role"] == "assistant"),
        ),
        (File, known(parts("file"))),
        (FileFile, known(part["file"] for part in parts("file"))),
        (ChatCompletionContentPartInputAudioParam, known(parts("input_audio"))),
    ],
)
def test_the_full_request_has_every_field_that_the_sdk_knows(params: type, seen: set[str]) -> None:
    """A field that is missing here is one that nobody has thought about yet."""
    assert set(params.__annotations__) <= seen


@pytest.mark.parametrize(
    ("model", "box"),
    [
        (ChatCompletion, ANSWER),
        (whole.Choice, ANSWER["choices"][0]),
        (whole.ChoiceLogprobs, ANSWER["choices"][0]["logprobs"]),
        (ChatCompletionTokenLogprob, ANSWER["choices"][0]["logprobs"]["content"][0]),
        (ChatCompletionMessage, ANSWER["choices"][0]["message"]),
    ],
)
def test_the_full_answer_has_every_field_that_the_sdk_knows(model: type[BaseModel], box: Json) -> None:
    """As in the request."""
    assert set(model.model_fields) <= set(box)


def test_the_full_answer_is_restored(golden: Golden) -> None:
    """Within the dialect nothing is lost, and the SDK takes what we write."""
    answer = OPENAI_CHAT.parse_answer(ANSWER)
    rendered = OPENAI_CHAT.render_answer(answer, request=ASKED)
    golden("answers/full.answer.json", answer)
    ChatCompletion.model_validate(rendered.data, strict=True)
    assert rendered.data == ANSWER
    assert rendered.losses == ()


def test_the_sdk_takes_the_full_request_as_we_write_it() -> None:
    """Its own types accept every message; the fields that other servers have are extra."""
    rendered = OPENAI_CHAT.render(
        OPENAI_CHAT.parse(OPENAI_CHAT.open(orjson.dumps(REQUEST))), model="m", max_output_tokens=None
    )
    for message in rendered.data["messages"]:
        TypeAdapter(ChatCompletionMessageParam).validate_python(message)
        content = message["content"]
        for part in content if message["role"] == "user" and isinstance(content, list) else ():
            TypeAdapter(ChatCompletionContentPartParam).validate_python(part)
    assert {**rendered.data, "model": 0, "messages": 0} == {**REQUEST, "model": 0, "messages": 0}
