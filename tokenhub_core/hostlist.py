"""The hosts that were added to those that are intercepted: a file of `host=dialect` lines in the data directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.recognise import extra_hosts

_NAME: Final = "hosts"


def read(directory: Path) -> tuple[str, ...]:
    """Return the items of the list; raises `ConfigError` where one is none."""
    path = directory / _NAME
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
    write_atomic(directory / _NAME, "".join(f"{item}\n" for item in items).encode())


def merged(settings: Settings) -> Settings:
    """Return the settings with the listed hosts among the extra ones; what the environment says of a host wins."""
    return replace(settings, extra_hosts=(*read(settings.data_dir), *settings.extra_hosts))
