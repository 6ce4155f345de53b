"""OpenAI's `/v1/responses`, as strict as the vendor: reading. What is written stands in `openai_events`.

Nothing is stored here: a `previous_response_id` is one that the vendor does not know. Reasoning items come back by
their encrypted content, or by an id that the vendor gave.
"""

from __future__ import annotations

from typing import Any, Final

from tokenhub_core.providers.simulation import openai
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
    names,
    prefixes,
    strings,
    texts,
    weigh,
    whole,
)
from tokenhub_core.providers.simulation.proofs import genuine, named
from tokenhub_core.types import Dialect, Json

VENDOR: Final = "openai"
"""Whose seals are on encrypted reasoning."""

_FIELDS: Final = names(
    """access_programs background background_options client_metadata context_management conversation image include input
    instructions max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls
    previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning
    safety_identifier service_tier store stream stream_options temperature text tool_choice tools top_logprobs top_p
    truncation user"""
)
_ROLES: Final = ("assistant", "system", "developer", "user")
_CALLS: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
_RESULTS: Final = frozenset(_CALLS.values())
_PREFIXES: Final = {"reasoning": "rs", "message": "msg", "function_call": "fc", "custom_tool_call": "ctc"}


def read(data: Json, _: str) -> Ask:
    """Read a request; raises `RejectedError` with the vendor's words where it would refuse it."""
    openai.known_fields(data, _FIELDS)
    previous = data.get("previous_response_id")
    message = f"Previous response with id '{previous}' not found."
    demand(previous is None, message, "previous_response_id", "previous_response_not_found")
    items = _items(data.get("input"))
    _conversation(items)
    _settings(data)
    tools = tuple(
        offered
        for at, tool in enumerate(mappings(data.get("tools")))
        for offered in _tools(tool, f"tools[{at}]")
    )
    last = max((at for at, item in enumerate(items) if item.get("role") == "user"), default=-1)
    called = {item.get("call_id"): item["name"] for item in items if item.get("type") in _CALLS}
    choice, chosen = openai.choice(data.get("tool_choice"), tools, nested=False)
    form = mapping(mapping(data.get("text")).get("format"))
    schema = None
    if form.get("type") == "json_schema":
        schema = openai.structure(form, "text.format", "text.format")
    reasoning = mapping(data.get("reasoning"))
    logprobs = "message.output_text.logprobs" in strings(data.get("include"))
    return Ask(
        dialect=Dialect.OPENAI_RESPONSES,
        model=data["model"],
        data=data,
        stream=data.get("stream") is True,
        limit=whole(data.get("max_output_tokens")),
        text=texts(items[last].get("content")) if last >= 0 else "",
        media=_media(items[last].get("content"), f"input[{last}].content") if last >= 0 else (),
        results=tuple(
            Result(
                str(called.get(item.get("call_id"), "tool")),
                texts(item.get("output")),
                media=_media(item.get("output"), f"input[{at}].output"),
            )
            for at, item in enumerate(items)
            if at > last and item.get("type") in _RESULTS
        ),
        tools=tools,
        choice=choice,
        chosen=chosen,
        parallel=data.get("parallel_tool_calls") is not False,
        structured=form.get("type") in ("json_schema", "json_object"),
        schema=schema,
        thinks=bool(reasoning) and reasoning.get("effort") != "none",
        shows=reasoning.get("summary") in ("auto", "concise", "detailed"),
        logprobs=(data.get("top_logprobs") or 0) if logprobs else None,
        input_tokens=weigh(data.get("instructions"), items, data.get("tools")),
        prefixes=prefixes(data["model"], [data.get("instructions"), *mappings(data.get("tools")), *items]),
    )


def _items(given: object) -> list[Json]:
    """Return the input as items; a text is the user's message."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    demand(given is not None, "Missing required parameter: 'input'.", "input", "missing_required_parameter")
    demand(
        isinstance(given, list) and given and all(isinstance(item, dict) for item in given),
        "Invalid type for 'input': expected one of a string or array of input items.",
        "input",
        "invalid_type",
    )
    return [
        item if "type" in item or "role" not in item else {"type": "message", **item}
        for item in mappings(given)
    ]


def _conversation(items: list[Json]) -> None:
    """Refuse items that do not fit together: calls without results, results without calls, foreign reasoning."""
    calls: dict[str, str] = {}
    done: set[str] = set()
    for at, item in enumerate(items):
        kind, where = item.get("type"), f"input[{at}]"
        _name(item, where)
        if kind == "message":
            _message(item, where)
        elif kind == "reasoning":
            _reasoning(items, at)
        elif kind in _CALLS:
            field = "arguments" if kind == "function_call" else "input"
            for name in ("call_id", "name", field):
                message = f"Missing required parameter: '{where}.{name}'."
                demand(
                    isinstance(item.get(name), str), message, f"{where}.{name}", "missing_required_parameter"
                )
            openai.named(item["name"], f"{where}.name")
            demand(
                item["call_id"] not in calls, f"Duplicate item found with call_id {item['call_id']}.", where
            )
            calls[item["call_id"]] = _CALLS[kind]
        elif kind in _RESULTS:
            name = str(item.get("call_id"))
            found = calls.get(name) == kind
            demand(found, f"No tool call found for function call output with call_id {name}.", "input")
            demand(name not in done, f"Duplicate function call output found for call_id {name}.", "input")
            output = item.get("output")
            demand(isinstance(output, str | list), f"Missing required parameter: '{where}.output'.", where)
            _media(output, f"{where}.output")
            done.add(name)
        elif not isinstance(kind, str):
            raise RejectedError(f"Missing required parameter: '{where}.type'.", param=f"{where}.type")
    for name in calls:
        demand(name in done, f"No tool output found for function call {name}.", "input")


def _name(item: Json, where: str) -> None:
    """Refuse an id of another kind of item, or of another vendor."""
    prefix, name = _PREFIXES.get(str(item.get("type"))), item.get("id")
    if prefix is None or name is None or item.get("role") in ("user", "system", "developer"):
        return
    message = f"Invalid '{where}.id': '{name}'. Expected an ID that begins with '{prefix}'."
    demand(str(name).startswith(prefix), message, f"{where}.id", "invalid_value")


def _message(item: Json, where: str) -> None:
    role, content = item.get("role"), item.get("content")
    listed = ", ".join(f"'{name}'" for name in _ROLES)
    message = f"Invalid value: '{role}'. Supported values are: {listed}."
    demand(role in _ROLES, message, f"{where}.role", "invalid_value")
    if isinstance(content, str):
        return
    message = f"Invalid type for '{where}.content': expected one of a string or array of content parts."
    demand(isinstance(content, list), message, f"{where}.content", "invalid_type")
    said = ("output_text", "refusal")
    shown = ("input_text", "input_image", "input_file", "input_audio")
    allowed = said if role == "assistant" else shown
    for number, part in enumerate(mappings(content)):
        param, kind = f"{where}.content[{number}]", part.get("type")
        listed = " and ".join(f"'{name}'" for name in allowed)
        message = f"Invalid value: '{kind}'. Supported values are: {listed}."
        demand(kind in allowed, message, param, "invalid_value")
    _media(content, f"{where}.content")


def _reasoning(items: list[Json], at: int) -> None:
    """Refuse reasoning that this vendor did not make, or that has lost what followed it."""
    item, where = items[at], f"input[{at}]"
    name, sealed = str(item.get("id", "")), item.get("encrypted_content")
    demand(isinstance(item.get("summary"), list), f"Missing required parameter: '{where}.summary'.", where)
    if sealed is not None:
        message = f"The encrypted content {str(sealed)[:12]}... could not be verified."
        demand(genuine(VENDOR, sealed), message, code="invalid_encrypted_content")
    elif not named(VENDOR, name.removeprefix("rs_")):
        raise RejectedError(f"Item with id '{name}' not found.", status=404, param="input")
    following = items[at + 1] if at + 1 < len(items) else {}
    follows = following.get("type") in (*_CALLS, "reasoning") or following.get("role") == "assistant"
    message = f"Item '{name}' of type 'reasoning' was provided without its required following item."
    demand(follows, message, "input")


def _media(content: object, where: str) -> tuple[Media, ...]:
    found = []
    for number, part in enumerate(mappings(content)):
        param = f"{where}[{number}]"
        match part.get("type"):
            case "input_image" if part.get("file_id"):
                found.append(Media("image", "by reference"))
            case "input_image":
                found.append(openai.image(part.get("image_url"), f"{param}.image_url"))
            case "input_file":
                found.append(openai.document(part, param))
            case "input_audio":
                sound = mapping(part.get("input_audio"))
                demand(decodes(sound.get("data")), f"Invalid base64 in '{param}.input_audio.data'.", param)
                found.append(Media("audio", f"audio/{sound.get('format')}"))
    return tuple(found)


def _tools(tool: Json, param: str) -> list[Offered]:
    """Return what of a tool can be called; hosted tools are accepted and not used."""
    kind = tool.get("type")
    demand(isinstance(kind, str), f"Missing required parameter: '{param}.type'.", f"{param}.type")
    demand(
        "function" not in tool,
        f"Missing required parameter: '{param}.name'.",
        f"{param}.name",
        "missing_required_parameter",
    )
    if kind == "function":
        return [openai.function(tool, param)]
    if kind == "custom":
        openai.named(tool.get("name"), f"{param}.name")
        return [Offered(str(tool["name"]), custom=True)]
    return []


def _settings(data: Json) -> None:
    reasons = openai.REASONS.match(data["model"]) is not None
    cap = data.get("max_output_tokens")
    if isinstance(cap, int) and cap < 16:
        message = (
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got "
            f"{cap} instead."
        )
        raise RejectedError(message, param="max_output_tokens", code="integer_below_min_value")
    effort = mapping(data.get("reasoning")).get("effort")
    if not reasons and effort not in (None, "none"):
        message = "Unsupported parameter: 'reasoning.effort' is not supported with this model."
        raise RejectedError(message, param="reasoning.effort", code="unsupported_parameter")
    if reasons and data.get("temperature") not in (None, 1):
        message = "Unsupported parameter: 'temperature' is not supported with this model."
        raise RejectedError(message, param="temperature", code="unsupported_parameter")


def tool_choice(data: Json) -> Any:
    """Return the tool choice as an answer repeats it."""
    return data.get("tool_choice", "auto")
