"""What was said in a turn, whatever the dialect: the words that stay the same when a client sends it again.

Clients move `cache_control` from turn to turn, write a text now as a string and now as a part, and give items states
and numbers of their own. So only words count, and the names of what is not words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tokenhub_core.types import Traces

NOTHING: Final = Traces()
"""Of a call that is no part of a conversation."""

_SILENT: Final = frozenset(
    [
        "annotations",
        "cache_control",
        "citations",
        "detail",
        "id",
        "index",
        "logprobs",
        "phase",
        "status",
        "type",
    ]
)
"""Members that say nothing, or that clients leave out when they send a turn again."""


def words_of(content: Any) -> tuple[str, ...]:
    """Return the words of a turn's content: a text, a part, or a list of parts."""
    if isinstance(content, str):
        return (content,) if content else ()
    return tuple(words(content))


def words(content: Any) -> Iterator[str]:
    """Yield what `words_of` returns."""
    match content:
        case str():
            if content:
                yield content
        case list():
            for part in content:
                yield from words(part)
        case {"text": str(text)}:
            if text:
                yield text
        case dict():
            for key in sorted(content):
                if key not in _SILENT:
                    yield from _leaves(content[key])


def ids(*values: Any) -> tuple[str, ...]:
    """Return those that are ids: texts that are not empty."""
    return tuple(value for value in values if isinstance(value, str) and value)


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            if value:
                yield value
        case bool() | None:
            pass
        case int() | float():
            yield str(value)
        case list():
            for item in value:
                yield from _leaves(item)
        case dict():
            for key in sorted(value):
                if key not in _SILENT:
                    yield from _leaves(value[key])
