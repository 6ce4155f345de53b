"""Anthropic's `/v1/messages`: whole answers and the events of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import orjson

from tokenhub_core.providers.simulation.anthropic import VENDOR
from tokenhub_core.providers.simulation.frames import Frames, Reply, event, slices
from tokenhub_core.providers.simulation.playing import DECLINED, Called, Said, pieces
from tokenhub_core.providers.simulation.proofs import seal
from tokenhub_core.types import Json, StopReason

_STOP: Final[Mapping[StopReason, str]] = MappingProxyType(
    {
        StopReason.LENGTH: "max_tokens",
        StopReason.TOOL_USE: "tool_use",
        StopReason.STOP_SEQUENCE: "stop_sequence",
        StopReason.REFUSED: "refusal",
    }
)


def whole_answer(reply: Reply) -> bytes:
    """Return a whole answer."""
    said = reply.first
    content = [block for block, _ in _blocks(reply)]
    return orjson.dumps(_message(reply, content, _stop(said), said.output_tokens))


def stream(reply: Reply) -> Frames:
    """Return a stream."""
    said = reply.first
    unstopped: Json = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
    message = _message(reply, [], unstopped, 1)
    content: list[bytes] = []
    for index, (block, deltas) in enumerate(_blocks(reply)):
        content.append(event({"type": "content_block_start", "index": index, "content_block": _begun(block)}))
        content += [
            event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas
        ]
        content.append(event({"type": "content_block_stop", "index": index}))
    usage: Json = {"output_tokens": said.output_tokens}
    if said.thought:
        usage["output_tokens_details"] = {"thinking_tokens": said.reasoning_tokens}
    return Frames(
        opening=(event({"type": "message_start", "message": message}), event({"type": "ping"})),
        content=tuple(content),
        closing=(
            event({"type": "message_delta", "delta": _stop(said), "usage": usage}),
            event({"type": "message_stop"}),
        ),
    )


def _message(reply: Reply, content: list[Json], stop: Json, output: int) -> Json:
    said = reply.first
    usage: Json = {
        "input_tokens": said.input_tokens - said.cache_read - said.cache_write,
        "cache_creation_input_tokens": said.cache_write,
        "cache_read_input_tokens": said.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": said.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }
    if said.thought:
        usage["output_tokens_details"] = {"thinking_tokens": said.reasoning_tokens if output > 1 else 0}
    return {
        "id": f"msg_{reply.key}",
        "type": "message",
        "role": "assistant",
        "model": reply.ask.model,
        "content": content,
        **stop,
        "usage": usage,
    }


def _stop(said: Said) -> Json:
    details: Json | None = None
    if said.stop is StopReason.REFUSED:
        details = {"type": "refusal", "category": "general_harms", "explanation": DECLINED}
    reason = _STOP.get(said.stop, "end_turn")
    return {"stop_reason": reason, "stop_sequence": said.sequence or None, "stop_details": details}


def _blocks(reply: Reply) -> Iterator[tuple[Json, list[Json]]]:
    """Yield the answer's blocks, each with the deltas that make it."""
    said = reply.first
    if said.thought:
        yield _thinking(reply)
    if said.text and said.stop is not StopReason.REFUSED:
        deltas = [{"type": "text_delta", "text": word} for word in pieces(said.text)]
        yield {"type": "text", "text": said.text, "citations": None}, deltas
    for call in said.calls:
        yield _call(call)


def _thinking(reply: Reply) -> tuple[Json, list[Json]]:
    said = reply.first
    if said.redacted:
        return {"type": "redacted_thinking", "data": seal(VENDOR, said.nonce)}, []
    signature = seal(VENDOR, said.nonce, said.thought)
    shown = said.thought if reply.ask.shows else ""
    deltas: list[Json] = [{"type": "thinking_delta", "thinking": word} for word in pieces(shown)]
    deltas.append({"type": "signature_delta", "signature": signature})
    return {"type": "thinking", "thinking": shown, "signature": signature}, deltas


def _call(call: Called) -> tuple[Json, list[Json]]:
    block = {
        "type": "tool_use",
        "id": f"toolu_{call.nonce}",
        "name": call.name,
        "input": orjson.loads(call.arguments),
    }
    parts = ["", *slices(call.arguments)]
    return block, [{"type": "input_json_delta", "partial_json": part} for part in parts]


def _begun(block: Json) -> Json:
    """Return a block as it stands before its first delta."""
    match block["type"]:
        case "text":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "tool_use":
            return {**block, "input": {}}
        case _:
            return block
