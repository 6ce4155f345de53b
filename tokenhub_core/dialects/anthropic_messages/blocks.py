"""Content blocks of this dialect, and the canonical parts that they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, assert_never

import orjson

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.anthropic_messages import documents, thoughts
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import (
    Audio,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolResult,
    ToolUse,
)

_ADOPTED: Final = frozenset({"cache_control", "citations", "caller", "toolset_name"})
"""Extra members of a part that have their place here whoever wrote them: callers of other dialects mark
cacheable parts in this one's words, too."""


TOOL_USE: Final = ("type", "id", "name", "input")
"""The members of a `tool_use` that have a canonical place."""


def part(block: Json) -> Part:
    """Return the canonical part of a block; members without a canonical place go to its `rest`.

    A block of an unknown type, or of a known type but an unknown shape, is `Opaque`.
    """
    match block:
        case {"type": "text", "text": str(text)}:
            return Text(text, rest(block, "type", "text"))
        case {"type": "tool_use", "id": str(id_), "name": str(name), "input": dict(given)}:
            return ToolUse(id_, name, orjson.dumps(given).decode(), rest(block, *TOOL_USE))
        case {"type": "tool_result", "tool_use_id": str(id_)}:
            return _result(block, id_)
        case {
            "type": "image",
            "source": {"type": "base64", "media_type": str(kind), "data": str(data), **more},
        }:
            if not more:
                return Image(media_type=kind, data=data, rest=rest(block, "type", "source"))
        case {"type": "image", "source": {"type": "url", "url": str(url), **more}}:
            if not more:
                return Image(url, rest=rest(block, "type", "source"))
        case {"type": "thinking", "thinking": str(text)}:
            signature = block.get("signature")
            if signature is None or isinstance(signature, str):
                found = thoughts.read(text, signature or "")
                return replace(found, rest=rest(block, "type", "thinking", "signature"))
        case {"type": "redacted_thinking", "data": str(data)}:
            return replace(thoughts.redacted(data), rest=rest(block, "type", "data"))
        case {"type": "document"}:
            file = documents.read(block, rest(block, "type", "source", "title"))
            if file is not None:
                return file
    return Opaque(Dialect.ANTHROPIC_MESSAGES, str(block.get("type", "")), block)


def parts(content: object) -> tuple[Part, ...]:
    """Return the parts of a `content`: a string, a list of blocks, or nothing."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    if isinstance(content, list):
        return thoughts.attached((_one(block), _tool_seal(block)) for block in content)
    return ()


def _tool_seal(block: Any) -> str:
    match block:
        case {"type": "thinking"}:
            return thoughts.tool_seal(block)
    return ""


def _one(block: object) -> Part:
    """Return the part of a list's member; what is no block at all came from somebody else's mistake."""
    match block:
        case dict():
            return part(block)
        case str():
            return Text(block)
    return Opaque(Dialect.ANTHROPIC_MESSAGES, type(block).__name__, {"type": "unknown", "value": block})


def rest(data: Json, *known: str) -> Mapping[str, Any]:
    """Return the members of `data` other than the known ones; a null says nothing and is left out."""
    return {name: value for name, value in data.items() if name not in known and value is not None}


def _result(block: Json, id_: str) -> ToolResult:
    return ToolResult(
        id_,
        parts(block.get("content")),
        is_error=block.get("is_error") is True,
        rest=rest(block, "type", "tool_use_id", "content", "is_error"),
    )


class BlockWriter:
    """Writes parts as blocks and notes what it could not carry in `losses`.

    `own` says that the parts come from a call in this dialect: all of it is restored, blanks included, but for
    thoughts that Anthropic did not sign. Parts from elsewhere lose blank texts, too, which this dialect rejects.
    `ids` gives tool call ids their wire form; ids that are not in it stay as they are.
    """

    def __init__(self, *, own: bool, ids: Mapping[str, str], losses: list[str]) -> None:
        self._own = own
        self._ids = ids
        self._losses = losses

    def blocks(self, given: Iterable[Part]) -> list[Json]:
        """Return the blocks of all parts that have one."""
        return [block for each in given if (block := self.block(each)) is not None]

    def block(self, given: Part) -> Json | None:
        """Return the block of one part; None where it has none."""
        match given:
            case Text(text):
                if given.logprobs:
                    self._losses.append("logprobs")
                if not self._own and not text.strip():
                    return None
                return self._with_rest({"type": "text", "text": text}, given.rest)
            case Refusal(text):
                return {"type": "text", "text": text} if text.strip() else None
            case Image():
                return self._image(given)
            case File():
                return self._file(given)
            case ToolUse(id_, name, arguments):
                if given.signature:
                    self._losses.append("thinking.signature")
                body = {
                    "type": "tool_use",
                    "id": self._ids.get(id_, id_),
                    "name": name,
                    "input": self._input(arguments),
                }
                return self._with_rest(body, given.rest)
            case ToolResult():
                return self._result(given)
            case Reasoning():
                found = thoughts.to_provider(given, self._losses)
                return self._with_rest(found, given.rest) if found else None
            case Opaque(dialect, kind, raw):
                if dialect is Dialect.ANTHROPIC_MESSAGES:
                    return raw
                self._losses.append(f"part:{kind}")
                return None
            case Audio(transcript=transcript):
                self._losses.append("part:audio")
                return {"type": "text", "text": transcript} if transcript.strip() else None
            case _:
                assert_never(given)

    def texts(self, given: Iterable[Part]) -> list[Json]:
        """Return the text blocks of the parts; what is no text is a loss, as `system` holds nothing else."""
        found: list[Json] = []
        for each in given:
            block = self.block(each)
            if block is None:
                continue
            if block["type"] == "text" or self._own:
                found.append(block)
            else:
                self._losses.append(f"part:{block['type']}")
        return found

    def _image(self, given: Image) -> Json:
        if given.detail not in {"", "auto"}:
            self._losses.append("image_url.detail")
        source = (
            {"type": "url", "url": given.url}
            if given.url
            else {"type": "base64", "media_type": given.media_type, "data": given.data}
        )
        return self._with_rest({"type": "image", "source": source}, given.rest)

    def _result(self, given: ToolResult) -> Json:
        body: Json = {"type": "tool_result", "tool_use_id": self._ids.get(given.id, given.id)}
        content = self.blocks(given.content)
        if content:
            body["content"] = folded(content)
        if given.is_error:
            body["is_error"] = True
        return self._with_rest(body, given.rest)

    def _file(self, given: File) -> Json | None:
        found = documents.write(given, own=self._own)
        if found is None:
            self._losses.append("part:file")
            return None
        return self._with_rest(found, given.rest)

    def _input(self, arguments: str) -> Json:
        if not arguments.strip():
            return {}
        try:
            return wire.decode(arguments.encode(), repeats=True)
        except TokenHubError:
            self._losses.append("tool_calls.arguments")
            return {"_raw": arguments}

    def _with_rest(self, body: Json, extra: Mapping[str, Any]) -> Json:
        for name, value in extra.items():
            if self._own or name in _ADOPTED:
                body[name] = value
            else:
                self._losses.append(name)
        return body


def folded(content: list[Json]) -> str | list[Json]:
    """Return a single plain text as a string, anything else as it is: the two say the same."""
    match content:
        case [{"type": "text", "text": str(text), **more}] if text and not more:
            return text
    return content
