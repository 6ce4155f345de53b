"""Whole answers of this dialect: one object, which is also the form of a stream's last line."""

from __future__ import annotations

from typing import Final

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.ollama import words
from tokenhub_core.dialects.ollama.kept import FAMILY, Kept, others, put_back
from tokenhub_core.dialects.openai_chat.fit import part_losses
from tokenhub_core.types import (
    Answer,
    Dialect,
    Image,
    Json,
    Logprob,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolUse,
)

_READ: Final = frozenset(
    {
        *("model", "message", "response", "thinking", "tool_calls", "images", "done", "done_reason"),
        *("prompt_eval_count", "eval_count", "logprobs"),
    }
)
_QUIET: Final = frozenset({"created_at", "context", "remote_model", "remote_host", *words.UNMEASURED})
"""What a server tells of itself unasked."""

_MESSAGE: Final = ("role", "content", "thinking", "tool_calls", "images")


def parse_answer(dialect: Dialect, data: Json) -> Answer:
    """Return the canonical answer; raises ValueError if `data` is none of this dialect."""
    message = said(dialect, data)
    quiet = {name: value for name, value in data.items() if name in _QUIET}
    rest = Kept(others(data, _READ | _QUIET), quiet=quiet)
    if dialect is Dialect.OLLAMA_CHAT:
        rest |= others(message, _MESSAGE, "message.")
    uses = tool_uses(message)
    model = data.get("model")
    return Answer(
        id="",
        model=model if isinstance(model, str) else "",
        parts=(*_told(message, words.logprobs(data.get("logprobs"))), *uses),
        stop=words.stopped(data.get("done_reason"), tools=bool(uses)),
        usage=words.usage(data),
        created=words.seconds(data.get("created_at")),
        rest=rest,
    )


def said(dialect: Dialect, data: Json) -> Json:
    """Return what holds the model's words, under the names of a message; raises ValueError where nothing does."""
    if dialect is Dialect.OLLAMA_CHAT:
        message = data.get("message")
        if not isinstance(message, dict):
            raise ValueError("message: expected an object")
        return message
    if not isinstance(data.get("response"), str):
        raise ValueError("response: expected a string")
    return {"content": data["response"], **{key: data[key] for key in _MESSAGE[2:] if key in data}}


def _told(message: Json, logprobs: tuple[Logprob, ...]) -> list[Part]:
    parts: list[Part] = []
    thinking, content = message.get("thinking"), message.get("content")
    if isinstance(thinking, str) and thinking:
        parts.append(Reasoning(thinking))
    if (isinstance(content, str) and content) or logprobs:
        parts.append(Text(content if isinstance(content, str) else "", logprobs=logprobs))
    return parts + list(pictures(message))


def pictures(message: Json) -> list[Image]:
    """Return the images of a message."""
    images = message.get("images")
    found = (
        [words.media(image) for image in images if isinstance(image, str)] if isinstance(images, list) else []
    )
    return [image for image in found if isinstance(image, Image)]


def tool_uses(message: Json) -> list[ToolUse]:
    """Return the tool calls of a message; what has no name is none. The id may be empty."""
    calls = message.get("tool_calls")
    found: list[ToolUse] = []
    for call in calls if isinstance(calls, list) else ():
        match call:
            case {"function": {"name": str(name)} as function} if name:
                id_ = call.get("id")
                arguments = words.arguments_text(function.get("arguments"))
                found.append(ToolUse(id_ if isinstance(id_, str) else "", name, arguments))
    return found


def render_answer(dialect: Dialect, answer: Answer, *, request: Request) -> Rendered:
    """Return the object that the caller's SDK expects."""
    losses: list[str] = list(words.stop_losses(answer.stop))
    message, logprobs = _message(answer.parts, losses)
    data = head(answer.model or request.features.model, words.timestamp(answer.created))
    data |= body(dialect, message)
    data |= {"done": True, "done_reason": words.stop_word(answer.stop), **words.measures(answer.usage)}
    if logprobs:
        data["logprobs"] = words.logprobs_json(logprobs)
    if isinstance(answer.rest, Kept) and request.dialect in FAMILY:
        data |= answer.rest.quiet
        inner = {name: value for name, value in answer.rest.items() if name.startswith("message.")}
        put_back(data, {name: value for name, value in answer.rest.items() if name not in inner})
        if dialect is Dialect.OLLAMA_CHAT:
            message |= {name.removeprefix("message."): value for name, value in inner.items()}
        else:
            losses += inner
    else:
        losses += answer.rest
    return Rendered(data, tuple(dict.fromkeys(losses)))


def head(model: str, created_at: str) -> Json:
    """Return what every answer and every line begins with."""
    return {"model": model, "created_at": created_at}


def body(dialect: Dialect, message: Json) -> Json:
    """Return the fields that hold a message."""
    if dialect is Dialect.OLLAMA_CHAT:
        return {"message": message}
    return {"response": message["content"], **{key: message[key] for key in _MESSAGE[2:] if key in message}}


def tool_call(use: ToolUse, index: int, losses: list[str]) -> Json:
    """Return a tool call of an answer."""
    losses += use.rest
    call: Json = {"id": use.id} if use.id else {}
    arguments = words.arguments_object(use.arguments, losses)
    return call | {"function": {"index": index, "name": use.name, "arguments": arguments}}


def _message(parts: tuple[Part, ...], losses: list[str]) -> tuple[Json, list[Logprob]]:
    texts: list[str] = []
    thoughts: list[str] = []
    images: list[str] = []
    calls: list[Json] = []
    logprobs: list[Logprob] = []
    for part in parts:
        match part:
            case Text(text, rest):
                losses += rest
                texts.append(text)
                logprobs += part.logprobs
            case Refusal(text):
                texts.append(text)
            case Reasoning(text):
                thoughts.append(text)
                losses += [*reasoning_losses(part.signature, part.redacted), *part.rest]
            case ToolUse():
                calls.append(tool_call(part, len(calls), losses))
                losses += ["thinking.signature"] if part.signature else []
            case Image(data=picture) if picture:
                images.append(picture)
                losses += part.rest
            case _:
                losses += part_losses(part)
    message: Json = {"role": "assistant", "content": "".join(texts)}
    for key, value in (("thinking", "".join(thoughts)), ("images", images), ("tool_calls", calls)):
        if value:
            message[key] = value
    return message, logprobs


def reasoning_losses(signature: str, redacted: str) -> list[str]:
    """Return the names of what goes with thinking that is shown here as plain text."""
    names = ["thinking.signature"] if signature else []
    return names + (["part:redacted_thinking"] if redacted else [])
