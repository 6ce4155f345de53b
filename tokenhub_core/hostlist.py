"""The hosts that were added to those that are intercepted: a file of `host=dialect` lines in the data directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.recognise import extra_hosts

NAME: Final = "hosts"


def read(directory: Path) -> tuple[str, ...]:
    """Return the items of the list; raises `ConfigError` where one is none."""
    path = directory / NAME
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    items = tuple(line.strip() for line in lines if line.strip())
    extra_hosts(items)
    return items


def write(directory: Path, items: Sequence[str]) -> None:
    """Keep a list in place of the one before."""
    write_atomic(directory / NAME, "".join(f"{item}\n" for item in items).encode())


@contextmanager
def held(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep everybody else from changing the list or the root meanwhile. The lock's file stays: see `ca`.

    Raises `BlockingIOError` where somebody holds it and nobody is to `wait`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(directory / f"{NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def configured(settings: Settings) -> tuple[str, ...]:
    """Return the extra hosts of merged settings without those of the list, which come first in them."""
    listed = read(settings.data_dir)
    extra = settings.extra_hosts
    return extra[len(listed) :] if extra[: len(listed)] == listed else extra


def merged(settings: Settings) -> Settings:
    """Return the settings with the listed hosts among the extra ones; what the environment says of a host wins."""
    return replace(settings, extra_hosts=(*read(settings.data_dir), *settings.extra_hosts))
