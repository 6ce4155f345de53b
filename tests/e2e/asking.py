"""What the scenes ask, in the words of each SDK, and what they read out of its typed answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from tokenhub_core.types import Json

PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG of one dot, in base64."""

BOTH_TOOLS: Final = "Use get_weather and get_time for the city of Paris"
"""A question that the simulated models answer by calling both tools at once."""

_CITY: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_NAMES: Final = ("get_weather", "get_time")


@dataclass(frozen=True)
class ToolCall:
    """A tool call as a program finds it; `inputs` are parsed."""

    id: str
    name: str
    inputs: Json


class OpenAI:
    """The `openai` SDK and the providers that speak its dialect."""

    name, dialect = "openai", "openai_chat"
    model = "gpt-4o"
    whole, stream, leave = "chat", "chat_stream", "chat_leave"
    path = "/v1/chat/completions"
    host = "api.openai.com"
    text_stop, tool_stop = "stop", "tool_calls"

    def ask(self, text: str, **more: Any) -> Json:
        return {"messages": [{"role": "user", "content": text}], **more}

    def rich(self, text: str) -> Json:
        """Ask with a system prompt and a picture."""
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
        return {
            "messages": [
                {"role": "system", "content": "Answer in one word."},
                {"role": "user", "content": [{"type": "text", "text": text}, picture]},
            ]
        }

    def read(self, body: Json) -> tuple[str, list[Json]]:
        """Return the system prompt of a request, and its other messages."""
        first, *others = body["messages"]
        assert first["role"] == "system"
        return first["content"], others

    def tools(self) -> Json:
        return {
            "tools": [
                {"type": "function", "function": {"name": name, "parameters": _CITY}} for name in _NAMES
            ]
        }

    def results(self, asked: Json, answer: Json, results: dict[str, str]) -> Json:
        """Return the call that hands the tools' results in."""
        message = answer["choices"][0]["message"]
        calls = [{key: call[key] for key in ("id", "type", "function")} for call in message["tool_calls"]]
        told = [{"role": "tool", "tool_call_id": name, "content": text} for name, text in results.items()]
        return {
            **asked,
            "messages": [*asked["messages"], {"role": "assistant", "tool_calls": calls}, *told],
        }

    def text(self, answer: Json) -> str:
        return str(answer["choices"][0]["message"]["content"] or "")

    def calls(self, answer: Json) -> list[ToolCall]:
        return [
            ToolCall(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in answer["choices"][0]["message"]["tool_calls"]
        ]

    def stop(self, answer: Json) -> str:
        return str(answer["choices"][0]["finish_reason"])

    def usage(self, answer: Json) -> tuple[int, int]:
        used = answer["usage"]
        return used["prompt_tokens"], used["completion_tokens"]


class Anthropic:
    """The `anthropic` SDK and the providers that speak its dialect."""

    name, dialect = "anthropic", "anthropic_messages"
    model = "claude-sonnet-4-5"
    whole, stream, leave = "message", "message_stream", "message_leave"
    path = "/v1/messages"
    host = "api.anthropic.com"
    text_stop, tool_stop = "end_turn", "tool_use"

    def ask(self, text: str, **more: Any) -> Json:
        return {"max_tokens": 500, "messages": [{"role": "user", "content": text}], **more}

    def rich(self, text: str) -> Json:
        """Ask with a system prompt and a picture."""
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        picture = {"type": "image", "source": source}
        content = [{"type": "text", "text": text}, picture]
        return {
            "max_tokens": 500,
            "system": "Answer in one word.",
            "messages": [{"role": "user", "content": content}],
        }

    def read(self, body: Json) -> tuple[str, list[Json]]:
        """Return the system prompt of a request, and its other messages."""
        system = body["system"]
        said = system if isinstance(system, str) else "".join(block["text"] for block in system)
        return said, body["messages"]

    def tools(self) -> Json:
        return {"tools": [{"name": name, "input_schema": _CITY} for name in _NAMES]}

    def results(self, asked: Json, answer: Json, results: dict[str, str]) -> Json:
        """Return the call that hands the tools' results in."""
        content = [
            {key: block[key] for key in ("type", "id", "name", "input")}
            for block in answer["content"]
            if block["type"] == "tool_use"
        ]
        told = [
            {"type": "tool_result", "tool_use_id": name, "content": text} for name, text in results.items()
        ]
        return {
            **asked,
            "messages": [
                *asked["messages"],
                {"role": "assistant", "content": content},
                {"role": "user", "content": told},
            ],
        }

    def text(self, answer: Json) -> str:
        return "".join(block["text"] for block in answer["content"] if block["type"] == "text")

    def calls(self, answer: Json) -> list[ToolCall]:
        return [
            ToolCall(block["id"], block["name"], block["input"])
            for block in answer["content"]
            if block["type"] == "tool_use"
        ]

    def stop(self, answer: Json) -> str:
        return str(answer["stop_reason"])

    def usage(self, answer: Json) -> tuple[int, int]:
        return answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]


type Sdk = OpenAI | Anthropic

SDKS: Final[tuple[Sdk, ...]] = (OpenAI(), Anthropic())


def other(sdk: Sdk) -> Sdk:
    """Return the other one."""
    return SDKS[1] if sdk is SDKS[0] else SDKS[0]


def order(sdk: Sdk, stream: bool) -> str:
    """Return what the program has to do."""
    return sdk.stream if stream else sdk.whole
