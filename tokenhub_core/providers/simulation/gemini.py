"""Google's `models/…:generateContent`, `:streamGenerateContent` and `:countTokens`, as strict as the vendor: reading.

Field names are read in camelCase and in snake_case, as JSON for protocol buffers allows.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import orjson

from tokenhub_core.providers.simulation.asking import (
    Ask,
    Media,
    Offered,
    Reading,
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
    unknown,
    weigh,
    whole,
)
from tokenhub_core.providers.simulation.openai import reference
from tokenhub_core.providers.simulation.proofs import genuine
from tokenhub_core.types import Choice, Dialect, Json

VENDOR: Final = "gemini"
"""Whose seals are on thought signatures."""

TARGET: Final = re.compile(r".*/models/(?P<model>[^/:]+):(?P<operation>\w+)")
"""The path of an operation, however it begins."""

_DUMMIES: Final = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
"""Documented words that stand for the signature of a call which another model made."""

_FIELDS: Final = names(
    """contents systemInstruction tools toolConfig safetySettings generationConfig cachedContent serviceTier store
    labels model"""
)
_CONFIG: Final = names(
    """responseJsonSchema _responseJsonSchema audioTimestamp candidateCount enableAffectiveDialog frequencyPenalty
    logprobs maxOutputTokens mediaResolution presencePenalty responseLogprobs responseMimeType responseModalities
    responseSchema routingConfig seed speechConfig stopSequences temperature thinkingConfig topK topP
    enableEnhancedCivicAnswers responseFormat translationConfig audioTranscriptionConfig imageConfig"""
)
_PART: Final = names(
    """text inlineData fileData functionCall functionResponse executableCode codeExecutionResult thought
    thoughtSignature videoMetadata mediaResolution partMetadata toolCall toolResponse"""
)
_DATA: Final = names(
    """text inlineData fileData functionCall functionResponse executableCode codeExecutionResult toolCall
    toolResponse"""
)
_DECLARED: Final = names(
    "name description parameters parametersJsonSchema response responseJsonSchema behavior"
)
_SCHEMA: Final = names(
    """additionalProperties defs ref $defs $ref anyOf default description enum example format items maxItems
    maxLength maxProperties maximum minItems minLength minProperties minimum nullable pattern properties
    propertyOrdering required title type"""
)
_TYPES: Final = names("STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL TYPE_UNSPECIFIED")
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_CHOICES: Final = {
    "AUTO": Choice.AUTO,
    "VALIDATED": Choice.AUTO,
    "MODE_UNSPECIFIED": Choice.AUTO,
    "ANY": Choice.REQUIRED,
    "NONE": Choice.NONE,
}
_SNAKE: Final = re.compile(r"(?<=[a-z])_([a-z])")
_CALLERS_OWN: Final = names(
    """args response parameters parametersJsonSchema responseJsonSchema _responseJsonSchema responseSchema
    labels"""
)


def read(data: Json, target: str) -> Reading:
    """Read a request; raises `RejectedError` with the vendor's words where it would refuse it."""
    path, _, query = target.partition("?")
    found = TARGET.fullmatch(path)
    model = unquote(found["model"]) if found else str(data.get("model", ""))
    operation = found["operation"] if found else "generateContent"
    if operation == "countTokens":
        inner = data.get("generateContentRequest", data.get("generate_content_request"))
        ask = _read(mapping(inner) or data, model)
        details = [{"modality": "TEXT", "tokenCount": ask.input_tokens}]
        return Told(model, orjson.dumps({"totalTokens": ask.input_tokens, "promptTokensDetails": details}))
    return _read(data, model, streams=operation == "streamGenerateContent", query=query)


def _read(given: Mapping[str, Any], model: str, *, streams: bool = False, query: str = "") -> Ask:
    data = _camel(given)
    _fields(data, _FIELDS, "")
    contents = data.get("contents")
    contents = [contents] if isinstance(contents, dict) else contents
    message = "* GenerateContentRequest.contents: contents is not specified\n"
    demand(
        isinstance(contents, list) and contents and all(isinstance(item, dict) for item in contents), message
    )
    turns = [*mappings(contents)]
    config = mapping(data.get("generationConfig"))
    _fields(config, _CONFIG, "generation_config")
    _conversation(turns)
    _signatures(turns, model)
    _settings(config)
    last = max((at for at, turn in enumerate(turns) if _asks(turn)), default=-1)
    tools = tuple(_tools(data.get("tools")))
    calling = mapping(mapping(data.get("toolConfig")).get("functionCallingConfig"))
    mode = str(calling.get("mode", "AUTO")).upper()
    demand(mode in _CHOICES, _bad_enum("tool_config.function_calling_config.mode", mode))
    allowed = set(strings(calling.get("allowedFunctionNames")))
    demand(
        not allowed or mode in ("ANY", "VALIDATED"), "Allowed function names can only be set with mode ANY."
    )
    schema = config.get("responseJsonSchema", config.get("_responseJsonSchema"))
    if "responseSchema" in config:
        schema = _lowered(config["responseSchema"], "generation_config.response_schema")
    thinking = mapping(config.get("thinkingConfig"))
    system = data.get("systemInstruction")
    return Ask(
        dialect=Dialect.GEMINI,
        model=model,
        data=data,
        stream=streams,
        array=streams and parse_qs(query).get("alt") != ["sse"],
        limit=whole(config.get("maxOutputTokens")),
        stops=tuple(strings(config.get("stopSequences"))),
        text=_texts(turns[last]) if last >= 0 else "",
        media=_media(_parts(turns[last])) if last >= 0 else (),
        results=tuple(_results(turns[last + 1 :])),
        begun=_texts(turns[-1]) if turns[-1].get("role") == "model" else "",
        tools=tuple(tool for tool in tools if not allowed or tool.name in allowed),
        choice=_CHOICES[mode],
        structured=config.get("responseMimeType") == "application/json",
        schema=schema,
        thinks=_thinks(model, thinking),
        shows=thinking.get("includeThoughts") is True,
        logprobs=(config.get("logprobs") or 0) if config.get("responseLogprobs") is True else None,
        n=whole(config.get("candidateCount")) or 1,
        seed=config.get("seed"),
        input_tokens=weigh(system, turns, data.get("tools")),
        prefixes=prefixes(model, [system, data.get("tools"), *turns]),
    )


def signs(model: str) -> bool:
    """Tell whether a model demands that the signatures of its function calls come back."""
    return model.startswith(("gemini-3", "gemini-4"))


def _thinks(model: str, thinking: Mapping[str, Any]) -> bool:
    if "thinkingBudget" in thinking:
        budget = thinking["thinkingBudget"]
        zero_is_an_error = budget == 0 and "pro" in model
        message = "Budget 0 is invalid. This model only works in thinking mode."
        demand(not zero_is_an_error, message)
        return bool(budget)
    level = str(thinking.get("thinkingLevel", "")).upper()
    levels = ("", "THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
    demand(level in levels, _bad_enum("generation_config.thinking_config.thinking_level", level))
    demand(not level or signs(model), "Thinking level is not supported for this model.")
    message = "Thinking is not enabled for this model."
    demand(not thinking or not model.startswith(("gemini-1", "gemini-2.0")), message)
    return signs(model) or bool(thinking)


def _camel(value: Any) -> Any:
    """Return JSON with its field names in camelCase; what holds names of the caller's own stays as it is."""
    if isinstance(value, list):
        return [_camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {_SNAKE.sub(lambda found: found[1].upper(), key): item for key, item in value.items()}
    return {key: item if key in _CALLERS_OWN else _camel(item) for key, item in named.items()}


def _fields(data: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    name = unknown(data, known)
    place = f" at '{where}'" if where else ""
    demand(not name, f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.')


def _bad_enum(where: str, value: str) -> str:
    return f"Invalid value at '{where}' (TYPE_ENUM), \"{value}\""


def _parts(turn: Mapping[str, Any]) -> list[Json]:
    parts = turn.get("parts")
    return [parts] if isinstance(parts, dict) else [*mappings(parts)]


def _texts(turn: Mapping[str, Any]) -> str:
    found = [part["text"] for part in _parts(turn) if isinstance(part.get("text"), str)]
    return "\n".join(found)


def _asks(turn: Json) -> bool:
    """Tell whether a turn asks something: the user's words or media, and no results."""
    parts = _parts(turn)
    return turn.get("role", "user") == "user" and not any("functionResponse" in part for part in parts)


def _conversation(turns: list[Json]) -> None:
    """Refuse turns that do not fit together, and parts that are none."""
    waiting = 0
    for at, turn in enumerate(turns):
        role, parts = turn.get("role", "user"), _parts(turn)
        demand(role in ("user", "model", "function"), "Please use a valid role: user, model.")
        message = f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty.\n"
        demand(parts, message)
        for number, part in enumerate(parts):
            _part(part, f"contents[{at}].parts[{number}]")
        calls = sum("functionCall" in part for part in parts)
        answers = sum("functionResponse" in part for part in parts)
        message = (
            "Please ensure that the number of function response parts is equal to the number of function call parts "
            "of the function call turn."
        )
        demand(answers == waiting if role != "model" else not waiting, message)
        message = (
            "Please ensure that function call turn comes immediately after a user turn or after a function response "
            "turn."
        )
        demand(not calls or (at and role == "model"), message)
        message = "Please ensure that function response turn comes immediately after a function call turn."
        demand(not answers or role != "model", message)
        waiting = calls
    message = "Please ensure that the number of function response parts is equal to the number of function call parts"
    demand(not waiting, message + " of the function call turn.")


def _part(part: Json, where: str) -> None:
    _fields(part, _PART, where)
    held = [name for name in part if name in _DATA]
    signed_only = not held and "thoughtSignature" in part
    message = f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have one initialized field\n"
    demand(len(held) == 1 or signed_only, message)
    if "text" in part:
        demand(isinstance(part["text"], str), f"Invalid value at '{where}.text' (TYPE_STRING)")
    for name, field in (("functionCall", "args"), ("functionResponse", "response")):
        if name in part:
            inner = mapping(part[name])
            demand(
                inner.get("name"), f"* GenerateContentRequest.{where}.{name}.name: Name cannot be empty.\n"
            )
            valid = isinstance(inner.get(field, {}), dict)
            message = (
                f"Invalid value at '{where}.{name}.{field}' (type.googleapis.com/google.protobuf.Struct)"
            )
            demand(valid, message)
    _media([part])


def _signatures(turns: list[Json], model: str) -> None:
    """Refuse thought signatures that were not given here, and calls of the current turn that have lost theirs."""
    last = max((at for at, turn in enumerate(turns) if _asks(turn)), default=-1)
    for at, turn in enumerate(turns):
        first = True
        for position, part in enumerate(_parts(turn)):
            sealed = part.get("thoughtSignature")
            valid = sealed is None or genuine(VENDOR, _bytes(sealed)) or _dummy(sealed)
            demand(valid, "Thought signature is not valid")
            if "functionCall" not in part:
                continue
            name = mapping(part["functionCall"]).get("name")
            message = (
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                "work correctly, and missing thought_signature may lead to degraded model performance. Additional "
                f"data, function call `default_api:{name}` , position {at + 1 + position}. Please refer to "
                "https://ai.google.dev/gemini-api/docs/thought-signatures for more details."
            )
            demand(sealed is not None or not first or at < last or not signs(model), message)
            first = False


def _bytes(data: object) -> object:
    """Return bytes in the usual base64: JSON for protocol buffers takes either alphabet, with or without padding."""
    if not isinstance(data, str):
        return data
    bare = data.rstrip("=").replace("-", "+").replace("_", "/")
    return bare + "=" * (-len(bare) % 4)


def _dummy(sealed: object) -> bool:
    # The SDKs send bytes as base64, programs often the word itself.
    return sealed in _DUMMIES or _bytes(sealed) in [
        base64.b64encode(word.encode()).decode() for word in _DUMMIES
    ]


def _settings(config: Mapping[str, Any]) -> None:
    stops = config.get("stopSequences")
    demand(not isinstance(stops, list) or len(stops) <= 5, "The number of stop sequences must be at most 5.")
    cap = config.get("maxOutputTokens")
    demand(cap is None or whole(cap), "max_output_tokens must be positive.")
    count = config.get("candidateCount")
    demand(count is None or (whole(count) and count <= 8), "candidate_count must be in the range [1, 8].")
    likely = config.get("logprobs")
    demand(
        likely is None or config.get("responseLogprobs") is True, "logprobs requires response_logprobs=true."
    )
    kind = config.get("responseMimeType", "text/plain")
    known = ("text/plain", "application/json", "text/x.enum", "")
    message = (
        "* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are `text/plain`, "
    )
    demand(kind in known, message + "`application/json`, `text/x.enum`.\n")
    both = "responseSchema" in config or "responseJsonSchema" in config
    message = "Unsupported response mime type with response schema set; use `application/json`."
    demand(not both or kind in ("application/json", "text/x.enum"), message)


def _tools(tools: object) -> Iterator[Offered]:
    """Yield the declared functions; the vendor's own tools are accepted and not used."""
    for at, tool in enumerate([tools] if isinstance(tools, dict) else mappings(tools)):
        for number, one in enumerate(mappings(tool.get("functionDeclarations"))):
            where = f"tools[{at}].function_declarations[{number}]"
            _fields(one, _DECLARED, where)
            message = (
                f"* GenerateContentRequest.{where}.name: Invalid function name. Must start with a letter or an "
                "underscore. Must be alphameric, underscores, dots, colons or dashes, with a maximum length of 128.\n"
            )
            demand(isinstance(one.get("name"), str) and _NAME.fullmatch(one["name"]), message)
            both = "parameters" in one and "parametersJsonSchema" in one
            demand(not both, f"{where}: parameters and parameters_json_schema are mutually exclusive.")
            schema = one.get("parametersJsonSchema")
            if one.get("parameters") is not None:
                schema = _lowered(one["parameters"], f"{where}.parameters")
            yield Offered(str(one["name"]), schema or {})


def _lowered(schema: object, where: str) -> Any:
    """Return the vendor's own form of a schema as JSON Schema; a field that it does not have is refused."""
    if not isinstance(schema, dict):
        raise RejectedError(
            f"Invalid value at '{where}' (type.googleapis.com/google.ai.generativelanguage.Schema)"
        )
    found = {_SNAKE.sub(lambda hit: hit[1].upper(), key): value for key, value in schema.items()}
    _fields(found, _SCHEMA, where)
    kind = found.get("type")
    if kind is not None:
        demand(isinstance(kind, str) and kind.upper() in _TYPES, _bad_enum(f"{where}.type", str(kind)))
        found["type"] = str(kind).lower()
    if "properties" in found:
        found["properties"] = {
            name: _lowered(part, f"{where}.properties[{at}].value")
            for at, (name, part) in enumerate(mapping(found["properties"]).items())
        }
    if "items" in found:
        found["items"] = _lowered(found["items"], f"{where}.items")
    if "anyOf" in found:
        found["anyOf"] = [_lowered(part, f"{where}.any_of[{at}]") for at, part in enumerate(found["anyOf"])]
    if isinstance(found.get("enum"), list):
        valid = all(isinstance(item, str) for item in found["enum"])
        demand(valid, f"Invalid value at '{where}.enum[0]' (TYPE_STRING)")
    return found


def _results(turns: list[Json]) -> Iterator[Result]:
    for turn in turns:
        for part in _parts(turn):
            if "functionResponse" in part:
                inner = mapping(part["functionResponse"])
                said = mapping(inner.get("response"))
                value = said.get("error", said.get("output", said.get("result", said)))
                text = value if isinstance(value, str) else orjson.dumps(value).decode()
                yield Result(str(inner["name"]), text, "error" in said, _media(_parts(inner)))


def _media(parts: list[Json]) -> tuple[Media, ...]:
    found = []
    for part in parts:
        if "inlineData" in part:
            held = mapping(part["inlineData"])
            named = str(held.get("mimeType", ""))
            demand("/" in named, f"Unsupported MIME type: {named}")
            demand(
                decodes(_bytes(held.get("data"))),
                "Invalid value at 'inline_data.data' (TYPE_BYTES), Base64 decoding failed",
            )
            found.append(Media(_kind(named), named))
        if "fileData" in part:
            held = mapping(part["fileData"])
            demand(held.get("fileUri"), "file_data.file_uri: must not be empty")
            named = str(held.get("mimeType") or reference(str(held["fileUri"])))
            found.append(Media(_kind(named), named))
    return tuple(found)


def _kind(media_type: str) -> str:
    kind = media_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"
