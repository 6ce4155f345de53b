"""The admin pages for everybody: axe looks at each of them, in light and in dark, and finds nothing to mend."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from scripts.pages import WEB
from tests.fakes.browser import NEEDED, Page, browser
from tests.fakes.house import House, house
from tests.fakes.person import Person

pytestmark = NEEDED

_PLACES = re.findall(r'path: "([^"]+)", title: "([^"]+)"', (WEB / "src/places.ts").read_text())
AXE = resources.files("axe_core_python").joinpath("axe.min.js").read_text()
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
_RUN = f"""axe.run(document, {{runOnly: {_TAGS}}}).then(found => found.violations.map(
    one => [one.id, one.nodes.map(node => node.html + ' ' + node.failureSummary)]))"""
_LOADING = "[...document.querySelectorAll('[role=status]')].some(one => one.textContent === 'Loading…')"


async def faults(page: Page) -> Any:
    """Return what axe has to say about what is shown."""
    return await page.value(_RUN)


async def filled(it: House) -> None:
    """Let there be something on every page."""
    await it.done("POST", "/budgets", {"owner": "all", "limit": 5_000_000})
    await it.done("POST", "/apikeys", {"name": "app", "models": ["*"], "providers": ["*"]})
    await it.done("POST", "/aliases", {"name": "smart", "variants": [{"model_id": "gpt-4o"}]})
    await it.done("POST", "/users", {"name": "vera", "role": "viewer", "password": "correct horse battery"})
    await it.done("PUT", "/modes", {"mode": "shadow", "host": "api.openai.com"})
    await it.chat("gpt-4o")
    await it.chat("nobody")


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_every_page_is_there_for_everybody(tmp_path: Path, colours: str) -> None:
    """Labels, contrast, order, names of tables and regions: on all pages, with something on them."""
    async with house(tmp_path, simulate=True) as it, browser(tmp_path) as page:
        await filled(it)
        scheme = {"name": "prefers-color-scheme", "value": colours}
        await page.send("Emulation.setEmulatedMedia", features=[scheme])
        await page.open(it.url)
        await page.until("document.getElementById('login') !== null")
        await page.value(AXE)
        assert await faults(page) == [], "the way in"
        ada = Person(page)
        await ada.arrive(it)
        await page.value(AXE)
        for _, title in _PLACES:
            await ada.go(title)
            await page.until(
                "![...document.querySelectorAll('[role=status]')].some(x => x.textContent === 'Loading…')"
            )
            assert await faults(page) == [], title


async def test_what_lies_over_the_page_is_there_for_everybody_too(tmp_path: Path) -> None:
    """A call that is opened, a form, the palette."""
    async with house(tmp_path, simulate=True) as it, browser(tmp_path) as page:
        await filled(it)
        ada = Person(page)
        await ada.arrive(it)
        await page.value(AXE)
        await ada.go("Requests")
        await ada.open("gpt-4o")
        await ada.see("Candidates")
        assert await faults(page) == []
        await ada.press("Close")
        await ada.done()
        await ada.go("API keys")
        await ada.press("Make a key")
        await ada.see("Good for")
        assert await faults(page) == []
        await ada.press("Cancel")
        await ada.done()
        await ada.press("Go to… Ctrl K")
        await ada.write("Page, deed or request id", "mod")
        assert await faults(page) == []
