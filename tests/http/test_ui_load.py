"""What the pages weigh, how soon they can be used, and how smooth they are with a hundred thousand calls in the log.

`scripts/test load tests/http/test_ui_load.py -s` shows the figures.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import sys
import time
from itertools import batched
from pathlib import Path
from statistics import median
from typing import Final

import pytest

from scripts.pages import WEB
from tests.fakes.browser import FOUND, Page, browser
from tests.fakes.house import house
from tests.fakes.person import Person
from tests.fakes.traffic import records
from tokenhub_core.store.database import open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(FOUND is None, reason="no browser here: the Debian package is called chromium"),
]

ROWS: Final = 100_000
_DIST: Final = WEB / "dist"
_FRAMES: Final = """
(async () => {
  const frame = document.querySelector('.table-frame.tall');
  const gaps = [];
  let last = await new Promise(requestAnimationFrame);
  for (let turn = 0; turn < 600; turn += 1) {
    frame.scrollTop += STEP;
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - last);
    last = now;
  }
  gaps.sort((a, b) => a - b);
  return {median: gaps[300], p99: gaps[593], longest: gaps[599], top: frame.scrollTop, height: frame.scrollHeight,
          there: document.querySelectorAll('tbody tr').length};
})()
"""
"""Scrolls 600 times, once a frame; returns the milliseconds between frames, and how many rows the document holds."""


def told(line: str) -> None:
    """Tell a figure; pytest shows it with `-s`."""
    sys.stdout.write(f"\n{line}")


def test_what_the_pages_weigh() -> None:
    """By file, plain and packed; the first page is what its markup names, every other one what it adds."""
    first = re.findall(r'(?:src|href)="/assets/([^"]+)"', (_DIST / "index.html").read_text())
    sizes = {path.name: path.read_bytes() for path in sorted((_DIST / "assets").iterdir())}
    packed = {name: len(gzip.compress(data, mtime=0)) for name, data in sizes.items()}
    for name, data in sizes.items():
        told(f"{name:32} {len(data):8} bytes {packed[name]:8} packed{'  first' if name in first else ''}")
    begins = sum(packed[name] for name in first)
    told(f"the first page: {begins} bytes packed; all pages: {sum(packed.values())}\n")
    assert begins < 100_000
    assert max(size for name, size in packed.items() if name not in first) < 20_000


async def test_how_soon_a_page_can_be_used(tmp_path: Path) -> None:
    """From the address to the first figures, the stream of events open; nothing kept from before."""
    async with house(tmp_path, simulate=True) as it, browser(tmp_path) as page:
        await Person(page).arrive(it)
        await page.send("Network.setCacheDisabled", cacheDisabled=True)
        taken = []
        for _ in range(5):
            await page.open("about:blank")
            await page.open(it.url)
            ready = "document.getElementById('state')?.textContent === 'live' && document.querySelector('.figure dd')"
            taken.append(await page.until(f"{ready} && performance.now()"))
        told(
            f"time to the first figures: {median(taken):.0f} ms (median of {[round(one) for one in taken]})\n"
        )


async def smooth(page: Page, step: int) -> dict[str, float]:
    """Scroll the table of the page that is open, so many pixels a frame."""
    found: dict[str, float] = await page.value(_FRAMES.replace("STEP", str(step)))
    return found


async def test_a_hundred_thousand_calls_scroll_smoothly(tmp_path: Path) -> None:
    """The log loads as it is scrolled, and the document never holds more rows than are in sight and near it."""
    (tmp_path / "data").mkdir(mode=0o700)
    database = open_database(str(tmp_path / "data" / "tokenhub.sqlite"))
    writer, log = Writer(database), RequestLog(database)
    writer.start()
    for chunk in batched(records(ROWS, until=time.time(), over=86_400 * 7), 500):
        await asyncio.gather(*(writer.insert(log.insert(one)) for one in chunk))
    await writer.close()
    database.close()
    async with house(tmp_path) as it, browser(tmp_path) as page:
        ada = Person(page)
        await ada.arrive(it)
        for title in ("Requests", "Live"):
            if title == "Live":
                for one in records(5_000, until=time.time(), seed=8):
                    await it.app.recorder.commit(one)
            await ada.go(title)
            await page.until("document.querySelectorAll('tbody tr').length > 20")
            for step in (40, 400):
                found = await smooth(page, step)
                told(f"{title}, {step} px a frame: {found}")
                assert found["there"] < 300
