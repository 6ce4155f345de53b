"""Where a vault's password comes from when nobody types it, and what a password may be."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tokenhub_core.errors import ConfigError, client_fault
from tokenhub_core.ports import Secret

MIN_PASSWORD: Final = 12
"""Characters of a new password."""
MAX_PASSWORD: Final = 1024
"""Characters of any password."""
CREDENTIAL: Final = "tokenhub-vault-password"
"""The name of the systemd credential (`LoadCredential=`, systemd.exec(5)) that holds the password."""

MAX_FILE: Final = 8192
"""Bytes of a file that holds a password."""


def password_from(
    given: Secret, file: str = "", descriptor: int | None = None, environ: Mapping[str, str] | None = None
) -> Secret | None:
    """Return the password from the first of these that is set, None where none is.

    `given` itself; the regular file `file`, which only its owner may reach; whatever comes from the open file
    `descriptor` up to its end, which is closed then; the systemd credential that `environ` leads to. One newline at the
    end is not part of the password. Raises `ConfigError` where what is set cannot be used.
    """
    if given:
        return given
    if file:
        path = Path(file).expanduser()
        return _password(_bytes(path, f"password file {path}", private=True), f"password file {path}")
    if descriptor is not None:
        return password_in(descriptor)
    directory = (environ or {}).get("CREDENTIALS_DIRECTORY", "")
    credential = Path(directory) / CREDENTIAL
    if not directory or not credential.exists():
        return None
    # Its directory is what keeps others out: for a service's own user the file has a mask of group bits.
    what = f"systemd credential {CREDENTIAL}"
    return _password(_bytes(credential, what, private=False), what)


def password_in(descriptor: int, what: str = "password", most: int = MAX_FILE) -> Secret:
    """Return what comes from an open file, at most `most` bytes, and close it; raises `ConfigError`."""
    what = f"{what} from file descriptor {descriptor}"
    try:
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}") from None
    return _password(data, what, most)


def new_password(password: Secret, what: str = "a vault password") -> bytes:
    """Return the bytes of a password that is to be given to someone; raises `TokenHubError` where it is too short."""
    if len(password.reveal()) < MIN_PASSWORD:
        raise client_fault(f"{what} has at least {MIN_PASSWORD} characters", cause="password_too_short")
    return password_bytes(password, what)


def password_bytes(password: Secret, what: str = "a vault password") -> bytes:
    """Return the password's bytes: NFC, so that it is the same from every keyboard (RFC 8265, section 4.2)."""
    text = password.reveal()
    if len(text) > MAX_PASSWORD:
        raise client_fault(f"{what} has at most {MAX_PASSWORD} characters", cause="password_too_long")
    return encoded(unicodedata.normalize("NFC", text), "the password")


def encoded(text: str, what: str) -> bytes:
    """Return text as UTF-8; raises `TokenHubError` that names `what` for half a character."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise client_fault(f"{what} is not valid Unicode text") from None


def _password(data: bytes, what: str, most: int = MAX_FILE) -> Secret:
    if len(data) > most:
        raise ConfigError(f"{what}: longer than {most} bytes")
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: not UTF-8 text") from None
    if not text:
        raise ConfigError(f"{what}: empty")
    return Secret(text)


def _bytes(path: Path, what: str, *, private: bool) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for someone to write to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{what}: not a regular file")
            if private and os.name == "posix" and mode & 0o077:
                raise ConfigError(f"{what}: other users can reach it; run: chmod 600 {path}")
            return os.read(descriptor, MAX_FILE + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}") from None
