"""`anthropic` for Python: `python anthropic_messages.py MODEL`."""

from __future__ import annotations

import sys
from typing import Any, Final

import anthropic

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

_TOOLS: Final[Any] = [{"name": name, "input_schema": CITY} for name in TOOLS]


class _Messages:
    def __init__(self, client: anthropic.Anthropic, model: str) -> None:
        self._client = client
        self._model = model

    def _ask(self, *messages: Any, **more: Any) -> dict[str, Any]:
        return {"model": self._model, "max_tokens": 4096, "messages": list(messages), **more}

    def _whole(self, **asked: Any) -> Any:
        return self._client.messages.create(**asked)

    def _streamed(self, **asked: Any) -> Any:
        """Read a stream by the SDK's own accumulator."""
        with self._client.messages.stream(**asked) as stream:
            return stream.get_final_message()

    def _plain(self, answer: Any) -> str:
        said(_text(answer), HELLO)
        same(answer.stop_reason, "end_turn")
        counted(answer.usage.input_tokens, answer.usage.output_tokens)
        return ""

    def whole(self) -> str:
        """Ask through the beta API, which says so in its query."""
        return self._plain(self._client.beta.messages.create(**self._ask(_user(HELLO))))

    def stream(self) -> str:
        return self._plain(self._streamed(**self._ask(_user(HELLO))))

    def _with_tools(self, call: Any, text: str, *names: str) -> str:
        answer = call(**self._ask(_user(text), tools=_TOOLS))
        same(answer.stop_reason, "tool_use")
        calls = [block for block in answer.content if block.type == "tool_use"]
        same([one.name for one in calls], list(names))
        same([one.input for one in calls], [{"city": "Paris"}] * len(names))
        results = [
            {"type": "tool_result", "tool_use_id": one.id, "content": f"21 of {one.name}"} for one in calls
        ]
        last = call(**self._ask(_user(text), _turn(answer), _user(results), tools=_TOOLS))
        told(_text(last), *(f"21 of {name}" for name in names))
        same(last.stop_reason, "end_turn")
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
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        content = [{"type": "text", "text": HELLO}, {"type": "image", "source": source}]
        return self._plain(self._whole(**self._ask(_user(content))))

    def structured(self) -> str:
        asked = self._ask(_user("Which city is Paris"), output_format=Capital)
        same(type(self._client.messages.parse(**asked).parsed_output), Capital)
        return ""

    def thinking(self) -> str:
        """Two turns, the thinking of the first handed back with its signature."""
        more = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
        answer = self._streamed(**self._ask(_user(HELLO), **more))
        self._plain(answer)
        self._plain(self._whole(**self._ask(_user(HELLO), _turn(answer), _user(HELLO), **more)))
        shown = any(block.type in {"thinking", "redacted_thinking"} for block in answer.content)
        return "" if shown else WITHOUT_THINKING

    def error(self) -> str:
        try:
            self._whole(**{**self._ask(_user(HELLO)), "model": UNKNOWN})
        except anthropic.NotFoundError as error:
            same((error.status_code, error.type), (404, "not_found_error"))
            return ""
        raise AssertionError("no error")


def _user(content: Any) -> Any:
    return {"role": "user", "content": content}


def _turn(answer: Any) -> Any:
    return {"role": "assistant", "content": answer.content}


def _text(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


if __name__ == "__main__":
    messages = _Messages(anthropic.Anthropic(), sys.argv[1])
    perform(
        {
            "whole": messages.whole,
            "stream": messages.stream,
            "tool": messages.tool,
            "tool, streamed": messages.tool_stream,
            "parallel tools": messages.parallel,
            "parallel tools, streamed": messages.parallel_stream,
            "image": messages.image,
            "structured output": messages.structured,
            "thinking": messages.thinking,
            "unknown model": messages.error,
        }
    )
