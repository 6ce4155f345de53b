"""Google's `models/…:generateContent`: whole answers, and the chunks of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import orjson

from tokenhub_core.providers.simulation.frames import Frames, Reply, data_line
from tokenhub_core.providers.simulation.gemini import VENDOR, signs
from tokenhub_core.providers.simulation.playing import Said, filtered, logprobs, pieces
from tokenhub_core.providers.simulation.proofs import seal
from tokenhub_core.types import Json, StopReason

_STOP: Final[Mapping[StopReason, str]] = MappingProxyType(
    {StopReason.LENGTH: "MAX_TOKENS", StopReason.REFUSED: "SAFETY", StopReason.FILTERED: "PROHIBITED_CONTENT"}
)


def whole_answer(reply: Reply) -> bytes:
    """Return a whole answer."""
    return orjson.dumps(_whole(reply))


def stream(reply: Reply) -> Frames:
    """Return a stream: events, or the pieces of one array. It opens with its first content."""
    chunks = [*_chunks(reply)]
    if not reply.ask.array:
        rendered = [data_line(chunk) for chunk in chunks]
        return Frames((), tuple(rendered[:-1]), (rendered[-1],))
    pieces_ = [(b",\r\n" if at else b"[") + orjson.dumps(chunk) for at, chunk in enumerate(chunks)]
    return Frames((), tuple(pieces_[:-1]), (pieces_[-1] + b"\n]",))


def _whole(reply: Reply) -> Json:
    if filtered(reply.ask):
        return _blocked(reply)
    candidates = [
        _candidate(reply, said, index, [part for parts in _parts(reply, said, joined=True) for part in parts])
        for index, said in enumerate(reply.said)
    ]
    return {"candidates": candidates, **_tail(reply, reply.said)}


def _blocked(reply: Reply) -> Json:
    """Return what comes where the prompt itself is blocked: no candidate at all."""
    usage = {"promptTokenCount": reply.first.input_tokens, "totalTokenCount": reply.first.input_tokens}
    tail = {**_tail(reply, reply.said), "usageMetadata": usage}
    return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **tail}


def _chunks(reply: Reply) -> Iterator[Json]:
    if filtered(reply.ask):
        yield _blocked(reply)
        return
    for index, said in enumerate(reply.said):
        groups = [*_parts(reply, said, joined=False)]
        for at, parts in enumerate(groups or [[]]):
            last = at >= len(groups) - 1
            final = last and index == len(reply.said) - 1
            one = _candidate(reply, said, index, parts) if last else _bare(index, parts)
            yield {"candidates": [one], **_tail(reply, reply.said if final else ())}


def _bare(index: int, parts: list[Json]) -> Json:
    return {"content": {"parts": parts, "role": "model"}, "index": index}


def _candidate(reply: Reply, said: Said, index: int, parts: list[Json]) -> Json:
    one: Json = {"finishReason": _STOP.get(said.stop, "STOP"), "index": index}
    if parts:
        one = {"content": {"parts": parts, "role": "model"}, **one}
    if reply.ask.logprobs is not None and said.text:
        found = logprobs(said.text, reply.ask.logprobs)
        one["avgLogprobs"] = sum(token.logprob for token in found) / max(1, len(found))
        one["logprobsResult"] = {
            "chosenCandidates": [{"token": token.text, "logProbability": token.logprob} for token in found],
            "topCandidates": [
                {"candidates": [{"token": text, "logProbability": value} for text, value in token.top]}
                for token in found
            ],
        }
    return one


def _parts(reply: Reply, said: Said, *, joined: bool) -> Iterator[list[Json]]:
    """Yield the parts of an answer, a list for each chunk; whole texts where they are `joined`."""
    ask = reply.ask
    if said.thought and ask.shows:
        for text in [said.thought] if joined else pieces(said.thought):
            yield [{"text": text, "thought": True}]
    sealed = {"thoughtSignature": seal(VENDOR, said.nonce)} if ask.thinks else {}
    for number, call in enumerate(said.calls):
        name = {"id": call.nonce[:8]} if signs(ask.model) else {}
        inner = {**name, "name": call.name, "args": orjson.loads(call.arguments)}
        yield [{"functionCall": inner, **(sealed if number == 0 else {})}]
    if said.calls or said.stop is StopReason.REFUSED or not said.text:
        return
    if joined:
        yield [{"text": said.text, **sealed}]
        return
    for word in pieces(said.text):
        yield [{"text": word}]
    yield [{"text": "", **sealed}]


def _tail(reply: Reply, said: tuple[Said, ...]) -> Json:
    """Return what every chunk ends with; only the last one counts the answer."""
    count = reply.first.input_tokens
    spent = sum(one.output_tokens - one.reasoning_tokens for one in said)
    thought = sum(one.reasoning_tokens for one in said)
    usage: Json = {"promptTokenCount": count}
    if said:
        usage["candidatesTokenCount"] = spent
    usage["totalTokenCount"] = count + spent + thought
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": count}]
    if thought:
        usage["thoughtsTokenCount"] = thought
    if reply.first.cache_read:
        usage["cachedContentTokenCount"] = reply.first.cache_read
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": reply.first.cache_read}]
    return {"usageMetadata": usage, "modelVersion": reply.ask.model, "responseId": reply.key}
