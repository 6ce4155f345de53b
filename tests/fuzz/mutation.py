"""Inputs that are nearly right: golden files with something changed, in their bytes or in their structure.

A `Mutator` draws everything from one seeded generator, so a run can be repeated. Nothing is learned from the
parsers: breadth comes from the table of awkward values and from mixing files of one kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

_DEEP: Final = 1500
"""More levels than any JSON parser here takes."""

_MARK: Final = "@raw@"
"""Stands in a document for what no encoder writes; replaced in its bytes."""

_RAW: Final = (
    b"1e999", b"-1e400", b"1E-999", b"9" * 400, b"-" + b"9" * 40, b"18446744073709551616", b"-0", b"0.1e-7",
    b"NaN", b"Infinity", b"01", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b'"\\u0000"',
    b'"\x00"',
    b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, b"[" * 300 + b"]" * 300,
    b'{"a":1,"a":2}', b'{"":{"":""}}', b"", b"nul", b'"' + b"\\" * 999 + b'"', b"[" * 70 + b"]" * 70,
)  # fmt: skip

_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 63, 64, 255, 1 << 31, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1,
    0.0, -0.5, 0.1, 1e308, 5e-324, "", " ", "\n", "a", "\x00", "\u2028", "\ufeff", "\U0001f600", "e\u0301", "%2f",
    "../",
    "true", "null", "auto", "none", "required", "user", "system", "assistant", "tool", "text", "model", "function",
    "[DONE]", "data:", "event: x\n\n", "@@tokenhub mode=cheap", "tokenhub-seal:", "tokenhub-seal:gemini:x",
    "dG9rZW5odWItc2VhbDp4", "data:image/png;base64,AA==", "data:", "data:;base64,", "https://h/a.png", "file-1", "{}",
    "{",
    "[1]", '{"a":1}', '{"a":' * 300 + "1" + "}" * 300, "[" * 600 + "]" * 600, "x" * 4096, "\\", '"', "image/png",
    "application/pdf", "audio/wav", [], {}, [[]], [{}], [None], {"": None}, {"type": "text"},
    {"type": "text", "text": "t"},
    {"type": None}, [1, "a", None, {}], {"a": [{"b": {}}]}, {"role": "user", "content": "x"}, [{"type": "object"}],
)  # fmt: skip

_TOKENS: Final = (
    *_RAW, b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"null", b"true", b"data: ", b"data:", b"event: ", b"\n",
    b"\n\n", b"\r\n", b"\r", b"\r\r", b"\r\n\r\n", b": c\n\n", b"id: 1\n", b"[DONE]", b"data: [DONE]\n\n",
    b"\xef\xbb\xbf",
    b"\x00", b"\xff", b"@@tokenhub ", b"@@tokenhub\n", b"@@end\n", b"mode=cheap ", b"output_schema={", b"model=*",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n", b"%2e%2e/",
    b"%2F", b"%", b"//", b"?", b"#", b"..", b'"usage":{', b'"model":"', b"e", b"-", b"0", b"9" * 20, b" " * 64, b"\t",
)  # fmt: skip


class Mutator:
    """Makes inputs from seeds of one kind. `structured` seeds hold JSON, in lines or whole."""

    def __init__(self, seeds: Sequence[bytes], *, seed: int, structured: bool) -> None:
        self._random = random.Random(seed)
        self._seeds = tuple(seeds)
        self._structured = structured
        self._edits: tuple[Callable[[bytearray], None], ...] = (
            *(self._flip, self._insert, self._insert, self._delete),
            *(self._repeat, self._truncate, self._splice, self._swap),
        )

    def next(self) -> bytes:
        """Return the next input."""
        dice = self._random
        data = dice.choice(self._seeds)
        if self._structured and dice.random() < 0.8:
            data = self._document(data)
            if dice.random() < 0.85:
                return data
        buffer = bytearray(data)
        for _ in range(1 + int(dice.expovariate(0.7))):
            dice.choice(self._edits)(buffer)
        return bytes(buffer)

    # --- bytes

    def _flip(self, data: bytearray) -> None:
        if data:
            at = int(self._random.random() * len(data))
            data[at] ^= 1 << int(self._random.random() * 8)

    def _insert(self, data: bytearray) -> None:
        at = int(self._random.random() * (len(data) + 1))
        data[at:at] = self._random.choice(_TOKENS)

    def _delete(self, data: bytearray) -> None:
        start, end = self._span(data)
        del data[start:end]

    def _repeat(self, data: bytearray) -> None:
        start, end = self._span(data)
        data[end:end] = data[start:end] * self._random.choice((1, 1, 2, 30))

    def _truncate(self, data: bytearray) -> None:
        del data[int(self._random.random() * (len(data) + 1)) :]

    def _splice(self, data: bytearray) -> None:
        other = self._random.choice(self._seeds)
        start, end = self._span(other)
        at = int(self._random.random() * (len(data) + 1))
        data[at:at] = other[start:end]

    def _swap(self, data: bytearray) -> None:
        start, end = self._span(data)
        piece = bytes(data[start:end])
        del data[start:end]
        at = int(self._random.random() * (len(data) + 1))
        data[at:at] = piece

    def _span(self, data: bytes | bytearray) -> tuple[int, int]:
        start = int(self._random.random() * (len(data) + 1))
        return start, min(len(data), start + 1 + int(self._random.expovariate(0.05)))

    # --- structure

    def _document(self, data: bytes) -> bytes:
        """Change one JSON document, or the order and number of those that stand in lines and one of them."""
        try:
            return self._changed(data)
        except orjson.JSONDecodeError:
            pass
        lines = data.split(b"\n")
        found = [at for at, line in enumerate(lines) if b"{" in line]
        if not found:
            return data
        if self._random.random() < 0.25:
            at, other = self._random.choice(found), self._random.choice(found)
            if self._random.random() < 0.5:
                lines[at], lines[other] = lines[other], lines[at]
            else:
                lines[at:at] = lines[other : other + 3]
        for _ in range(1 if self._random.random() < 0.7 else 3):
            at = self._random.choice(found)
            line = lines[at]
            start = line.find(b"{")
            try:
                lines[at] = line[:start] + self._changed(line[start:])
            except orjson.JSONDecodeError:
                continue
        return b"\n".join(lines)

    def _changed(self, text: bytes) -> bytes:
        document = orjson.loads(text)
        raw = False
        for _ in range(1 if self._random.random() < 0.6 else 1 + int(self._random.expovariate(0.5))):
            raw = self._edit(document) or raw
        try:
            out = orjson.dumps(document)
        except orjson.JSONEncodeError:
            return text
        return out.replace(b'"@raw@"', self._random.choice(_RAW)) if raw else out

    def _edit(self, document: Any) -> bool:
        """Change one place below the root; tell whether a mark was put there."""
        dice = self._random
        box = self._box(document)
        if not box:
            return False
        key = dice.choice(list(box)) if type(box) is dict else int(dice.random() * len(box))
        what = dice.random()
        if what < 0.45:
            box[key] = self._value()
        elif what < 0.6:
            del box[key]
        elif what < 0.7:
            self._move(document, box, key)
        elif what < 0.78:
            box[key] = [box[key]] if dice.random() < 0.5 else {dice.choice(("type", "text", "a")): box[key]}
        elif what < 0.86 and type(box) is list:
            box[key:key] = [box[key]] * dice.choice((1, 2, 20))
        elif what < 0.94 and type(box) is dict:
            box[dice.choice(_NAMES)] = self._value()
        else:
            box[key] = _MARK
            return True
        return False

    def _move(self, document: Any, box: Any, key: Any) -> None:
        """Put a copy of what stands elsewhere here: right values in wrong places."""
        other = self._box(document)
        if not other:
            return
        values = list(other.values()) if type(other) is dict else other
        value = self._random.choice(values)
        box[key] = _copied(value)

    def _box(self, document: Any) -> Any:
        """Return an object or array of the document: any depth, the outer ones no likelier than the inner."""
        dice, box = self._random, document
        while True:
            inner = [
                item for item in (box.values() if type(box) is dict else box) if type(item) in {dict, list}
            ]
            if not inner or dice.random() < 0.22:
                return box
            box = dice.choice(inner)

    def _value(self) -> Any:
        return _copied(self._random.choice(_VALUES))


def _copied(value: Any) -> Any:
    """Return a copy, for nothing may stand inside itself; None for what is too deep to be copied."""
    if type(value) not in {dict, list}:
        return value
    try:
        return orjson.loads(orjson.dumps(value))
    except orjson.JSONEncodeError:
        return None


_NAMES: Final = (
    "type",
    "text",
    "content",
    "role",
    "name",
    "id",
    "model",
    "stream",
    "tools",
    "tool_choice",
    "max_tokens",
    "stop",
    "input",
    "messages",
    "contents",
    "parts",
    "system",
    "arguments",
    "function",
    "index",
    "delta",
    "usage",
    "choices",
    "item",
    "output",
    "error",
    "thinking",
    "signature",
    "metadata",
    "format",
    "source",
    "data",
    "url",
    "file_id",
    "logprobs",
    "n",
    "a",
    "tool_calls",
    "tool_call_id",
    "functionCall",
    "functionResponse",
    "images",
    "done",
    "generationConfig",
    "finishReason",
    "finish_reason",
    "stop_reason",
    "reasoning",
    "summary",
    "refusal",
    "options",
    "response",
    "",
    "\x00",
    "\u00e9",
    'q"',
)
"""Names that members get: those of the wires, and awkward ones."""
