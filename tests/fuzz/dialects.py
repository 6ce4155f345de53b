"""The parsers, and what each must do with any input: not more than the documented exceptions, and no lie.

A target's `run` takes one input and returns nothing; whatever it raises is a finding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from tests.fuzz import corpus
from tokenhub_core.dialects import ndjson, sse, wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.routing.affinity import Affinity, Served
from tokenhub_core.types import Call, Delta, Dialect, Left, Request, Traces

type Run = Callable[[bytes], None]

_CHATS: Final = tuple(module for name, module in DIALECTS.items() if name.translates)


class WrongError(AssertionError):
    """A parser did not crash, but what it did is not what it promises."""


@dataclass(frozen=True, slots=True)
class Target:
    """One parser."""

    name: str
    run: Run
    seeds: tuple[bytes, ...]
    structured: bool = True
    """The seeds hold JSON, whole or in lines."""


def demand(holds: bool, promise: str) -> None:
    """Raise `WrongError` where a promise does not hold."""
    if not holds:
        raise WrongError(promise)


def chosen[T](data: bytes, things: tuple[T, ...]) -> T:
    """Return one of the things; the same input always chooses the same."""
    return things[zlib.crc32(data) % len(things)]


# --- requests ----------------------------------------------------------------------------------------------


def request(module: DialectModule) -> Run:
    """Return the way of a request: opened, searched for texts and marks, parsed, and rendered to another dialect."""
    path = corpus.PATHS[module.name]

    def run(body: bytes) -> None:
        try:
            opened = module.open(body, path)
        except TokenHubError as error:
            _refusal(module, error)
            return
        slots = list(module.text_slots(opened.data))
        changed = module.replace_texts(opened.data, [(slot.path, slot.text[1:]) for slot in slots])
        orjson.dumps(changed)
        marked(module.traces(opened.data))
        demand(orjson.dumps(opened.data) == orjson.dumps(orjson.loads(body)), "data is not changed in place")
        patched = orjson.loads(module.patch(opened, model="served", max_output_tokens=7))
        demand(isinstance(patched, dict), "a patched body is an object")
        try:
            call = module.parse(opened)
        except TokenHubError as error:
            _refusal(module, error)
            return
        for target in {module, chosen(body, _CHATS)}:
            rendered(call, target)

    return run


def marked(traces: Traces) -> None:
    """Follow a call and note it: every turn of an opened one can be read and hashed."""
    table = Affinity(b"salt")
    thread = table.follow(lambda: traces, 0.0)
    turns = list(thread.said())
    calls = tuple(call for one in turns for call in one.calls)
    seals = tuple(seal for one in turns for seal in one.seals)
    table.note(thread, Served("m", "p", 0.0, 0), Left(traces.held, calls, seals))
    demand(len(thread.beginnings()) < len(turns) or not turns, "a beginning is not the whole")


def rendered(call: Call, target: DialectModule) -> None:
    """Render a call; what comes out is JSON, or a refusal that a caller can be told."""
    try:
        made = target.render(call, model="served", max_output_tokens=None)
    except TokenHubError as error:
        _refusal(target, error)
        return
    orjson.dumps(made.data)
    orjson.dumps(made.losses)


def _refusal(module: DialectModule, error: TokenHubError) -> None:
    demand(error.fault.kind is Kind.INVALID, f"a bad request is INVALID, not {error.fault.kind}")
    reply = module.error(error.fault, request_id="r")
    demand(reply.status == 400, f"a bad request is a 400, not a {reply.status}")
    demand(isinstance(orjson.loads(reply.body), dict), "an error is an object")


# --- answers -----------------------------------------------------------------------------------------------


def asked(module: DialectModule) -> Request:
    """Return a plain request for a stream."""
    body = _BODIES.get(module.name, _BODIES[Dialect.OPENAI_CHAT])
    return module.open(body, corpus.PATHS[module.name])


_BODIES: Final = {
    Dialect.OPENAI_CHAT: b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}',
    Dialect.OPENAI_RESPONSES: b'{"model":"m","input":"x","stream":true}',
    Dialect.OPENAI_COMPLETIONS: b'{"model":"m","prompt":"x","stream":true}',
    Dialect.OLLAMA_GENERATE: b'{"model":"m","prompt":"x"}',
    Dialect.GEMINI: b'{"contents":[{"role":"user","parts":[{"text":"x"}]}]}',
}
_ASKED: Final = {module.name: asked(module) for module in _CHATS}


def answer(module: DialectModule) -> Run:
    """Return the way of a whole answer: read, counted, and rendered for a caller."""

    def run(body: bytes) -> None:
        try:
            data = wire.decode(body)
        except TokenHubError:
            return
        usage = module.usage(data)
        demand(min(usage.input_tokens, usage.output_tokens) >= 0, "nothing is counted below zero")
        try:
            found = module.parse_answer(data)
        except ValueError:
            return
        if module.name.translates:
            for target in {module, chosen(body, _CHATS)}:
                orjson.dumps(target.render_answer(found, request=_ASKED[target.name]).data)

    return run


# --- streams -----------------------------------------------------------------------------------------------


def stream(module: DialectModule) -> Run:
    """Return the way of a stream: cut into events, read into deltas, and written for a caller."""

    def run(body: bytes) -> None:
        parser = module.parser(_content_type(body))
        if parser is None:
            return
        reader, target = module.reader(), chosen(body, _CHATS)
        writer = target.writer(request=_ASKED[target.name], created=1_700_000_000, fallback_id="f")
        deltas: list[Delta] = []
        for chunk in pieces(body):
            for event in parser.feed(chunk):
                deltas += reader.read(event.name, event.data)
        for event in parser.flush():
            deltas += reader.read(event.name, event.data)
        deltas += reader.end()
        written = b"".join([writer.write(delta) for delta in deltas])
        written.decode()
        orjson.dumps(writer.losses())

    return run


def _content_type(body: bytes) -> str:
    """Return the type that a server would call this, by its first character."""
    first = body.lstrip()[:1]
    return "application/json" if first == b"[" else ndjson.TYPE if first == b"{" else sse.TYPE


def pieces(body: bytes) -> list[bytes]:
    """Return the input in one, two, or many pieces; the same input is always cut in the same places."""
    number = zlib.crc32(body)
    match number & 3:
        case 0:
            return [body]
        case 1:
            at = number // 4 % (len(body) + 1)
            return [body[:at], body[at:]]
        case _:
            size = 1 + number // 4 % 97
            return [body[at : at + size] for at in range(0, len(body), size)]


def targets() -> tuple[Target, ...]:
    """Return every parser of every dialect."""
    found = []
    for name, module in DIALECTS.items():
        found.append(Target(f"open-{name}", request(module), corpus.requests(name)))
        found.append(Target(f"answer-{name}", answer(module), corpus.answers(name)))
        if name.translates and (seeds := corpus.streams(name)):
            found.append(Target(f"stream-{name}", stream(module), seeds))
    return tuple(found)
