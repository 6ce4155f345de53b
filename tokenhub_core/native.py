"""The engine's own way to be asked, `POST /v1/chat`: a conversation, and beside it what is wanted of the answer.

    {"request": {"messages": […], "model_hint": "gpt-4o", "parameters": {"temperature": 0}, "stream": false, …},
     "policy": {"mode": "cheap", "max_budget_usd": 0.01, …},
     "capabilities": {"vision": true},
     "output_format": {"type": "json", "strip_think": true}}

The messages are those of chat completions, and so is the call that is made of them: what stands in a message or among
the parameters goes on as it is. The answer is a chat completion with the decision around it; a stream is one of chat
completion chunks, and its last event, `tokenhub.done`, tells the decision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.directives import TAG
from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.types import NANO, Form, Json, Mode, Need, Request

PATH: Final = "/v1/chat"
DONE: Final = "tokenhub.done"
"""The name of a stream's last event."""

_RESERVED: Final = frozenset({"model", "messages", "stream"})
_PLACE: Final = re.compile(r" - at `(?:key` in `)?\$(?P<path>[^`]*)`\Z")

type _Budget = Annotated[float, Meta(ge=0, le=100)]
type _Latency = Annotated[int, Meta(ge=1, le=3_600_000)]
type _Weight = Annotated[int, Meta(ge=0, le=10)]
type _Name = Annotated[str, Meta(min_length=1, max_length=200)]
type _Words = Annotated[str, Meta(max_length=200)]
type _Tokens = Annotated[int, Meta(ge=1, le=1_000_000)]


class PolicyAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the call asks of routing; what is absent is as the operator has it. Null lifts a limit."""

    mode: Mode | UnsetType = UNSET
    max_budget_usd: _Budget | UnsetType | None = UNSET
    max_latency_ms: _Latency | UnsetType | None = UNSET
    min_weight: _Weight | UnsetType = UNSET
    provider: _Name | UnsetType = UNSET
    fallback: bool | UnsetType = UNSET
    validate: bool | UnsetType = UNSET
    """Hold the answer to the schema in `parameters.response_format`."""
    buffered: bool | UnsetType = UNSET
    """Hold a stream that is checked until it has passed."""
    guarded: bool | UnsetType = UNSET
    """Hold the beginning of a stream, so that a break in it is made good unseen."""
    resume: bool | UnsetType = UNSET
    """Go on with a stream that breaks at a model that goes on from what was said."""


class OutputAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What shape the text of the answer is to have."""

    type: Form | None = None
    schema: Json | None = None
    """The same as `request.output_schema`."""
    max_tokens: _Tokens | None = None
    """Text is cut at four times so many bytes. JSON and XML cannot be: there it is refused."""
    strip_think: bool = False


class RequestAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conversation."""

    messages: Annotated[list[Json], Meta(min_length=1)]
    """As chat completions have them."""
    id: _Words = ""
    """The caller's own name for the call; the record keeps it."""
    model_hint: _Words = ""
    """Empty or `*`: the router chooses."""
    estimated_input_tokens: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    """The least that the input is taken for."""
    meta: Annotated[dict[str, str | int | float | bool], Meta(max_length=16)] = {}
    """Becomes the tags `name:value` of the record, and goes to no provider."""
    output_schema: Json | None = None
    parameters: Json = {}
    """Further fields of chat completions (`temperature`, `tools`, …)."""
    stream: bool = False


class ChatAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/chat`."""

    request: RequestAsked
    policy: PolicyAsked = PolicyAsked()
    capabilities: dict[Need, bool] | list[Need] = {}
    """What the model must be able to do, beside what the call shows."""
    output_format: OutputAsked = OutputAsked()


class Opened(msgspec.Struct, frozen=True):
    """A call that was asked for in this way: as chat completions, and what it asks for beside."""

    request: Request
    wishes: Mapping[str, Any]
    """By the field names of `Policy`."""
    id: str = ""


def opened(body: bytes, path: str) -> Opened:
    """Decode and check a body; raises `TokenHubError` (`INVALID`) that names the place of the fault."""
    try:
        asked = msgspec.convert(wire.decode(body), ChatAsked)
    except msgspec.ValidationError as error:
        raise _misshaped(str(error)) from None
    one = asked.request
    for name in one.parameters:
        if name in _RESERVED:
            place = f"request.parameters.{name}"
            raise _bad(place, "has a field of its own in 'request'")
    data = {"model": one.model_hint.strip(), "messages": one.messages, **one.parameters, "stream": one.stream}
    try:
        request = OPENAI_CHAT.open(wire.encode(data), path)
    except TokenHubError as error:
        raise _moved(error) from None
    return Opened(request, _wishes(asked), one.id)


def _wishes(asked: ChatAsked) -> dict[str, Any]:
    one, output = asked.request, asked.output_format
    if output.max_tokens is not None and output.type in {Form.JSON, Form.XML}:
        raise _bad("output_format.max_tokens", "JSON and XML cannot be cut; cap it in request.parameters")
    if output.schema is not None and one.output_schema not in (None, output.schema):
        raise _bad("output_format.schema", "is another one than request.output_schema")
    wishes = {
        name: value for name, value in msgspec.structs.asdict(asked.policy).items() if value is not UNSET
    }
    needs = asked.capabilities
    named = needs if isinstance(needs, list) else [need for need, wanted in needs.items() if wanted]
    schema = one.output_schema if output.schema is None else output.schema
    found = {
        "needs": frozenset(named),
        "tags": tuple(_tag(name, value) for name, value in one.meta.items()),
        "input_tokens": one.estimated_input_tokens,
        "output_schema": schema,
        "output_format": output.type,
        "output_max_tokens": output.max_tokens,
        "strip_think": output.strip_think,
    }
    return {**wishes, **{name: value for name, value in found.items() if value}}


def _tag(name: str, value: str | int | float | bool) -> str:
    said = str(value).lower() if isinstance(value, bool) else str(value)
    tag = f"{name}:{said}"
    if not TAG.fullmatch(tag):
        place = f"request.meta.{name[:64]}"
        raise _bad(place, "a tag has at most 64 letters, digits and . _ : / -")
    return tag


def _misshaped(message: str) -> TokenHubError:
    """Return the fault of a body of another shape; the library says where in a path from `$`."""
    found = _PLACE.search(message)
    place = found["path"].removeprefix(".") if found else ""
    said = message[: found.start()] if found else message
    return _bad(place or "body", said[:1].lower() + said[1:])


def _moved(error: TokenHubError) -> TokenHubError:
    """Return a fault of the chat completion under the name of its place in this body."""
    fault = error.fault
    if not fault.param:
        return error
    outer = "request" if fault.param.startswith("messages") else "request.parameters"
    place = f"{outer}.{fault.param}"
    message = fault.message.replace(f"'{fault.param}'", f"'{place}'")
    return client_fault(message, kind=fault.kind, cause=fault.cause, param=place)


def _bad(param: str, what: str) -> TokenHubError:
    return client_fault(f"Invalid '{param}': {what}.", cause="bad_field", param=param)


# --- answers -----------------------------------------------------------------------------------------------


def decision(model: str, reason: str, nanousd: int) -> Json:
    """Return what is told of a call with its answer. The cost is that of all attempts."""
    return {"negotiated_model": model, "estimated_cost_usd": nanousd / NANO, "routing_reason": reason}


def enclosed(body: bytes, told: Json) -> bytes:
    """Return an answer with the decision around it, its own bytes as they are."""
    return wire.encode(told)[:-1] + b',"response":' + body + b"}"


def done(told: Json) -> bytes:
    """Return the last event of a stream."""
    return sse.frame(wire.encode(told), DONE)
