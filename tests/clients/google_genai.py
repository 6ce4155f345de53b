"""`google-genai` for Python: `python google_genai.py MODEL`."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any, Final

from google import genai
from google.genai import errors, types

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
)

_TOOLS: Final = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(name=name, parameters_json_schema=CITY) for name in TOOLS
        ]
    )
]


class _Contents:
    def __init__(self, client: genai.Client, model: str) -> None:
        self._client = client
        self._model = model

    def _whole(self, contents: list[Any], **config: Any) -> tuple[list[types.Part], Any]:
        """Return the parts of an answer, and the answer."""
        answer = self._client.models.generate_content(
            model=self._model, contents=contents, config=types.GenerateContentConfig(**config)
        )
        return _parts(answer), answer

    def _streamed(self, contents: list[Any], **config: Any) -> tuple[list[types.Part], Any]:
        """Return the parts of a whole stream, and its last chunk; this SDK does not put them together."""
        parts: list[types.Part] = []
        chunk: Any = None
        for chunk in self._client.models.generate_content_stream(
            model=self._model, contents=contents, config=types.GenerateContentConfig(**config)
        ):
            parts += _parts(chunk)
        return parts, chunk

    def _plain(self, told_: tuple[list[types.Part], Any]) -> str:
        parts, answer = told_
        said(_text(parts), HELLO)
        same(answer.candidates[0].finish_reason, types.FinishReason.STOP)
        usage = answer.usage_metadata
        counted(usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count)
        return ""

    def whole(self) -> str:
        return self._plain(self._whole([_user(HELLO)]))

    def stream(self) -> str:
        return self._plain(self._streamed([_user(HELLO)]))

    def _with_tools(self, call: Any, text: str, *names: str) -> str:
        parts, _ = call([_user(text)], tools=_TOOLS)
        calls = [part.function_call for part in parts if part.function_call]
        same([one.name for one in calls], list(names))
        same([one.args for one in calls], [{"city": "Paris"}] * len(names))
        results = [
            types.Part(
                function_response=types.FunctionResponse(
                    id=one.id, name=one.name, response={"output": f"21 of {one.name}"}
                )
            )
            for one in calls
        ]
        turns = [types.Content(role="model", parts=parts), types.Content(role="user", parts=results)]
        last, _ = call([_user(text), *turns], tools=_TOOLS)
        for name in names:
            same(f"21 of {name}" in _text(last), True)
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
        picture = types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png")
        content = types.Content(role="user", parts=[types.Part(text=HELLO), picture])
        return self._plain(self._whole([content]))

    def structured(self) -> str:
        config = {"response_mime_type": "application/json", "response_schema": Capital}
        _, answer = self._whole([_user("Which city is Paris")], **config)
        same(type(answer.parsed), Capital)
        return ""

    def thinking(self) -> str:
        """Two turns, the thoughts of the first handed back with their signatures."""
        config = {"thinking_config": types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)}
        parts, last = self._streamed([_user(HELLO)], **config)
        self._plain((parts, last))
        turn = types.Content(role="model", parts=parts)
        self._plain(self._whole([_user(HELLO), turn, _user(HELLO)], **config))
        return "" if any(part.thought or part.thought_signature for part in parts) else WITHOUT_THINKING

    def error(self) -> str:
        try:
            self._client.models.generate_content(model=UNKNOWN, contents=HELLO)
        except errors.ClientError as error:
            same((error.code, error.status), (404, "NOT_FOUND"))
            return ""
        raise AssertionError("no error")


def _user(text: str) -> types.Content:
    return types.Content(role="user", parts=[types.Part(text=text)])


def _parts(answer: types.GenerateContentResponse) -> list[types.Part]:
    candidates = answer.candidates or []
    content = candidates[0].content if candidates else None
    return list(content.parts or []) if content else []


def _text(parts: list[types.Part]) -> str:
    return "".join(part.text for part in parts if part.text and not part.thought)


if __name__ == "__main__":
    contents = _Contents(genai.Client(api_key=os.environ["GEMINI_API_KEY"]), sys.argv[1])
    perform(
        {
            "whole": contents.whole,
            "stream": contents.stream,
            "tool": contents.tool,
            "tool, streamed": contents.tool_stream,
            "parallel tools": contents.parallel,
            "parallel tools, streamed": contents.parallel_stream,
            "image": contents.image,
            "structured output": contents.structured,
            "thinking": contents.thinking,
            "unknown model": contents.error,
        }
    )
