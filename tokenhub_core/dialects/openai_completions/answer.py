"""Whole answers of this dialect: the text completion object."""

from __future__ import annotations

from typing import Any, Final

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat import words as _chat
from tokenhub_core.dialects.openai_chat.fit import part_losses
from tokenhub_core.dialects.openai_chat.kept import others, put_back
from tokenhub_core.dialects.openai_completions import words
from tokenhub_core.dialects.openai_completions.parse import echoed
from tokenhub_core.types import Answer, Json, Logprob, Part, Refusal, Request, Text

_FIELDS: Final = frozenset({"id", "object", "created", "model", "choices", "usage"})


class _Kept(dict[str, Any]):
    """A `rest` that this dialect made: further choices are of another shape than those of a chat."""


def parse_answer(data: Json) -> Answer:
    """Return the canonical answer; raises ValueError if `data` is no completion. Further choices are kept."""
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("choices: expected a list of objects")
    choice = choices[0]
    text = choice.get("text")
    if not isinstance(text, str):
        raise ValueError("choices[0].text: expected a string")
    rest = _Kept(others(data, _FIELDS))
    rest |= others(choice, _chat.CHOICE, "choices.")
    rest |= _chat.usage_extras(data.get("usage"))
    if len(choices) > 1:
        rest["choices[n>1]"] = choices[1:]
    logprobs = words.logprobs(choice.get("logprobs"))
    id_, model, created = data.get("id"), data.get("model"), data.get("created")
    return Answer(
        id=id_ if isinstance(id_, str) else "",
        model=model if isinstance(model, str) else "",
        parts=(Text(text, logprobs=logprobs),) if text or logprobs else (),
        stop=words.stopped(choice),
        usage=_chat.usage(data.get("usage")),
        created=created if type(created) is int else 0,
        rest=rest,
    )


def render_answer(answer: Answer, *, request: Request) -> Rendered:
    """Return the completion object that the caller's SDK expects; only text can be told in it."""
    losses: list[str] = list(words.stop_losses(answer.stop))
    echo = echoed(request.data)
    text, logprobs = _text(answer.parts, losses)
    choice: Json = {
        "text": echo + text,
        "index": 0,
        "logprobs": words.logprobs_json(logprobs, len(echo)),
        "finish_reason": words.stop_word(answer.stop),
    }
    data: Json = {
        "id": words.completion_id(answer.id),
        "object": "text_completion",
        "created": answer.created,
        "model": answer.model or request.features.model,
        "choices": [choice],
        "usage": _chat.usage_json(answer.usage),
    }
    if isinstance(answer.rest, _Kept):
        rest = dict(answer.rest)
        choice |= {
            name.removeprefix("choices."): rest.pop(name)
            for name in answer.rest
            if name.startswith("choices.")
        }
        data["choices"] += rest.pop("choices[n>1]", [])
        put_back(data, {name: rest.pop(name) for name in answer.rest if name.startswith("usage.")})
        data |= rest
    else:
        losses += answer.rest
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _text(parts: tuple[Part, ...], losses: list[str]) -> tuple[str, list[Logprob]]:
    texts: list[str] = []
    logprobs: list[Logprob] = []
    for part in parts:
        match part:
            case Text(text, rest):
                texts.append(text)
                logprobs += part.logprobs
                losses += rest
            case Refusal(text):
                texts.append(text)
            case _:
                losses += part_losses(part)
    return "".join(texts), logprobs
