"""What OpenAI's operations have in common: rules for tools and schemas, usage, log probabilities."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from tokenhub_core.providers.simulation.asking import (
    Media,
    Offered,
    RejectedError,
    data_url,
    decodes,
    demand,
    mapping,
    mappings,
    unknown,
)
from tokenhub_core.providers.simulation.playing import Said, Token
from tokenhub_core.types import Choice, Json

REASONS: Final = re.compile(r"(?:o\d|gpt-5|gpt-oss)")
"""Models whose names begin so think before they answer."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TIERS: Final = frozenset({"flex", "priority", "scale", "fast"})
_BY_EXTENSION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "png": "image/png",
        "jpg": "image/jpeg",
        "jpeg": "image/jpeg",
        "gif": "image/gif",
        "webp": "image/webp",
        "pdf": "application/pdf",
    }
)


def known_fields(data: Json, known: frozenset[str]) -> None:
    """Refuse a body with a field that the operation does not know."""
    name = unknown(data, known)
    demand(not name, f"Unknown parameter: '{name}'.", name, "unknown_parameter")


def tier(data: Json) -> str:
    """Return the service tier that the answer tells."""
    asked = data.get("service_tier")
    return asked if asked in _TIERS else "default"


def reference(url: str) -> str:
    """Return the media type that a URL's ending tells, or `by reference`."""
    path = url.partition("?")[0]
    return _BY_EXTENSION.get(path.rpartition(".")[2].lower(), "by reference")


def image(url: object, param: str) -> Media:
    """Return the image at a URL; a data URL must hold one."""
    if not isinstance(url, str) or not url.startswith(("data:", "http://", "https://")):
        message = f"Invalid '{param}'. Expected a valid URL, but got a value with an invalid format."
        raise RejectedError(message, param=param, code="invalid_value")
    if not url.startswith("data:"):
        return Media("image", reference(url))
    kind, data = data_url(url)
    if not kind.startswith("image/"):
        message = f"Invalid MIME type in '{param}'. Only image types are supported."
        raise RejectedError(message, param=param, code="invalid_image_format")
    demand(decodes(data), f"Invalid base64 data in '{param}'.", param, "invalid_base64")
    return Media("image", kind)


def document(part: Mapping[str, Any], param: str) -> Media:
    """Return the file of a part: by id, by URL, or by value as a data URL."""
    if isinstance(part.get("file_id"), str):
        return Media("file", "by reference")
    if isinstance(part.get("file_url"), str):
        return Media("file", reference(part["file_url"]))
    data = part.get("file_data")
    kind, encoded = data_url(data) if isinstance(data, str) else ("", "")
    message = (
        f"Invalid '{param}.file_data'. Expected a base64-encoded data URL with an application/pdf MIME type"
    )
    demand(kind and decodes(encoded), message, f"{param}.file_data", "invalid_value")
    demand(part.get("filename"), f"Missing required parameter: '{param}.filename'.", f"{param}.filename")
    return Media("file", kind)


def function(tool: Mapping[str, Any], param: str) -> Offered:
    """Return a function that is offered; the vendor's rules for names and strict schemas are kept."""
    named(tool.get("name"), f"{param}.name")
    schema = tool.get("parameters")
    demand(schema is None or isinstance(schema, dict), f"Invalid type for '{param}.parameters'.", param)
    if tool.get("strict") is True:
        strictly(schema, f"function '{tool['name']}'", f"{param}.parameters")
    if isinstance(schema, dict) and schema.get("type", "object") != "object":
        message = (
            f"Invalid schema for function '{tool['name']}': schema must be a JSON Schema of "
            f"'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
        )
        raise RejectedError(message, param=f"{param}.parameters", code="invalid_function_parameters")
    return Offered(str(tool["name"]), schema or {})


def named(name: object, param: str) -> None:
    """Refuse a name that is none to this vendor."""
    demand(isinstance(name, str) and name, f"Missing required parameter: '{param}'.", param)
    if not _NAME.fullmatch(str(name)):
        message = (
            f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$', at most 64 characters long."
        )
        raise RejectedError(message, param=param, code="invalid_value")


def strictly(schema: object, what: str, param: str) -> None:
    """Refuse a schema that strict mode cannot hold a model to."""
    for path, part in _objects(schema, ()):
        where = f"Invalid schema for {what}: In context={path!r}"
        names = sorted(mapping(part.get("properties")))
        required = part.get("required")
        missing = [name for name in names if not isinstance(required, list) or name not in required]
        closed = part.get("additionalProperties") is False
        message = f"{where}, 'additionalProperties' is required to be supplied and to be false."
        demand(closed, message, param, "invalid_json_schema")
        message = (
            f"{where}, 'required' is required to be supplied and to be an array including every key in "
            f"properties. Missing '{missing[0] if missing else ''}'."
        )
        demand(not missing, message, param, "invalid_json_schema")


def structure(form: Mapping[str, Any], name_of: str, param: str) -> Any:
    """Return the schema of a `json_schema` format, checked; `name_of` is where its name stands."""
    named(form.get("name"), f"{name_of}.name")
    schema = form.get("schema")
    demand(isinstance(schema, dict), f"Missing required parameter: '{param}.schema'.", f"{param}.schema")
    if form.get("strict") is True:
        strictly(schema, f"response_format '{form['name']}'", param)
    return schema


def choice(value: object, offered: tuple[Offered, ...], nested: bool) -> tuple[Choice, str]:
    """Return the tool choice; a name must be offered. `nested` puts the name in an object of its kind."""
    if value is None or isinstance(value, str):
        words = {None: Choice.AUTO, "auto": Choice.AUTO, "none": Choice.NONE, "required": Choice.REQUIRED}
        demand(value in words, f"Invalid value: '{value}'.", "tool_choice", "invalid_value")
        message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        demand(value is None or offered or value == "none", message, "tool_choice")
        return words[value], ""
    found = mapping(value)
    kind = str(found.get("type"))
    if kind == "allowed_tools":
        inner = mapping(found.get(kind)) if nested else found
        return (Choice.REQUIRED if inner.get("mode") == "required" else Choice.AUTO), ""
    if kind not in ("function", "custom"):
        return Choice.REQUIRED, ""
    name = (mapping(found.get(kind)) if nested else found).get("name")
    message = f"Tool choice '{name}' not found in 'tools' parameter."
    demand(any(tool.name == name for tool in offered), message, "tool_choice", "invalid_value")
    return Choice.NAMED, str(name)


def usage(said: tuple[Said, ...]) -> Json:
    """Return the usage of chat and legacy completions, over all choices."""
    output = sum(one.output_tokens for one in said)
    return {
        "prompt_tokens": said[0].input_tokens,
        "completion_tokens": output,
        "total_tokens": said[0].input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": said[0].cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(one.reasoning_tokens for one in said),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprob(token: Token, *, bare: bool = False) -> Json:
    """Return one token's log probability as chat and Responses tell it; `bare` leaves the bytes out."""

    def one(text: str, value: float) -> Json:
        raw = {} if bare else {"bytes": [*text.encode(errors="replace")]}
        return {"token": text, "logprob": value, **raw}

    return {
        **one(token.text, token.logprob),
        "top_logprobs": [one(text, value) for text, value in token.top],
    }


def _objects(schema: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every object schema in a schema, with the way to it."""
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" or "properties" in schema:
        yield path, schema
    for key in ("properties", "$defs", "definitions"):
        for name, part in mapping(schema.get(key)).items():
            yield from _objects(part, (*path, key, name))
    yield from _objects(schema.get("items"), (*path, "items"))
    for part in mappings(schema.get("anyOf")):
        yield from _objects(part, (*path, "anyOf"))
