"""The data directory is its owner's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.fakes.house import house
from tokenhub_addon.listening import serving
from tokenhub_core import config
from tokenhub_core.datadir import close_to_others
from tokenhub_core.errors import ConfigError


def modes(directory: Path) -> dict[str, int]:
    """Return the mode of everything in a directory, and of itself."""
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.lstat().st_mode)
        for path in (directory, *directory.rglob("*"))
    }


def loose(directory: Path) -> dict[str, int]:
    """Return what others can reach."""
    return {name: mode for name, mode in modes(directory).items() if mode & 0o077}


async def test_everything_that_serving_makes_is_its_owners_alone(tmp_path: Path) -> None:
    """Files 0600 and directories 0700, while it runs and afterwards, whatever the umask."""
    before = os.umask(0)
    try:
        overrides = {"simulate": True, "port": 0, "admin_port": 0}
        settings = config.parse(
            {"TOKENHUB_VAULT_PASSWORD": "long enough to be one"},
            data_dir=tmp_path / "data",
            overrides=overrides,
        )
        async with serving(settings, {}) as served:
            assert loose(tmp_path / "data") == {}
            assert {"serve.lock", "tokenhub.sqlite-wal", "run/serve.json", "ca/ca.pem"} <= {
                *modes(tmp_path / "data")
            }
            assert served.app.warnings == ()
        assert loose(tmp_path / "data") == {}
    finally:
        os.umask(before)


async def test_a_looser_mode_is_mended_and_told(tmp_path: Path) -> None:
    """One warning at start names what others could read."""
    async with house(tmp_path):
        pass
    (tmp_path / "data").chmod(0o755)
    (tmp_path / "data" / "admin-token").chmod(0o644)
    (tmp_path / "data" / "tokenhub.sqlite").chmod(0o640)
    async with house(tmp_path) as again:
        assert loose(tmp_path / "data") == {}
        (told,) = [line for line in again.app.warnings if "could be read by other users" in line]
        assert "tokenhub.sqlite" in told
        assert "admin-token" in told
    async with house(tmp_path) as third:
        assert [line for line in third.app.warnings if "could be read" in line] == []


def test_only_what_is_ours_is_changed(tmp_path: Path) -> None:
    """A data directory may be a home directory by mistake, and a link may lead anywhere."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "page.html").touch(mode=0o644)
    data = tmp_path / "data"
    (data / "run").mkdir(parents=True)
    (data / "public").mkdir(mode=0o755)
    (data / "run" / "link").symlink_to(theirs / "page.html")
    (data / "salt").symlink_to(theirs / "page.html")

    close_to_others(data)

    assert loose(theirs) == {".": 0o755, "page.html": 0o644}
    assert loose(data).keys() == {"public", "run/link", "salt"}


def test_keys_of_the_ca_are_left_to_be_refused(tmp_path: Path) -> None:
    """Where others may have read a key that signs, closing it would hide what happened."""
    key = tmp_path / "ca" / "ca-key.pem"
    key.parent.mkdir(mode=0o700)
    key.touch()
    key.chmod(0o644)

    assert close_to_others(tmp_path) == ()
    assert stat.S_IMODE(key.stat().st_mode) == 0o644


def test_what_cannot_be_closed_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names it."""
    (tmp_path / "salt").touch()
    (tmp_path / "salt").chmod(0o644)

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    tmp_path.stat()
    with pytest.raises(ConfigError, match=r"salt can be read by other users: Operation not permitted"):
        close_to_others(tmp_path)
