"""Two machines that share PostgreSQL and Redis, each in a network of its own.

ROUNDS=100 scripts/test load tests/e2e/test_machines.py -s
"""

from __future__ import annotations

import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, create_subprocess_exec
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, measured
from tests.fakes import postgres, redis

pytestmark = [pytest.mark.load, pytest.mark.timeout(3600)]

_NEEDED = ("unshare", "ip", "mount")


async def command(*words: str) -> tuple[int, str]:
    process = await create_subprocess_exec(
        *words, cwd=ROOT, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=os.environ
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_scenes_of_two_machines(tmp_path: Path) -> None:
    """`machines_scenes.py`, in a network namespace that two others are joined to."""
    if lacking := [name for name in _NEEDED if shutil.which(name) is None]:
        pytest.skip(f"no {lacking[0]} on this machine: networks cannot be made")
    if why := redis.missing() or postgres.missing():
        pytest.skip(why)
    if os.getuid():
        pytest.skip("PostgreSQL runs as its own user here, which only root may let it do in a namespace")
    code, told = await command("unshare", "-nm", "ip", "link", "add", "name", "here", "type", "veth")
    if code:
        pytest.skip(f"this machine permits no network namespaces: {told.strip()}")

    code, told = await command(
        *("unshare", "-nm", sys.executable, "-m", "tests.e2e.machines"),
        *("-q", "-s", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "scenes"), "--tb=short"),
        str(Path(__file__).with_name("machines_scenes.py")),
    )
    measured(told)
    assert code == 0, told[-8000:]
