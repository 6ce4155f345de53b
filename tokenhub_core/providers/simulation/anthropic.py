"""Anthropic's `/v1/messages` and its `count_tokens`, as strict as the vendor: reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from tokenhub_core.providers.simulation.asking import (
    Ask,
    Media,
    Offered,
    RejectedError,
    Result,
    Told,
    decodes,
    demand,
    mapping,
    mappings,
    names,
    prefixes,
    strings,
    texts,
    unknown,
    weigh,
    whole,
)
from tokenhub_core.providers.simulation.playing import filtered
from tokenhub_core.providers.simulation.proofs import genuine
from tokenhub_core.types import Choice, Dialect, Json

VENDOR: Final = "anthropic"
"""Whose seals are on signatures and redacted thinking."""

_FIELDS: Final = names(
    """model messages max_tokens cache_control container context_management diagnostics inference_geo mcp_servers
    metadata output_config output_format service_tier speed stop_sequences stream system temperature thinking
    tool_choice tools top_k top_p user_profile_id workspace_id billing_policy compaction fallback_credit_token
    fallbacks thread"""
)
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_CHOICES: Final = {
    "auto": Choice.AUTO,
    "any": Choice.REQUIRED,
    "tool": Choice.NAMED,
    "none": Choice.NONE,
}
_THINKING: Final = ("thinking", "redacted_thinking")
_LEAST_BUDGET: Final = 1024


def read(data: Json, _: str) -> Ask:
    """Read a request; raises `RejectedError` with the vendor's words where it would refuse it."""
    limit = whole(data.get("max_tokens"))
    demand("max_tokens" in data, "max_tokens: Field required")
    demand(limit is not None, "max_tokens: Input should be greater than or equal to 1")
    ask = _read(data, Dialect.ANTHROPIC_MESSAGES, limit)
    demand(not filtered(ask), "Output blocked by content filtering policy")
    return ask


def read_count(data: Json, _: str) -> Told:
    """Answer how many tokens a request would cost; raises as `read`."""
    demand("max_tokens" not in data, "max_tokens: Extra inputs are not permitted")
    demand("stream" not in data, "stream: Extra inputs are not permitted")
    ask = _read(data, Dialect.ANTHROPIC_COUNT_TOKENS, None)
    return Told(ask.model, orjson.dumps({"input_tokens": ask.input_tokens}))


def _read(data: Json, dialect: Dialect, limit: int | None) -> Ask:
    extra = unknown(data, _FIELDS)
    demand(not extra, f"{extra}: Extra inputs are not permitted")
    messages = data.get("messages")
    demand(messages is not None, "messages: Field required")
    if not isinstance(messages, list) or not all(isinstance(item, dict) for item in messages):
        raise RejectedError("messages: Input should be a valid list of objects")
    demand(messages, "messages: at least one message is required")
    _system(data.get("system"))
    tools = tuple(_tools(data.get("tools")))
    thinks = _thinking(data, limit)
    _conversation(messages, thinks=mapping(data.get("thinking")).get("type") == "enabled")
    choice = mapping(data.get("tool_choice"))
    kind = str(choice.get("type", "auto"))
    demand(
        kind in _CHOICES, f"tool_choice: Input tag '{kind}' found using 'type' does not match any of the tags"
    )
    named = str(choice.get("name", ""))
    message = f"tool_choice.tool.name: Tool '{named}' not found in provided tools"
    demand(kind != "tool" or any(tool.name == named for tool in tools), message)
    demand(
        not choice or kind == "none" or data.get("tools"),
        "tool_choice: tools must be set to use a tool choice",
    )
    text, media, results = _question(messages)
    form = mapping(mapping(data.get("output_config")).get("format")) or mapping(data.get("output_format"))
    demand(not form or isinstance(form.get("schema"), dict), "output_config.format.schema: Field required")
    return Ask(
        dialect=dialect,
        model=data["model"],
        data=data,
        stream=data.get("stream") is True,
        limit=limit,
        stops=tuple(strings(data.get("stop_sequences"))),
        text=text,
        media=media,
        results=results,
        begun=texts(messages[-1]["content"]) if messages[-1]["role"] == "assistant" else "",
        tools=tools,
        choice=_CHOICES[kind],
        chosen=named,
        parallel=choice.get("disable_parallel_tool_use") is not True,
        structured=form.get("type") == "json_schema",
        schema=form.get("schema"),
        thinks=thinks,
        shows=mapping(data.get("thinking")).get("display") != "omitted",
        input_tokens=weigh(data.get("system"), messages, data.get("tools")),
        prefixes=prefixes(data["model"], _blocks(data, messages)),
    )


def _blocks(data: Json, messages: list[Json]) -> Iterator[Any]:
    """Yield what is cached, in the order of the cache: tools, system, messages."""
    system = data.get("system")
    blocks: list[Any] = [*mappings(data.get("tools"))]
    blocks += [system] if isinstance(system, str) else [*mappings(system)]
    for item in messages:
        content = item["content"]
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks.append({"role": item["role"]})
    if data.get("cache_control"):
        blocks[-1] = {**blocks[-1], "cache_control": data["cache_control"]}
    yield from blocks


def _system(system: object) -> None:
    demand(system is None or isinstance(system, str | list), "system: Input should be a valid string or list")
    for at, block in enumerate(mappings(system)):
        message = f"system.{at}.type: Input should be 'text'"
        demand(block.get("type") == "text" and isinstance(block.get("text"), str), message)
        demand(block["text"], "system: text content blocks must be non-empty")


def _tools(tools: object) -> Iterator[Offered]:
    """Yield the tools with a schema; the vendor's own tools are accepted and not used."""
    seen = set()
    for at, tool in enumerate(mappings(tools)):
        name = tool.get("name")
        if tool.get("type", "custom") != "custom":
            continue
        where = f"tools.{at}.custom"
        demand(isinstance(name, str), f"{where}.name: Field required")
        message = f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        demand(_NAME.fullmatch(str(name)), message)
        schema = tool.get("input_schema")
        demand(isinstance(schema, dict), f"{where}.input_schema: Field required")
        message = f"{where}.input_schema.type: Input should be 'object'"
        demand(mapping(schema).get("type") == "object", message)
        extra = unknown(tool, _TOOL_FIELDS)
        demand(not extra, f"{where}.{extra}: Extra inputs are not permitted")
        demand(name not in seen, "tools: Tool names must be unique.")
        seen.add(name)
        yield Offered(str(name), schema)


_TOOL_FIELDS: Final = names(
    """type name description input_schema cache_control strict input_examples defer_loading allowed_callers
    eager_input_streaming"""
)


def _thinking(data: Json, limit: int | None) -> bool:
    """Tell whether the model is to think; settings that do not go with it are refused."""
    asked = mapping(data.get("thinking"))
    kind = asked.get("type", "disabled")
    known = ("enabled", "disabled", "adaptive", "between_tools")
    demand(
        kind in known,
        f"thinking: Input tag '{kind}' found using 'type' does not match any of the expected tags",
    )
    if kind in ("disabled", "between_tools"):
        return False
    if kind == "enabled":
        budget = asked.get("budget_tokens")
        demand(budget is not None, "thinking.enabled.budget_tokens: Field required")
        enough = isinstance(budget, int) and budget >= _LEAST_BUDGET
        message = "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        demand(enough, message)
        message = "`max_tokens` must be greater than `thinking.budget_tokens`."
        demand(limit is None or limit > int(str(budget)), message)
        temperature = data.get("temperature")
        message = "`temperature` may only be set to 1 when thinking is enabled."
        demand(temperature in (None, 1), message)
    forced = mapping(data.get("tool_choice")).get("type") in ("any", "tool")
    demand(not forced, "Thinking may not be enabled when tool_choice forces tool use.")
    return True


def _conversation(messages: list[Json], *, thinks: bool) -> None:
    """Refuse turns that do not fit together, and blocks that are none."""
    waiting: list[str] = []
    every: set[str] = set()
    for at, item in enumerate(messages):
        role, content = item.get("role"), item.get("content")
        message = f"messages.{at}.role: Input should be 'user' or 'assistant'"
        demand(role in ("user", "assistant", "system"), message)
        demand(at or role != "assistant", 'messages: first message must use the "user" role')
        valid = isinstance(content, str | list)
        demand(valid, f"messages.{at}.content: Input should be a valid string or list")
        last = at == len(messages) - 1 and role == "assistant"
        message = (
            f"messages.{at}: all messages must have non-empty content except for the optional final assistant "
            "message"
        )
        demand(content or last, message)
        blocks = [*mappings(content)]
        for number, block in enumerate(blocks):
            _block(block, role, f"messages.{at}.content.{number}")
        _results(blocks, waiting, at)
        waiting = [str(block["id"]) for block in blocks if block.get("type") == "tool_use"]
        repeated = len(set(waiting)) < len(waiting) or every & set(waiting)
        demand(not repeated, f"messages.{at}.content: `tool_use` ids must be unique")
        every.update(waiting)
    demand(not waiting, _unanswered(len(messages) - 1, waiting))
    if thinks:
        _leads_with_thinking(messages)


def _unanswered(at: int, waiting: list[str]) -> str:
    return (
        f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(waiting)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message."
    )


def _results(blocks: list[Json], waiting: list[str], at: int) -> None:
    """Refuse results without calls, calls without results, and two results for one call."""
    told = [
        (number, str(block["tool_use_id"])) for number, block in enumerate(blocks) if "tool_use_id" in block
    ]
    for number, name in told:
        message = (
            f"messages.{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {name}. Each "
            "`tool_result` block must have a corresponding `tool_use` block in the previous message."
        )
        demand(name in waiting, message)
    results = [name for _, name in told]
    message = (
        f"messages.{at}.content: each tool_use must have a single result. Found multiple `tool_result` blocks"
    )
    demand(len(set(results)) == len(results), message)
    left = [name for name in waiting if name not in results]
    demand(not left, _unanswered(at - 1, left))


def _leads_with_thinking(messages: list[Json]) -> None:
    """Refuse a turn that called tools and has lost its thinking, if its results are what is answered now."""
    if len(messages) < 2 or not any(
        "tool_use_id" in block for block in mappings(messages[-1].get("content"))
    ):
        return
    at = len(messages) - 2
    first = next(mappings(messages[at].get("content")), {})
    message = (
        f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
        f"`{first.get('type')}`. When `thinking` is enabled, a final `assistant` message must start with a thinking "
        "block (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
    )
    demand(first.get("type") in _THINKING, message)


def _block(block: Json, role: object, where: str) -> None:
    """Refuse a block that is none, or that this role does not have."""
    kind = block.get("type")
    match kind:
        case "text":
            demand(isinstance(block.get("text"), str), f"{where}.text.text: Field required")
            demand(block["text"], "messages: text content blocks must be non-empty")
        case "tool_use":
            demand(role == "assistant", f"{where}: `tool_use` blocks can only be in `assistant` messages")
            message = f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            demand(isinstance(block.get("id"), str) and _ID.fullmatch(block["id"]), message)
            demand(isinstance(block.get("name"), str), f"{where}.tool_use.name: Field required")
            demand(
                isinstance(block.get("input"), dict),
                f"{where}.tool_use.input: Input should be a valid dictionary",
            )
        case "tool_result":
            demand(role == "user", f"{where}: `tool_result` blocks can only be in `user` messages")
            demand(
                isinstance(block.get("tool_use_id"), str), f"{where}.tool_result.tool_use_id: Field required"
            )
            _media(block.get("content"), f"{where}.tool_result.content")
        case "thinking":
            demand(isinstance(block.get("signature"), str), f"{where}.thinking.signature: Field required")
            text = block.get("thinking")
            demand(isinstance(text, str), f"{where}.thinking.thinking: Field required")
            message = f"{where}: Invalid `signature` in `thinking` block"
            demand(genuine(VENDOR, block["signature"], str(text)), message)
        case "redacted_thinking":
            message = f"{where}: Invalid `data` in `redacted_thinking` block"
            demand(genuine(VENDOR, block.get("data")), message)
        case "image" | "document":
            demand(role != "assistant", f"{where}: `{kind}` blocks are not permitted in `assistant` messages")
            _one(block, where)
        case _ if not isinstance(kind, str) or kind in (
            "image_url",
            "input_text",
            "output_text",
            "input_image",
        ):
            raise RejectedError(
                f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
            )


def _question(messages: list[Json]) -> tuple[str, tuple[Media, ...], tuple[Result, ...]]:
    """Return the last question, what came with it, and the tool results since.

    A turn with tool results continues the last question; a turn with text alone asks a new one.
    """
    text = ""
    media: tuple[Media, ...] = ()
    results: tuple[Result, ...] = ()
    called: dict[str, str] = {}
    for at, item in enumerate(messages):
        content, where = item["content"], f"messages.{at}.content"
        blocks = [*mappings(content)]
        called |= {
            str(block["id"]): str(block["name"]) for block in blocks if block.get("type") == "tool_use"
        }
        if item["role"] != "user":
            continue
        found = [block for block in blocks if block.get("type") == "tool_result"]
        if found:
            results += tuple(
                Result(
                    called.get(str(block["tool_use_id"]), "tool"),
                    texts(block.get("content")),
                    block.get("is_error") is True,
                    _media(block.get("content"), where),
                )
                for block in found
            )
        else:
            text, media, results = texts(content), _media(content, where), ()
    return text, media, results


def _media(content: object, where: str) -> tuple[Media, ...]:
    return tuple(
        _one(block, f"{where}.{at}")
        for at, block in enumerate(mappings(content))
        if block.get("type") in ("image", "document")
    )


def _one(block: Json, where: str) -> Media:
    """Return an image or a document; its source must hold one."""
    kind = "image" if block["type"] == "image" else "file"
    source = mapping(block.get("source"))
    match source.get("type"):
        case "base64":
            named = source.get("media_type")
            allowed = _IMAGES if kind == "image" else ("application/pdf",)
            listed = " or ".join(f"'{name}'" for name in allowed)
            message = f"{where}.{block['type']}.source.base64.media_type: Input should be {listed}"
            demand(named in allowed, message)
            message = f"{where}.{block['type']}.source.base64.data: Invalid base64 data"
            demand(decodes(source.get("data")), message)
            return Media(kind, str(named))
        case "text":
            demand(isinstance(source.get("data"), str), f"{where}.document.source.text.data: Field required")
            return Media(kind, "text/plain")
        case "url":
            valid = str(source.get("url", "")).startswith("https://")
            demand(valid, f"{where}.{block['type']}.source.url.url: Only HTTPS URLs are supported.")
            return Media(kind, "by reference")
        case "file" | "content":
            return Media(kind, "by reference")
        case other:
            raise RejectedError(
                f"{where}.{block['type']}.source: Input tag '{other}' found using 'type' does not match any of the "
                "expected tags"
            )
