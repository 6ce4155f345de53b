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
from tests.e2e.serving import eventually
from tests.fakes.browser import NEEDED, Page, browser
from tests.fakes.house import house
from tests.fakes.person import Person
from tests.fakes.traffic import records
from tokenhub_core.store.database import open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer

pytestmark = [
    pytest.mark.load,
    pytest.mark.timeout(400),
    NEEDED,
]

ROWS: Final = 100_000
_DIST: Final = WEB / "dist"
_LONG_TASKS: Final = """
window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((one) => [one.startTime, one.duration])))
  .observe({type: 'longtask', buffered: true});
"""
"""Runs before the page's own code: what kept the main thread for more than 50 ms, as start and duration."""
_USABLE: Final = """
document.getElementById('state')?.textContent === 'live' && READY && {
  shown: performance.now(),
  usable: Math.max(performance.now(), ...tasks.map(([start, length]) => start + length)),
  longest: Math.max(0, ...tasks.map(([, length]) => length)),
}
"""
_SCROLL: Final = """
(async () => {
  const frame = document.querySelector('.table-frame.tall');
  const gaps = [];
  let there = 0, last = await new Promise(requestAnimationFrame);
  tasks.length = 0;
  for (let turn = 0; turn < FRAMES && !(OVER); turn += 1) {
    frame.scrollTop += STEP;
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - last);
    last = now;
    there = Math.max(there, document.querySelectorAll('tbody tr').length);
  }
  const count = gaps.length;
  const seconds = gaps.reduce((sum, one) => sum + one, 0) / 1000;
  gaps.sort((a, b) => a - b);
  return {count, seconds, median: gaps[count >> 1], p99: gaps[Math.floor(count * 0.99)], longest: gaps[count - 1],
          task: Math.max(0, ...tasks.map(([, length]) => length)), there, rows: Math.round(frame.scrollHeight / 33)};
})()
"""
"""Scrolls once a frame until it is over; returns milliseconds between frames, and how many rows the document held."""


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


async def usable(page: Page, url: str, ready: str) -> dict[str, float]:
    """Open an address with nothing kept from before; return when what matters was there and could be used."""
    await page.open("about:blank")
    await page.open(url)
    found: dict[str, float] = await page.until(_USABLE.replace("READY", ready))
    return found


async def heap(page: Page) -> float:
    """Return what the page's scripts hold, in MB, once what nobody holds is gone."""
    await page.send("HeapProfiler.collectGarbage")
    told = await page.send("Runtime.getHeapUsage")
    return float(told["usedSize"]) / 1e6


async def full(folder: Path) -> None:
    """Let there be a day of calls in the log."""
    database = open_database(str(folder / "tokenhub.sqlite"))
    writer, log = Writer(database), RequestLog(database)
    writer.start()
    for chunk in batched(records(ROWS, until=time.time(), over=86_400), 500):
        await asyncio.gather(*(writer.insert(log.insert(one)) for one in chunk))
    await writer.close()
    database.close()


async def scrolled(page: Page, step: int, *, frames: int = 200, over: str = "false") -> dict[str, float]:
    """Scroll the table of the page that is open, so many pixels a frame."""
    script = _SCROLL.replace("STEP", str(step)).replace("FRAMES", str(frames)).replace("OVER", over)
    found: dict[str, float] = await page.value(script)
    told(f"{step} px a frame: { {name: round(value, 1) for name, value in found.items()} }")
    assert found["there"] < 300
    return found


async def test_a_hundred_thousand_calls_are_shown_and_scrolled(tmp_path: Path) -> None:
    """Pages open as they do with few; the log loads as it is scrolled, and the document holds what is in sight."""
    (tmp_path / "data").mkdir(mode=0o700)
    await full(tmp_path / "data")
    async with house(tmp_path) as it, browser(tmp_path) as page:

        async def taken_in() -> bool:
            return bool((await it.done("GET", "/stats"))["complete"])

        await eventually(taken_in, within=120)
        ada = Person(page)
        await ada.arrive(it)
        await page.send("Network.setCacheDisabled", cacheDisabled=True)
        await page.send("Page.addScriptToEvaluateOnNewDocument", source=_LONG_TASKS)
        for title, path, ready in (
            ("Overview", "/", "document.querySelector('.figure dd')"),
            ("Requests", "/ui/requests", "document.querySelectorAll('tbody tr').length > 20"),
        ):
            runs = [await usable(page, it.url + path, ready) for _ in range(5)]
            every = {name: round(median(run[name] for run in runs)) for name in runs[0]}
            told(f"{title}: {every} ms, medians of {len(runs)}; {await heap(page):.1f} MB")
        await ada.prepare()
        for step in (40, 400):
            await scrolled(page, step)
        # To the end: as fast as it loads.
        end = "[...document.querySelectorAll('main [role=status]')].some(one => one.textContent.includes('all that'))"
        found = await scrolled(page, 1_000_000, frames=100_000, over=end)
        assert found["rows"] >= ROWS
        told(f"all {ROWS} rows: {await heap(page):.1f} MB")
        await page.value("document.querySelector('.table-frame.tall').scrollTop = 0")
        await scrolled(page, 4000)
        await ada.go("Live")
        for one in records(5_000, until=time.time(), seed=8):
            await it.app.recorder.commit(one)
        await page.until("document.querySelectorAll('tbody tr').length > 20")
        await scrolled(page, 400)
        assert page.complaints == []
