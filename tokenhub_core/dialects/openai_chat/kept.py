"""Where fields without a canonical place wait, and how they get back where they were.

A nested field is kept under its dotted wire name (`response_format.json_schema.description`), so that another
dialect names exactly what it cannot carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tokenhub_core.types import Json

_NESTED: Final = (
    "file.",
    "function.",
    "image_url.",
    "input_audio.",
    "message.",
    "response_format.",
    "usage.",
)


class Kept(dict[str, Any]):
    """A `rest` that this dialect made.

    `spelling` says which of several names the caller used for something that does have a canonical place
    (`role` is "developer", `cap` is "max_completion_tokens"). It is no field, so no dialect loses it.
    """

    __slots__ = ("spelling",)

    def __init__(self, fields: Mapping[str, Any] | None = None, /, **spelling: str) -> None:
        super().__init__(fields or {})
        self.spelling = spelling


def spelled(rest: Mapping[str, Any], what: str, default: str) -> str:
    """Return how the caller spelled `what`, `default` where it came from another dialect or is the usual way."""
    return rest.spelling.get(what, default) if isinstance(rest, Kept) else default


def others(data: Json, homes: Iterable[str], prefix: str = "") -> Json:
    """Return the fields that are not among `homes`; null and an empty array say nothing and are left out."""
    return {
        prefix + key: value for key, value in data.items() if key not in homes and value not in (None, [])
    }


def put_back(target: Json, rest: Mapping[str, Any]) -> None:
    """Set the kept fields in `target`, the nested ones where they were."""
    for name, value in rest.items():
        *path, last = name.split(".") if name.startswith(_NESTED) else (name,)
        box = target
        for key in path:
            inner = box.setdefault(key, {})
            if not isinstance(inner, dict):
                # A field of the caller's own whose name only looks like the path of one.
                box, last = target, name
                break
            box = inner
        box[last] = value
