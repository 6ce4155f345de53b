"""`openai` for Python, chat completions: `python openai_chat.py MODEL`."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

from tests.clients.conversation import (
    BOTH,
    CITY,
    HELLO,
    NOT_SHOWN,
    PIXEL,
    TOOLS,
    UNKNOWN,
    WEATHER,
    Capital,
    counted,
    perform,
    said,
    same,
    told,
)

_TOOLS: Final[Any] = [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in TOOLS]


class _Chat:
    def __init__(self, client: openai.OpenAI, model: str) -> None:
        self._client = client
        self._model = model

    def _ask(self, text: str, **more: Any) -> dict[str, Any]:
        return {"model": self._model, "messages": [{"role": "user", "content": text}], **more}

    def _whole(self, **asked: Any) -> Any:
        return self._client.chat.completions.create(**asked)

    def _streamed(self, **asked: Any) -> Any:
        """Read a stream by the SDK's own accumulator."""
        state: Any = ChatCompletionStreamState()
        options: Any = {"include_usage": True}
        for chunk in self._client.chat.completions.create(stream=True, stream_options=options, **asked):
            state.handle_chunk(chunk)
        return state.get_final_completion()

    def _plain(self, answer: Any) -> str:
        said(answer.choices[0].message.content, HELLO)
        same(answer.choices[0].finish_reason, "stop")
        counted(answer.usage.prompt_tokens, answer.usage.completion_tokens)
        return ""

    def whole(self) -> str:
        return self._plain(self._whole(**self._ask(HELLO)))

    def stream(self) -> str:
        return self._plain(self._streamed(**self._ask(HELLO)))

    def _with_tools(self, call: Any, text: str, *names: str) -> str:
        asked = self._ask(text, tools=_TOOLS)
        answer = call(**asked).choices[0]
        same(answer.finish_reason, "tool_calls")
        calls = answer.message.tool_calls
        same([one.function.name for one in calls], list(names))
        same([json.loads(one.function.arguments) for one in calls], [{"city": "Paris"}] * len(names))
        results = [
            {"role": "tool", "tool_call_id": one.id, "content": f"21 of {one.function.name}"} for one in calls
        ]
        turn = answer.message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True)
        last = call(**{**asked, "messages": [*asked["messages"], turn, *results]}).choices[0]
        told(last.message.content, *(f"21 of {name}" for name in names))
        same(last.finish_reason, "stop")
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
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
        content = [{"type": "text", "text": HELLO}, picture]
        return self._plain(self._whole(model=self._model, messages=[{"role": "user", "content": content}]))

    def structured(self) -> str:
        asked = self._ask("Which city is Paris", response_format=Capital)
        parsed = self._client.chat.completions.parse(**asked).choices[0].message.parsed
        same(type(parsed), Capital)
        return ""

    def thinking(self) -> str:
        """Ask for effort, twice; chat completions do not show what came of it."""
        asked = self._ask(HELLO, reasoning_effort="high")
        answer = self._whole(**asked)
        turn = {"role": "assistant", "content": answer.choices[0].message.content}
        more = [*asked["messages"], turn, {"role": "user", "content": HELLO}]
        self._plain(self._whole(**{**asked, "messages": more}))
        return NOT_SHOWN

    def error(self) -> str:
        try:
            self._whole(**{**self._ask(HELLO), "model": UNKNOWN})
        except openai.NotFoundError as error:
            same((error.status_code, error.code), (404, "model_not_found"))
            return ""
        raise AssertionError("no error")


if __name__ == "__main__":
    chat = _Chat(openai.OpenAI(), sys.argv[1])
    perform(
        {
            "whole": chat.whole,
            "stream": chat.stream,
            "tool": chat.tool,
            "tool, streamed": chat.tool_stream,
            "parallel tools": chat.parallel,
            "parallel tools, streamed": chat.parallel_stream,
            "image": chat.image,
            "structured output": chat.structured,
            "thinking": chat.thinking,
            "unknown model": chat.error,
        }
    )
