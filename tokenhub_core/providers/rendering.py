"""A simulated answer on the wire: whole bodies, streams and errors in both dialects.

Written straight from the vendors' public API descriptions and not with the house's own dialect modules, so that
a slip there meets an independent witness instead of its own mirror image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson

from tokenhub_core.providers.playing import Ask, Said, pieces
from tokenhub_core.types import Dialect, Json, StopReason

_OPENAI_STOP: Final[Mapping[StopReason, str]] = MappingProxyType(
    {StopReason.LENGTH: "length", StopReason.TOOL_USE: "tool_calls"}
)
_ANTHROPIC_STOP: Final[Mapping[StopReason, str]] = MappingProxyType(
    {
        StopReason.LENGTH: "max_tokens",
        StopReason.TOOL_USE: "tool_use",
        StopReason.STOP_SEQUENCE: "stop_sequence",
    }
)
_OPENAI_ERRORS: Final[Mapping[int, tuple[str, str | None]]] = MappingProxyType(
    {
        400: ("invalid_request_error", None),
        401: ("invalid_request_error", "invalid_api_key"),
        403: ("invalid_request_error", "unsupported_country_region_territory"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }
)
_ANTHROPIC_ERRORS: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
)


@dataclass(frozen=True, slots=True)
class Frames:
    """A stream in three parts: what only opens it, what a user sees, and what closes it."""

    opening: tuple[bytes, ...]
    content: tuple[bytes, ...]
    closing: tuple[bytes, ...]


def whole(ask: Ask, said: Said, *, id: str, created: int) -> bytes:  # noqa: A002 - the wire's own word
    """Return the body of an answer that is not streamed."""
    if ask.dialect is Dialect.OPENAI_CHAT:
        return orjson.dumps(_openai_whole(ask, said, id, created))
    return orjson.dumps(_anthropic_whole(ask, said, id))


def stream(ask: Ask, said: Said, *, id: str, created: int) -> Frames:  # noqa: A002 - the wire's own word
    """Return the events of a streamed answer."""
    if ask.dialect is Dialect.OPENAI_CHAT:
        return _openai_stream(ask, said, id, created)
    return _anthropic_stream(ask, said, id)


def error(dialect: Dialect, status: int, message: str, *, id: str, code: str = "") -> bytes:  # noqa: A002
    """Return the body of an error response; `code` replaces the one that `status` implies."""
    return orjson.dumps(_error(dialect, status, message, id, code))


def error_event(dialect: Dialect, status: int, message: str, *, id: str) -> bytes:  # noqa: A002
    """Return an error as an event inside a stream."""
    data = _error(dialect, status, message, id, "")
    return _data(data) if dialect is Dialect.OPENAI_CHAT else _event(data)


def _error(dialect: Dialect, status: int, message: str, request_id: str, code: str) -> Json:
    if dialect is Dialect.ANTHROPIC_MESSAGES:
        kind = _ANTHROPIC_ERRORS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    kind, implied = _OPENAI_ERRORS.get(
        status, ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    )
    return {"error": {"message": message, "type": kind, "param": None, "code": code or implied}}


def _data(data: Json) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _event(data: Json) -> bytes:
    kind: str = data["type"]
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


# --- OpenAI chat completions -------------------------------------------------------------------------------


def _openai_usage(said: Said) -> Json:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _openai_whole(ask: Ask, said: Said, id_: str, created: int) -> Json:
    message: Json = {"role": "assistant", "content": said.text, "refusal": None, "annotations": []}
    if said.calls:
        message["content"] = None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in said.calls
        ]
    return {
        "id": id_,
        "object": "chat.completion",
        "created": created,
        "model": ask.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": _OPENAI_STOP.get(said.stop, "stop"),
            }
        ],
        "usage": _openai_usage(said),
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def _openai_stream(ask: Ask, said: Said, id_: str, created: int) -> Frames:
    base: Json = {
        "id": id_,
        "object": "chat.completion.chunk",
        "created": created,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }
    usage: Json = {"usage": None} if ask.include_usage else {}

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**base, "choices": [choice], **usage})

    content: list[bytes] = []
    for index, call in enumerate(said.calls):
        function = {"name": call.name, "arguments": ""}
        start = {"index": index, "id": call.id, "type": "function", "function": function}
        content.append(chunk({"tool_calls": [start]}))
        content += [
            chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
            for part in _slices(call.arguments)
        ]
    content += [chunk({"content": word}) for word in pieces(said.text)]
    closing = [chunk({}, _OPENAI_STOP.get(said.stop, "stop"))]
    if ask.include_usage:
        closing.append(_data({**base, "choices": [], "usage": _openai_usage(said)}))
    closing.append(b"data: [DONE]\n\n")
    start_text: Any = None if said.calls else ""
    opening = chunk({"role": "assistant", "content": start_text, "refusal": None})
    return Frames((opening,), tuple(content), tuple(closing))


# --- Anthropic messages ------------------------------------------------------------------------------------


def _anthropic_usage(said: Said, output: int) -> Json:
    return {
        "input_tokens": said.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def _anthropic_message(ask: Ask, id_: str, content: list[Json], stop: Json, usage: Json) -> Json:
    message: Json = {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
    }
    return {**message, **stop, "usage": usage}


def _anthropic_stop(said: Said) -> Json:
    return {
        "stop_reason": _ANTHROPIC_STOP.get(said.stop, "end_turn"),
        "stop_sequence": said.sequence or None,
    }


def _anthropic_whole(ask: Ask, said: Said, id_: str) -> Json:
    blocks: list[Json] = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": orjson.loads(call.arguments)}
        for call in said.calls
    ]
    if said.text:
        blocks.insert(0, {"type": "text", "text": said.text, "citations": None})
    return _anthropic_message(
        ask, id_, blocks, _anthropic_stop(said), _anthropic_usage(said, said.output_tokens)
    )


def _anthropic_stream(ask: Ask, said: Said, id_: str) -> Frames:
    unstopped: Json = {"stop_reason": None, "stop_sequence": None}
    message = _anthropic_message(ask, id_, [], unstopped, _anthropic_usage(said, 1))
    blocks: list[tuple[Json, list[Json]]] = [
        (
            {"type": "tool_use", "id": call.id, "name": call.name, "input": {}},
            [{"type": "input_json_delta", "partial_json": part} for part in ["", *_slices(call.arguments)]],
        )
        for call in said.calls
    ]
    if said.text:
        deltas = [{"type": "text_delta", "text": word} for word in pieces(said.text)]
        blocks.insert(0, ({"type": "text", "text": ""}, deltas))
    content: list[bytes] = []
    for index, (block, deltas) in enumerate(blocks):
        content.append(_event({"type": "content_block_start", "index": index, "content_block": block}))
        content += [
            _event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas
        ]
        content.append(_event({"type": "content_block_stop", "index": index}))
    return Frames(
        opening=(_event({"type": "message_start", "message": message}), _event({"type": "ping"})),
        content=tuple(content),
        closing=(
            _event(
                {
                    "type": "message_delta",
                    "delta": _anthropic_stop(said),
                    "usage": {"output_tokens": said.output_tokens},
                }
            ),
            _event({"type": "message_stop"}),
        ),
    )


def _slices(arguments: str) -> list[str]:
    """Cut the text of a tool call's arguments as a model does: in pieces that are no JSON by themselves."""
    return [arguments[at : at + 12] for at in range(0, len(arguments), 12)]
