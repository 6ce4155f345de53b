"""A request of this dialect as the canonical call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tokenhub_core.dialects.anthropic_messages import blocks
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Json,
    Opaque,
    OutputFormat,
    Request,
    Role,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    Turn,
)

_CHOICES: Final[dict[str, Choice]] = {
    "auto": Choice.AUTO,
    "any": Choice.REQUIRED,
    "none": Choice.NONE,
    "tool": Choice.NAMED,
}

_DISPLAYS: Final[dict[Any, bool | None]] = {"summarized": True, "omitted": False, None: None}

_ROLES: Final[dict[str, Role]] = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}

_READ: Final = (
    "model",
    "messages",
    "system",
    "max_tokens",
    "stream",
    "tools",
    "tool_choice",
    "temperature",
    "top_p",
    "stop_sequences",
    "metadata",
    "output_config",
    "output_format",
    "top_k",
    "thinking",
    "service_tier",
)
"""The members that have a canonical place, in whole or in part."""


def parse(request: Request) -> Call:
    """Return the canonical call of a request that `open_request` took.

    `system` becomes the first turn; a user message's tool results become a turn of their own, before what
    else that message says. Members that are null say nothing and are left out.
    """
    data = request.data
    output, format_rest = _output(data)
    effort = _effort(format_rest)
    thinking, thinking_rest = _thinking(data.get("thinking"), effort)
    top_k, tier = data.get("top_k"), data.get("service_tier")
    user, metadata = _user(data.get("metadata"))
    choice, choice_rest = _choice(data.get("tool_choice"))
    left = {name: value for name, value in data.items() if name not in _READ and value is not None}
    if top_k is not None and type(top_k) is not int:
        left["top_k"], top_k = top_k, None
    if tier is not None and not isinstance(tier, str):
        left["service_tier"], tier = tier, None
    return Call(
        dialect=Dialect.ANTHROPIC_MESSAGES,
        model=request.features.model,
        turns=tuple(_turns(data)),
        stream=request.features.stream,
        tools=tuple(_tool(tool) for tool in data.get("tools") or ()),
        tool_choice=choice,
        max_output_tokens=request.features.max_output_tokens,
        temperature=data.get("temperature"),
        top_p=data.get("top_p"),
        stop=tuple(data.get("stop_sequences") or ()),
        output=output,
        top_k=top_k,
        thinking=thinking,
        metadata=metadata,
        service_tier=tier or "",
        user=user,
        include_usage=True,
        rest=left | choice_rest | thinking_rest | format_rest,
    )


def output_schema(data: Json) -> Json | None:
    """Return the JSON schema that the answer has to fit, from `output_config.format` or its older form."""
    config = data.get("output_config")
    for given in (config.get("format") if isinstance(config, dict) else None, data.get("output_format")):
        match given:
            case {"type": "json_schema", "schema": dict(schema)}:
                return schema
    return None


def _turns(data: Json) -> Iterator[Turn]:
    system = blocks.parts(data.get("system"))
    if system:
        yield Turn(Role.SYSTEM, system)
    for message in data["messages"]:
        parts = blocks.parts(message["content"])
        left = blocks.rest(message, "role", "content")
        results = tuple(part for part in parts if isinstance(part, ToolResult))
        if not results or message["role"] != "user":
            yield Turn(_ROLES[message["role"]], parts, rest=left)
            continue
        others = tuple(part for part in parts if not isinstance(part, ToolResult))
        yield Turn(Role.TOOL, results, rest={} if others else left)
        if others:
            yield Turn(Role.USER, others, rest=left)


def _tool(tool: Json) -> Tool | Opaque:
    kind = tool.get("type")
    if kind is not None and kind != "custom":
        return Opaque(Dialect.ANTHROPIC_MESSAGES, kind, tool)
    return Tool(
        name=tool["name"],
        description=tool.get("description") or "",
        schema=tool["input_schema"],
        strict=tool.get("strict"),
        rest=blocks.rest(tool, "type", "name", "description", "input_schema", "strict"),
    )


def _choice(given: Json | None) -> tuple[ToolChoice | None, Json]:
    """Return the tool choice; one of an unknown kind stays a member of the body."""
    if given is None:
        return None, {}
    kind = _CHOICES.get(given["type"])
    if kind is None:
        return None, {"tool_choice": given}
    disabled = given.get("disable_parallel_tool_use")
    parallel = None if disabled is None else not disabled
    return ToolChoice(kind, given.get("name") or "", parallel), {}


def _user(metadata: Json | None) -> tuple[str, Json]:
    """Return the user's id, and what else the metadata say."""
    if not metadata:
        return "", {}
    user = metadata.get("user_id")
    if not isinstance(user, str):
        return "", dict(blocks.rest(metadata))
    return user, dict(blocks.rest(metadata, "user_id"))


def _effort(output: Json) -> str:
    """Return the effort of `output_config` and take it out of what is left of that."""
    config = output.get("output_config")
    if not isinstance(config, dict) or not isinstance(config.get("effort"), str):
        return ""
    effort: str = config["effort"]
    left = blocks.rest(config, "effort")
    if left:
        output["output_config"] = left
    else:
        del output["output_config"]
    return effort


def _thinking(given: Any, effort: str) -> tuple[Thinking, Json]:
    """Return what is said of thinking; of a kind that has no canonical form, it stays a member of the body."""
    budget: int | None
    match given:
        case None:
            return Thinking(effort=effort), {}
        case {"type": "enabled", "budget_tokens": int(budget), **more}:
            enabled = True
        case {"type": "adaptive", **more}:
            enabled, budget = True, -1
        case {"type": "disabled", **more}:
            enabled, budget = False, None
        case _:
            return Thinking(effort=effort), {"thinking": given}
    display = more.pop("display", None)
    if more or not isinstance(display, str | None) or display not in _DISPLAYS or type(budget) is bool:
        return Thinking(effort=effort), {"thinking": given}
    return Thinking(enabled, effort, budget, _DISPLAYS[display]), {}


def _output(data: Json) -> tuple[OutputFormat | None, Json]:
    """Return the output format, and what else was said of the output, as members of the body."""
    left: dict[str, Any] = {}
    schema = output_schema(data)
    for name in ("output_config", "output_format"):
        given = data.get(name)
        if given is not None:
            left[name] = given
    if schema is None:
        return None, left
    left.pop("output_format", None)
    config = blocks.rest(left.pop("output_config", None) or {}, "format")
    return OutputFormat(schema), {"output_config": config, **left} if config else left
