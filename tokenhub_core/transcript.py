"""A call and its answer as people read a conversation: who said what, which tools were called, what was thought.

Reads what a client sent and what it got, in its own dialect; a stream is put together again from its events. What a
terminal would obey is shown and not done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import orjson

from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.types import (
    Audio,
    Call,
    Delta,
    Dialect,
    Failed,
    File,
    Finished,
    Image,
    MediaDelta,
    Opaque,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Started,
    Stopped,
    Text,
    TextDelta,
    Tool,
    ToolArguments,
    ToolResult,
    ToolStarted,
    ToolUse,
    Unread,
    Usage,
    UsageSeen,
)

_DESCRIPTION: Final = 100
"""Characters of a tool's description that stand in the list of tools."""
_PAD: Final = "    "


def asked(dialect: Dialect, body: bytes, path: str = "") -> str:
    """Return a request as a conversation; raises `TokenHubError` (`INVALID`) where it is none."""
    module = DIALECTS[dialect]
    return "\n".join(_asked(module.parse(module.open(body, path))))


def answered(dialect: Dialect, content_type: str, body: bytes) -> str:
    """Return a success body, a stream or in one piece, as the turn of the model; raises ValueError where it is none."""
    module = DIALECTS[dialect]
    parser = module.parser(content_type)
    if parser is None:
        data = orjson.loads(body)
        if not isinstance(data, dict):
            raise ValueError("expected a JSON object")
        answer = module.parse_answer(data)
        heard = Heard(answer.model, answer.parts, answer.stop, answer.usage, whole=True)
    else:
        reader = module.reader()
        found: list[Delta] = []
        for event in [*parser.feed(body), *parser.flush()]:
            if event.data:
                found += reader.read(event.name, event.data)
        heard = put_together([*found, *reader.end()])
    return "\n".join(_answered(heard))


# --- a stream, put together ----------------------------------------------------------------------------------


class Heard(msgspec.Struct, frozen=True):
    """An answer as far as it was heard."""

    model: str = ""
    parts: tuple[Part, ...] = ()
    stop: Stopped | None = None
    usage: Usage = Usage()
    failed: Failed | None = None
    whole: bool = False
    """Its last word has come."""


def put_together(deltas: Iterable[Delta]) -> Heard:
    """Return the answer that a stream's deltas come to, in the order in which its parts began."""
    parts: list[Part | _Growing] = []
    calls: dict[int, _Growing] = {}
    heard = Heard()
    for delta in deltas:
        match delta:
            case Started(model=model):
                heard = msgspec.structs.replace(heard, model=model or heard.model)
            case TextDelta(text):
                _grow(parts, "text").pieces.append(text)
            case RefusalDelta(text):
                _grow(parts, "refusal").pieces.append(text)
            case ReasoningDelta(text, redacted=redacted, part=part, summary=summary):
                block = _grow(parts, "reasoning", part)
                block.pieces.append(text)
                block.summary, block.redacted = summary, block.redacted or redacted
            case ToolStarted(index, id_, name):
                calls[index] = _Growing("tool", id=id_, name=name)
                parts.append(calls[index])
            case ToolArguments(index, fragment):
                if index in calls:
                    calls[index].pieces.append(fragment)
            case MediaDelta(part):
                parts.append(part)
            case UsageSeen(usage):
                heard = msgspec.structs.replace(heard, usage=heard.usage.merge(usage))
            case Stopped():
                heard = msgspec.structs.replace(heard, stop=delta)
            case Failed():
                heard = msgspec.structs.replace(heard, failed=delta)
            case Finished():
                heard = msgspec.structs.replace(heard, whole=True)
            case Unread():
                pass
    grown = tuple(part.part() if isinstance(part, _Growing) else part for part in parts)
    return msgspec.structs.replace(heard, parts=grown)


class _Growing(msgspec.Struct):
    """A part of which more may come."""

    kind: str
    number: int = 0
    id: str = ""
    name: str = ""
    summary: bool = False
    redacted: str = ""
    pieces: list[str] = msgspec.field(default_factory=list)

    def part(self) -> Part:
        """Return it as it is now."""
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                return Text(text)
            case "refusal":
                return Refusal(text)
            case "tool":
                return ToolUse(self.id, self.name, text)
        return Reasoning(text, redacted=self.redacted, summary=self.summary)


def _grow(parts: list[Part | _Growing], kind: str, number: int = 0) -> _Growing:
    """Return the last part if it is of this kind and number, else a new one."""
    last = parts[-1] if parts else None
    if not isinstance(last, _Growing) or (last.kind, last.number) != (kind, number):
        last = _Growing(kind, number)
        parts.append(last)
    return last


# --- as lines ------------------------------------------------------------------------------------------------


def _asked(call: Call) -> Iterator[str]:
    yield plain(", ".join([call.model or "no model", *_settings(call)]))
    for turn in call.turns:
        yield ""
        yield plain(f"{turn.role.value}{f' ({turn.name})' if turn.name else ''}:")
        yield from _parts(turn.parts)
    if call.tools:
        yield ""
        yield "tools:"
        for tool in call.tools:
            yield _PAD + _tool(tool)


def _settings(call: Call) -> Iterator[str]:
    if call.stream:
        yield "streamed"
    if call.max_output_tokens is not None:
        yield f"at most {call.max_output_tokens} tokens"
    if call.temperature is not None:
        yield f"temperature {call.temperature:g}"
    if call.top_p is not None:
        yield f"top_p {call.top_p:g}"
    if call.thinking.effort:
        yield f"effort {call.thinking.effort}"
    if call.thinking.budget_tokens is not None:
        yield f"may think {call.thinking.budget_tokens} tokens"
    if call.output is not None:
        yield f"answers in JSON{f' ({call.output.name})' if call.output.name else ''}"
    if call.tool_choice is not None:
        yield f"tool choice {call.tool_choice.name or call.tool_choice.kind.value}"


def _tool(tool: Tool | Opaque) -> str:
    if isinstance(tool, Opaque):
        return plain(f"[{tool.kind}]")
    properties = tool.schema.get("properties")
    names = ", ".join(map(str, properties)) if isinstance(properties, dict) else ""
    told = " ".join(tool.description.split())
    short = f"{told[:_DESCRIPTION]}…" if len(told) > _DESCRIPTION else told
    return plain(f"{tool.name}({names}){f': {short}' if short else ''}")


def _answered(heard: Heard) -> Iterator[str]:
    yield plain(f"assistant{f' ({heard.model})' if heard.model else ''}:")
    yield from _parts(heard.parts)
    yield ""
    if heard.failed is not None:
        yield plain(f"failed with {heard.failed.status} {heard.failed.code}: {heard.failed.message}")
    elif not heard.whole:
        yield "broken off: the end of the answer never came"
    if heard.stop is not None:
        raw = heard.stop.raw
        yield plain(
            f"stopped: {heard.stop.reason.value}{f' ({raw})' if raw not in ('', heard.stop.reason) else ''}"
        )
    if heard.usage:
        yield usage_line(heard.usage)


def usage_line(usage: Usage) -> str:
    """Return token counts in a line; what is zero and no matter of course is left out."""
    kinds = (
        (usage.cache_read_tokens, "from cache"),
        (usage.cache_write_tokens, "to cache"),
        (usage.reasoning_tokens, "of thought"),
    )
    more = [f"{count} {words}" for count, words in kinds if count]
    return ", ".join([f"tokens: {usage.input_tokens} in, {usage.output_tokens} out", *more])


def _parts(parts: Sequence[Part], pad: str = _PAD) -> Iterator[str]:
    for part in parts:
        yield from _part(part, pad)


def _part(part: Part, pad: str) -> Iterator[str]:
    match part:
        case Text(text):
            yield from _indented(text, pad)
        case Refusal(text):
            yield f"{pad}[refused]"
            yield from _indented(text, pad)
        case Reasoning(text, redacted=redacted, summary=summary):
            kind = "thought, in summary" if summary else "thought"
            yield f"{pad}[{kind}{', encrypted' if redacted and not text else ''}]"
            yield from _indented(text, pad + "| ")
        case ToolUse(id_, name, arguments):
            yield plain(f"{pad}→ {name}{f'  [{id_}]' if id_ else ''}")
            yield from _indented(_pretty(arguments), pad + "  ")
        case ToolResult(id_, content, is_error):
            yield plain(f"{pad}← {'failed' if is_error else 'result'}{f'  [{id_}]' if id_ else ''}")
            yield from _parts(content, pad + "  ")
        case Image(url, media_type, data):
            yield plain(f"{pad}[image {_media(url, media_type, data)}]")
        case Audio(media_type, data, id_, transcript):
            yield plain(f"{pad}[audio {_media(id_, media_type, data)}]")
            yield from _indented(transcript, pad)
        case File(url, media_type, data, file_id, name):
            yield plain(f"{pad}[file {_media(name or url or file_id, media_type, data)}]")
        case Opaque(kind=kind):
            yield plain(f"{pad}[{kind}]")


def _media(name: str, media_type: str, data: str) -> str:
    """Return what an image, a file or a piece of sound is, without its bytes."""
    size = f"{len(data) * 3 // 4} bytes" if data else ""
    shown = "" if name.startswith("data:") else name
    return " ".join(filter(None, (shown, media_type, size))) or "by value"


def _indented(text: str, pad: str) -> Iterator[str]:
    for line in text.splitlines():
        yield pad + plain(line)


def _pretty(arguments: str) -> str:
    """Return the arguments of a tool over several lines where they are JSON, as they are where they are not."""
    try:
        return orjson.dumps(orjson.loads(arguments), option=orjson.OPT_INDENT_2).decode()
    except ValueError:
        return arguments


def plain(text: str) -> str:
    """Return text from outside as a terminal may see it: one line, and nothing that it would obey; tabs stay."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)
