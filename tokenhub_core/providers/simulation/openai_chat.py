"""OpenAI's `/v1/chat/completions`, as strict as the vendor: reading, whole answers, streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

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
from tokenhub_core.providers.simulation.frames import Frames, Reply, data_line, slices
from tokenhub_core.providers.simulation.playing import Called, Said, logprobs, pieces
from tokenhub_core.types import Dialect, Json, StopReason

_STOP: Final[Mapping[StopReason, str]] = MappingProxyType(
    {
        StopReason.LENGTH: "length",
        StopReason.TOOL_USE: "tool_calls",
        StopReason.FILTERED: "content_filter",
    }
)
_ROLES: Final = ("system", "assistant", "user", "function", "tool", "developer")
_ALLOWED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"user": ("text", "image_url", "input_audio", "file"), "assistant": ("text", "refusal")}
)
_FIELDS: Final = names(
    """messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
    max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed
    service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
    web_search_options"""
)


def read(data: Json, _: str) -> Ask:
    """Read a request; raises `RejectedError` with the vendor's words where it would refuse it."""
    openai.known_fields(data, _FIELDS)
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise RejectedError(
            "Invalid 'messages': expected an array of objects with minimum length 1.", param="messages"
        )
    _conversation(messages)
    _settings(data)
    tools = tuple(_tool(tool, at) for at, tool in enumerate(mappings(data.get("tools"))))
    last = max((at for at, item in enumerate(messages) if item["role"] == "user"), default=-1)
    called = {
        call["id"]: mapping(call.get(str(call.get("type")))).get("name", "tool")
        for item in messages
        for call in mappings(item.get("tool_calls"))
    }
    choice, chosen = openai.choice(data.get("tool_choice"), tools, nested=True)
    form = mapping(data.get("response_format"))
    schema = None
    if form.get("type") == "json_schema":
        where = "response_format.json_schema"
        schema = openai.structure(mapping(form.get("json_schema")), where, where)
    stops = data.get("stop")
    wanted = data.get("top_logprobs")
    return Ask(
        dialect=Dialect.OPENAI_CHAT,
        model=data["model"],
        data=data,
        stream=data.get("stream") is True,
        include_usage=mapping(data.get("stream_options")).get("include_usage") is True,
        limit=whole(data.get("max_completion_tokens", data.get("max_tokens"))),
        stops=(stops,) if isinstance(stops, str) else tuple(strings(stops)),
        text=texts(messages[last].get("content")) if last >= 0 else "",
        media=_media(messages[last], last) if last >= 0 else (),
        results=tuple(
            Result(str(called.get(item.get("tool_call_id"), "tool")), texts(item.get("content")))
            for item in messages[last + 1 :]
            if item["role"] == "tool"
        ),
        begun=texts(messages[-1].get("content")) if messages[-1].get("prefix") is True else "",
        tools=tools,
        choice=choice,
        chosen=chosen,
        parallel=data.get("parallel_tool_calls") is not False,
        structured=form.get("type") in ("json_schema", "json_object"),
        schema=schema,
        thinks=data.get("reasoning_effort") not in (None, "none"),
        logprobs=(wanted if isinstance(wanted, int) else 0) if data.get("logprobs") is True else None,
        n=whole(data.get("n")) or 1,
        seed=data.get("seed"),
        input_tokens=weigh(messages, data.get("tools")),
        prefixes=prefixes(data["model"], [*mappings(data.get("tools")), *messages]),
    )


def _conversation(messages: list[Json]) -> None:
    """Refuse a conversation whose tool calls and results do not fit together, or whose parts are none."""
    waiting: list[str] = []
    answered: set[str] = set()
    for at, item in enumerate(messages):
        role, param = item.get("role"), f"messages.[{at}].role"
        if role not in _ROLES:
            listed = ", ".join(f"'{name}'" for name in _ROLES)
            message = f"Invalid value: '{role}'. Supported values are: {listed}."
            raise RejectedError(message, param=f"messages[{at}].role", code="invalid_value")
        if role == "tool":
            name = item.get("tool_call_id")
            message = (
                "Missing parameter 'tool_call_id': messages with role 'tool' must have a 'tool_call_id'."
            )
            demand(isinstance(name, str) and name, message, param)
            demand(
                name not in answered,
                f"Duplicate value for 'tool_call_id' of '{name}' in message[{at}]",
                param,
            )
            message = (
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                "'tool_calls'."
            )
            demand(name in waiting, message, param)
            waiting.remove(str(name))
            answered.add(str(name))
        elif waiting:
            _unanswered(waiting, param)
        if role == "assistant":
            waiting, answered = _calls(item, at), set()
        _content(item, at)
    if waiting:
        _unanswered(waiting, f"messages.[{len(messages)}].role")


def _unanswered(waiting: list[str], param: str) -> None:
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}"
    )
    raise RejectedError(message, param=param)


def _calls(item: Json, at: int) -> list[str]:
    """Return the ids of a message's tool calls."""
    where = f"messages[{at}].tool_calls"
    calls = item.get("tool_calls")
    demand(calls is None or (isinstance(calls, list) and calls), f"Invalid '{where}': empty array.", where)
    ids = []
    for number, call in enumerate(mappings(calls)):
        kind = call.get("type")
        param = f"{where}[{number}]"
        demand(kind in ("function", "custom"), f"Missing required parameter: '{param}.type'.", param)
        inner = mapping(call.get(str(kind)))
        text = inner.get("arguments" if kind == "function" else "input")
        demand(
            isinstance(text, str), f"Invalid type for '{param}.function.arguments': expected a string.", param
        )
        openai.named(inner.get("name"), f"{param}.function.name")
        name = call.get("id")
        demand(isinstance(name, str) and name, f"Missing required parameter: '{param}.id'.", param)
        demand(name not in ids, f"Duplicate value for 'id' of '{name}' in '{where}'", where)
        ids.append(str(name))
    if (
        not ids
        and item.get("content") is None
        and not any(map(item.get, ("refusal", "function_call", "audio")))
    ):
        message = "Invalid value for 'content': expected a string, got null."
        raise RejectedError(message, param=f"messages.[{at}].content")
    return ids


def _content(item: Json, at: int) -> None:
    """Refuse content of a kind that a role does not have."""
    content, role = item.get("content"), item["role"]
    where = f"messages[{at}].content"
    if content is None and role in ("assistant", "function"):
        return
    if not isinstance(content, list):
        message = (
            f"Invalid type for '{where}': expected one of a string or array of objects, but got another type."
        )
        demand(isinstance(content, str), message, where, "invalid_type")
        return
    demand(content, f"Invalid '{where}': empty array. Expected an array with minimum length 1.", where)
    for number, part in enumerate(content):
        kind = mapping(part).get("type")
        param = f"{where}[{number}]"
        allowed = _ALLOWED.get(role, ("text",))
        if kind == "image_url" and kind not in allowed:
            message = (
                f"Invalid 'messages[{at}]'. Image URLs are only allowed for messages with role 'user', but this "
                f"message with role '{role}' contains an image URL."
            )
            raise RejectedError(message, param=f"messages[{at}]", code="invalid_value")
        listed = ", ".join(f"'{name}'" for name in allowed)
        message = f"Invalid value: '{kind}'. Supported values are: {listed}."
        demand(kind in allowed, message, param, "invalid_value")
        if kind in ("text", "refusal"):
            demand(isinstance(part.get(kind), str), f"Missing required parameter: '{param}.{kind}'.", param)
    if role == "user":
        _media(item, at)


def _media(item: Json, at: int) -> tuple[Media, ...]:
    found = []
    for number, part in enumerate(mappings(item.get("content"))):
        param = f"messages[{at}].content[{number}]"
        match part.get("type"):
            case "image_url":
                found.append(
                    openai.image(mapping(part.get("image_url")).get("url"), f"{param}.image_url.url")
                )
            case "file":
                found.append(openai.document(mapping(part.get("file")), f"{param}.file"))
            case "input_audio":
                sound = mapping(part.get("input_audio"))
                known = sound.get("format") in ("wav", "mp3")
                demand(known, f"Invalid value for '{param}.input_audio.format'.", param, "invalid_value")
                demand(decodes(sound.get("data")), f"Invalid base64 in '{param}.input_audio.data'.", param)
                found.append(Media("audio", f"audio/{sound['format']}"))
    return tuple(found)


def _tool(tool: Json, at: int) -> Offered:
    kind, param = tool.get("type"), f"tools[{at}]"
    demand(kind, f"Missing required parameter: '{param}.type'.", f"{param}.type")
    message = f"Invalid value: '{kind}'. Supported values are: 'function' and 'custom'."
    demand(kind in ("function", "custom"), message, f"{param}.type", "invalid_value")
    inner = mapping(tool.get(str(kind)))
    if kind == "function":
        return openai.function(inner, f"{param}.function")
    openai.named(inner.get("name"), f"{param}.custom.name")
    return Offered(str(inner["name"]), custom=True)


def _settings(data: Json) -> None:
    """Refuse settings that the vendor refuses, alone or for this kind of model."""
    reasons = openai.REASONS.match(data["model"]) is not None
    if reasons and data.get("max_tokens") is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead."
        )
        raise RejectedError(message, param="max_tokens", code="unsupported_parameter")
    if reasons and data.get("temperature") not in (None, 1):
        message = (
            f"Unsupported value: 'temperature' does not support {data['temperature']} with this model. Only the "
            "default (1) value is supported."
        )
        raise RejectedError(message, param="temperature", code="unsupported_value")
    stops = data.get("stop")
    if isinstance(stops, list) and len(stops) > 4:
        message = f"Invalid 'stop': array too long. Expected maximum length 4, but got {len(stops)} instead."
        raise RejectedError(message, param="stop", code="array_above_max_length")
    if data.get("top_logprobs") is not None and data.get("logprobs") is not True:
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise RejectedError(message, param="top_logprobs")
    for name in ("parallel_tool_calls", "tool_choice"):
        message = f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
        demand(data.get(name) in (None, "none") or data.get("tools"), message, name)
    temperature = data.get("temperature")
    if isinstance(temperature, int | float) and not 0 <= temperature <= 2:
        message = f"Invalid 'temperature': expected a value between 0 and 2, but got {temperature} instead."
        raise RejectedError(message, param="temperature", code="decimal_above_max_value")
    streams = data.get("stream") is True or data.get("stream_options") is None
    message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    demand(streams, message, "stream_options")


# --- writing ------------------------------------------------------------------------------------------------


def finish(said: Said) -> str:
    """Return the finish reason."""
    return _STOP.get(said.stop, "stop")


def whole_answer(reply: Reply) -> bytes:
    """Return a whole answer."""
    choices = [
        {
            "index": index,
            "message": _message(said),
            "logprobs": _logprobs(reply.ask, said.text),
            "finish_reason": finish(said),
        }
        for index, said in enumerate(reply.said)
    ]
    return orjson.dumps(
        {**_base(reply, "chat.completion"), "choices": choices, "usage": openai.usage(reply.said)}
    )


def stream(reply: Reply) -> Frames:
    """Return a stream; several choices take turns, event by event."""
    ask, base = reply.ask, _base(reply, "chat.completion.chunk")
    usage: Json = {"usage": None} if ask.include_usage else {}

    def chunk(index: int, delta: Json, *, text: str = "", reason: str | None = None) -> bytes:
        one = {"index": index, "delta": delta, "logprobs": _logprobs(ask, text), "finish_reason": reason}
        return data_line({**base, "choices": [one], **usage})

    opening = [
        chunk(index, {"role": "assistant", "content": None if said.calls else "", "refusal": None})
        for index, said in enumerate(reply.said)
    ]
    told = [
        [chunk(index, delta, text=delta.get("content") or "") for delta in _deltas(said)]
        for index, said in enumerate(reply.said)
    ]
    longest = max(map(len, told))
    content = [line[at] for at in range(longest) for line in told if at < len(line)]
    closing = [chunk(index, {}, reason=finish(said)) for index, said in enumerate(reply.said)]
    if ask.include_usage:
        closing.append(data_line({**base, "choices": [], "usage": openai.usage(reply.said)}))
    closing.append(b"data: [DONE]\n\n")
    return Frames(tuple(opening), tuple(content), tuple(closing))


def _base(reply: Reply, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{reply.key}",
        "object": kind,
        "created": reply.created,
        "model": reply.ask.model,
        "service_tier": openai.tier(reply.ask.data),
        "system_fingerprint": "fp_simulated",
    }


def _message(said: Said) -> Json:
    refused = said.stop is StopReason.REFUSED
    message: Json = {
        "role": "assistant",
        "content": None if said.calls or refused else said.text,
        "refusal": said.text if refused else None,
        "annotations": [],
    }
    if said.calls:
        message["tool_calls"] = [_call(call, call.arguments) for call in said.calls]
    return message


def _call(call: Called, text: str) -> Json:
    kind, field = ("custom", "input") if call.custom else ("function", "arguments")
    return {"id": f"call_{call.nonce}", "type": kind, kind: {"name": call.name, field: text}}


def _deltas(said: Said) -> Iterable[Json]:
    for index, call in enumerate(said.calls):
        kind, field = ("custom", "input") if call.custom else ("function", "arguments")
        yield {"tool_calls": [{"index": index, **_call(call, "")}]}
        for part in slices(call.arguments):
            yield {"tool_calls": [{"index": index, kind: {field: part}}]}
    name = "refusal" if said.stop is StopReason.REFUSED else "content"
    for word in pieces(said.text):
        yield {name: word}


def _logprobs(ask: Ask, text: str) -> Any:
    if ask.logprobs is None or not text:
        return None
    return {"content": [openai.logprob(token) for token in logprobs(text, ask.logprobs)], "refusal": None}
