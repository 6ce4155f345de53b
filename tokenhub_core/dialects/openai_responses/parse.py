"""A caller's request as a canonical call.

The input is a list of items, and an assistant's turn may be several: thoughts, a message, calls. They become
one turn, because other dialects want the calls of a turn together, and what led to them before them.
"""

from __future__ import annotations

from typing import Any, Final

from tokenhub_core.dialects.openai_responses import content
from tokenhub_core.dialects.openai_responses.kept import Kept, kept, others
from tokenhub_core.dialects.openai_responses.request import is_message
from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Request,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    Turn,
)

_FIELDS: Final = frozenset({"model", "input", "instructions", "stream", "max_output_tokens"})
"""What always has a canonical place; the others leave `rest` where their value is one we know."""

_SILENT: Final = ("store", "stream_options", "include")
"""What changes neither the answer nor the bill: where it is kept, how it is padded, what is told beside it."""

_CHOICES: Final = {"auto": Choice.AUTO, "none": Choice.NONE, "required": Choice.REQUIRED}

_HELD: Final = ("previous_response_id", "conversation", "prompt")
"""Parts of the conversation that stand at a provider and not in the request."""

_OF_TOOLS: Final = frozenset(
    {
        "apply_patch_call_output",
        "computer_call_output",
        "custom_tool_call_output",
        "local_shell_call_output",
        "program_output",
        "shell_call_output",
        "tool_search_output",
    }
)
_OF_USERS: Final = frozenset({"compaction_trigger", "mcp_approval_response"})
_OF_SYSTEM: Final = frozenset({"additional_tools", "configuration_update"})


def parse(request: Request) -> Call:
    """Return the canonical call of a request that `open_request` has checked.

    Raises `TokenHubError` (`INVALID`) where the request leans on something that only the provider holding it
    can read: this is asked for when the call is to be told in another dialect.
    """
    data, features = request.data, request.features
    _check_state(data)
    rest = kept(data, _FIELDS, _SILENT)
    _quieten(rest)
    thinking = _thinking(rest)
    return Call(
        dialect=Dialect.OPENAI_RESPONSES,
        model=features.model,
        turns=tuple(turns(data)),
        stream=features.stream,
        tools=tuple(_tool(tool) for tool in rest.pop("tools", ())),
        tool_choice=_tool_choice(rest),
        max_output_tokens=features.max_output_tokens,
        temperature=_number(rest, "temperature"),
        top_p=_number(rest, "top_p"),
        output=_output(rest),
        logprobs=_logprobs(rest),
        thinking=thinking,
        metadata=rest.pop("metadata", {}),
        service_tier=rest.pop("service_tier") if isinstance(rest.get("service_tier"), str) else "",
        user=_user(rest),
        include_usage=True,
        rest=rest,
    )


# --- what cannot be told elsewhere -------------------------------------------------------------------------


def _check_state(data: Json) -> None:
    for name in _HELD:
        if data.get(name) is not None:
            raise _held(name, "It stands for content that is stored at the provider that holds it")
    if data.get("background"):
        raise _held("background", "The response would be stored at the provider, to be asked for later")
    items = data.get("input")
    for i, item in enumerate(items if isinstance(items, list) else ()):
        match item.get("type"):
            case "item_reference" | None if not is_message(item):
                raise _held(
                    f"input[{i}]", "It refers to an item that is stored at the provider that holds it"
                )
            case "compaction":
                raise _held(f"input[{i}]", "It can be read only by the provider that made it")


def _held(param: str, why: str) -> TokenHubError:
    message = (
        f"Invalid '{param}': {why}, and this call is served by another one. Send the conversation itself."
    )
    return client_fault(message, cause="stored_state", param=param)


# --- the conversation --------------------------------------------------------------------------------------


def turns(data: Json) -> list[Turn]:
    """Return the turns of a request's instructions and input."""
    found: list[Turn] = []
    if data.get("instructions"):
        found.append(Turn(Role.SYSTEM, (Text(data["instructions"]),), rest=Kept(role="instructions")))
    items = data.get("input")
    if isinstance(items, str):
        return [*found, Turn(Role.USER, content.parts(items))]
    gathered = _Turns(found)
    for item in items or ():
        gathered.take(item)
    return gathered.done()


class _Turns:
    """Gathers items into turns."""

    def __init__(self, found: list[Turn]) -> None:
        self._found = found
        self._role = Role.USER
        self._parts: list[Part] = []
        self._rest = Kept()
        self._spoken = False
        """The turn that is being gathered holds a message,"""
        self._called = False
        """or a call."""
        self._signature = ""

    def take(self, item: Json) -> None:
        """Add one item to the turn, or begin another with it."""
        kind = item.get("type")
        if is_message(item):
            self._message(item)
        elif kind == "function_call":
            self._join(Role.ASSISTANT, content.tool_use(item, self._signature))
            self._signature = ""
            self._called = True
        elif kind == "function_call_output":
            self._join(Role.TOOL, content.tool_result(item))
        elif kind == "reasoning":
            thoughts, signature = content.thoughts(item)
            self._signature = signature or self._signature
            if self._spoken and not self._called:
                self._close()
            self._join(Role.ASSISTANT, *thoughts)
        elif kind in _OF_TOOLS:
            self._join(Role.TOOL, content.opaque(item))
        elif kind in _OF_USERS or kind in _OF_SYSTEM:
            self._close()
            role = Role.USER if kind in _OF_USERS else Role.SYSTEM
            self._found.append(Turn(role, (content.opaque(item),), rest=Kept(role="item")))
        else:
            self._join(Role.ASSISTANT, content.opaque(item))
            self._called = True

    def done(self) -> list[Turn]:
        """Return the turns."""
        self._close()
        return self._found

    def _message(self, item: Json) -> None:
        role = item["role"]
        rest = kept(item, ("type", "role", "content"), ("id", "status"), role=role)
        if role != "assistant":
            parts = content.parts(item["content"])
            self._close()
            self._found.append(Turn(Role.USER if role == "user" else Role.SYSTEM, parts, rest=rest))
            return
        if self._spoken and not self._called:
            self._close()
        self._join(Role.ASSISTANT, *content.spoken(item["content"]))
        if not self._spoken:
            self._rest = rest
        self._spoken = True

    def _join(self, role: Role, *parts: Part) -> None:
        if role is not self._role:
            self._close()
            self._role = role
        self._parts += parts

    def _close(self) -> None:
        if self._parts:
            self._found.append(Turn(self._role, tuple(self._parts), rest=self._rest))
        self._parts = []
        self._rest = Kept()
        self._spoken = self._called = False


# --- settings: each takes its field out of `rest` where it can say it --------------------------------------


def _quieten(rest: Kept) -> None:
    """Move settings that say what is so anyway out of the sight of other dialects."""
    for name, usual in (("truncation", "disabled"), ("background", False)):
        if rest.get(name) == usual:
            rest.silent[name] = rest.pop(name)


def _tool(tool: Json) -> Tool | Opaque:
    if tool.get("type") != "function" or not isinstance(tool.get("name"), str):
        return content.opaque(tool)
    homes = ["type", "name"]
    description, schema, strict = (tool.get(key) for key in ("description", "parameters", "strict"))
    if isinstance(description, str):
        homes.append("description")
    else:
        description = ""
    if isinstance(schema, dict):
        homes.append("parameters")
    else:
        schema = {}
    if isinstance(strict, bool):
        homes.append("strict")
    else:
        strict = None
    rest = kept(tool, homes)
    rest.silent = {key: None for key in ("parameters", "strict") if key in tool and tool[key] is None}
    return Tool(tool["name"], description, schema, strict, rest)


def _tool_choice(rest: Json) -> ToolChoice | None:
    parallel = rest.get("parallel_tool_calls")
    if isinstance(parallel, bool):
        del rest["parallel_tool_calls"]
    else:
        parallel = None
    match rest.get("tool_choice"):
        case str(word) if word in _CHOICES:
            del rest["tool_choice"]
            return ToolChoice(_CHOICES[word], parallel=parallel)
        case {"type": "function", "name": str(name)}:
            del rest["tool_choice"]
            return ToolChoice(Choice.NAMED, name, parallel)
        case _:
            return None if parallel is None else ToolChoice(parallel=parallel)


def _number(rest: Json, key: str) -> float | None:
    value = rest.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    del rest[key]
    return value


def _output(rest: Kept) -> OutputFormat | None:
    text = rest.pop("text", None)
    if text is None:
        return None
    rest |= others(text, ("format",), "text.")
    form = text.get("format")
    match form:
        case {"type": "json_object"}:
            return OutputFormat()
        case {"type": "json_schema", "schema": dict(schema), "name": str(name)}:
            strict = form.get("strict")
            homes = ("type", "schema", "name", "strict")
            rest |= others(form, homes if isinstance(strict, bool) else homes[:-1], "text.format.")
            return OutputFormat(schema, name, strict if isinstance(strict, bool) else None)
        case {"type": "text"}:
            rest.silent["text.format"] = form
        case None:
            pass
        case _:
            rest["text.format"] = form
    return None


def _logprobs(rest: Kept) -> int | None:
    """Return how many likely tokens are wanted: they are told where their number or the whole is asked for."""
    count = rest.get("top_logprobs")
    if type(count) is int:
        del rest["top_logprobs"]
        if count:
            return count
        rest.silent["top_logprobs"] = count
    include: Any = rest.silent.get("include")
    return 0 if isinstance(include, list) and "message.output_text.logprobs" in include else None


def _thinking(rest: Kept) -> Thinking:
    wanted = rest.pop("reasoning", None)
    if wanted is None:
        return Thinking()
    left = others(wanted, (), "reasoning.")
    effort = left.pop("reasoning.effort") if isinstance(wanted.get("effort"), str) else ""
    show = None
    for key in ("generate_summary", "summary"):
        # Which kind of summary is not for others to know, but that there is to be one.
        if isinstance(wanted.get(key), str):
            rest.silent[f"reasoning.{key}"] = left.pop(f"reasoning.{key}")
            show = True
    rest |= left
    enabled = None if not effort else effort != "none"
    return Thinking(enabled, effort, show=show)


def _user(rest: Kept) -> str:
    """Return who asks; of the two names for it the older one counts where both are given."""
    for key in ("user", "safety_identifier"):
        if isinstance(rest.get(key), str):
            rest.spelling["user"] = key
            return str(rest.pop(key))
    return ""
