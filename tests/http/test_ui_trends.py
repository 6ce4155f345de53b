"""The trends page in a real browser: drawn from time series, closer at a drag, beside the period before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.browser import FOUND, browser
from tests.fakes.house import house
from tests.fakes.provider import FakeProvider
from tests.http.test_ui_browser import go, signed_in

pytestmark = pytest.mark.skipif(
    FOUND is None, reason="no browser here: the Debian package is called chromium"
)

FIGURES = "Object.fromEntries([...document.querySelectorAll('.figure')].map(one => [one.children[0].textContent, one.children[1].textContent.trim()]))"  # noqa: E501 -- one expression
LEGENDS = "[...document.querySelectorAll('.chart[aria-label=Calls] .u-label')].map(one => one.textContent)"
DRAG = """(() => {
    const over = document.querySelector('.chart[aria-label=Calls] .u-over');
    const {left, top, width} = over.getBoundingClientRect();
    const at = (kind, part, target) => target.dispatchEvent(new MouseEvent(kind,
        {bubbles: true, clientX: left + part * width, clientY: top + 20, button: 0, buttons: 1}));
    at('mousemove', 0.5, over); at('mousedown', 0.5, over);
    at('mousemove', 0.75, over); at('mousemove', 0.99, over); at('mouseup', 0.99, document);
})()"""
CLOSER = "[...document.querySelectorAll('button')].some(one => one.textContent === 'Show all')"


async def test_the_trends_are_drawn_from_series(tmp_path: Path) -> None:
    """Figures and curves of what was called a moment ago; a drag asks for that time alone, with finer steps."""
    async with FakeProvider() as fake, house(tmp_path) as it, browser(tmp_path) as page:
        await it.provider(fake, "p", "gpt-4o")
        for _ in range(3):
            await it.chat()
        await it.chat("nobody")
        await signed_in(page, it)
        await go(page, "Trends")
        await page.until("document.querySelectorAll('.chart .u-over').length === 8")
        figures = await page.value(FIGURES)
        assert (figures["calls"], figures["fail"]) == ("4", "25 %")
        assert figures["cost"].startswith("$0.")
        assert (await page.value(LEGENDS))[1:] == ["gpt-4o", "none"]
        await page.value(DRAG)
        await page.until(CLOSER)
        await page.value("document.querySelector('input[type=checkbox]').click()")
        await page.until(f"{LEGENDS}.includes('before')")
        assert page.complaints == []
