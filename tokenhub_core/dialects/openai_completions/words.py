"""The small vocabularies of this dialect that are not those of the chat: ids, stop words, log probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from tokenhub_core.dialects.openai_chat import words as _chat
from tokenhub_core.types import Json, Logprob, Stopped, StopReason


def completion_id(given: str) -> str:
    """Return an answer's id in this dialect's form: `cmpl-` and what the provider called it."""
    return given if given.startswith("cmpl-") else f"cmpl-{given or 'unnamed'}"


def stopped(choice: Json) -> Stopped:
    """Return the canonical stop of a choice."""
    reason, sequence = choice.get("finish_reason"), choice.get("stop_reason")
    return _chat.stopped(reason, sequence=sequence, tools=False, refused=False)


def stop_word(stop: Stopped) -> str:
    """Return the wire's `finish_reason`; no tools are called here."""
    return "stop" if stop.reason is StopReason.TOOL_USE else _chat.stop_word(stop)


def stop_losses(stop: Stopped) -> tuple[str, ...]:
    """Return the loss of a stop reason that this dialect has no word for."""
    if stop.reason is StopReason.TOOL_USE:
        return (f"stop_reason:{stop.raw or stop.reason.value}",)
    return _chat.stop_losses(stop)


def logprobs(raw: object) -> tuple[Logprob, ...]:
    """Return the log probabilities of the wire's parallel arrays; a token without one is left out."""
    if not isinstance(raw, dict):
        return ()
    tokens, values, tops = (_array(raw, key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    found: list[Logprob] = []
    for place, (token, value) in enumerate(zip(tokens, values, strict=False)):
        if isinstance(token, str) and isinstance(value, int | float):
            found.append(Logprob(token, value, _top(tops[place] if place < len(tops) else None)))
    return tuple(found)


def _array(data: Json, key: str) -> list[object]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _top(raw: object) -> tuple[Logprob, ...]:
    if not isinstance(raw, dict):
        return ()
    return tuple(Logprob(token, value) for token, value in raw.items() if isinstance(value, int | float))


def logprobs_json(known: Sequence[Logprob], offset: int) -> Json | None:
    """Return the wire's parallel arrays, None where nothing is known; `offset` is where the first token begins."""
    if not known:
        return None
    offsets = [offset]
    for each in known[:-1]:
        offsets.append(offsets[-1] + len(each.token))
    return {
        "tokens": [each.token for each in known],
        "token_logprobs": [each.logprob for each in known],
        "top_logprobs": [{top.token: top.logprob for top in each.top} for each in known],
        "text_offset": offsets,
    }
