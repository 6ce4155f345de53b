"""The data directory, and the files in it that are made on first use."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from tokenhub_core.config import Settings
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.ports import Secret

_SALT: Final = 32
"""Bytes."""


def private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


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
