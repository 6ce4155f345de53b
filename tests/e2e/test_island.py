"""No packet leaves for a host that we answer for; where nobody else serves, the host itself does."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT

_NEEDED = ("unshare", "ip", "mount")


async def command(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *words, cwd=ROOT, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=os.environ
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_scenes_of_the_island(tmp_path: Path) -> None:
    """`island_scenes.py`, in a network namespace whose resolver and public hosts are ours."""
    if lacking := [name for name in _NEEDED if shutil.which(name) is None]:
        pytest.skip(f"no {lacking[0]} on this machine: an island cannot be made")
    code, told = await command("unshare", "-rnm", "ip", "link", "set", "lo", "up")
    if code:
        pytest.skip(f"this machine permits no network namespaces: {told.strip()}")

    code, told = await command(
        *("unshare", "-rnm", sys.executable, "-m", "tests.e2e.island", str(tmp_path)),
        *("-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "scenes"), "--tb=short"),
        str(Path(__file__).with_name("island_scenes.py")),
    )
    assert code == 0, told[-8000:]
