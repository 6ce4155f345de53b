"""A small file beside the database that remembers how far something had come: an older database is seen by it.

Whoever puts an older copy of the database back and leaves this file is found out; whoever puts both back is not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from tokenhub_core.errors import ConfigError

_MOST: Final = 4096


class Anchor:
    """One file, 0600, written so that a crash or a power cut leaves the old text or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def read(self) -> str | None:
        """Return the text, None where there is no file; raises `ConfigError` where it cannot be read."""
        try:
            with self._path.open("rb") as file:
                return file.read(_MOST).decode()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigError(f"{self._path}: {reason}") from None

    def write(self, text: str) -> None:
        """Replace the text; durable on return. Raises `OSError`."""
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, text.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        beside.replace(self._path)
        _settled(self._path.parent)


def _settled(directory: Path) -> None:
    """Make a rename in `directory` durable, where directories can be opened."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def beside(database: str, what: str, home: Path | None = None) -> Anchor | None:
    """Return the anchor of `what` for the database at this path; None for one in memory.

    That of a server's database is in `home`, under a mark of its name, wherever the server is.
    """
    if database.startswith(":"):
        return None
    if "://" not in database:
        path = Path(database)
        return Anchor(path.with_name(f"{path.name}.{what}"))
    mark = hashlib.sha256(database.rpartition("/")[2].encode()).hexdigest()[:12]
    return None if home is None else Anchor(home / f"postgresql-{mark}.{what}")
