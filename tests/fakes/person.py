"""Somebody in front of the admin pages, who sees texts and labels and knows no selectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from tests.fakes.browser import Page
from tests.fakes.house import House

_HANDS: Final = """
(() => {
  const seen = (one) => one.checkVisibility() && !one.closest('[inert]');
  const top = () => [...document.querySelectorAll('dialog[open]')].at(-1) ?? document.body;
  const all = (selector) => [...top().querySelectorAll(selector)].filter(seen);
  const named = (one) => (one.getAttribute('aria-label') ?? one.textContent).trim();
  const field = (label) => {
    const found = all('label').find((one) => one.textContent.trim() === label);
    const told = all('input, select, textarea').find((one) => one.getAttribute('aria-label') === label);
    return told ?? (found?.htmlFor ? document.getElementById(found.htmlFor) : found?.querySelector('input, select'));
  };
  window.hands = {
    press: (text) => {
      const one = all('button, a, summary').find((one) => named(one) === text && !one.disabled);
      one?.click();
      return one !== undefined;
    },
    open: (text) => {
      const one = all('tbody tr').find((one) => one.textContent.includes(text));
      one?.click();
      return one !== undefined;
    },
    write: (label, value) => {
      const one = field(label);
      if (!one || one.disabled) return false;
      if (one.type === 'checkbox') {
        if (one.checked !== value) one.click();
        return true;
      }
      one.value = value;
      one.dispatchEvent(new Event('input', { bubbles: true }));
      one.dispatchEvent(new Event('change', { bubbles: true }));
      return true;
    },
    sees: (text) => top().innerText.includes(text),
  };
})()
"""


@dataclass(frozen=True)
class Person:
    """Does one thing after the other, and waits for each until it can be done."""

    page: Page

    async def arrive(self, it: House) -> None:
        """Sign in by the link that is printed at the start."""
        await self.page.open(f"{it.url}/login#{it.app.login_ticket()}")
        await self.page.until("document.getElementById('state')?.textContent === 'live'")
        await self.prepare()

    async def prepare(self) -> None:
        """Get ready to act on the page that is open."""
        await self.page.value(_HANDS)

    async def go(self, title: str) -> None:
        """Follow a link of the menu."""
        await self.press(title)
        await self.page.until(f"document.querySelector('h1')?.textContent === {_js(title)}")

    async def press(self, text: str) -> None:
        """Press what says so."""
        await self.page.until(f"hands.press({_js(text)})")

    async def open(self, text: str) -> None:
        """Open the row of a table that shows a text."""
        await self.page.until(f"hands.open({_js(text)})")

    async def write(self, label: str, value: str | bool) -> None:
        """Fill a field, choose in a list or tick a box."""
        await self.page.until(f"hands.write({_js(label)}, {_js(value)})")

    async def see(self, text: str) -> None:
        """Wait until a text is there, in what lies on top."""
        await self.page.until(f"hands.sees({_js(text)})")

    async def done(self) -> None:
        """Wait until nothing lies over the page."""
        await self.page.until("document.querySelector('dialog[open]') === null")


def _js(value: Any) -> str:
    return orjson.dumps(value).decode()
