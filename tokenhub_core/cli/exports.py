"""Writes an export of the log into a file, and goes on with one that was cut short."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import orjson
import zstandard
from rich.console import Console
from rich.progress import Progress

from tokenhub_core.cli.admin import AdminClient
from tokenhub_core.errors import ConfigError

_PACKED: Final = (".gz", ".zst")
_LINE: Final = 1 << 25
"""The longest line, in bytes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is written where."""

    file: Path
    kind: str
    """`csv` or `jsonl`."""
    query: dict[str, str]

    @property
    def part(self) -> Path:
        """Return the file until it is whole."""
        return self.file.with_name(f"{self.file.name}.part")


def kind_of(file: Path, named: str | None) -> str:
    """Return what lines are to be: as named, else as the file's name says; raises `ConfigError`."""
    name = file.name
    for ending in _PACKED:
        name = name.removesuffix(ending)
    ending = name.rpartition(".")[2]
    if named is not None:
        return named
    if ending not in {"csv", "jsonl"}:
        raise ConfigError(f"{file}: name it .csv or .jsonl, or give --format")
    return ending


def run(client: AdminClient, asked: Asked, *, resume: bool) -> int:
    """Write the file; return how many calls are in it. Raises `ConfigError`; what was written until then stays."""
    packed = asked.file.suffix in _PACKED
    if asked.file.exists():
        raise ConfigError(f"{asked.file} is there already")
    if resume and packed:
        raise ConfigError("a packed file cannot be gone on with: export it unpacked, then pack it")
    at, done = _end(asked) if resume else (0, 0)
    if not resume:
        asked.part.unlink(missing_ok=True)
    query = {**asked.query, "format": asked.kind, "after": str(at)}
    newest = int(client.get("/admin/v1/logs?limit=1")["newer"])
    with ExitStack() as stack:
        out = _opened(asked, stack)
        bar = stack.enter_context(Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()))
        task = bar.add_task(asked.file.name, total=max(newest, 1), completed=at)
        head = asked.kind == "csv" and not at
        for line, place in _lines(client.lines("/admin/v1/logs/export?" + urlencode(query)), asked.kind):
            out(line)
            if head:
                head = False
                continue
            done += 1
            if done % 100 == 0:
                bar.update(task, completed=place)
        bar.update(task, completed=newest)
    asked.part.replace(asked.file)
    return done


def _lines(pieces: Iterator[bytes], kind: str) -> Iterator[tuple[bytes, int]]:
    """Yield each record as it stands, with its place; a record of CSV may have line breaks in it, inside of quotes."""
    record = b""
    for piece in pieces:
        record += piece
        if kind == "csv" and record.count(b'"') % 2:
            continue
        if not record.endswith(b"\n"):
            raise ConfigError("the export was cut short: go on with --resume")
        yield record, _place(record, kind)
        record = b""


def _place(record: bytes, kind: str) -> int:
    if kind == "csv":
        first = record.partition(b",")[0]
        return int(first) if first.isdigit() else 0
    return int(orjson.loads(record)["seq"])


def _end(asked: Asked) -> tuple[int, int]:
    """Return the last place in a file that was cut short and how many calls are in it; what is half written goes."""
    try:
        with asked.part.open("r+b") as file:
            at = count = whole = 0
            record = b""
            while piece := file.readline(_LINE):
                record += piece
                if asked.kind == "csv" and record.count(b'"') % 2:
                    continue
                if not record.endswith(b"\n"):
                    break
                whole += len(record)
                place = _place(record, asked.kind)
                count += bool(place)
                at, record = place, b""
            file.truncate(whole if at else 0)
            return at, count
    except FileNotFoundError:
        raise ConfigError(f"{asked.part}: there is nothing to go on with") from None
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{asked.part}: {error}") from None


def _opened(asked: Asked, stack: ExitStack) -> Callable[[bytes], object]:
    """Open a file that only its owner may read; return what writes into it, packed as its name says."""
    handle = os.open(asked.part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    file = stack.enter_context(os.fdopen(handle, "ab"))
    match asked.file.suffix:
        case ".gz":
            return stack.enter_context(gzip.GzipFile(fileobj=file, mode="wb")).write
        case ".zst":
            return stack.enter_context(zstandard.ZstdCompressor().stream_writer(file, closefd=False)).write
        case _:
            return file.write
