"""The data directory, and the files in it that are made on first use."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.ports import Secret

_SALT: Final = 32
"""Bytes."""
_OURS: Final = (
    "tokenhub.sqlite*",
    "postgresql-*",
    "admin-token",
    "salt",
    "serve.lock",
    "run",
    "ca",
    "present",
)
"""What we make in the data directory. Whatever else lies there is not ours to change."""
_KEYS: Final = frozenset({"ca", "ca/mitmproxy", "ca/ca-key.pem", "ca/mitmproxy/mitmproxy-ca.pem"})
"""Left to the CA, which does not start where these were open to others: who read its key can sign with it."""
_OTHERS: Final = 0o077


def private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def close_to_others(directory: Path) -> tuple[str, ...]:
    """Make the directory and all of ours in it the owner's alone: 0700 and 0600.

    Returns a warning where anything had a looser mode. Raises `ConfigError` where it cannot be changed.
    """
    private_directory(directory)
    found = [str(path.relative_to(directory)) for path in _ours(directory) if _closed(path, directory)]
    if not found:
        return ()
    some = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return (f"{some} in {directory} could be read by other users; only you can read them now",)


def _ours(directory: Path) -> Iterator[Path]:
    for pattern in _OURS:
        for path in directory.glob(pattern):
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from path.rglob("*")


def _closed(path: Path, directory: Path) -> bool:
    """Close a path to others; tell whether that was needed. What a link leads to is somebody else's."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not mode & _OTHERS or str(path.relative_to(directory)) in _KEYS:
            return False
        path.chmod(0o700 if stat.S_ISDIR(mode) else 0o600)
    except FileNotFoundError:
        return False  # a temporary file of another process
    except OSError as error:
        raise ConfigError(f"{path} can be read by other users: {error.strerror}") from None
    return True


def admin_token(settings: Settings) -> Secret:
    """Return the admin token: the setting, else the file `admin-token`, which is made on first use."""
    if settings.admin_token:
        return settings.admin_token
    path = settings.data_dir / "admin-token"
    if not path.exists():
        write_atomic(path, secrets.token_hex(32).encode())
    return Secret(path.read_text().strip())


def salt(settings: Settings) -> bytes:
    """Return what callers' words are hashed with, made on first use: in a file, and not in the database."""
    path = settings.data_dir / "salt"
    if not path.exists() or len(path.read_bytes()) != _SALT:
        write_atomic(path, secrets.token_bytes(_SALT))
    return path.read_bytes()
