"""What a simulated model says: decides on an answer, the same for the same question.

The answer restates what was asked, tells what it was shown, says that it is simulated, calls tools where they
were asked for, fits a schema where one was given, and obeys the caller's limits, so that programs meet every
shape a real model sends. A few words in the last question ask for more:

    echo: …             the answer is the text after it, and nothing else
    please refuse       the model declines, in the dialect's own way
    please filter       the vendor's content filter stops the answer
    please redact       thoughts come encrypted, where a dialect has that

Where the last message is the assistant's, and its dialect goes on from there, the answer is the rest of it.

A tool is called if it was forced, or if the last question names it (or says "use the tool") and no results
have come since. Several that are named are called in parallel unless the caller forbids it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson

from tokenhub_core.providers.instances import instance
from tokenhub_core.providers.simulation.asking import Ask, Media, Offered, tokens
from tokenhub_core.types import Choice, Json, StopReason

_ASKS_FOR_TOOL: Final = re.compile(r"\buse (?:the|a|your|any) (?:\w+ )?tools?\b", re.IGNORECASE)
_NAMES: Final = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*")
_ECHO: Final = re.compile(r"\s*(?:please )?echo: ?(.*)", re.IGNORECASE | re.DOTALL)
_REDACT: Final = ("please redact", "anthropic_magic_string_trigger_redacted_thinking")
_REFUSE: Final = ("please refuse", "anthropic_magic_string_trigger_refusal")
_FILTER: Final = ("please filter",)

DECLINED: Final = "I'm sorry, but I can't help with that."
"""What a model says that refuses."""

_FILLERS: Final = (
    "The wording is fixed by the question and a seed, so the same call always gets the same answer.",
    "Prices, limits and pace follow the public figures of the model that this stands in for.",
    "Everything around it is real: the routing, the streaming, the counting and the record.",
    "Add a provider with its key, and the same call will reach a real model.",
    "Tools, schemas, stop sequences and token limits are honoured as a real model would.",
    "No word of this was written by a language model.",
)


@dataclass(frozen=True, slots=True)
class Called:
    """One tool call. `arguments` is JSON text, or plain text for a custom tool."""

    nonce: str
    """What its id is made of: hex digits."""
    name: str
    arguments: str
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """A simulated model's answer. `input_tokens` include those read from and written to a cache."""

    text: str
    calls: tuple[Called, ...] = ()
    stop: StopReason = StopReason.END
    sequence: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    """The thought's included."""
    thought: str = ""
    redacted: bool = False
    """The thought is not for the eyes of the caller."""
    reasoning_tokens: int = 0
    cache_read: int = 0
    cache_write: int = 0
    nonce: str = ""
    """What seals and ids of this answer are made of."""


@dataclass(frozen=True, slots=True)
class Cached:
    """How many input tokens a cache held already, and how many it took in now."""

    read: int = 0
    write: int = 0


def answer(ask: Ask, *, key: str, seed: int, cached: Cached = Cached()) -> tuple[Said, ...]:
    """Return the answer's choices. `key` makes ids unique; the words follow from question and seeds alone."""
    found = []
    for choice in range(max(1, ask.n)):
        said = replace(_choice(ask, key=f"{key}/{choice}" if choice else key, seed=seed, choice=choice))
        read = min(cached.read, ask.input_tokens)
        write = min(cached.write, ask.input_tokens - read)
        found.append(replace(said, cache_read=read, cache_write=write, nonce=f"{key}/{choice}"))
    return tuple(found)


def digest(text: str, size: int = 12) -> str:
    """Return a short stable id for `text`, `2 * size` hex digits."""
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=size).hexdigest()


def pieces(text: str) -> list[str]:
    """Split text into words with the space after each: what one streamed event carries."""
    return re.findall(r"\s*\S+\s?|\s+", text)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text, its log probability, and the likeliest ones at its place, itself first."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


def logprobs(text: str, top: int) -> tuple[Token, ...]:
    """Return the log probabilities of a text, token by token, with `top` likely ones at each place."""
    found = []
    for at, piece in enumerate(pieces(text)):
        value = -int(digest(f"{at}/{piece}", 2), 16) / 65536
        others = tuple((f"{piece}{'~' * step}", round(value - step, 6)) for step in range(1, top))
        found.append(Token(piece, round(value, 6), ((piece, round(value, 6)), *others)[:top]))
    return tuple(found)


def filtered(ask: Ask) -> bool:
    """Tell whether the question asks for the content filter."""
    return _says(ask, _FILTER)


def _says(ask: Ask, words: Sequence[str]) -> bool:
    spoken = ask.text.lower()
    return any(word in spoken for word in words)


def _choice(ask: Ask, *, key: str, seed: int, choice: int) -> Said:
    thought = _thought(ask) if ask.thinks else ""
    spent = tokens(thought) if thought else 0
    base = Said("", thought=thought, redacted=_says(ask, _REDACT), reasoning_tokens=spent)
    if ask.limit is not None and spent >= ask.limit:
        cut = thought.encode()[: 4 * ask.limit].decode(errors="ignore")
        base = replace(base, thought=cut, reasoning_tokens=ask.limit, stop=StopReason.LENGTH)
        return replace(base, input_tokens=ask.input_tokens, output_tokens=ask.limit)
    if _says(ask, _REFUSE):
        return _counted(ask, replace(base, text=DECLINED, stop=StopReason.REFUSED))
    if called := _called(ask):
        hint = _hint(ask.text)
        calls = tuple(
            Called(digest(f"{key}/{index}"), tool.name, _arguments(tool, hint), tool.custom)
            for index, tool in enumerate(called)
        )
        return _counted(ask, replace(base, calls=calls, stop=StopReason.TOOL_USE))
    said = _limited(ask, replace(base, text=_words(ask, seed, choice)))
    if filtered(ask):
        said = replace(said, text=said.text[: len(said.text) // 2], stop=StopReason.FILTERED, sequence="")
    return _counted(ask, said)


def _words(ask: Ask, seed: int, choice: int) -> str:
    if ask.structured:
        if ask.schema is None:
            return orjson.dumps({"answer": _prose(ask, seed, choice)}).decode()
        return orjson.dumps(instance(ask.schema, hint=_hint(ask.text))).decode()
    echo = _ECHO.fullmatch(ask.text)
    text = echo[1] if echo else _prose(ask, seed, choice)
    # What somebody else has begun differs in the name at most: it is gone on with from where it ends.
    return text[len(ask.begun) :]


def _counted(ask: Ask, said: Said) -> Said:
    spoken = said.text + "".join(call.name + call.arguments for call in said.calls)
    if said.calls:
        count = sum(tokens(call.name + call.arguments) for call in said.calls)
    else:
        count = tokens(spoken) if spoken else 0
    return replace(said, input_tokens=ask.input_tokens, output_tokens=said.reasoning_tokens + count)


def _limited(ask: Ask, said: Said) -> Said:
    """Apply stop sequences and the cap, whichever comes first in the text."""
    text, stop, sequence = said.text, StopReason.END, ""
    hits = [(at, word) for word in ask.stops if word and (at := text.find(word)) >= 0]
    if hits:
        at, sequence = min(hits)
        text, stop = text[:at], StopReason.STOP_SEQUENCE
    room = None if ask.limit is None else 4 * (ask.limit - said.reasoning_tokens)
    if room is not None and len(text.encode(errors="replace")) > room:
        text = text.encode(errors="replace")[:room].decode(errors="ignore")
        stop, sequence = StopReason.LENGTH, ""
    return replace(said, text=text, stop=stop, sequence=sequence)


def _thought(ask: Ask) -> str:
    asked = _shortened(" ".join(ask.text.split()), 80) or "nothing"
    step = f"{len(ask.results)} tool results are in." if ask.results else "No tool has answered yet."
    return f'The question is: "{asked}". {step} A plain answer will do.'


def _prose(ask: Ask, seed: int, choice: int) -> str:
    asked = _shortened(" ".join(ask.text.split()), 240) or "nothing"
    mixed = f"{seed}/{ask.model}/{ask.text}"
    if ask.seed is not None or choice:
        mixed += f"/{ask.seed}/{choice}"
    number = int(digest(mixed, 4), 16)
    fillers = " ".join(_FILLERS[(number + step) % len(_FILLERS)] for step in range(3))
    shown = f" It came with {_listed(ask.media)}." if ask.media else ""
    told = "".join(
        f" The tool {result.name} {'failed' if result.is_error else 'answered'}: "
        f'"{_shortened(" ".join(result.text.split()), 240)}"'
        + (f" with {_listed(result.media)}" if result.media else "")
        + "."
        for result in ask.results
    )
    return (
        f'You asked: "{asked}".{shown}{told} This is a simulated answer in the name of {ask.model}. {fillers}'
    )


def _listed(media: Sequence[Media]) -> str:
    """Return like `2 images (image/png, image/jpeg) and 1 file (application/pdf)`."""
    kinds = dict.fromkeys(item.kind for item in media)
    groups = []
    for kind in kinds:
        types = [item.type for item in media if item.kind == kind]
        plural = "" if len(types) == 1 or kind == "audio" else "s"
        groups.append(f"{len(types)} {kind}{plural} ({', '.join(types)})")
    return " and ".join(groups)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _hint(text: str) -> str:
    """Return a name out of the question (`weather in Paris?` gives `Paris`), for arguments that need some text."""
    names = _NAMES.findall(text[:2000])
    return names[-1] if names else "example"


def _arguments(tool: Offered, hint: str) -> str:
    return hint if tool.custom else orjson.dumps(_object(instance(tool.schema, hint=hint))).decode()


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _called(ask: Ask) -> list[Offered]:
    if not ask.tools or ask.choice is Choice.NONE:
        return []
    if ask.choice is Choice.NAMED:
        return [tool for tool in ask.tools if tool.name == ask.chosen][:1]
    if ask.choice is Choice.AUTO and ask.results:
        return []
    spoken = ask.text.lower()
    named = [
        tool
        for tool in ask.tools
        if tool.name.lower() in spoken or tool.name.lower().replace("_", " ") in spoken
    ]
    if not named and (ask.choice is Choice.REQUIRED or _ASKS_FOR_TOOL.search(ask.text)):
        named = [*ask.tools[:1]]
    return named if ask.parallel else named[:1]
