"""OpenAI's legacy `/v1/completions`: reading, whole answers, streams."""

from __future__ import annotations

from typing import Any, Final

import orjson

from tokenhub_core.providers.simulation import openai
from tokenhub_core.providers.simulation.asking import (
    Ask,
    RejectedError,
    demand,
    mapping,
    names,
    prefixes,
    strings,
    weigh,
    whole,
)
from tokenhub_core.providers.simulation.frames import Frames, Reply, data_line
from tokenhub_core.providers.simulation.openai_chat import finish
from tokenhub_core.providers.simulation.playing import Said, logprobs, pieces
from tokenhub_core.types import Dialect, Json

_FIELDS: Final = names(
    """model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop
    stream stream_options suffix temperature top_p user"""
)
_DEFAULT_LIMIT: Final = 16


def read(data: Json, _: str) -> Ask:
    """Read a request; raises `RejectedError` with the vendor's words where it would refuse it."""
    openai.known_fields(data, _FIELDS)
    prompt = _prompt(data.get("prompt"))
    logprobs_ = data.get("logprobs")
    if isinstance(logprobs_, int) and logprobs_ > 5:
        message = f"Invalid 'logprobs': integer above maximum value. Expected a value <= 5, got {logprobs_}."
        raise RejectedError(message, param="logprobs", code="integer_above_max_value")
    stops = data.get("stop")
    return Ask(
        dialect=Dialect.OPENAI_COMPLETIONS,
        model=data["model"],
        data=data,
        stream=data.get("stream") is True,
        include_usage=mapping(data.get("stream_options")).get("include_usage") is True,
        limit=whole(data.get("max_tokens")) or _DEFAULT_LIMIT,
        stops=(stops,) if isinstance(stops, str) else tuple(strings(stops)),
        text=prompt,
        logprobs=logprobs_ if isinstance(logprobs_, int) else None,
        n=whole(data.get("n")) or 1,
        seed=data.get("seed"),
        input_tokens=weigh(prompt),
        prefixes=prefixes(data["model"], [prompt]),
    )


def _prompt(given: object) -> str:
    """Return the prompt as one text; several are served one call each, which is not played here."""
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str | list):
        given = given[0]
    if isinstance(given, list) and given and all(isinstance(item, int) for item in given):
        return " ".join(map(str, given))
    message = "Invalid type for 'prompt': expected a string, an array with one string, or an array of tokens."
    demand(isinstance(given, str) or given is None, message, "prompt", "invalid_type")
    return "<|endoftext|>" if given is None else str(given)


def whole_answer(reply: Reply) -> bytes:
    """Return a whole answer."""
    choices = [
        {
            "text": _text(reply.ask, said),
            "index": index,
            "logprobs": _logprobs(reply.ask, _text(reply.ask, said), 0),
            "finish_reason": finish(said),
        }
        for index, said in enumerate(reply.said)
    ]
    return orjson.dumps({**_base(reply), "choices": choices, "usage": openai.usage(reply.said)})


def stream(reply: Reply) -> Frames:
    """Return a stream: it opens with its first word."""
    ask, base = reply.ask, _base(reply)
    usage: Json = {"usage": None} if ask.include_usage else {}

    def chunk(index: int, text: str, offset: int = 0, reason: str | None = None) -> bytes:
        logprobs_ = _logprobs(ask, text, offset) if text else None
        one = {"text": text, "index": index, "logprobs": logprobs_, "finish_reason": reason}
        return data_line({**base, "choices": [one], **usage})

    content: list[bytes] = []
    for index, said in enumerate(reply.said):
        offset = 0
        for word in pieces(_text(ask, said)):
            content.append(chunk(index, word, offset))
            offset += len(word)
    closing = [chunk(index, "", reason=finish(said)) for index, said in enumerate(reply.said)]
    if ask.include_usage:
        closing.append(data_line({**base, "choices": [], "usage": openai.usage(reply.said)}))
    closing.append(b"data: [DONE]\n\n")
    return Frames((), tuple(content), tuple(closing))


def _base(reply: Reply) -> Json:
    return {
        "id": f"cmpl-{reply.key}",
        "object": "text_completion",
        "created": reply.created,
        "model": reply.ask.model,
        "system_fingerprint": "fp_simulated",
    }


def _text(ask: Ask, said: Said) -> str:
    return ask.text + said.text if ask.data.get("echo") is True else said.text


def _logprobs(ask: Ask, text: str, offset: int) -> Any:
    if ask.logprobs is None:
        return None
    found = logprobs(text, ask.logprobs)
    offsets = []
    for token in found:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in found],
        "token_logprobs": [token.logprob for token in found],
        "top_logprobs": [dict(token.top) for token in found],
        "text_offset": offsets,
    }
