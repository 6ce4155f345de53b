"""Which processes of a data directory are alive: each holds the lock of a file of its own.

The kernel lets go of a lock when its process dies, however that comes. So whoever starts again in the same directory
knows at once who is gone, and need not wait for a lease to end.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokenhub_core.datadir import private_directory


@contextmanager
def present(directory: Path, name: str) -> Iterator[tuple[str, ...]]:
    """Be alive under a name for as long as the block lasts; yields the names of those that have died since."""
    private_directory(directory)
    path = directory / name
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield tuple(sorted(other.name for other in directory.iterdir() if other != path and _died(other)))
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _died(path: Path) -> bool:
    """Tell whether nobody holds a file's lock; then it is removed."""
    with suppress(FileNotFoundError):
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True
    return False
