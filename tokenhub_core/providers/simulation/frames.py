"""What all wire formats share in writing: the answer to write, the parts of a stream, and how it is framed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from tokenhub_core.providers.simulation.asking import Ask
from tokenhub_core.providers.simulation.playing import Said
from tokenhub_core.types import Json


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to write: `said` holds one for each choice. `created` in seconds since the epoch."""

    ask: Ask
    said: tuple[Said, ...]
    key: str
    """Makes the ids of this answer unique."""
    created: int

    @property
    def first(self) -> Said:
        """Return the first choice: the only one in most dialects."""
        return self.said[0]


@dataclass(frozen=True, slots=True)
class Frames:
    """A stream in three parts: what only opens it, what a user sees, and what closes it."""

    opening: tuple[bytes, ...]
    content: tuple[bytes, ...]
    closing: tuple[bytes, ...]


def data_line(data: Json) -> bytes:
    """Return a server-sent event without a name."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def event(data: Json) -> bytes:
    """Return a server-sent event that is named by its `type`."""
    kind: str = data["type"]
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def line(data: Json) -> bytes:
    """Return one line of newline-delimited JSON."""
    return orjson.dumps(data) + b"\n"


def slices(arguments: str) -> list[str]:
    """Cut the text of a tool call's arguments as a model does: in pieces that are no JSON by themselves."""
    return [arguments[at : at + 12] for at in range(0, len(arguments), 12)]


def rendered(items: Iterable[Json]) -> tuple[bytes, ...]:
    """Return several events without names."""
    return tuple(data_line(item) for item in items)
