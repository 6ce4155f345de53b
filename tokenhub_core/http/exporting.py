"""Records as lines of a file: CSV for spreadsheets, JSON lines for programs. Pure.

A columnar format is not among them: none can be written with what is installed, and every reader of one reads these.

A spreadsheet takes a cell that begins like a formula for one. What such a cell would begin with is set behind an
apostrophe (OWASP, "CSV Injection"); numbers are ours, and begin with none of that.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import zstandard

from tokenhub_core.store.rows import COLUMNS, dumps
from tokenhub_core.types import Json

FIELDS: Final = ("seq", *(name for name in COLUMNS if name != "decision"))
"""The columns, in order. `seq` is first: it says where an export that was cut short goes on."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_GZIP: Final = 31


class Format(StrEnum):
    """What a line is."""

    CSV = "csv"
    JSONL = "jsonl"


class Packing(StrEnum):
    """How the whole is made smaller."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


class Packer(Protocol):
    """Makes a stream smaller, piece by piece."""

    def compress(self, data: bytes, /) -> bytes:
        """Take a piece, return what is ready."""
        ...

    def flush(self) -> bytes:
        """Return the end."""
        ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


_PACKERS: Final[Mapping[Packing, Callable[[], Packer]]] = {
    Packing.NONE: _Plain,
    Packing.GZIP: lambda: zlib.compressobj(wbits=_GZIP),
    Packing.ZSTD: lambda: zstandard.ZstdCompressor().compressobj(),
}
MEDIA: Final[Mapping[Format, str]] = {Format.CSV: "text/csv", Format.JSONL: "application/jsonl"}
PACKED: Final[Mapping[Packing, tuple[str, str]]] = {
    Packing.GZIP: (".gz", "application/gzip"),
    Packing.ZSTD: (".zst", "application/zstd"),
}
"""The end of the file's name, and its media type."""


def packer(packing: Packing) -> Packer:
    """Return what makes one export smaller."""
    return _PACKERS[packing]()


def head(format_: Format) -> bytes:
    """Return what stands before the first record."""
    return _csv([FIELDS]) if format_ is Format.CSV else b""


def lines(rows: Sequence[Json], format_: Format) -> bytes:
    """Return records, a line each; `at` is in seconds since the epoch, as the API shows it."""
    if format_ is Format.CSV:
        return _csv([[cell(row.get(name)) for name in FIELDS] for row in rows])
    return "".join(dumps(row) + "\n" for row in rows).encode()


def cell(value: Any) -> Any:
    """Return a value as a cell: objects as JSON, nothing for null, text so that no spreadsheet calculates it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        value = dumps(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
