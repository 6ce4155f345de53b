"""The same conversation as the clients of each dialect send it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.types import Dialect, Json, Traces

CHAT, MESSAGES, RESPONSES = (
    Dialect.OPENAI_CHAT,
    Dialect.ANTHROPIC_MESSAGES,
    Dialect.OPENAI_RESPONSES,
)
GEMINI, OLLAMA = Dialect.GEMINI, Dialect.OLLAMA_CHAT
SPOKEN = (CHAT, MESSAGES, RESPONSES, GEMINI, OLLAMA)


@dataclass(frozen=True)
class User:
    """The user says something."""

    text: str


@dataclass(frozen=True)
class Model:
    """The model says something, or calls a tool."""

    text: str = ""
    call: str = ""
    """The id of a call of the tool `look`."""
    seal: str = ""


@dataclass(frozen=True)
class Tool:
    """The tool has answered."""

    call: str
    text: str = "found"


type Turn = User | Model | Tool


def body(dialect: Dialect, turns: Sequence[Turn], system: str = "You are terse.") -> Json:
    """Return the body of a call with these turns."""
    told = [item for turn in turns for item in _items(dialect, turn)]
    match dialect:
        case Dialect.OPENAI_CHAT | Dialect.OLLAMA_CHAT:
            return {"model": "*", "messages": [{"role": "system", "content": system}, *told]}
        case Dialect.ANTHROPIC_MESSAGES:
            return {"model": "*", "max_tokens": 9, "system": system, "messages": told}
        case Dialect.OPENAI_RESPONSES:
            return {"model": "*", "instructions": system, "input": told}
    return {"systemInstruction": {"parts": [{"text": system}]}, "contents": told}


def traces(dialect: Dialect, given: Json) -> Traces:
    """Return the marks of a body, read as the engine reads it."""
    module = DIALECTS[dialect]
    return module.traces(module.open(orjson.dumps(given), "/v1beta/models/x:generateContent").data)


def said(dialect: Dialect, *turns: Turn, system: str = "You are terse.") -> Traces:
    """Return the marks of a call with these turns."""
    return traces(dialect, body(dialect, turns, system))


def _items(dialect: Dialect, turn: Turn) -> list[Any]:
    match dialect:
        case Dialect.OPENAI_CHAT:
            return [_chat(turn)]
        case Dialect.ANTHROPIC_MESSAGES:
            return [_message(turn)]
        case Dialect.OPENAI_RESPONSES:
            return _response(turn)
        case Dialect.GEMINI:
            return [_content(turn)]
    return [_ollama(turn)]


def _chat(turn: Turn) -> Json:
    match turn:
        case User(text):
            return {"role": "user", "content": text}
        case Tool(call, text):
            return {"role": "tool", "tool_call_id": call, "content": text}
        case Model(text, call, seal):
            message: Json = {"role": "assistant", "content": text or None}
            if call:
                function = {"name": "look", "arguments": "{}"}
                message["tool_calls"] = [{"id": call, "type": "function", "function": function}]
            if seal:
                message["reasoning_details"] = [{"type": "reasoning.encrypted", "data": seal}]
            return message


def _message(turn: Turn) -> Json:
    match turn:
        case User(text):
            return {"role": "user", "content": text}
        case Tool(call, text):
            return {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call, "content": text}],
            }
        case Model(text, call, seal):
            blocks: list[Json] = []
            blocks += [{"type": "thinking", "thinking": "hm", "signature": seal}] if seal else []
            blocks += [{"type": "text", "text": text}] if text else []
            blocks += [{"type": "tool_use", "id": call, "name": "look", "input": {}}] if call else []
            return {"role": "assistant", "content": blocks}


def _response(turn: Turn) -> list[Json]:
    match turn:
        case User(text):
            return [{"role": "user", "content": text}]
        case Tool(call, text):
            return [{"type": "function_call_output", "call_id": call, "output": text}]
        case Model(text, call, seal):
            items: list[Json] = []
            if seal:
                items.append({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal})
            if text:
                spoken = [{"type": "output_text", "text": text, "annotations": []}]
                items.append({"type": "message", "role": "assistant", "id": "msg_1", "content": spoken})
            if call:
                function = {"call_id": call, "name": "look", "arguments": "{}"}
                items.append({"type": "function_call", **function})
            return items


def _content(turn: Turn) -> Json:
    match turn:
        case User(text):
            return {"role": "user", "parts": [{"text": text}]}
        case Tool(call, text):
            answered = {"name": "look", "response": {"output": text}} | ({"id": call} if call != "-" else {})
            return {"role": "user", "parts": [{"functionResponse": answered}]}
        case Model(text, call, seal):
            parts: list[Json] = [{"text": text}] if text else []
            if call:
                parts.append(
                    {"functionCall": {"name": "look", "args": {}} | ({"id": call} if call != "-" else {})}
                )
            if seal:
                parts[-1]["thoughtSignature"] = seal
            return {"role": "model", "parts": parts}


def _ollama(turn: Turn) -> Json:
    match turn:
        case User(text):
            return {"role": "user", "content": text}
        case Tool(call, text):
            return {"role": "tool", "tool_name": "look", "content": text} | (
                {"tool_call_id": call} if call != "-" else {}
            )
        case Model(text, call):
            message: Json = {"role": "assistant", "content": text}
            if call:
                function: Json = {"function": {"name": "look", "arguments": {}}}
                message["tool_calls"] = [function | ({"id": call} if call != "-" else {})]
            return message
