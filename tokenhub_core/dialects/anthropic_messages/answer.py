"""Whole answers of this dialect: the Message object."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import orjson

from tokenhub_core.dialects.anthropic_messages import blocks, thoughts, words
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.types import (
    Answer,
    File,
    Image,
    Json,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolUse,
    Usage,
)

_READ: Final = ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage")

_OWN_USAGE: Final = frozenset(
    f"usage.{name}"
    for name in ("cache_creation", "inference_geo", "server_tool_use", "service_tier", "speed")
)
"""As `_ADOPTED`, of the usage."""

_ADOPTED: Final = frozenset({"container", "context_management", "diagnostics", "stop_details"})
"""Members of `Answer.rest` that are this dialect's own; whatever else stands there came from another one."""


def parse_answer(data: Json) -> Answer:
    """Return the canonical answer; raises ValueError if `data` is no Message object."""
    if data.get("type") != "message":
        raise ValueError(f"expected an object of type 'message', got {data.get('type')!r}")
    content = data.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise ValueError("content: expected a list of blocks")
    try:
        parts = blocks.parts(content)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"content: {error}") from None
    id_, model = data.get("id"), data.get("model")
    return Answer(
        id=id_ if isinstance(id_, str) else "",
        model=model if isinstance(model, str) else "",
        parts=parts,
        stop=words.stopped(data.get("stop_reason"), data.get("stop_sequence")),
        usage=usage(data),
        rest={**blocks.rest(data, *_READ), **words.usage_extras(data.get("usage"))},
    )


def render_answer(answer: Answer, request: Request) -> Rendered:
    """Return the Message object that the caller's SDK expects."""
    losses: list[str] = []
    id_ = words.message_id(answer.id)
    content = _content(answer.parts, id_, losses)
    losses.extend(words.stop_loss(answer.stop))
    data: Json = {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": answer.model or request.features.model,
        "content": content,
        "stop_reason": words.stop_word(answer.stop),
        "stop_sequence": answer.stop.sequence or None,
        "usage": words.usage_json(answer.usage),
    }
    for name, value in answer.rest.items():
        if name in _ADOPTED:
            data[name] = value
        elif name in _OWN_USAGE:
            data["usage"][name.removeprefix("usage.")] = value
        else:
            losses.append(name)
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _content(parts: tuple[Part, ...], message_id: str, losses: list[str]) -> list[Json]:
    writer = blocks.BlockWriter(own=False, ids={}, losses=losses)
    content: list[Json] = []
    tools = 0
    for given in _text_last(parts):
        part = given
        # Unlike in a request, thoughts are shown here whoever had them: nobody has to verify them.
        if isinstance(part, Reasoning):
            content.append(thoughts.to_client(part))
            losses += part.rest
            continue
        if isinstance(part, Image | File):
            losses.append(f"part:{type(part).__name__.lower()}")
            continue
        if isinstance(part, ToolUse) and part.signature:
            content.append(thoughts.before_tool(part.signature))
            part = replace(part, signature="")
        block = writer.block(part)
        if block is None:
            continue
        if isinstance(part, ToolUse):
            block["id"] = part.id or words.made_up_tool_id(message_id, tools)
            tools += 1
        content.append(block)
    return content


def _text_last(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts with seals that end an answer before its last text: clients take the last block for it."""
    end = len(parts)
    while end and isinstance(seal := parts[end - 1], Reasoning) and not seal.text:
        end -= 1
    start = end
    while start and isinstance(parts[start - 1], Text | Refusal):
        start -= 1
    return parts[:start] + parts[end:] + parts[start:end]


def usage(data: Json) -> Usage:
    """Return the token counts of a whole Message object, zeros where it holds none."""
    found = data.get("usage")
    return words.usage(words.counts(found)) if isinstance(found, dict) else Usage()
