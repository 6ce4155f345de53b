"""Fields that an SDK's types know and a body does not have, each with values that it could have.

The types are walked along with the JSON; nothing is validated. Where a value may be of several types it is of those
whose words (`type`, `role`) it has. A type that no value is of is not asked for: it is some vendor's own tool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Final, Literal, NotRequired, Required, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typing_extensions import is_typeddict

type Path = tuple[str | int, ...]

_WORDS: Final = ("type", "role", "object")
_WRAPPERS: Final = (Annotated, Required, NotRequired)
_DEEPEST: Final = 3
"""How deep a made-up object is filled."""

_PLAIN: Final[Mapping[Any, tuple[Any, ...]]] = {
    str: ("m998x",),
    bool: (True, False),
    int: (7,),
    float: (0.5,),
    bytes: ("bTk5OHg=",),
    datetime: ("2026-01-01T00:00:00Z",),
}


def absent(
    kind: Any, value: Any, path: Path, *, alone: Collection[str] = ()
) -> Iterator[tuple[Path, tuple[Any, ...]]]:
    """Yield the place of each field that an object in `value`, which is of the type `kind`, could have too.

    Of the names in `alone` an object has one at most.
    """
    kind = _bare(kind)
    if _is_box(kind):
        if isinstance(value, dict):
            for name, inner in _fields(kind).items():
                if name in value:
                    yield from absent(inner, value[name], (*path, name), alone=alone)
                elif name in alone and not value.keys().isdisjoint(alone):
                    continue
                elif found := samples(inner):
                    yield (*path, name), found
    elif isinstance(value, list):
        for inner in _inner(kind):
            for place, each in enumerate(value):
                yield from absent(inner, each, (*path, place), alone=alone)
    elif isinstance(value, dict):
        for member in get_args(kind):
            if _fits(member, value):
                yield from absent(member, value, path, alone=alone)


def samples(kind: Any, depth: int = 0) -> tuple[Any, ...]:
    """Return some values of a type."""
    kind = _bare(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if get_origin(kind) is Literal:
        return get_args(kind)[:3]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(each.value for each in kind if "UNSPECIFIED" not in each.name)[:2]
    if _is_box(kind):
        return ({name: samples(inner, depth + 1)[0] for name, inner in _needed(kind, depth)},)
    if inner := next(_inner(kind), None):
        return tuple([each] for each in samples(inner, depth)[:1])
    members = [member for member in get_args(kind) if member is not type(None)]
    if members and get_origin(kind) is not dict:
        return tuple(value for member in members[:2] for value in samples(member, depth))
    return ({"m998x": "m997x"},)


def _needed(box: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a made-up object: the required ones, else the first."""
    fields = _fields(box)
    if is_typeddict(box):
        needed = [name for name in fields if name in box.__required_keys__]
    else:
        needed = [field.alias or name for name, field in box.model_fields.items() if field.is_required()]
    for name in needed or list(fields)[: 1 if depth < _DEEPEST else 0]:
        yield name, fields[name]


def _bare(kind: Any) -> Any:
    kind = getattr(kind, "__value__", kind)
    return _bare(get_args(kind)[0]) if get_origin(kind) in _WRAPPERS else kind


def _inner(kind: Any) -> Iterator[Any]:
    """Yield the types that the members of an array may have."""
    kind = _bare(kind)
    origin = get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        yield get_args(kind)[0]
    elif origin is not dict and origin is not Literal:
        for member in get_args(kind):
            yield from _inner(member)


def _fits(kind: Any, value: Mapping[str, Any]) -> bool:
    kind = _bare(kind)
    if not _is_box(kind):
        return True
    fields = {name: _bare(field) for name, field in _fields(kind).items()}
    told = [word for word in _WORDS if get_origin(fields.get(word)) is Literal]
    if told:
        return all(value.get(word) in get_args(fields[word]) for word in told)
    return len(value.keys() & fields.keys()) > len(value) / 2


def _is_box(kind: Any) -> bool:
    return is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _fields(box: Any) -> dict[str, Any]:
    """Return the fields of a type by their names on the wire."""
    if is_typeddict(box):
        return get_type_hints(box, include_extras=True)
    return {field.alias or name: field.annotation for name, field in box.model_fields.items()}
