"""The path of somebody new, by the clock: a clone, the first routed call, a key with a budget, the first dashboard.

`scripts/test load tests/documents/test_first_steps.py -s` shows the figures; the documents have some. `.venv` is built
from wherever pip finds packages.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.documents.commands import ROOT
from tests.e2e.serving import announced, bare_environment, measured
from tests.fakes.browser import NEEDED, browser
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.launch.serveinfo import ServeInfo

_BUILDING = 1200
"""Seconds that making `.venv` may take."""
pytestmark = [pytest.mark.load, pytest.mark.timeout(_BUILDING + 300), NEEDED]

_CALL = (
    *("run", "--", "curl", "-s", "https://api.openai.com/v1/chat/completions"),
    *("-H", "content-type: application/json"),
    *("-d", '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'),
)


@dataclass
class Newcomer:
    """Somebody in an empty home who types one command after the other; `taken` has what each took, in seconds."""

    folder: Path
    taken: list[tuple[str, float]] = field(default_factory=list)

    @property
    def clone(self) -> Path:
        return self.folder / "tokenhub"

    @property
    def environ(self) -> dict[str, str]:
        """What the shell has: nothing of ours but where the data is, and where pip finds packages."""
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        data = {"TOKENHUB_DATA_DIR": str(self.folder / "data")}
        return bare_environment(self.folder / "home", **pip, **data)

    async def timed[T](self, name: str, doing: Awaitable[T]) -> T:
        """Do something, and note how long it took."""
        began = time.monotonic()
        done = await doing
        self.taken.append((name, time.monotonic() - began))
        return done

    async def typed(self, *words: str) -> str:
        """Type a command of `tokenhub`; return what it printed."""
        name = " ".join(("tokenhub", *words[: 1 if words[0] == "run" else 2]))
        return await self.timed(name, self.ended(str(self.clone / ".venv/bin/tokenhub"), *words))

    async def ended(self, *command: str) -> str:
        """Run a program until it has ended well."""
        process = await asyncio.create_subprocess_exec(
            *command, env=self.environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(PROGRAM_PATIENCE):
            told, _ = await process.communicate()
        assert process.returncode == 0, told
        return told.decode()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[ServeInfo]:
        """Run `scripts/run` of the clone: it is ready, and has left in good order at the end."""
        log = (self.folder / "log").open("wb")
        command = (str(self.clone / "scripts/run"), "--port", "0", "--admin-port", "0")
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command, env=self.environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            async with asyncio.timeout(_BUILDING):
                data = self.folder / "data"
                info = await announced(data, process.pid, unless=lambda: process.returncode is not None)
            assert info is not None, (self.folder / "log").read_text()
            built = "installed" in (self.folder / "log").read_text()
            name = "scripts/run, building .venv" if built else "scripts/run, again"
            self.taken.append((name, time.monotonic() - began))
            yield info
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            log.close()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_the_path_of_somebody_new(tmp_path: Path) -> None:
    """Seven commands and one link, in the order of the first tutorial; each does what it says the first time."""
    new = Newcomer(tmp_path)
    await new.timed(
        "git clone", new.ended("git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(new.clone))
    )
    async with new.started(), browser(tmp_path) as page:
        assert '"chat.completion"' in await new.typed(*_CALL)
        assert "gpt-4o" in await new.typed("logs")
        assert "tokenhub_" in await new.typed("apikey", "create", "mine")
        await new.typed("budget", "set", "all", "--usd", "5", "--per", "month")
        assert "$5.00" in await new.typed("budget", "list")
        # On a terminal the first command has printed one already.
        link = re.search(r"http://\S+/login#\S+", await new.typed("admin", "login"))
        assert link is not None
        # Its own first call and this one.
        calls = "document.querySelector('.figure dd')?.innerText.trim() === '2'"

        async def shown() -> None:
            await page.open(link[0])
            await page.until(calls)

        await new.timed("the link, to the first figures", shown())
        assert page.complaints == []
    async with new.started():
        pass
    for name, seconds in new.taken:
        measured(f"{name:32} {seconds:6.1f} s")
