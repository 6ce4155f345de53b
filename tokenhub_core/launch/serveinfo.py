"""How `tokenhub run` finds the TokenHub that is serving: a small file that `tokenhub serve` leaves."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.launch.paths import run_dir

_NAME: Final = "serve.json"
_KNOCK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ServeInfo:
    """Who is serving. Both URLs can be connected to as they stand (never a wildcard address)."""

    pid: int
    proxy_url: str
    side_url: str
    ca_file: str
    hosts: tuple[str, ...]
    """The LLM hosts that are intercepted: names and patterns such as `*.openai.azure.com`."""
    started_at: float
    """Seconds since the epoch."""


def write_serve_info(data: Path, info: ServeInfo) -> None:
    """Tell who is serving from the data directory `data`. Call it when the ports are open."""
    write_atomic(run_dir(data) / _NAME, msgspec.json.encode(asdict(info)))


def read_serve_info(data: Path) -> ServeInfo | None:
    """Return what the last `tokenhub serve` told, whether it still runs or not; None if there is nothing.

    Raises `ConfigError` when the file is there but cannot be read.
    """
    path = run_dir(data) / _NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServeInfo)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def clear_serve_info(data: Path, pid: int) -> None:
    """Take the file away on the way out, unless another process has written it since."""
    with suppress(ConfigError, OSError):
        info = read_serve_info(data)
        if info is not None and info.pid == pid:
            (run_dir(data) / _NAME).unlink()


def serving(data: Path) -> ServeInfo:
    """Return who is serving now. Raises `ConfigError` with what to do when nobody is.

    A file that a killed process left behind is told apart by its dead pid or its closed port.
    """
    advice = "start scripts/run or tokenhub serve first"
    info = read_serve_info(data)
    if info is None:
        raise ConfigError(f"nothing is serving from {data}: {advice}")
    if not _alive(info.pid):
        raise ConfigError(f"nothing is serving from {data} (process {info.pid} is gone): {advice}")
    if not _answers(info.proxy_url):
        raise ConfigError(f"nothing listens at {info.proxy_url}: {advice}")
    return info


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is there, and another user's
    return True


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_KNOCK_SECONDS):
            return True
    except OSError:
        return False
