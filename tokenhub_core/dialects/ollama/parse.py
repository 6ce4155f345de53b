"""A caller's request as a canonical call. Only a call that is none is refused; what does not fit is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tokenhub_core.dialects.ollama import words
from tokenhub_core.dialects.ollama.kept import Kept, others
from tokenhub_core.errors import client_fault
from tokenhub_core.types import (
    Call,
    Dialect,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Request,
    Role,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    Turn,
)

_ROLES: Final = {
    "system": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}

_RUNNING: Final = frozenset(
    {
        *("num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread", "numa", "low_vram"),
        *("draft_num_predict", "embedding_only", "vocab_only", "logits_all"),
    }
)
"""Options of how the server runs the model; they change no answer."""

_SILENT: Final = {"truncate": True, "shift": True, "template": "", "_debug_render_only": False}
"""Values that say no more than leaving the field out."""

_HOMES: Final = frozenset(
    {"model", "stream", "messages", "prompt", "images", "tools", "options", "keep_alive"}
)


def parse(request: Request) -> Call:
    """Return the canonical call of a request that `open_request` has checked.

    Raises `TokenHubError` (`INVALID`) for one that only loads or unloads a model, and for one that is to fill
    in the middle of a text: only a provider of this dialect can do that.
    """
    data, features = request.data, request.features
    chat = request.dialect is Dialect.OLLAMA_CHAT
    rest = Kept(others(data, _HOMES))
    if data.get("keep_alive") is not None:
        rest.quiet["keep_alive"] = data["keep_alive"]
    for name, silent in _SILENT.items():
        if rest.get(name) == silent:
            rest.quiet[name] = rest.pop(name)
    options: Json = others(data.get("options") or {}, (), "options.")
    for name in [name for name in options if name.removeprefix("options.") in _RUNNING]:
        rest.quiet[name] = options.pop(name)
    if type(options.get("options.num_predict")) is int:
        # What is not a cap says that there is none, and so does every other dialect by saying nothing.
        cap = options.pop("options.num_predict")
        rest.quiet |= {} if cap > 0 else {"options.num_predict": cap}
    rest |= options
    turns = tuple(_Messages().turns(data)) if chat else _prompt(data, rest)
    return Call(
        dialect=request.dialect,
        model=features.model,
        turns=turns,
        stream=features.stream,
        tools=tuple(_tool(tool) for tool in data.get("tools") or ()) if chat else (),
        max_output_tokens=features.max_output_tokens,
        temperature=_take(rest, "options.temperature", _number),
        top_p=_take(rest, "options.top_p", _number),
        stop=_take(rest, "options.stop", _stop) or (),
        output=_output(rest),
        top_k=_take(rest, "options.top_k", _whole),
        seed=_take(rest, "options.seed", _whole),
        frequency_penalty=_take(rest, "options.frequency_penalty", _number),
        presence_penalty=_take(rest, "options.presence_penalty", _number),
        logprobs=_logprobs(rest),
        thinking=_thinking(rest),
        include_usage=True,
        rest=rest,
    )


# --- the conversation --------------------------------------------------------------------------------------


def _nothing_to_say(param: str) -> Exception:
    message = (
        f"Invalid '{param}': it is empty. A call that only loads a model needs a provider that speaks Ollama."
    )
    return client_fault(message, cause="bad_field", param=param)


def _prompt(data: Json, rest: Kept) -> tuple[Turn, ...]:
    if not data.get("prompt"):
        raise _nothing_to_say("prompt")
    for name in ("suffix", "raw", "context"):
        if rest.get(name):
            message = f"Invalid '{name}': only a provider that speaks Ollama's generate can serve it."
            raise client_fault(message, cause="not_translated", param=name)
        rest.pop(name, None)
    parts: list[Part] = [words.media(image) for image in data.get("images") or ()]
    turns = (Turn(Role.USER, (*parts, Text(data["prompt"]))),)
    system = rest.pop("system", "")
    return (Turn(Role.SYSTEM, (Text(system),)), *turns) if system else turns


class _Messages:
    """Reads the messages of one call; tool calls get ids where they have none, and results find theirs."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str]] = []
        """Id and name of each call without a result so far."""

    def turns(self, data: Json) -> Iterator[Turn]:
        """Yield one turn for each message."""
        if not data.get("messages"):
            raise _nothing_to_say("messages")
        for message in data["messages"]:
            role = message["role"].lower()
            known = _ROLES.get(role)
            if known is None:
                # Models have roles of their own (`control`, `document 1`); only their templates know them.
                yield Turn(Role.SYSTEM, (Opaque(Dialect.OLLAMA_CHAT, "message", message),))
            elif known is Role.TOOL:
                yield self._result(message)
            else:
                yield self._turn(known, message)

    def _turn(self, role: Role, message: Json) -> Turn:
        parts: list[Part] = []
        homes = ["role", "content", "images"]
        if role is Role.ASSISTANT:
            homes += ["thinking", "tool_calls"]
            if message.get("thinking"):
                parts.append(Reasoning(message["thinking"]))
        parts += _content(message)
        if role is Role.ASSISTANT:
            parts += [self._use(call) for call in message.get("tool_calls") or ()]
        return Turn(role, tuple(parts), rest=Kept(others(message, homes)))

    def _use(self, call: Json) -> ToolUse:
        function = call["function"]
        rest = Kept(
            others(call, ("id", "type", "function"))
            | others(function, ("name", "arguments", "index"), "function."),
            quiet={"type": call.get("type"), "function.index": function.get("index")},
        )
        id_ = call.get("id")
        if not isinstance(id_, str) or not id_:
            id_ = f"call_{self._made}"
            self._made += 1
            rest.quiet["id"] = None
        name = function.get("name") or ""
        self._open.append((id_, name))
        return ToolUse(id_, name, words.arguments_text(function.get("arguments")), rest)

    def _result(self, message: Json) -> Turn:
        given, name = message.get("tool_call_id") or "", message.get("tool_name") or ""
        rest = Kept(others(message, ("role", "content", "images", "tool_call_id", "tool_name")))
        rest.quiet |= {"tool_call_id": given or None, "tool_name": name or None}
        return Turn(
            Role.TOOL, (ToolResult(self._answered(given, name), tuple(_content(message)), rest=rest),)
        )

    def _answered(self, given: str, name: str) -> str:
        """Return the id of the call that a result answers: by its id, else by name, else the first one open."""
        call = next((each for each in self._open if given and each[0] == given), None)
        if call is None and not given:
            call = next((each for each in self._open if name and each[1] == name), None)
            call = call or next(iter(self._open), None)
        if call is None:
            return given
        self._open.remove(call)
        return call[0]


def _content(message: Json) -> list[Part]:
    parts: list[Part] = [words.media(image) for image in message.get("images") or ()]
    return [*parts, Text(message["content"])] if message.get("content") else parts


# --- the settings ------------------------------------------------------------------------------------------


def _tool(tool: Json) -> Tool | Opaque:
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, dict):
        return Opaque(Dialect.OLLAMA_CHAT, str(tool.get("type")), tool)
    name, description = function.get("name"), function.get("description")
    schema, strict = function.get("parameters"), function.get("strict")
    if not isinstance(name, str):
        return Opaque(Dialect.OLLAMA_CHAT, "function", tool)
    homes = {"name"}
    homes |= {"description"} if isinstance(description, str) else set()
    homes |= {"parameters"} if isinstance(schema, dict) else set()
    homes |= {"strict"} if isinstance(strict, bool) else set()
    return Tool(
        name,
        description if isinstance(description, str) else "",
        schema if isinstance(schema, dict) else {},
        strict if isinstance(strict, bool) else None,
        Kept(others(tool, ("type", "function")) | others(function, homes, "function.")),
    )


def _take[T](rest: Json, name: str, read: Callable[[Any], T | None]) -> T | None:
    """Return a field and take it out of `rest` if `read` knows it, None and leave it otherwise."""
    found = read(rest.get(name))
    if found is not None:
        del rest[name]
    return found


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _stop(value: Any) -> tuple[str, ...] | None:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        return None
    return tuple(listed)


def _output(rest: Json) -> OutputFormat | None:
    match rest.get("format"):
        case "json":
            del rest["format"]
            return OutputFormat()
        case "":
            del rest["format"]
            return None
        case dict(schema):
            del rest["format"]
            return OutputFormat(schema)
        case _:
            return None


def _logprobs(rest: Json) -> int | None:
    if rest.get("logprobs") is False:
        del rest["logprobs"]
        rest.pop("top_logprobs", None)
        return None
    if rest.get("logprobs") is not True or type(rest.get("top_logprobs", 0)) is not int:
        return None
    del rest["logprobs"]
    top: int = rest.pop("top_logprobs", 0)
    return top


def _thinking(rest: Json) -> Thinking:
    match rest.get("think"):
        case bool(enabled):
            del rest["think"]
            return Thinking(enabled)
        case str(effort) if effort:
            del rest["think"]
            return Thinking(True, effort)
        case _:
            return Thinking()
