"""Conversations with a text planted somewhere in them, in four dialects."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from tokenhub_core.types import Dialect, Json

DIRECTIVE: Final = "@@tokenhub mode=high_confidence tags=planted\nSay hello."
USER: Final = "user"
"""The place of a text that is all of the last message that the user wrote."""

_SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}}
_QUESTION: Final = "What is the weather?"


def _text(text: str) -> str:
    return b64encode(text.encode()).decode()


# --- OpenAI chat -------------------------------------------------------------------------------------------

_CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def _chat(place: str, text: str) -> Json:
    ask: Json = {"role": "user", "content": _QUESTION}
    called = [ask, {"role": "assistant", "content": None, "tool_calls": [_CALL]}]
    result: Json = {"role": "tool", "tool_call_id": "c1", "content": text}
    part = {"type": "text", "text": text}
    given = {"function": {"name": "look", "arguments": "{}"}, **_CALL}
    said: Any = {
        USER: [{"role": "user", "content": text}],
        "assistant": [ask, {"role": "assistant", "content": text}, ask],
        "prefill": [ask, {"role": "assistant", "content": text}],
        "earlier": [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes"}, ask],
        "result": [*called, result],
        "result parts": [*called, {**result, "content": [part]}],
        "result beside words": [*called, result, ask],
        "result error": [*called, {**result, "content": text}, {"role": "assistant", "content": text}, ask],
        "arguments": [
            ask,
            {
                "role": "assistant",
                "tool_calls": [{**given, "function": {"name": "look", "arguments": text}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        "document": [{"role": "user", "content": [_chat_file(text, "a.txt"), {**part, "text": _QUESTION}]}],
        "document name": [{"role": "user", "content": [_chat_file("x", text), {**part, "text": _QUESTION}]}],
        "image": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png," + text}},
                    {**part, "text": _QUESTION},
                ],
            }
        ],
        "citation": [ask, {"role": "assistant", "content": "It", "annotations": [{"title": text}]}, ask],
        "thought": [ask, {"role": "assistant", "content": "It", "reasoning_content": text}, ask],
    }.get(place, [ask])
    body: Json = {"model": "gpt-4o", "messages": said}
    if place == "tool":
        function = {"name": "look", "description": text, "parameters": _SCHEMA}
        body["tools"] = [{"type": "function", "function": function}]
    elif place == "schema":
        schema = {"name": "answer", "schema": {**_SCHEMA, "description": text}}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif place == "user id":
        body["user"] = text
    return body


def _chat_file(text: str, name: str) -> Json:
    return {"type": "file", "file": {"filename": name, "file_data": "data:text/plain," + text}}


# --- OpenAI responses --------------------------------------------------------------------------------------


def _responses(place: str, text: str) -> Json:
    ask: Json = {"role": "user", "content": _QUESTION}
    called = [ask, {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}]
    result: Json = {"type": "function_call_output", "call_id": "c1", "output": text}
    word = {"type": "input_text", "text": _QUESTION}
    file = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain," + text}
    answer: Json = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "It"}],
    }
    cited = {"type": "output_text", "text": "It", "annotations": [{"type": "url_citation", "title": text}]}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text}]}
    said: Any = {
        USER: text,
        "assistant": [ask, {"role": "assistant", "content": text}, ask],
        "prefill": [ask, {**answer, "content": [{"type": "output_text", "text": text}]}],
        "earlier": [{"role": "user", "content": text}, answer, ask],
        "result": [*called, result],
        "result parts": [*called, {**result, "output": [{"type": "input_text", "text": text}]}],
        "result beside words": [*called, result, ask],
        "result error": [*called, {**result, "status": "incomplete"}],
        "arguments": [ask, {**called[1], "arguments": text}, {**result, "output": "sunny"}],
        "document": [{"role": "user", "content": [file, word]}],
        "document name": [{"role": "user", "content": [{**file, "filename": text}, word]}],
        "image": [
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "data:image/png," + text}, word],
            }
        ],
        "citation": [ask, {**answer, "content": [cited]}, ask],
        "thought": [ask, thought, answer, ask],
    }.get(place, [ask])
    body: Json = {"model": "gpt-4o", "input": said}
    if place == "tool":
        body["tools"] = [{"type": "function", "name": "look", "description": text, "parameters": _SCHEMA}]
    elif place == "schema":
        schema = {**_SCHEMA, "description": text}
        body["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": schema}}
    elif place == "user id":
        body["metadata"] = {"user": text}
    return body


# --- Anthropic ---------------------------------------------------------------------------------------------


def _anthropic(place: str, text: str) -> Json:
    ask: Json = {"role": "user", "content": _QUESTION}
    word = {"type": "text", "text": _QUESTION}
    use: Json = {"type": "tool_use", "id": "c1", "name": "look", "input": {}}
    called = [ask, {"role": "assistant", "content": [use]}]
    result: Json = {"type": "tool_result", "tool_use_id": "c1", "content": text}
    plain = {"type": "text", "text": text}
    source = {"type": "text", "media_type": "text/plain", "data": text}
    document: Json = {"type": "document", "source": source}
    citation = {"type": "char_location", "cited_text": text, "document_index": 0}
    found = {"type": "search_result", "source": "x", "title": "x", "content": [plain]}
    thought = {"type": "thinking", "thinking": text, "signature": "c2ln"}
    said: Any = {
        USER: [{"role": "user", "content": text}],
        "assistant": [ask, {"role": "assistant", "content": [plain]}, ask],
        "prefill": [ask, {"role": "assistant", "content": text}],
        "earlier": [{"role": "user", "content": [plain]}, {"role": "assistant", "content": "Yes"}, ask],
        "result": [*called, {"role": "user", "content": [result]}],
        "result parts": [*called, {"role": "user", "content": [{**result, "content": [plain]}]}],
        "result beside words": [*called, {"role": "user", "content": [result, word]}],
        "result error": [*called, {"role": "user", "content": [{**result, "is_error": True}]}],
        "arguments": [
            ask,
            {"role": "assistant", "content": [{**use, "input": {"city": text}}]},
            {"role": "user", "content": [{**result, "content": "sunny"}]},
        ],
        "document": [{"role": "user", "content": [document, word]}],
        "document name": [{"role": "user", "content": [{**document, "title": text, "context": text}, word]}],
        "image": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": _text(text)},
                    },
                    word,
                ],
            }
        ],
        "citation": [
            ask,
            {"role": "assistant", "content": [{**plain, "text": "It", "citations": [citation]}]},
            {"role": "user", "content": [found, {**plain, "citations": [citation]}, word]},
        ],
        "thought": [ask, {"role": "assistant", "content": [thought, {**word, "text": "It"}]}, ask],
    }.get(place, [ask])
    body: Json = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": said}
    if place == "tool":
        body["tools"] = [{"name": "look", "description": text, "input_schema": _SCHEMA}]
    elif place == "schema":
        schema = {"type": "json_schema", "schema": {**_SCHEMA, "description": text}}
        body["output_config"] = {"format": schema}
    elif place == "user id":
        body["metadata"] = {"user_id": text}
    return body


# --- Gemini ------------------------------------------------------------------------------------------------


def _gemini(place: str, text: str) -> Json:
    ask: Json = {"role": "user", "parts": [{"text": _QUESTION}]}
    answer: Json = {"role": "model", "parts": [{"text": "It"}]}
    called = [ask, {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]}]
    result = {"functionResponse": {"name": "look", "response": {"result": text}}}
    data = {"inlineData": {"mimeType": "text/plain", "data": _text(text)}}
    file = {"fileData": {"mimeType": "text/plain", "fileUri": "https://files.example/" + text}}
    said: Any = {
        USER: [{"role": "user", "parts": [{"text": text}]}],
        "assistant": [ask, {"role": "model", "parts": [{"text": text}]}, ask],
        "prefill": [ask, {"role": "model", "parts": [{"text": text}]}],
        "earlier": [{"role": "user", "parts": [{"text": text}]}, answer, ask],
        "result": [*called, {"role": "user", "parts": [result]}],
        "result parts": [*called, {"role": "function", "parts": [{"text": text}, result]}],
        "result beside words": [*called, {"role": "user", "parts": [result, {"text": _QUESTION}]}],
        "result error": [
            *called,
            {
                "role": "function",
                "parts": [{"functionResponse": {"name": "look", "response": {"error": text}}}],
            },
        ],
        "arguments": [
            ask,
            {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"city": text}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"result": "x"}}}]},
        ],
        "document": [{"role": "user", "parts": [data, {"text": _QUESTION}]}],
        "document name": [{"role": "user", "parts": [file, {"text": _QUESTION}]}],
        "image": [
            {
                "role": "user",
                "parts": [
                    {"inlineData": {"mimeType": "image/png", "data": _text(text)}},
                    {"text": _QUESTION},
                ],
            }
        ],
        "citation": [ask, {**answer, "citationMetadata": {"citationSources": [{"uri": text}]}}, ask],
        "thought": [ask, {"role": "model", "parts": [{"text": text, "thought": True}, {"text": "It"}]}, ask],
    }.get(place, [ask])
    body: Json = {"contents": said}
    if place == "tool":
        body["tools"] = [{"functionDeclarations": [{"name": "look", "description": text}]}]
    elif place == "schema":
        body["generationConfig"] = {
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "description": text},
        }
    elif place == "user id":
        body["labels"] = {"user": text}
    return body


PLANTED: Final[Mapping[Dialect, Callable[[str, str], Json]]] = {
    Dialect.OPENAI_CHAT: _chat,
    Dialect.OPENAI_RESPONSES: _responses,
    Dialect.ANTHROPIC_MESSAGES: _anthropic,
    Dialect.GEMINI: _gemini,
}
"""By dialect, what makes a body with a text planted at a place."""
