"""Where fields without a canonical place wait, and how they get back where they were.

A field of `options` is kept under its dotted wire name (`options.num_ctx`), so that another dialect names exactly
what it cannot carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tokenhub_core.types import Dialect, Json

FAMILY: Final = frozenset({Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE})
"""The dialects whose fields mean the same."""

_NESTED: Final = frozenset({"options", "function"})


class Kept(dict[str, Any]):
    """A `rest` that this dialect made.

    `quiet` are fields that go back where they were, too, but whose lack changes no answer: how a server runs
    its model, how long it keeps it, what it measured. No dialect loses them.
    """

    __slots__ = ("quiet",)

    def __init__(self, fields: Mapping[str, Any] | None = None, /, quiet: Mapping[str, Any] | None = None):
        super().__init__(fields or {})
        self.quiet = dict(quiet or {})


def others(data: Json, homes: Iterable[str], prefix: str = "") -> Json:
    """Return the fields that are not among `homes`; null says nothing and is left out."""
    return {prefix + key: value for key, value in data.items() if key not in homes and value is not None}


def put_back(target: Json, fields: Mapping[str, Any]) -> None:
    """Set kept fields in `target`, the nested ones where they were."""
    for name, value in fields.items():
        box, _, key = name.partition(".")
        if key and box in _NESTED:
            target.setdefault(box, {})[key] = value
        else:
            target[name] = value


def restore(target: Json, rest: Mapping[str, Any]) -> None:
    """Set in `target` what this dialect kept of it."""
    put_back(target, rest)
    if isinstance(rest, Kept):
        put_back(target, rest.quiet)
