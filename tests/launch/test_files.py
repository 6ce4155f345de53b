from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.files import write_atomic


def test_a_replaced_file_is_new_and_private(tmp_path: Path) -> None:
    """The old inode stays with who has it open; the new file is 0600 whatever the old one was."""
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"old")
    path.chmod(0o644)
    with path.open("rb") as old:
        write_atomic(path, b"new")
        assert (old.read(), path.read_bytes()) == (b"old", b"new")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where the target cannot be replaced, no temporary file stays and the error names the target."""
    (tmp_path / "taken").mkdir()

    with pytest.raises(ConfigError, match=r"cannot write .*taken"):
        write_atomic(tmp_path / "taken", b"x")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
