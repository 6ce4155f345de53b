"""Where fields without a canonical place wait, and how they get back where they were.

A nested field is kept under its dotted wire name (`text.verbosity`), so that another dialect names exactly what
it cannot carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tokenhub_core.types import Json

_NESTED: Final = ("text.", "reasoning.", "usage.")


class Kept(dict[str, Any]):
    """A `rest` that this dialect made.

    `silent` holds what this dialect puts back and no other one misses: ids, states of items, and settings that
    only say what would be so without them. `spelling` says which of several ways the caller chose for something
    that does have a canonical place (`role` is "developer", `user` is "safety_identifier").
    """

    __slots__ = ("silent", "spelling")

    def __init__(
        self, fields: Mapping[str, Any] | None = None, /, silent: Json | None = None, **spelling: str
    ) -> None:
        super().__init__(fields or {})
        self.silent: Json = silent or {}
        self.spelling = spelling


def spelled(rest: Mapping[str, Any], what: str, default: str) -> str:
    """Return how the caller spelled `what`, `default` where it came from another dialect or is the usual way."""
    return rest.spelling.get(what, default) if isinstance(rest, Kept) else default


def others(data: Json, homes: Iterable[str], prefix: str = "") -> Json:
    """Return the fields that are not among `homes`; null and an empty array say nothing and are left out."""
    return {
        prefix + key: value for key, value in data.items() if key not in homes and value not in (None, [])
    }


def kept(data: Json, homes: Iterable[str], silent: Iterable[str] = (), /, **spelling: str) -> Kept:
    """Return what of `data` has no canonical place, those named in `silent` apart from the others."""
    left = others(data, homes)
    return Kept(left, {key: left.pop(key) for key in silent if key in left}, **spelling)


def put_back(target: Json, rest: Mapping[str, Any]) -> Json:
    """Set the kept fields in `target`, the nested ones where they were; returns `target`."""
    silent = rest.silent if isinstance(rest, Kept) else {}
    for name, value in (*silent.items(), *rest.items()):
        *path, last = name.split(".") if name.startswith(_NESTED) else (name,)
        box = target
        for key in path:
            inner = box.setdefault(key, {})
            if not isinstance(inner, dict):
                # Something stands where an object would have to: it keeps its place.
                box, last = target, name
                break
            box = inner
        box[last] = value
    return target
