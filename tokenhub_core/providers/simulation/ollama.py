"""Ollama's `/api/chat` and `/api/generate`: reading as strictly as the server does, whole answers, streams of lines.

The server is written in Go: a value of another type is refused by its JSON decoder, in that one's words.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from tokenhub_core.providers.simulation.asking import (
    Ask,
    Media,
    Offered,
    RejectedError,
    Result,
    decodes,
    demand,
    mapping,
    mappings,
    prefixes,
    strings,
    weigh,
)
from tokenhub_core.providers.simulation.frames import Frames, Reply, line
from tokenhub_core.providers.simulation.playing import Called, Said, Token, logprobs, pieces
from tokenhub_core.types import Dialect, Json, StopReason

_THINKS: Final = re.compile(r"(?:qwen3|deepseek-r1|gpt-oss|magistral)")
_TOOLLESS: Final = re.compile(r"(?:gemma|llava|deepseek-r1|phi)")
_LEVELS: Final = ("high", "medium", "low")
_MAGIC: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_NS: Final = 10_000_000
"""What each token takes, in nanoseconds, so that durations are of some size."""


def read_chat(data: Json, _: str) -> Ask:
    """Read a chat; raises `RejectedError` with the server's words where it would refuse it."""
    kind = "ChatRequest"
    messages = data.get("messages")
    _typed(messages, list, f"{kind}.messages", "[]api.Message")
    turns = [*mappings(messages)]
    for turn in turns:
        _turn(turn, kind)
    tools = tuple(_tools(data.get("tools")))
    demand(
        not tools or not _TOOLLESS.match(data["model"]), f"{_registry(data['model'])} does not support tools"
    )
    last = max((at for at, turn in enumerate(turns) if turn.get("role") == "user"), default=-1)
    called = [
        str(mapping(call.get("function")).get("name")) for turn in turns[last + 1 :] for call in _called(turn)
    ]
    results = [turn for turn in turns[last + 1 :] if turn.get("role") == "tool"]
    return _ask(
        data,
        Dialect.OLLAMA_CHAT,
        text=str(turns[last].get("content") or "") if last >= 0 else "",
        media=_images(turns[last].get("images")) if last >= 0 else (),
        results=tuple(
            Result(
                str(turn.get("tool_name") or (called[at] if at < len(called) else "tool")),
                str(turn.get("content") or ""),
                media=_images(turn.get("images")),
            )
            for at, turn in enumerate(results)
        ),
        begun=str(turns[-1].get("content") or "") if turns and turns[-1].get("role") == "assistant" else "",
        tools=tools,
        input_tokens=weigh(turns, data.get("tools")),
        blocks=(data.get("tools"), *turns),
    )


def read_generate(data: Json, _: str) -> Ask:
    """Read a prompt; raises as `read_chat`."""
    for name in ("prompt", "system", "suffix", "template"):
        _typed(data.get(name), str, f"GenerateRequest.{name}", "string")
    prompt = str(data.get("prompt") or "")
    system = str(data.get("system") or "")
    return _ask(
        data,
        Dialect.OLLAMA_GENERATE,
        text=prompt,
        media=_images(data.get("images")),
        results=(),
        tools=(),
        input_tokens=weigh(system, prompt),
        blocks=(system, prompt),
    )


def _ask(data: Json, dialect: Dialect, *, blocks: tuple[Any, ...], **facts: Any) -> Ask:
    _typed(data.get("stream"), bool, "stream", "bool")
    options = mapping(data.get("options"))
    form = data.get("format")
    message = 'invalid format: expected "json" or a JSON schema'
    demand(form in (None, "", "json") or isinstance(form, dict), message)
    cap = options.get("num_predict")
    stops = options.get("stop")
    likely = data.get("top_logprobs")
    message = "top_logprobs must be between 0 and 20"
    demand(likely is None or (isinstance(likely, int) and 0 <= likely <= 20), message)
    return Ask(
        dialect=dialect,
        model=data["model"],
        data=data,
        stream=data.get("stream") is not False,
        limit=cap if isinstance(cap, int) and cap > 0 else None,
        stops=(stops,) if isinstance(stops, str) else tuple(strings(stops)),
        structured=bool(form),
        schema=form if isinstance(form, dict) else None,
        thinks=_thinking(data),
        shows=True,
        logprobs=(likely or 0) if data.get("logprobs") is True else None,
        seed=options.get("seed"),
        prefixes=prefixes(data["model"], blocks),
        **facts,
    )


def _thinking(data: Json) -> bool:
    asked, model = data.get("think"), data["model"]
    levels = ", ".join(f'"{level}"' for level in _LEVELS)
    message = f"invalid think value: {orjson.dumps(asked).decode()} (must be {levels}, true, or false)"
    demand(asked is None or isinstance(asked, bool) or asked in _LEVELS, message)
    demand(not asked or _THINKS.match(model), f'"{model}" does not support thinking')
    return bool(asked)


def _registry(model: str) -> str:
    return f"registry.ollama.ai/library/{model if ':' in model else model + ':latest'}"


def _typed(value: object, kind: type, where: str, named: str) -> None:
    """Refuse a value of another type, as Go's decoder does; a missing one is no value."""
    if value is None or (isinstance(value, kind) and not (kind is not bool and isinstance(value, bool))):
        return
    words = {str: "string", list: "array", dict: "object", bool: "bool"}
    told = words.get(type(value), "number")
    raise RejectedError(f"json: cannot unmarshal {told} into Go struct field {where} of type {named}")


def _turn(turn: Json, kind: str) -> None:
    where = f"{kind}.messages"
    _typed(turn.get("role"), str, f"{where}.role", "string")
    _typed(turn.get("content"), str, f"{where}.content", "string")
    _typed(turn.get("thinking"), str, f"{where}.thinking", "string")
    _typed(turn.get("tool_calls"), list, f"{where}.tool_calls", "[]api.ToolCall")
    for call in mappings(turn.get("tool_calls")):
        arguments = mapping(call.get("function")).get("arguments")
        _typed(arguments, dict, f"{where}.tool_calls.function.arguments", "api.ToolCallFunctionArguments")
    _images(turn.get("images"))


def _tools(tools: object) -> Iterator[Offered]:
    _typed(tools, list, "ChatRequest.tools", "api.Tools")
    for tool in mappings(tools):
        function = mapping(tool.get("function"))
        _typed(function.get("name"), str, "ChatRequest.tools.function.name", "string")
        if function.get("name"):
            yield Offered(str(function["name"]), function.get("parameters") or {})


def _called(turn: Json) -> Iterator[Json]:
    return mappings(turn.get("tool_calls"))


def _images(images: object) -> tuple[Media, ...]:
    """Return the images; the server wants bare base64 and looks at the bytes for their kind."""
    _typed(images, list, "images", "[]api.ImageData")
    found = []
    for image in images if isinstance(images, list) else ():
        demand(decodes(image), "illegal base64 data at input byte 4")
        head = _head(str(image))
        found.append(
            Media("image", next((kind for start, kind in _MAGIC if head.startswith(start)), "image"))
        )
    return tuple(found)


def _head(image: str) -> bytes:
    return base64.b64decode(image[:16])


# --- writing ------------------------------------------------------------------------------------------------


def whole_answer(reply: Reply) -> bytes:
    """Return a whole answer."""
    said = reply.first
    told = _told(reply, thought=said.thought, text=said.text, calls=said.calls)
    return orjson.dumps({**told, **_ending(said)})


def stream(reply: Reply) -> Frames:
    """Return a stream of lines: it opens with its first content."""
    said = reply.first
    content = [line(_told(reply, thought=word)) for word in pieces(said.thought)]
    content += [line(_told(reply, calls=(call,), at=at)) for at, call in enumerate(said.calls)]
    content += [line(_told(reply, text=word)) for word in pieces(said.text)]
    return Frames((), tuple(content), (line({**_told(reply), **_ending(said)}),))


def _told(
    reply: Reply, *, thought: str = "", text: str = "", calls: tuple[Called, ...] = (), at: int = 0
) -> Json:
    ask = reply.ask
    base: Json = {
        "model": ask.model,
        "created_at": datetime.fromtimestamp(reply.created, UTC).isoformat().replace("+00:00", "Z"),
        "done": False,
    }
    if ask.logprobs is not None and text:
        base["logprobs"] = [_logprob(token) for token in logprobs(text, ask.logprobs)]
    thinking = {"thinking": thought} if thought else {}
    if ask.dialect is Dialect.OLLAMA_GENERATE:
        return {**base, "response": text, **thinking}
    message: Json = {"role": "assistant", "content": text, **thinking}
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{call.nonce[:8]}",
                "function": {"index": index, "name": call.name, "arguments": orjson.loads(call.arguments)},
            }
            for index, call in enumerate(calls, at)
        ]
    return {**base, "message": message}


def _logprob(token: Token) -> Json:
    def one(text: str, value: float) -> Json:
        return {"token": text, "logprob": value, "bytes": [*text.encode(errors="replace")]}

    told = one(token.text, token.logprob)
    return {**told, "top_logprobs": [one(text, value) for text, value in token.top]} if token.top else told


def _ending(said: Said) -> Json:
    """Return what the last line says: the reason and the counts."""
    return {
        "done": True,
        "done_reason": "length" if said.stop is StopReason.LENGTH else "stop",
        "total_duration": (said.input_tokens + said.output_tokens) * _NS,
        "load_duration": _NS,
        "prompt_eval_count": said.input_tokens,
        "prompt_eval_duration": said.input_tokens * _NS,
        "eval_count": said.output_tokens,
        "eval_duration": said.output_tokens * _NS,
    }
