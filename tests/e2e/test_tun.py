"""A device of the kernel's is a way to us, too: what is sent into it comes out of no socket, and is served alike."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e.test_island import command

_NEEDED = ("unshare", "ip")


async def test_the_scenes_of_the_device(tmp_path: Path) -> None:
    """`tun_scenes.py`, in a network namespace where the way to the public hosts leads into a device of ours."""
    if lacking := [name for name in _NEEDED if shutil.which(name) is None]:
        pytest.skip(f"no {lacking[0]} on this machine: a device cannot be made")
    code, told = await command("unshare", "-rn", "ip", "tuntap", "add", "dev", "th0", "mode", "tun")
    if code:
        pytest.skip(f"this machine permits no tun device: {told.strip()}")

    code, told = await command(
        *("unshare", "-rn", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"),
        *("--basetemp", str(tmp_path / "scenes"), str(Path(__file__).with_name("tun_scenes.py"))),
    )
    assert code == 0, told[-8000:]
