"""Whole answers of this dialect: the response object."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_responses import content, output, proof, thoughts, words
from tokenhub_core.dialects.openai_responses.fit import part_losses
from tokenhub_core.dialects.openai_responses.kept import Kept, kept, put_back
from tokenhub_core.types import (
    Answer,
    Image,
    Json,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolUse,
    Usage,
)

_FIELDS: Final = frozenset(
    {"id", "object", "created_at", "model", "output", "status", "incomplete_details", "usage", "error"}
)

_ECHOED: Final = frozenset(
    {
        "access_programs",
        "background",
        "billing",
        "completed_at",
        "frequency_penalty",
        "image",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
"""What a response repeats of its request, and other things that say nothing of the answer."""

_USUAL_TIERS: Final = ("auto", "default")

_OVER: Final = ("completed", "incomplete", None)


def parse_answer(data: Json) -> Answer:
    """Return the canonical answer; raises ValueError if `data` is no response, or one that failed or goes on."""
    items = data.get("output")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("output: expected a list of objects")
    if data.get("status") not in _OVER:
        raise ValueError(f"status: expected a response that is over, got {data.get('status')!r}")
    rest = left(data)
    parts = _parts(items)
    id_, model = data.get("id"), data.get("model")
    return Answer(
        id=id_ if isinstance(id_, str) else "",
        model=model if isinstance(model, str) else "",
        parts=parts,
        stop=words.stopped(
            data,
            tools=any(isinstance(part, ToolUse) for part in parts),
            refused=any(isinstance(part, Refusal) for part in parts),
        ),
        usage=usage(data),
        created=words.seconds(data.get("created_at")),
        rest=rest,
    )


def left(data: Json) -> Kept:
    """Return what a response says besides its answer; what it only repeats of its request is no loss elsewhere."""
    rest = kept(data, _FIELDS, _ECHOED)
    if rest.get("service_tier") in _USUAL_TIERS:
        rest.silent["service_tier"] = rest.pop("service_tier")
    if not wire.telling(rest.get("tool_usage")) and "tool_usage" in rest:
        rest.silent["tool_usage"] = rest.pop("tool_usage")
    rest |= words.usage_extras(data.get("usage"))
    return rest


def _parts(items: list[Json]) -> tuple[Part, ...]:
    parts: list[Part] = []
    signature = ""
    for item in items:
        match item.get("type"):
            case "message":
                parts += _phased(content.spoken(item.get("content")), item.get("phase"))
            case "reasoning":
                found, sealed = content.thoughts(item)
                signature = sealed or signature
                parts += (
                    thought for thought in found if thought.text or thought.redacted or thought.signature
                )
            case "function_call":
                parts.append(content.tool_use(call_item(item), signature))
                signature = ""
            case _:
                parts.append(content.generated(item) or content.opaque(item))
    return tuple(parts)


def _phased(found: list[Part], phase: object) -> list[Part]:
    """Return the parts of a message; what the message is to its turn is told with its first text."""
    place = next((i for i, part in enumerate(found) if isinstance(part, Text)), None)
    if not phase or place is None:
        return found
    first = found[place]
    assert isinstance(first, Text)
    found[place] = replace(first, rest=Kept({**first.rest, "phase": phase}))
    return found


def call_item(item: Json) -> Json:
    """Return a function call with all that one must have; raises ValueError where it has no name."""
    if not isinstance(item.get("name"), str):
        raise ValueError("output: expected a name in a function call")
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else wire.encode(arguments).decode()
    return {**item, "call_id": str(item.get("call_id") or item.get("id") or ""), "arguments": arguments}


def render_answer(answer: Answer, *, request: Request) -> Rendered:
    """Return the response object that the caller's SDK expects.

    An answer without an id or a time gets none here that means anything: whoever has a clock sets them before.
    """
    losses: list[str] = list(words.stop_losses(answer.stop))
    id_ = words.response_id(answer.id)
    refused = any(isinstance(part, Refusal) for part in answer.parts)
    cut = bool(words.incomplete_reason(answer.stop, refused=refused))
    data = output.ended(
        output.frame(request, response=id_, created=answer.created, model=answer.model),
        answer.stop,
        output=_Items(id_, losses).items(answer.parts, cut=cut),
        usage=words.usage_json(answer.usage),
        refused=refused,
    )
    if isinstance(answer.rest, Kept):
        put_back(data, answer.rest)
    else:
        losses += answer.rest
    return Rendered(data, tuple(dict.fromkeys(losses)))


class _Items:
    """Writes the output of one answer."""

    def __init__(self, response: str, losses: list[str]) -> None:
        self._response = response
        self._losses = losses
        self._found: list[Json] = []
        self._thoughts: list[Reasoning] = []
        self._calls = 0

    def items(self, parts: tuple[Part, ...], *, cut: bool) -> list[Json]:
        """Return the items; where the answer was cut short, the last of them is what it was cut in."""
        for part in parts:
            if isinstance(part, Reasoning):
                self._thoughts.append(part)
                continue
            self._think()
            match part:
                case Text():
                    body = self._with_rest(output.text(part.text, part.logprobs), part)
                    self._say(body, phase=body.pop("phase", None))
                case Refusal(text):
                    self._say(output.refusal(text))
                case ToolUse():
                    self._call(part)
                case Image() if part.data:
                    self._add(self._with_rest(output.picture(self._id("ig"), part, "completed"), part))
                case _:
                    self._other(part)
        self._think()
        if cut and self._found and "status" in self._found[-1]:
            self._found[-1]["status"] = "incomplete"
        return self._found

    def _id(self, kind: str) -> str:
        return words.item_id(kind, self._response, len(self._found))

    def _add(self, item: Json) -> None:
        self._found.append(item)

    def _say(self, body: Json, *, phase: object = None) -> None:
        if not phase and self._found and self._found[-1].get("type") == "message":
            self._found[-1]["content"].append(body)
            return
        message = output.message(self._id("msg"), [body], "completed")
        self._add(message | ({"phase": phase} if phase else {}))

    def _think(self) -> None:
        for row in thoughts.rows(self._thoughts):
            raw = [
                each.text for each in row if isinstance(each.rest, Kept) and each.text and not each.summary
            ]
            shown = [each.text for each in row if each.text and each.text not in raw]
            sealed = output.encrypted(row[-1])
            if not (raw or shown or sealed):
                continue
            item = output.reasoning(row[-1].id or self._id("rs"), shown, sealed)
            if raw:
                item["content"] = [{"type": "reasoning_text", "text": text} for text in raw]
            self._add(self._with_rest(item, row[0]))
        self._thoughts = []

    def _call(self, use: ToolUse) -> None:
        if use.signature:
            sealed = proof.write(use.signature, proof.Kind.CALL)
            self._add(output.reasoning(self._id("rs"), (), sealed))
        call_id = use.id or words.made_up_call_id(self._response, self._calls)
        self._calls += 1
        item = output.function_call(self._id("fc"), call_id, use.name, use.arguments or "{}", "completed")
        self._add(self._with_rest(item, use))

    def _other(self, part: Part) -> None:
        item = output.own_item(part)
        if item is None:
            self._losses += part_losses(part)
        elif isinstance(part, Opaque) and part.kind.startswith("content:"):
            self._say(item)
        else:
            self._add(item)

    def _with_rest(self, body: Json, part: Text | Image | Reasoning | ToolUse) -> Json:
        if isinstance(part.rest, Kept):
            return put_back(body, part.rest)
        self._losses += part.rest
        return body


def usage(data: Json) -> Usage:
    """Return the token counts of a whole success body, zeros where it holds none."""
    return words.usage(data.get("usage"))
