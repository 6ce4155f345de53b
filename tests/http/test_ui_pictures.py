"""The pictures of the manual: taken of pages with an hour of seeded calls on them.

    UPDATE_PICTURES=1 scripts/test tests/http/test_ui_pictures.py

takes them anew; then `scripts/web manual` puts them into the manual. Times on them are those of the day they are taken.
"""

from __future__ import annotations

import base64
import os
import platform
import re
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from scripts.manual import DOCS
from tests.fakes.browser import NEEDED, Page, browser
from tests.fakes.house import House, house
from tests.fakes.person import Person
from tests.fakes.provider import FakeProvider
from tests.fakes.traffic import MODELS, records

PICTURES: Final = DOCS / "pictures"
_MOST: Final = 200_000
"""Bytes of one picture."""
_COLOURS: Final = {"": "light", "-dark": "dark"}


@dataclass(frozen=True)
class Shot:
    """One picture: the page, what is waited for there, and how wide it is."""

    name: str
    page: str
    ready: str
    width: int = 1280
    height: int = 800
    open: str = ""
    """The row that is opened."""


SHOTS: Final = (
    Shot("overview", "Overview", "document.querySelectorAll('canvas').length > 0"),
    Shot("live", "Live", "document.querySelectorAll('tbody tr').length > 20"),
    Shot("call", "Requests", "document.querySelector('dialog[open] table') !== null", open="agent/1"),
    Shot("exploring", "Exploring", "document.querySelectorAll('tbody tr').length > 3"),
    Shot("budgets", "Budgets", "document.querySelectorAll('.bar').length > 1"),
    Shot("settings", "Settings", "document.querySelectorAll('tbody tr').length > 50"),
    Shot("overview-narrow", "Overview", "document.querySelectorAll('canvas').length > 0", width=390),
)


def _files() -> dict[str, tuple[Shot, str]]:
    return {f"{shot.name}{end}.png": (shot, colours) for shot in SHOTS for end, colours in _COLOURS.items()}


def _size(data: bytes) -> tuple[int, int]:
    """Return width and height of a PNG: two big-endian numbers of its first chunk."""
    width, height = struct.unpack(">II", data[16:24])
    return width, height


async def filled(it: House, fake: FakeProvider) -> None:
    """Let there be providers, budgets, an hour of calls, and some that were really made."""
    for provider in ("openai", "anthropic", "local"):
        await it.provider(fake, provider, *(name for name, whose, *_ in MODELS if whose == provider))
    await it.done("POST", "/budgets", {"owner": "all", "limit": 60_000})
    await it.done("POST", "/budgets", {"owner": "all", "unit": "requests", "limit": 45, "period": "day"})
    for one in records(400, until=time.time()):
        await it.app.recorder.commit(one)
    for number in range(40):
        await it.chat("gpt-4o", {"user-agent": f"batch/{number % 3}"})
    await it.chat("*", {"user-agent": "agent/1"})


async def taken(page: Page, shot: Shot, colours: str) -> bytes:
    """Return the picture of what is there, in these colours."""
    scheme = {"name": "prefers-color-scheme", "value": colours}
    await page.send("Emulation.setEmulatedMedia", features=[scheme])
    await page.until(f"document.documentElement.dataset.theme === '{colours}'")
    await page.until(shot.ready)
    # Two frames: charts draw themselves anew in the other colours.
    frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
    await page.value(frames)
    told = await page.send("Page.captureScreenshot", format="png")
    return base64.b64decode(told["data"])


def test_the_manual_shows_what_was_taken() -> None:
    """Each picture is one of those below, in both colours, of the size that is said there, and small."""
    there = {path.name: path.read_bytes() for path in PICTURES.glob("*.png")}
    assert sorted(there) == sorted(_files())
    for name, (shot, _) in _files().items():
        assert _size(there[name]) == (shot.width, shot.height), name
        assert len(there[name]) < _MOST, name
    text = "".join(path.read_text() for path in DOCS.glob("*.md"))
    shown = set(re.findall(r"\(pictures/([\w-]+\.png)\)", text))
    assert shown == {f"{shot.name}.png" for shot in SHOTS}


@NEEDED
@pytest.mark.skipif("UPDATE_PICTURES" not in os.environ, reason="takes pictures for UPDATE_PICTURES=1 only")
async def test_pictures_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page in both colours; nothing makes the browser complain, and no page is wider than its window."""
    PICTURES.mkdir(exist_ok=True)
    monkeypatch.setattr(platform, "node", lambda: "gateway-1")
    async with FakeProvider() as fake, house(tmp_path) as it, browser(tmp_path) as page:
        await filled(it, fake)
        ada = Person(page)
        await ada.arrive(it)
        await page.send("Emulation.setScrollbarsHidden", hidden=True)
        for shot in SHOTS:
            size = {"width": shot.width, "height": shot.height}
            await page.send("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)
            await ada.go(shot.page)
            if shot.open:
                await ada.open(shot.open)
            for end, colours in _COLOURS.items():
                data = await taken(page, shot, colours)
                (PICTURES / f"{shot.name}{end}.png").write_bytes(data)
            assert await page.value("document.documentElement.scrollWidth <= innerWidth"), shot
            if shot.open:
                await ada.press("Close")
                await ada.done()
        assert page.complaints == []
