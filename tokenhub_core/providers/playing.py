"""What a simulated model says: reads a request body and decides on an answer, the same for the same input.

The answer restates what was asked, says that it is simulated, calls tools where they were asked for, fits a
schema where one was given, and obeys the caller's limits, so that programs meet every shape a real model sends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tokenhub_core.providers.instances import instance
from tokenhub_core.types import Choice, Dialect, Json, StopReason, ToolUse

_MEDIA: Final = frozenset({"image", "image_url", "document", "file", "input_audio"})
_ASKS_FOR_TOOL: Final = re.compile(r"\buse (?:the|a|your|any) (?:\w+ )?tools?\b", re.IGNORECASE)
_NAMES: Final = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*")

_FILLERS: Final = (
    "The wording is fixed by the question and a seed, so the same call always gets the same answer.",
    "Prices, limits and pace follow the public figures of the model that this stands in for.",
    "Everything around it is real: the routing, the streaming, the counting and the record.",
    "Add a provider with its key, and the same call will reach a real model.",
    "Tools, schemas, stop sequences and token limits are honoured as a real model would.",
    "No word of this was written by a language model.",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as far as a simulated model reads it."""

    dialect: Dialect
    model: str
    stream: bool
    include_usage: bool
    limit: int | None
    """The caller's cap on output tokens."""
    stops: tuple[str, ...]
    text: str
    """The last text of the user."""
    results: tuple[tuple[str, str], ...]
    """Tool results since then: the tool's name and what it said."""
    tools: tuple[tuple[str, Any], ...]
    choice: Choice
    chosen: str
    parallel: bool
    structured: bool
    schema: Any
    input_tokens: int


@dataclass(frozen=True, slots=True)
class Said:
    """A simulated model's answer."""

    text: str
    calls: tuple[ToolUse, ...] = ()
    stop: StopReason = StopReason.END
    sequence: str = ""
    input_tokens: int = 0
    output_tokens: int = field(default=0)


def read(dialect: Dialect, body: bytes) -> Ask:
    """Read a request body; raises `ValueError` with a sentence for the caller where it is not one."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ValueError("the body is not valid JSON") from exc
    if not isinstance(data, dict) or not isinstance(data.get("model"), str):
        raise ValueError("'model' must be a string")
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise ValueError("'messages' must be a list of at least one message")
    return _read_openai(data, messages) if dialect is Dialect.OPENAI_CHAT else _read_anthropic(data, messages)


def answer(ask: Ask, *, key: str, seed: int) -> Said:
    """Return the answer. `key` makes ids unique; the words follow from the question and `seed` alone."""
    names = _called(ask)
    if names:
        schemas = dict(ask.tools)
        hint = _hint(ask.text)
        prefix = "call_" if ask.dialect is Dialect.OPENAI_CHAT else "toolu_"
        calls = tuple(
            ToolUse(
                f"{prefix}{digest(f'{key}/{index}')}",
                name,
                orjson.dumps(_object(instance(schemas[name], hint=hint))).decode(),
            )
            for index, name in enumerate(names)
        )
        output = sum(_tokens(call.name + call.arguments) for call in calls)
        return Said("", calls, StopReason.TOOL_USE, "", ask.input_tokens, output)
    if ask.structured:
        value = (
            instance(ask.schema, hint=_hint(ask.text))
            if ask.schema is not None
            else {"answer": _prose(ask, seed)}
        )
        return _limited(ask, orjson.dumps(value).decode())
    return _limited(ask, _prose(ask, seed))


def digest(text: str, size: int = 12) -> str:
    """Return a short stable id for `text`, `2 * size` hex digits."""
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def pieces(text: str) -> list[str]:
    """Split text into words with the space after each: what one streamed event carries."""
    return re.findall(r"\s*\S+\s?|\s+", text)


def _tokens(text: str) -> int:
    return max(1, -(-len(text.encode()) // 4))


def _limited(ask: Ask, text: str) -> Said:
    """Apply stop sequences and the cap, whichever comes first in the text."""
    stop, sequence = StopReason.END, ""
    hits = [(at, word) for word in ask.stops if word and (at := text.find(word)) >= 0]
    if hits:
        at, sequence = min(hits)
        text, stop = text[:at], StopReason.STOP_SEQUENCE
    if ask.limit is not None and len(text.encode()) > 4 * ask.limit:
        text = text.encode()[: 4 * ask.limit].decode(errors="ignore")
        stop, sequence = StopReason.LENGTH, ""
    return Said(text, (), stop, sequence, ask.input_tokens, _tokens(text) if text else 0)


def _prose(ask: Ask, seed: int) -> str:
    asked = _shortened(" ".join(ask.text.split()), 240) or "nothing"
    number = int(digest(f"{seed}/{ask.model}/{ask.text}", 4), 16)
    fillers = " ".join(_FILLERS[(number + step) % len(_FILLERS)] for step in range(3))
    told = "".join(
        f' The tool {name} answered: "{_shortened(" ".join(said.split()), 240)}".'
        for name, said in ask.results
    )
    return f'You asked: "{asked}".{told} This is a simulated answer in the name of {ask.model}. {fillers}'


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _hint(text: str) -> str:
    """Return a name out of the question (`weather in Paris?` gives `Paris`), for arguments that need some text."""
    names = _NAMES.findall(text[:2000])
    return names[-1] if names else "example"


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _called(ask: Ask) -> list[str]:
    offered = [name for name, _ in ask.tools]
    if not offered or ask.choice is Choice.NONE:
        return []
    if ask.choice is Choice.NAMED:
        return [ask.chosen] if ask.chosen in offered else []
    spoken = ask.text.lower()
    named = [name for name in offered if name.lower() in spoken or name.lower().replace("_", " ") in spoken]
    if ask.choice is Choice.AUTO and ask.results:
        return []
    if not named and (ask.choice is Choice.REQUIRED or _ASKS_FOR_TOOL.search(ask.text)):
        named = offered[:1]
    return named if ask.parallel else named[:1]


def _read_openai(data: Json, messages: list[Json]) -> Ask:
    last = max((at for at, item in enumerate(messages) if item.get("role") == "user"), default=-1)
    names = {
        call.get("id"): _dict(call.get("function")).get("name", "tool")
        for item in messages[last + 1 :]
        for call in _dicts(item.get("tool_calls"))
    }
    results = tuple(
        (str(names.get(item.get("tool_call_id"), "tool")), _text(item.get("content")))
        for item in messages[last + 1 :]
        if item.get("role") == "tool"
    )
    choice, chosen = _openai_choice(data.get("tool_choice"))
    form = _dict(data.get("response_format"))
    stops = data.get("stop")
    return Ask(
        dialect=Dialect.OPENAI_CHAT,
        model=data["model"],
        stream=data.get("stream") is True,
        include_usage=_dict(data.get("stream_options")).get("include_usage") is True,
        limit=_whole(data.get("max_completion_tokens", data.get("max_tokens"))),
        stops=(stops,) if isinstance(stops, str) else tuple(_strings(stops)),
        text=_text(messages[last].get("content")) if last >= 0 else "",
        results=results,
        tools=tuple(
            (str(function["name"]), function.get("parameters") or {})
            for tool in _dicts(data.get("tools"))
            if (function := _dict(tool.get("function"))).get("name")
        ),
        choice=choice,
        chosen=chosen,
        parallel=data.get("parallel_tool_calls") is not False,
        structured=form.get("type") in ("json_schema", "json_object"),
        schema=_dict(form.get("json_schema")).get("schema"),
        input_tokens=_weigh(data, "messages", "tools"),
    )


def _openai_choice(choice: object) -> tuple[Choice, str]:
    if isinstance(choice, dict):
        return Choice.NAMED, str(_dict(choice.get("function")).get("name", ""))
    return {"required": Choice.REQUIRED, "none": Choice.NONE}.get(str(choice), Choice.AUTO), ""


def _read_anthropic(data: Json, messages: list[Json]) -> Ask:
    if _whole(data.get("max_tokens")) is None:
        raise ValueError("max_tokens: Field required")
    asked = ""
    results: list[tuple[str, str]] = []
    names: dict[object, str] = {}
    for item in messages:
        for block in _dicts(item.get("content")):
            if block.get("type") == "tool_use":
                names[block.get("id")] = str(block.get("name", "tool"))
        if item.get("role") == "user":
            # A turn with tool results continues the last question; a turn with text alone asks a new one.
            found = [block for block in _dicts(item.get("content")) if block.get("type") == "tool_result"]
            if not found:
                asked, results = _text(item.get("content")), []
            results += [
                (names.get(block.get("tool_use_id"), "tool"), _text(block.get("content"))) for block in found
            ]
    choice = _dict(data.get("tool_choice"))
    form = _dict(_dict(data.get("output_config")).get("format")) or _dict(data.get("output_format"))
    kinds = {"any": Choice.REQUIRED, "tool": Choice.NAMED, "none": Choice.NONE}
    return Ask(
        dialect=Dialect.ANTHROPIC_MESSAGES,
        model=data["model"],
        stream=data.get("stream") is True,
        include_usage=True,
        limit=_whole(data.get("max_tokens")),
        stops=tuple(_strings(data.get("stop_sequences"))),
        text=asked,
        results=tuple(results),
        tools=tuple(
            (str(tool["name"]), tool["input_schema"])
            for tool in _dicts(data.get("tools"))
            if tool.get("name") and "input_schema" in tool
        ),
        choice=kinds.get(str(choice.get("type")), Choice.AUTO),
        chosen=str(choice.get("name", "")),
        parallel=choice.get("disable_parallel_tool_use") is not True,
        structured=form.get("type") == "json_schema",
        schema=form.get("schema"),
        input_tokens=_weigh(data, "system", "messages", "tools"),
    )


def _weigh(data: Json, *keys: str) -> int:
    return max(1, -(-sum(_bytes(data.get(key)) for key in keys) // 4))


def _bytes(value: object) -> int:
    match value:
        case str():
            return len(value.encode(errors="replace"))
        case list():
            return sum(map(_bytes, value))
        case dict():
            return 0 if value.get("type") in _MEDIA else sum(map(_bytes, value.values()))
        case _:
            return 0


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in _dicts(content) if isinstance(part.get("text"), str))


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> Iterator[Json]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _strings(value: object) -> Iterator[str]:
    return (item for item in value if isinstance(item, str)) if isinstance(value, list) else iter(())


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
