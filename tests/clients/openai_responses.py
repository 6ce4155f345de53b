"""`openai` for Python, Responses: `python openai_responses.py MODEL`."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import openai

from tests.clients.conversation import (
    BOTH,
    CITY,
    HELLO,
    PIXEL,
    TOOLS,
    UNKNOWN,
    WEATHER,
    WITHOUT_THINKING,
    Capital,
    counted,
    perform,
    said,
    same,
    told,
)

_TOOLS: Final[Any] = [
    {"type": "function", "name": name, "parameters": CITY, "strict": True} for name in TOOLS
]


class _Responses:
    def __init__(self, client: openai.OpenAI, model: str) -> None:
        self._client = client
        self._model = model

    def _ask(self, *items: Any, **more: Any) -> dict[str, Any]:
        return {"model": self._model, "input": list(items), "store": False, **more}

    def _whole(self, **asked: Any) -> Any:
        return self._client.responses.create(**asked)

    def _streamed(self, **asked: Any) -> Any:
        """Read a stream by the SDK's own accumulator."""
        with self._client.responses.stream(**asked) as stream:
            stream.until_done()
            return stream.get_final_response()

    def _plain(self, answer: Any) -> str:
        said(answer.output_text, HELLO)
        same(answer.status, "completed")
        counted(answer.usage.input_tokens, answer.usage.output_tokens)
        return ""

    def whole(self) -> str:
        return self._plain(self._whole(**self._ask(_user(HELLO))))

    def stream(self) -> str:
        return self._plain(self._streamed(**self._ask(_user(HELLO))))

    def _with_tools(self, call: Any, text: str, *names: str) -> str:
        answer = call(**self._ask(_user(text), tools=_TOOLS))
        calls = [item for item in answer.output if item.type == "function_call"]
        same([one.name for one in calls], list(names))
        same([json.loads(one.arguments) for one in calls], [{"city": "Paris"}] * len(names))
        results = [
            {"type": "function_call_output", "call_id": one.call_id, "output": f"21 of {one.name}"}
            for one in calls
        ]
        last = call(**self._ask(_user(text), *map(_given, answer.output), *results, tools=_TOOLS))
        told(last.output_text, *(f"21 of {name}" for name in names))
        return ""

    def tool(self) -> str:
        return self._with_tools(self._whole, WEATHER, "get_weather")

    def tool_stream(self) -> str:
        return self._with_tools(self._streamed, WEATHER, "get_weather")

    def parallel(self) -> str:
        return self._with_tools(self._whole, BOTH, *TOOLS)

    def parallel_stream(self) -> str:
        return self._with_tools(self._streamed, BOTH, *TOOLS)

    def image(self) -> str:
        picture = {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PIXEL}"}
        content = [{"type": "input_text", "text": HELLO}, picture]
        return self._plain(self._whole(**self._ask({"role": "user", "content": content})))

    def structured(self) -> str:
        asked = self._ask(_user("Which city is Paris"), text_format=Capital)
        same(type(self._client.responses.parse(**asked).output_parsed), Capital)
        return ""

    def thinking(self) -> str:
        """Two turns, the reasoning of the first handed back with its encrypted content."""
        more = {
            "reasoning": {"effort": "high", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
        }
        answer = self._streamed(**self._ask(_user(HELLO), **more))
        self._plain(answer)
        items = [item for item in answer.output if item.type == "reasoning"]
        self._plain(self._whole(**self._ask(_user(HELLO), *map(_given, answer.output), _user(HELLO), **more)))
        return "" if any(item.summary or item.encrypted_content for item in items) else WITHOUT_THINKING

    def error(self) -> str:
        try:
            self._whole(**{**self._ask(_user(HELLO)), "model": UNKNOWN})
        except openai.NotFoundError as error:
            same((error.status_code, error.code), (404, "model_not_found"))
            return ""
        raise AssertionError("no error")


def _user(text: str) -> Any:
    return {"role": "user", "content": text}


def _given(item: Any) -> Any:
    """Return an item of an answer as the next request holds it; what the SDK's parser added is not of the API."""
    return (
        item.to_dict()
        if item.type == "message"
        else item.model_dump(exclude_none=True, exclude={"parsed_arguments"})
    )


if __name__ == "__main__":
    responses = _Responses(openai.OpenAI(), sys.argv[1])
    perform(
        {
            "whole": responses.whole,
            "stream": responses.stream,
            "tool": responses.tool,
            "tool, streamed": responses.tool_stream,
            "parallel tools": responses.parallel,
            "parallel tools, streamed": responses.parallel_stream,
            "image": responses.image,
            "structured output": responses.structured,
            "thinking": responses.thinking,
            "unknown model": responses.error,
        }
    )
