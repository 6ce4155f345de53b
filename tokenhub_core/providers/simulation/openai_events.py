"""OpenAI's `/v1/responses`: whole answers, and the events of a stream, numbered from 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson

from tokenhub_core.providers.simulation import openai
from tokenhub_core.providers.simulation.asking import Ask, strings
from tokenhub_core.providers.simulation.frames import Frames, Reply, event, slices
from tokenhub_core.providers.simulation.openai_responses import VENDOR, tool_choice
from tokenhub_core.providers.simulation.playing import Called, Said, logprobs, pieces
from tokenhub_core.providers.simulation.proofs import name, seal
from tokenhub_core.types import Json, StopReason

_INCOMPLETE: Final = {StopReason.LENGTH: "max_output_tokens", StopReason.FILTERED: "content_filter"}


def whole_answer(reply: Reply) -> bytes:
    """Return a whole answer."""
    return orjson.dumps(_response(reply, _output(reply), _status(reply.first)))


def stream(reply: Reply) -> Frames:
    """Return a stream."""
    numbers = iter(range(1_000_000))

    def numbered(data: Json) -> bytes:
        return event({**data, "sequence_number": next(numbers)})

    begun = _response(reply, [], "in_progress")
    opening = [
        numbered({"type": f"response.{word}", "response": begun}) for word in ("created", "in_progress")
    ]
    output = _output(reply)
    content = [
        numbered({**data, "output_index": index})
        for index, item in enumerate(output)
        for data in _item_events(reply.ask, item)
    ]
    status = _status(reply.first)
    closing = numbered({"type": f"response.{status}", "response": _response(reply, output, status)})
    return Frames(tuple(opening), tuple(content), (closing,))


def _status(said: Said) -> str:
    return "incomplete" if said.stop in _INCOMPLETE else "completed"


def _response(reply: Reply, output: list[Json], status: str) -> Json:
    ask, said, data = reply.ask, reply.first, reply.ask.data
    ended = status != "in_progress"
    reason = _INCOMPLETE.get(said.stop) if ended else None
    usage = {
        "input_tokens": said.input_tokens,
        "input_tokens_details": {"cached_tokens": said.cache_read, "cache_write_tokens": 0},
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
        "total_tokens": said.input_tokens + said.output_tokens,
    }
    reasoning = data.get("reasoning") or {}
    text = data.get("text") or {}
    return {
        "id": f"resp_{reply.key}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": data.get("instructions"),
        "max_output_tokens": ask.limit,
        "max_tool_calls": None,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": ask.parallel,
        "previous_response_id": None,
        "prompt_cache_key": data.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": data.get("safety_identifier"),
        "service_tier": openai.tier(data) if ended else data.get("service_tier", "auto"),
        "store": data.get("store", True),
        "temperature": data.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **text},
        "tool_choice": tool_choice(data),
        "tools": [_shown(tool) for tool in data.get("tools") or ()],
        "top_logprobs": ask.logprobs or 0,
        "top_p": data.get("top_p", 1.0),
        "truncation": data.get("truncation", "disabled"),
        "usage": usage if ended else None,
        "user": data.get("user"),
        "metadata": data.get("metadata") or {},
    }


def _shown(tool: Json) -> Json:
    """Return a tool as the vendor repeats it: with what it filled in."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": {}, "strict": True, **tool}


def _output(reply: Reply) -> list[Json]:
    said = reply.first
    status = _status(said)
    items = [_reasoning(reply)] if said.thought else []
    items += [_call(call) for call in said.calls]
    if said.text or (not said.calls and not said.thought):
        if said.stop is StopReason.REFUSED:
            part: Json = {"type": "refusal", "refusal": said.text}
        else:
            part = {
                "type": "output_text",
                "text": said.text,
                "annotations": [],
                "logprobs": _logprobs(reply.ask, said.text),
            }
        name_ = f"msg_{name(VENDOR, said.nonce)}"
        items.append(
            {"type": "message", "id": name_, "status": status, "role": "assistant", "content": [part]}
        )
    return items


def _reasoning(reply: Reply) -> Json:
    ask, said = reply.ask, reply.first
    item: Json = {"type": "reasoning", "id": f"rs_{name(VENDOR, said.nonce)}", "summary": []}
    if ask.shows:
        item["summary"] = [{"type": "summary_text", "text": said.thought}]
    if "reasoning.encrypted_content" in strings(ask.data.get("include")):
        item["encrypted_content"] = seal(VENDOR, said.nonce)
    return item


def _call(call: Called) -> Json:
    kind, prefix, field = (
        ("custom_tool_call", "ctc", "input") if call.custom else ("function_call", "fc", "arguments")
    )
    return {
        "type": kind,
        "id": f"{prefix}_{call.nonce}",
        "status": "completed",
        "call_id": f"call_{call.nonce}",
        "name": call.name,
        field: call.arguments,
    }


def _logprobs(ask: Ask, text: str, *, bare: bool = False) -> list[Json]:
    if ask.logprobs is None:
        return []
    return [openai.logprob(token, bare=bare) for token in logprobs(text, ask.logprobs)]


def _item_events(ask: Ask, item: Json) -> Iterator[Json]:
    """Yield what a stream says of one item, from its opening to its end; indexes and numbers are added later."""
    kind = item["type"]
    begun = {**item, "status": "in_progress"} if "status" in item else dict(item)
    if kind == "message":
        begun["content"] = []
    elif kind == "reasoning":
        begun["summary"] = []
    else:
        begun["arguments" if kind == "function_call" else "input"] = ""
    yield {"type": "response.output_item.added", "item": begun}
    told = {"item_id": item["id"]}
    if kind == "message":
        events = _message_events(ask, item["content"][0])
    else:
        events = _summary_events(item) if kind == "reasoning" else _call_events(item)
    for data in events:
        yield {**data, **told}
    yield {"type": "response.output_item.done", "item": item}


def _message_events(ask: Ask, part: Json) -> Iterator[Json]:
    field = "refusal" if part["type"] == "refusal" else "text"
    prefix = "response.refusal" if field == "refusal" else "response.output_text"
    empty = {**part, field: ""}
    if field == "text":
        empty["logprobs"] = []
    yield {"type": "response.content_part.added", "content_index": 0, "part": empty}
    for word in pieces(part[field]):
        extra = {"logprobs": _logprobs(ask, word, bare=True)} if field == "text" else {}
        yield {"type": f"{prefix}.delta", "content_index": 0, "delta": word, **extra}
    extra = {"logprobs": _logprobs(ask, part[field], bare=True)} if field == "text" else {}
    yield {"type": f"{prefix}.done", "content_index": 0, field: part[field], **extra}
    yield {"type": "response.content_part.done", "content_index": 0, "part": part}


def _summary_events(item: Json) -> Iterator[Json]:
    prefix = "response.reasoning_summary"
    for index, part in enumerate(item["summary"]):
        at = {"summary_index": index}
        yield {"type": f"{prefix}_part.added", "part": {"type": "summary_text", "text": ""}, **at}
        for word in pieces(part["text"]):
            yield {"type": f"{prefix}_text.delta", "delta": word, **at}
        yield {"type": f"{prefix}_text.done", "text": part["text"], **at}
        yield {"type": f"{prefix}_part.done", "part": part, **at}


def _call_events(item: Json) -> Iterator[Json]:
    custom = item["type"] == "custom_tool_call"
    prefix = "response.custom_tool_call_input" if custom else "response.function_call_arguments"
    field = "input" if custom else "arguments"
    for part in slices(item[field]):
        yield {"type": f"{prefix}.delta", "delta": part}
    named = {} if custom else {"name": item["name"]}
    yield {"type": f"{prefix}.done", field: item[field], **named}
