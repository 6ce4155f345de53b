"""The path of somebody new, by the clock: the first routed call, a key with a budget, the first look at the pages.

`scripts/test load tests/documents/test_first_steps.py -s` shows the figures; building `.venv`, once, is not among them.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from tests.documents.commands import ROOT
from tests.e2e.serving import TOKENHUB, bare_environment, measured, serving
from tests.fakes.browser import FOUND, browser
from tests.patience import PROGRAM_PATIENCE

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(FOUND is None, reason="no browser here: the Debian package is called chromium"),
]

CALL = (
    *("run", "--", "curl", "-s", "https://api.openai.com/v1/chat/completions"),
    *("-H", "content-type: application/json"),
    *("-d", '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'),
)
CODE = {"PYTHONPATH": f"{ROOT}:{ROOT / 'addon'}"}


async def test_the_way_of_somebody_new(tmp_path: Path) -> None:
    """Six commands and one link, in the order of the first tutorial; each does what it says the first time."""
    environ = bare_environment(tmp_path / "home", TOKENHUB_DATA_DIR=str(tmp_path / "data"), **CODE)
    taken: list[tuple[str, float]] = []

    async def typed(*words: str) -> str:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *TOKENHUB, *words, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(PROGRAM_PATIENCE):
            told, _ = await process.communicate()
        assert process.returncode == 0, told
        taken.append((f"tokenhub {' '.join(words[:2])}", time.monotonic() - began))
        return told.decode()

    async with serving(tmp_path, "--simulate-if-empty", settings=CODE) as it, browser(tmp_path) as page:
        taken.append(("scripts/run, without building", it.ready_after))
        assert '"chat.completion"' in await typed(*CALL)
        assert "tokenhub_" in await typed("apikey", "create", "mine")
        (key,) = (await it.admin("GET", "/apikeys"))["items"]
        await typed("budget", "set", f"key:{key['id']}", "--usd", "5", "--per", "month")
        assert "$5.00" in await typed("budget", "list")
        # On a terminal the first command has printed one already.
        link = re.search(r"http://\S+/login#\S+", await typed("admin", "login"))
        assert link is not None
        began = time.monotonic()
        await page.open(link[0])
        assert await page.until("document.querySelector('.figure dd')?.innerText.trim()") == "1"
        taken.append(("the link, to the first figures", time.monotonic() - began))
        assert page.complaints == []
    for name, seconds in taken:
        measured(f"{name:32} {seconds:6.1f} s")
    measured(f"{'all':32} {sum(seconds for _, seconds in taken):6.1f} s, {len(taken)} steps")
