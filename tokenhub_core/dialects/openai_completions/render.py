"""A canonical call as the body of a request to a provider of completions: one text to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat.kept import spelled
from tokenhub_core.dialects.openai_completions.transcript import transcript
from tokenhub_core.types import Call, Choice, Dialect, Json, Thinking

_PLUMBING: Final = frozenset({"stream_options"})
"""Foreign members that steer the wire and not the answer: leaving them out loses nothing."""


def render(call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
    """Return the provider's body; `max_output_tokens` overrides the call's own cap. A stream tells its usage."""
    losses: list[str] = []
    data: Json = {"model": model, "prompt": transcript(call.turns, losses)}
    cap = call.max_output_tokens if max_output_tokens is None else max_output_tokens
    fields: Mapping[str, Any] = {
        "max_tokens": cap,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "stop": list(call.stop) or None,
        "seed": call.seed,
        "n": call.n,
        "frequency_penalty": call.frequency_penalty,
        "presence_penalty": call.presence_penalty,
        "logprobs": call.logprobs,
        "user": call.user or None,
    }
    data |= {name: value for name, value in fields.items() if value is not None}
    losses += _lost(call)
    if call.dialect is Dialect.OPENAI_COMPLETIONS:
        data |= call.rest
        if spelled(call.rest, "echo", ""):
            data["echo"] = True
    else:
        losses += [name for name in call.rest if name not in _PLUMBING]
    if call.stream:
        options = data.get("stream_options")
        data["stream"] = True
        data["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _lost(call: Call) -> list[str]:
    """Return the names of the settings that a completion has no place for."""
    choice = call.tool_choice
    has_no_place = {
        "tools": call.tools,
        "tool_choice": choice is not None and choice.kind in {Choice.REQUIRED, Choice.NAMED},
        "response_format": call.output is not None,
        "top_k": call.top_k is not None,
        "thinking": call.thinking != Thinking(),
        "metadata": call.metadata,
        "service_tier": call.service_tier not in {"", "auto", "default"},
    }
    return [name for name, said in has_no_place.items() if said]
