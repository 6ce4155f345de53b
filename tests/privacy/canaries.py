"""Unique strings that are planted where nothing may leak from, and who looks for them afterwards."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True)
class Canaries:
    """By name, a unique string each. No two have a piece in common, and none looks like a known key."""

    names: tuple[str, ...]
    values: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "values", {name: f"canary-{name}-{secrets.token_hex(12)}" for name in self.names}
        )

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def found(self, data: bytes, *, but: Iterable[str] = ()) -> list[str]:
        """Return the names of those that stand in `data`, in any common spelling, but for those in `but`."""
        allowed = set(but)
        return [
            name
            for name, value in self.values.items()
            if name not in allowed and any(form in data for form in _spellings(value))
        ]


def _spellings(value: str) -> set[bytes]:
    """Return the ways in which a string may be written: as it is, quoted, in base64 at any offset, in hex."""
    raw = value.encode()
    forms = {raw, quote(value, safe="").encode(), raw.hex().encode(), value[::-1].encode()}
    for shift in range(3):
        packed = base64.b64encode(b"\0" * shift + raw)
        # What depends on the neighbours at both ends is left out.
        forms.add(packed[4 : len(packed) - 4])
    return forms


def scanned(places: Mapping[str, bytes], canaries: Canaries, allowed: Mapping[str, set[str]]) -> list[str]:
    """Return `place: canary` of everything that was found where it is not allowed."""
    return [
        f"{place}: {name}"
        for place, data in places.items()
        for name in canaries.found(data, but=allowed.get(place, set()))
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file below a folder, by their paths."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
