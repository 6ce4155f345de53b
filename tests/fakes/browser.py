"""A real browser without a window, driven by the DevTools protocol.

    async with browser(tmp_path) as page:
        await page.open("http://127.0.0.1:8090/")
        assert await page.until("document.title") == "TokenHub"
        assert page.complaints == []

Chromium, as Debian packages it; `FOUND` is None where this machine has none.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.types import Json

FOUND: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDED: Final = pytest.mark.skipif(
    FOUND is None, reason="no browser here: the Debian package is called chromium"
)
"""The mark of scenes in a browser."""


@dataclass
class Page:
    """One tab. `complaints` holds what the console, the policy and uncaught exceptions said."""

    socket: aiohttp.ClientWebSocketResponse
    session: str = ""
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _waiting: dict[int, asyncio.Future[Json]] = field(default_factory=dict)

    async def send(self, method: str, **params: Any) -> Json:
        """Give one command and return its result."""
        number = next(self._ids)
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        where = {"sessionId": self.session} if self.session else {}
        await self.socket.send_str(
            orjson.dumps({"id": number, "method": method, "params": params, **where}).decode()
        )
        async with asyncio.timeout(PROGRAM_PATIENCE):
            return await answer

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self.send("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """Return what an expression is worth in the page."""
        told = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Return what an expression is worth once it is true."""
        async with asyncio.timeout(PROGRAM_PATIENCE):
            while True:
                told = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
                if seen := told["result"].get("value"):
                    return seen
                await asyncio.sleep(0.02)

    async def hear(self) -> None:
        """Sort what the browser says."""
        async for message in self.socket:
            told: Json = orjson.loads(message.data)
            if (number := told.get("id")) in self._waiting:
                waiting = self._waiting.pop(number)
                if "error" in told:
                    waiting.set_exception(AssertionError(told["error"]))
                else:
                    waiting.set_result(told["result"])
                continue
            params = told.get("params", {})
            match told.get("method"):
                case "Log.entryAdded":
                    entry = params["entry"]
                    self.complaints.append(f"{entry['text']} {entry.get('url', '')}".strip())
                case "Runtime.exceptionThrown":
                    self.complaints.append(str(params["exceptionDetails"]))
                case "Runtime.consoleAPICalled":
                    self.complaints.append(str(params["args"]))
                case "Page.javascriptDialogOpening":
                    self.dialogs.append(params["message"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """Start a browser with a profile of its own, and an empty tab."""
    assert FOUND is not None
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        FOUND,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--no-proxy-server", "--remote-debugging-port=0"),
        *(f"--user-data-dir={profile}", "about:blank"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port, path = await _address(profile / "DevToolsActivePort")
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            page = Page(socket)
            hearing = asyncio.create_task(page.hear(), name="browser")
            target = await page.send("Target.createTarget", url="about:blank")
            attached = await page.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            page.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.send(f"{domain}.enable")
            yield page
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
    finally:
        process.kill()
        await process.wait()


async def _address(file: Path) -> tuple[str, str]:
    async with asyncio.timeout(PROGRAM_PATIENCE):
        while True:
            lines = await asyncio.to_thread(_lines, file)
            if len(lines) == 2:
                return lines[0], lines[1]
            await asyncio.sleep(0.02)


def _lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []
