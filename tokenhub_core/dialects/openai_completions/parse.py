"""A caller's request as a canonical call: one turn of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenhub_core.dialects.openai_chat.kept import Kept, others
from tokenhub_core.dialects.openai_chat.request import wants_usage
from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.types import Call, Dialect, Json, Request, Role, Text, Turn

_FIELDS: Final = frozenset({"model", "prompt", "stream", "max_tokens", "echo"})
_SILENT: Final[Mapping[str, Any]] = {"suffix": "", "best_of": 1, "logit_bias": {}}
"""Values that say no more than leaving the field out."""


def parse(request: Request) -> Call:
    """Return the canonical call of a request that `open_request` has checked.

    Raises `TokenHubError` (`INVALID`) that names the field where only a provider of this dialect can serve it:
    several prompts, tokens, a text to be filled in, a text that is only to be scored.
    """
    data, features = request.data, request.features
    prompt = _prompt(data)
    rest = Kept(others(data, _FIELDS), echo="true" if echoed(data) else "")
    for name, silent in _SILENT.items():
        if rest.get(name) == silent:
            del rest[name]
    if rest.get("suffix"):
        raise _only_here("suffix", "a text to be filled in")
    if features.max_output_tokens == 0:
        raise _only_here("max_tokens", "an answer of no tokens")
    if data.get("echo") is True and data.get("logprobs") is not None:
        raise _only_here("echo", "log probabilities of the prompt")
    include_usage = wants_usage(data)
    options = rest.get("stream_options")
    if isinstance(options, dict):
        del rest["stream_options"]
        rest |= {"stream_options": more} if (more := others(options, ("include_usage",))) else {}
    user = rest.get("user")
    if isinstance(user, str):
        del rest["user"]
    return Call(
        dialect=Dialect.OPENAI_COMPLETIONS,
        model=features.model,
        turns=(Turn(Role.USER, (Text(prompt),)),),
        stream=features.stream,
        max_output_tokens=features.max_output_tokens,
        temperature=_number(rest, "temperature"),
        top_p=_number(rest, "top_p"),
        stop=_stop(rest),
        seed=_whole(rest, "seed"),
        n=_whole(rest, "n"),
        frequency_penalty=_number(rest, "frequency_penalty"),
        presence_penalty=_number(rest, "presence_penalty"),
        logprobs=_whole(rest, "logprobs"),
        user=user if isinstance(user, str) else "",
        include_usage=include_usage,
        rest=rest,
    )


def echoed(data: Json) -> str:
    """Return the prompt where the answer is to begin with it, an empty text where not."""
    prompt = data.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return prompt if data.get("echo") is True and isinstance(prompt, str) else ""


def _prompt(data: Json) -> str:
    match data.get("prompt"):
        case str(text) | [str(text)] if text:
            return text
        case None | "" | []:
            raise _only_here("prompt", "a call without a prompt")
        case [str(), *_]:
            raise _only_here("prompt", "several prompts in one call")
        case _:
            raise _only_here("prompt", "a prompt that is not one text")


def _only_here(param: str, what: str) -> TokenHubError:
    message = f"Invalid '{param}': {what} can only be served by a provider of completions."
    return client_fault(message, cause="not_translated", param=param)


def _number(rest: Json, key: str) -> float | None:
    value = rest.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    del rest[key]
    return value


def _whole(rest: Json, key: str) -> int | None:
    value = rest.get(key)
    if type(value) is not int:
        return None
    del rest[key]
    return value


def _stop(rest: Json) -> tuple[str, ...]:
    stop: Any = rest.get("stop")
    listed = [stop] if isinstance(stop, str) else stop
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        return ()
    del rest["stop"]
    return tuple(listed)
