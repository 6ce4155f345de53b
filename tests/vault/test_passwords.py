"""Where a password comes from when nobody types it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.vault.passwords import CREDENTIAL, new_password, password_bytes, password_from, password_in


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("from the file\n")
    path.chmod(0o600)
    return path


def test_what_is_given_wins(file: Path) -> None:
    """The password itself before a file, a file before nothing."""
    assert password_from(Secret("")) is None
    given, read = password_from(Secret("given"), str(file)), password_from(Secret(""), str(file))
    assert given is not None
    assert read is not None
    assert (given.reveal(), read.reveal()) == ("given", "from the file")


@pytest.mark.parametrize(
    ("written", "password"),
    [("a b", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a \n", " a "), ("é\n", "é")],
)
def test_one_newline_at_the_end_is_no_part_of_it(file: Path, written: str, password: str) -> None:
    """Editors add one; everything else is meant."""
    file.write_bytes(written.encode())
    read = password_from(Secret(""), str(file))

    assert read is not None
    assert read.reveal() == password


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_file_that_others_can_reach_is_refused(file: Path, mode: int) -> None:
    """Any permission of group or others, with the command that mends it."""
    file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        password_from(Secret(""), str(file))


def test_what_is_no_file_is_refused(tmp_path: Path, file: Path) -> None:
    """A directory, a pipe (without waiting for its writer), nothing, an empty file, no text, far too much text."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        password_from(Secret(""), str(tmp_path / "pipe"))
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match="not a regular file"):
        password_from(Secret(""), str(tmp_path))
    with pytest.raises(ConfigError, match="No such file"):
        password_from(Secret(""), str(tmp_path / "none"))
    for data, words in ((b"\n", "empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 9000, "longer than")):
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=words) as caught:
            password_from(Secret(""), str(file))
        assert "\n" not in str(caught.value)


def test_a_file_holds_eight_kilobytes_at_most(file: Path) -> None:
    """One byte more is no password that anybody chose."""
    file.write_bytes(b"x" * 8192)
    read = password_from(Secret(""), str(file))
    assert read is not None
    assert len(read.reveal()) == 8192
    file.write_bytes(b"x" * 8193)
    with pytest.raises(ConfigError) as caught:
        password_from(Secret(""), str(file))
    assert str(caught.value) == f"password file {file}: longer than 8192 bytes"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("twelve chars \udcff", "the password is not valid Unicode text"),
        ("x" * 1025, "a login has at most 1024 characters"),
        ("x" * 11, "a login has at least 12 characters"),
    ],
)
def test_a_password_that_is_none_is_told_by_its_name(text: str, words: str) -> None:
    """What is wrong with it, and never what it is."""
    with pytest.raises(TokenHubError) as caught:
        new_password(Secret(text), "a login")
    assert caught.value.fault.message == words
    with pytest.raises(TokenHubError) as caught:
        password_bytes(Secret("x" * 1025))
    assert caught.value.fault.message == "a vault password has at most 1024 characters"
    assert new_password(Secret("x" * 12)) == b"x" * 12
    assert len(new_password(Secret("x" * 1024))) == 1024


def test_a_link_to_a_private_file_is_followed(tmp_path: Path, file: Path) -> None:
    """Secrets that an orchestrator mounts are links."""
    (tmp_path / "link").symlink_to(file)
    read = password_from(Secret(""), str(tmp_path / "link"))

    assert read is not None
    assert read.reveal() == "from the file"


# --- open files and services -------------------------------------------------------------------------------


def piped(data: bytes) -> int:
    """Return the reading end of a pipe that holds `data`."""
    ours, theirs = os.pipe()
    os.write(theirs, data)
    os.close(theirs)
    return ours


def test_a_password_comes_from_an_open_file() -> None:
    """A pipe, a here-document, whatever a parent process opened; it is closed then."""
    descriptor = piped(b"from a pipe\n")
    read = password_from(Secret(""), "", descriptor)

    assert read is not None
    assert read.reveal() == "from a pipe"
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)


def test_an_open_file_that_is_none_is_told() -> None:
    """One line with its number; what is in it is held to the same rules."""
    with pytest.raises(ConfigError) as caught:
        password_in(12345)
    assert str(caught.value) == "password from file descriptor 12345: Bad file descriptor"
    with pytest.raises(ConfigError, match="longer than 3 bytes"):
        password_in(piped(b"four"), "value", 3)
    assert password_in(piped(b"four"), "value", 4).reveal() == "four"
    with pytest.raises(ConfigError, match="empty"):
        password_in(piped(b""))


def test_a_systemd_credential_is_found_by_its_name(tmp_path: Path, file: Path) -> None:
    """Group bits are a mask there (an ACL lets the service's user in); the directory keeps others out."""
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert password_from(Secret(""), environ=environ) is None
    assert password_from(Secret(""), environ={}) is None
    (tmp_path / CREDENTIAL).write_text("from systemd\n")
    (tmp_path / CREDENTIAL).chmod(0o440)
    read = password_from(Secret(""), environ=environ)
    first = password_from(Secret(""), str(file), environ=environ)

    assert read is not None
    assert first is not None
    assert (read.reveal(), first.reveal()) == ("from systemd", "from the file")
    (tmp_path / CREDENTIAL).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"systemd credential tokenhub-vault-password: empty"):
        password_from(Secret(""), environ=environ)
