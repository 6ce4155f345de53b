"""The response object and its items, as both the whole answer and the stream hold them.

The types of the official SDK (`openai.types.responses.Response` and what it is made of) say which fields have to
be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tokenhub_core.dialects.openai_responses import proof, words
from tokenhub_core.types import Dialect, Image, Json, Logprob, Opaque, Part, Reasoning, Request, Stopped

_ECHOED: Final[dict[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""Settings that a response repeats, and what it says where the caller said nothing."""


def frame(request: Request, *, response: str, created: int, model: str) -> Json:
    """Return a response that has begun: what the caller asked for, and nothing of the answer yet.

    It is not stored anywhere, whatever the caller said: nobody could be asked for it again.
    """
    asked = request.data
    echoed = {name: usual if asked.get(name) is None else asked[name] for name, usual in _ECHOED.items()}
    return {
        "id": response,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model or request.features.model,
        "output": [],
        "previous_response_id": None,
        "service_tier": None,
        "store": False,
        "tools": [_tool(tool) for tool in asked.get("tools") or ()],
        "usage": None,
        **echoed,
    }


def _tool(tool: Json) -> Json:
    return {"parameters": None, "strict": None, **tool} if tool.get("type") == "function" else tool


def ended(begun: Json, stop: Stopped, *, output: list[Json], usage: Json, refused: bool) -> Json:
    """Return a response that is over; `refused` says that a refusal stands in its output."""
    reason = words.incomplete_reason(stop, refused=refused)
    return {
        **begun,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": usage,
    }


def message(id_: str, content: Sequence[Json], status: str) -> Json:
    """Return a message of the assistant."""
    return {"id": id_, "type": "message", "status": status, "role": "assistant", "content": list(content)}


def text(value: str, logprobs: Sequence[Logprob] = ()) -> Json:
    """Return a text of a message."""
    return {
        "type": "output_text",
        "text": value,
        "annotations": [],
        "logprobs": words.logprobs_json(logprobs),
    }


def refusal(value: str) -> Json:
    """Return a refusal of a message."""
    return {"type": "refusal", "refusal": value}


def summary(value: str) -> Json:
    """Return a piece of a reasoning item's summary."""
    return {"type": "summary_text", "text": value}


def reasoning(id_: str, summaries: Sequence[str], encrypted: str = "") -> Json:
    """Return a reasoning item. Thoughts are shown as summaries: those are what clients look for."""
    item: Json = {"id": id_, "type": "reasoning", "summary": [summary(each) for each in summaries]}
    if encrypted:
        item["encrypted_content"] = encrypted
    return item


def encrypted(thought: Reasoning) -> str:
    """Return the seal of a thought, as its client gets it."""
    if thought.signature:
        return proof.write(thought.signature, proof.Kind.SIGNED)
    return proof.write(thought.redacted, proof.Kind.HIDDEN)


def function_call(id_: str, call_id: str, name: str, arguments: str, status: str) -> Json:
    """Return a call of a function. The result is sent for `call_id`; `id` names the item."""
    return {
        "id": id_,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def picture(id_: str, image: Image, status: str) -> Json:
    """Return an image that the model made, as the image tool of this dialect would have."""
    item: Json = {"id": id_, "type": "image_generation_call", "status": status, "result": image.data}
    kind = image.media_type.removeprefix("image/")
    if kind in {"png", "webp", "jpeg", "gif"}:
        item["output_format"] = kind
    return item


def own_item(part: Part) -> Json | None:
    """Return an item that only this dialect understands, None for anything else."""
    return part.raw if isinstance(part, Opaque) and part.dialect is Dialect.OPENAI_RESPONSES else None
