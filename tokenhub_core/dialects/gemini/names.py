"""Field names: both spellings are read, one is written, and what has no canonical place is kept by its path.

The wire is protobuf's JSON (https://protobuf.dev/programming-guides/json/): servers take `system_instruction` for
`systemInstruction`, a number in quotes for a number, and one object where a list is declared. All of that is
read here; what is written is the plain form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tokenhub_core.types import Json

_LIMIT: Final = 1 << 63
"""A larger number is no integer on any wire, however it is written."""

_SNAKE: Final = re.compile(r"_([a-z0-9])")

_VERBATIM: Final = frozenset(
    {
        "args",
        "headers",
        "labels",
        "parameters",
        "parametersJsonSchema",
        "partMetadata",
        "response",
        "responseJsonSchema",
        "responseSchema",
    }
)
"""Members whose inside is the caller's own: values, schemas, maps. Their keys are nobody's field names."""

_NESTED: Final = (
    "fileData.",
    "functionCall.",
    "functionResponse.",
    "generationConfig.",
    "inlineData.",
    "toolConfig.",
)


class Kept(dict[str, Any]):
    """A `rest` that this dialect made.

    `aside` is what only this dialect needs to write the same thing again: how the caller spelled something that
    does have a canonical place, and members that say nothing to any other dialect. None of it is ever a loss.
    """

    __slots__ = ("aside",)

    def __init__(self, fields: Mapping[str, Any] | None = None, /, **aside: Any) -> None:
        super().__init__(fields or {})
        self.aside: Mapping[str, Any] = aside


def aside(rest: Mapping[str, Any], name: str) -> Any:
    """Return what was put aside under `name`, None where there is nothing or another dialect made `rest`."""
    return rest.aside.get(name) if isinstance(rest, Kept) else None


def plain(value: Any) -> Any:
    """Return decoded JSON with all field names in the spelling that is written; what is the caller's own stays.

    Members that are null say nothing and are left out.
    """
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    named: Json = {}
    for key, inner in value.items():
        if inner is None:
            continue
        name = camel(key)
        named[name] = inner if name in _VERBATIM else plain(inner)
    return named


def camel(key: str) -> str:
    """Return a field name as it is written."""
    return _SNAKE.sub(lambda found: found[1].upper(), key) if "_" in key else key


def many(value: Any) -> list[Any]:
    """Return a repeated field: absent is empty, and a lone value is a list of one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def whole(value: Any) -> int | None:
    """Return an integer in any of the forms that count as one, None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _LIMIT:
        return int(value)
    if isinstance(value, str) and len(value) < 20 and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    return None


def others(data: Json, homes: Iterable[str], prefix: str = "") -> Json:
    """Return the members that are not among `homes`, by their path; an empty list says nothing."""
    return {
        prefix + key: value for key, value in data.items() if key not in homes and value not in (None, [])
    }


def put_back(target: Json, rest: Mapping[str, Any]) -> None:
    """Set the kept members in `target`, the nested ones where they were."""
    for name, value in rest.items():
        *path, last = name.split(".") if name.startswith(_NESTED) else (name,)
        box = target
        for key in path:
            box = box.setdefault(key, {})
        box[last] = value
