"""Whole answers of this dialect: the chat completion object."""

from __future__ import annotations

from typing import Final

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat import logprobs, media, thoughts, words
from tokenhub_core.dialects.openai_chat.fit import part_losses
from tokenhub_core.dialects.openai_chat.kept import Kept, others, put_back, spelled
from tokenhub_core.dialects.openai_chat.parse import assistant_parts
from tokenhub_core.dialects.openai_chat.restore import tool_call
from tokenhub_core.types import (
    Answer,
    Audio,
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

_FIELDS: Final = frozenset({"id", "object", "created", "model", "choices", "usage"})


def parse_answer(data: Json) -> Answer:
    """Return the canonical answer; raises ValueError if `data` is no chat completion. Further choices are kept."""
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("choices: expected a list of objects")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ValueError("choices[0].message: expected an object")
    rest = _left(data)
    rest |= others(choice, words.CHOICE, "choices.")
    rest |= words.usage_extras(data.get("usage"))
    rest |= others(message, ("role", "content"), "message.")
    if len(choices) > 1:
        rest["choices[n>1]"] = choices[1:]
    parts = assistant_parts(message, rest, scope="message.")
    if choice.get("logprobs") is not None:
        parts = _with_logprobs(parts, choice["logprobs"], rest)
    id_, model, created = data.get("id"), data.get("model"), data.get("created")
    return Answer(
        id=id_ if isinstance(id_, str) else "",
        model=model if isinstance(model, str) else "",
        parts=parts,
        stop=words.stopped(
            choice.get("finish_reason"),
            sequence=choice.get("stop_reason"),
            tools=any(isinstance(part, ToolUse) for part in parts),
            refused=any(isinstance(part, Refusal) for part in parts),
        ),
        usage=words.usage(data.get("usage")),
        created=created if type(created) is int else 0,
        rest=rest,
    )


def _left(data: Json) -> Kept:
    """Return what an answer tells of itself that has no canonical place; the usual tier says nothing elsewhere."""
    tier = data.get("service_tier")
    if tier in words.USUAL_TIERS:
        return Kept(others(data, (*_FIELDS, "service_tier")), service_tier=tier)
    return Kept(others(data, _FIELDS))


def _with_logprobs(parts: tuple[Part, ...], given: object, rest: Kept) -> tuple[Part, ...]:
    """Return the parts, the first text with its tokens; those of a refusal, or of no text, stay in `rest`."""
    found = logprobs.read(given)
    place = next((i for i, part in enumerate(parts) if isinstance(part, Text)), None)
    if place is None or not found:
        rest["logprobs"] = given
        return parts
    if isinstance(given, dict) and given.get("refusal"):
        rest["logprobs.refusal"] = given["refusal"]
    text = parts[place]
    assert isinstance(text, Text)
    return (*parts[:place], Text(text.text, text.rest, found), *parts[place + 1 :])


def render_answer(answer: Answer, *, request: Request) -> Rendered:
    """Return the chat completion object that the caller's SDK expects.

    An answer without an id or a time gets none here that means anything: whoever has a clock sets them before.
    """
    losses: list[str] = list(words.stop_losses(answer.stop))
    id_ = words.completion_id(answer.id)
    message = _message(answer.parts, id_, losses)
    tokens = [token for part in answer.parts if isinstance(part, Text) for token in part.logprobs]
    choice: Json = {
        "index": 0,
        "message": message,
        "logprobs": logprobs.write(tuple(tokens)) if tokens else None,
        "finish_reason": words.stop_word(answer.stop),
    }
    data: Json = {
        "id": id_,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model or request.features.model,
        "choices": [choice],
        "usage": words.usage_json(answer.usage),
    }
    if isinstance(answer.rest, Kept):
        rest = dict(answer.rest)
        if tier := spelled(answer.rest, "service_tier", ""):
            rest["service_tier"] = tier
        choice |= {
            name.removeprefix("choices."): rest.pop(name)
            for name in answer.rest
            if name.startswith("choices.")
        }
        choice["logprobs"] = rest.pop("logprobs", choice["logprobs"])
        if refused := rest.pop("logprobs.refusal", None):
            told = choice["logprobs"]
            choice["logprobs"] = {**(told if isinstance(told, dict) else {}), "refusal": refused}
        data["choices"] += rest.pop("choices[n>1]", [])
        inner = {name: value for name, value in rest.items() if name.startswith(("message.", "usage."))}
        around: Json = {"message": message, "usage": data["usage"]}
        put_back(around, inner)
        del around["message"]
        data |= around
        data |= {name: value for name, value in rest.items() if name not in inner}
    else:
        losses += answer.rest
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _message(parts: tuple[Part, ...], completion: str, losses: list[str]) -> Json:
    texts: list[str] = []
    thought: list[Reasoning] = []
    images: list[Json] = []
    spoken: Json | None = None
    refusals: list[str] = []
    calls: list[Json] = []
    for part in parts:
        match part:
            case Text(text, rest):
                texts.append(text)
                losses += rest
            case Reasoning():
                thought.append(part)
                losses += part.rest
            case Image():
                images.append(media.image_part(part))
                losses += part.rest
            case Audio() if spoken is None:
                spoken = media.speech(part, fallback_id=words.made_up_audio_id(completion))
                losses += part.rest
            case Refusal(text):
                refusals.append(text)
            case ToolUse():
                made_up = words.made_up_tool_id(completion, len(calls))
                use = ToolUse(part.id or made_up, part.name, part.arguments or "{}", signature=part.signature)
                calls.append(tool_call(use, client=True))
                losses += part.rest
            case _:
                losses += part_losses(part)
    message: Json = {
        "role": "assistant",
        "content": "".join(texts) or (None if calls or refusals or spoken else ""),
        "refusal": "".join(refusals) or None,
        **thoughts.to_client(thought),
    }
    if images:
        message["images"] = images
    if spoken:
        message["audio"] = spoken
    if calls:
        message["tool_calls"] = calls
    return message


def usage(data: Json) -> Usage:
    """Return the token counts of a whole success body, zeros where it holds none."""
    return words.usage(data.get("usage"))
