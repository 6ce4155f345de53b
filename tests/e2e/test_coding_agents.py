"""Coding agents of npm do their work behind us: a tool, its result, an answer; and no packet leaves the machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e import packages
from tests.e2e.serving import measured
from tests.e2e.test_island import _NEEDED, command

pytestmark = [pytest.mark.agents, pytest.mark.timeout(900)]


async def test_the_scenes_with_coding_agents(tmp_path: Path) -> None:
    """`coding_scenes.py`, in a network namespace from which nothing can be reached."""
    if lacking := [name for name in _NEEDED if shutil.which(name) is None]:
        pytest.skip(f"no {lacking[0]} on this machine: an island cannot be made")
    code, told = await command("unshare", "-rnm", "ip", "link", "set", "lo", "up")
    if code:
        pytest.skip(f"this machine permits no network namespaces: {told.strip()}")
    try:
        packages.installed(packages.AGENTS)
    except packages.MissingError as error:
        pytest.skip(str(error))

    code, told = await command(
        *("unshare", "-rnm", sys.executable, "-m", "tests.e2e.island", str(tmp_path)),
        *("-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "scenes"), "--tb=short", "-rP"),
        str(Path(__file__).with_name("coding_scenes.py")),
    )
    measured(told)
    assert code == 0, told[-8000:]
