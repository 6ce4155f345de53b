"""Whole answers of this dialect: the GenerateContentResponse object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

import orjson

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.gemini import words
from tokenhub_core.dialects.gemini.names import Kept, aside, camel, many, others, plain, put_back
from tokenhub_core.dialects.gemini.parts import parts
from tokenhub_core.dialects.gemini.writing import PartWriter, arguments
from tokenhub_core.types import (
    Answer,
    Json,
    Logprob,
    Part,
    Reasoning,
    Request,
    StopReason,
    Text,
    ToolUse,
    Usage,
)

_FIELDS: Final = (
    "candidates",
    "createTime",
    "modelStatus",
    "modelVersion",
    "promptFeedback",
    "responseId",
    "usageMetadata",
)
_SHOWN: Final = frozenset(
    {"citationMetadata", "continuationToken", "groundingMetadata", "urlContextMetadata"}
)
"""Members of a candidate that say something to the reader of the answer; the others are numbers and ratings."""
_READ: Final = frozenset({"content", "finishReason", "logprobsResult"})


def parse_answer(data: Json) -> Answer:
    """Return the canonical answer; raises ValueError if `data` is no response with a candidate or a block.

    Further candidates are kept. What says nothing in any other dialect (ratings, averages) is put aside, so that
    it is no loss there.
    """
    try:
        return _answer(plain(data))
    except (RecursionError, orjson.JSONEncodeError):
        raise ValueError("candidates: nested too deeply") from None


def _answer(body: Json) -> Answer:
    candidates = many(body.get("candidates"))
    feedback = body.get("promptFeedback")
    block = words.blocked(feedback)
    if not all(isinstance(candidate, dict) for candidate in candidates):
        raise ValueError("candidates: expected a list of objects")
    if not candidates and block is None:
        raise ValueError("candidates: expected at least one")
    candidate: Json = candidates[0] if candidates else {}
    content = candidate.get("content")
    found = parts(content.get("parts")) if isinstance(content, dict) else []
    rest = Kept(others(body, _FIELDS), **_put_aside(body, candidate))
    rest |= {name: value for name, value in candidate.items() if name in _SHOWN}
    if len(candidates) > 1:
        rest["candidates[n>1]"] = candidates[1:]
    rest |= words.media_counts(body.get("usageMetadata"))
    chosen = candidate.get("logprobsResult")
    if chosen is not None:
        tokens = logprobs(chosen)
        texts = [part for part in found if isinstance(part, Text)]
        if tokens and len(texts) == 1:
            found[found.index(texts[0])] = replace(texts[0], logprobs=tokens)
        else:
            rest["logprobsResult"] = chosen
    tools = any(isinstance(part, ToolUse) for part in found)
    return Answer(
        id=words.text_of(body, "responseId"),
        model=words.text_of(body, "modelVersion"),
        parts=tuple(found),
        stop=block or words.stopped(words.text_of(candidate, "finishReason"), tools=tools),
        usage=usage(body),
        created=seconds(body.get("createTime")),
        rest=rest,
    )


def _put_aside(body: Json, candidate: Json) -> Json:
    said: Json = {
        name: body[name] for name in ("createTime", "modelStatus", "promptFeedback") if name in body
    }
    if "usageMetadata" in body:
        said["usageMetadata"] = body["usageMetadata"]
    said["candidate"] = others(candidate, _READ | _SHOWN)
    if "logprobsResult" in candidate:
        said["logprobsResult"] = candidate["logprobsResult"]
    return said


def seconds(moment: object) -> int:
    """Return the seconds since the epoch of an RFC 3339 time, 0 for anything else."""
    try:
        return int(datetime.fromisoformat(moment).timestamp()) if isinstance(moment, str) else 0
    except (ValueError, OverflowError):
        return 0


def logprobs(result: object) -> tuple[Logprob, ...]:
    """Return the chosen tokens of a `logprobsResult`, each with the likeliest at its place; none if it has none."""
    if not isinstance(result, dict):
        return ()
    tops = many(result.get("topCandidates"))
    tokens: list[Logprob] = []
    for place, raw in enumerate(many(result.get("chosenCandidates"))):
        token = _token(raw)
        if token is None:
            return ()
        top = tops[place] if place < len(tops) else None
        likely = map(_token, many(top.get("candidates")) if isinstance(top, dict) else [])
        tokens.append(replace(token, top=tuple(each for each in likely if each is not None)))
    return tuple(tokens)


def _token(raw: object) -> Logprob | None:
    match raw:
        case {"token": str(token), "logProbability": float() | int() as probability}:
            return Logprob(token, float(probability))
    return None


def usage(data: Json) -> Usage:
    """Return the token counts of a whole success body, zeros where it holds none."""
    found = data.get("usageMetadata", data.get("usage_metadata"))
    named = {camel(key): value for key, value in found.items()} if isinstance(found, dict) else {}
    return words.usage(words.counts(named))


# --- the way back ------------------------------------------------------------------------------------------


def render_answer(answer: Answer, *, request: Request) -> Rendered:
    """Return the response object that the caller's SDK expects."""
    own = isinstance(answer.rest, Kept)
    losses = list(words.stop_losses(answer.stop))
    candidate: Json = {"content": {"role": "model", "parts": _content(answer.parts, losses, own=own)}}
    if answer.stop.raw or answer.stop.reason is not StopReason.OTHER:
        candidate["finishReason"] = words.stop_word(answer.stop)
    candidate |= {"index": 0} if not own else aside(answer.rest, "candidate")
    chosen = aside(answer.rest, "logprobsResult") or _chosen(answer.parts)
    if chosen is not None:
        candidate["logprobsResult"] = chosen
    counted = aside(answer.rest, "usageMetadata")
    if counted is None or words.usage(words.counts(counted)) != answer.usage:
        counted = words.usage_json(answer.usage)
    data: Json = {"candidates": [candidate], "usageMetadata": counted}
    data["modelVersion"] = answer.model or request.features.model
    if answer.id:
        data["responseId"] = answer.id
    if own:
        _restore(answer, data, candidate)
    else:
        losses += answer.rest
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _restore(answer: Answer, data: Json, candidate: Json) -> None:
    """Put back what an answer of this dialect said besides."""
    for name in ("createTime", "modelStatus", "promptFeedback"):
        if (said := aside(answer.rest, name)) is not None:
            data[name] = said
    for name, value in answer.rest.items():
        if name == "candidates[n>1]":
            data["candidates"] = [candidate, *value]
        elif name in _SHOWN or name == "logprobsResult":
            candidate[name] = value
        elif not name.startswith(words.COUNTED):
            data[name] = value
    if words.blocked(data.get("promptFeedback")) and not answer.parts:
        del data["candidates"]


def _content(given: Iterable[Part], losses: list[str], *, own: bool) -> list[Json]:
    writer = PartWriter(own=own, names={}, losses=losses)
    content: list[Json] = []
    for part in given:
        match part:
            case Reasoning() if own and content and aside(part.rest, "attached"):
                content[-1] = {**content[-1], "thoughtSignature": words.signature(part.signature)}
            case Reasoning():
                shown = thought(part.text, part.signature, part.redacted)
                content += shown
                if shown and aside(part.rest, "thought") is False:
                    content[-1].pop("thought")
            case ToolUse():
                call = tool_call(part.id, part.name, arguments(part.arguments, losses))
                content.append(signed(call, part.signature))
                losses += [] if own else part.rest
                put_back(content[-1], part.rest if own else {})
            case _:
                content += writer.parts([part])
    if not own:
        mark_unsigned(content)
    return content


def thought(text: str, signature: str, redacted: str) -> list[Json]:
    """Return a thought as a client is shown it, whoever had it; none where there is nothing to show."""
    shown = words.signature(redacted, redacted=True) or words.signature(signature)
    if not text and not shown:
        return []
    return [{"text": text, "thought": True} | ({"thoughtSignature": shown} if shown else {})]


def tool_call(id_: str, name: str, args: Json) -> Json:
    """Return a call as a part; one without an id goes without."""
    return {"functionCall": {**({"id": id_} if id_ else {}), "name": name, "args": args}}


def signed(part: Json, sealed: str) -> Json:
    """Return the part with this signature, if there is one."""
    shown = words.signature(sealed)
    return part | {"thoughtSignature": shown} if shown else part


def mark_unsigned(content: list[Json]) -> None:
    """Mark the first call of another model's answer as one that has no signature.

    The client gives it back with its next call, perhaps to a model of this dialect that refuses it otherwise.
    """
    calls = [part for part in content if "functionCall" in part]
    if calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = words.UNSIGNED


def _chosen(given: Iterable[Part]) -> Json | None:
    """Return the `logprobsResult` that the texts of an answer tell."""
    tokens = [token for part in given if isinstance(part, Text) for token in part.logprobs]
    return chosen_json(tokens) if tokens else None


def chosen_json(tokens: Iterable[Logprob]) -> Json:
    """Return tokens as a `logprobsResult`."""
    told = list(tokens)
    body: Json = {"chosenCandidates": [_token_json(token) for token in told]}
    if any(token.top for token in told):
        body["topCandidates"] = [{"candidates": [_token_json(each) for each in token.top]} for token in told]
    return body


def _token_json(token: Logprob) -> Json:
    return {"token": token.token, "logProbability": token.logprob}
