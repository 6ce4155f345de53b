"""The pages about the server itself, and about exploring: the main deeds of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fakes.browser import NEEDED
from tests.fakes.house import House, house
from tests.fakes.markup import PAYLOADS
from tests.fakes.person import Person
from tests.fakes.provider import FakeProvider
from tests.http.test_ui_access import AXE, faults
from tests.webhooks.test_webhooks import OPEN, receiving
from tokenhub_core import config

pytestmark = NEEDED


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[House]:
    """A house whose vault is open: it keeps what signs events."""
    async with house(tmp_path, settings={**OPEN, "MAX_CALLS": "7"}) as opened:
        yield opened


async def test_a_webhook_is_added_tried_and_removed(it: House, ada: Person) -> None:
    """Its secret is shown once; the test reaches the receiver; its deliveries are there; then it is told no more."""
    async with receiving() as who:
        await ada.go("Webhooks")
        await ada.see("Nobody is told")
        await ada.press("Add a webhook")
        await ada.write("Address", who.url)
        await ada.write("audit", True)
        await ada.press("Add")
        await ada.see("whsec_")
        await ada.press("I have it")
        await ada.done()
        (hook,) = (await it.done("GET", "/webhooks"))["items"]
        assert set(hook["kinds"]) == {"health_change", "budget_threshold", "audit"}
        await ada.open(who.url)
        await ada.press("Send a test")
        await ada.see("It was taken: 204.")
        await ada.see("Nothing waits")
        await ada.press("Given up")
        await ada.see("Nothing was given up")
        await ada.page.value(AXE)
        assert await faults(ada.page) == []
        await ada.press("Switch off")
        await ada.see("Switch on")
        assert (await it.done("GET", "/webhooks"))["items"][0]["enabled"] is False
        await ada.press("Remove")
        await ada.see(f"Remove {who.url}?")
        await ada.press("Remove")
        await ada.see("Nobody is told")
        assert (await it.done("GET", "/webhooks"))["total"] == 0


async def test_settings_are_found_with_what_they_are_and_where_that_is_from(ada: Person) -> None:
    """All of them; a part of a name finds some; those that are not as they come stand out."""
    rows = "document.querySelectorAll('table[aria-label=Settings] tbody tr').length"
    await ada.go("Settings")
    assert await ada.page.until(rows) == len(config.table())
    await ada.write("Search settings", "max_calls")
    assert await ada.page.until(f"{rows} === 1")
    await ada.see("started with")
    await ada.write("Search settings", "no such thing")
    await ada.see("No such setting")


async def test_what_is_believed_is_drawn_for_each_model(it: House, ada: Person) -> None:
    """A curve for each, named as it stands; a stranger's name is text there too."""
    async with FakeProvider() as fake:
        evil = PAYLOADS[3]
        await it.provider(fake, "p", "gpt-4o")
        await it.done("POST", "/models", {"id": evil, "provider_id": "p"})
        for name in ("gpt-4o", evil):
            await it.chat(name)
        await ada.go("Exploring")
        await ada.see("off: the best estimate serves")
        await ada.page.until("document.querySelector('[role=img][aria-label^=Densities] canvas') !== null")
        await ada.page.until("document.querySelectorAll('table[aria-label=Arms] tbody tr').length === 2")
        await ada.see(f"{evil} @ p")
        assert await ada.page.value("document.querySelectorAll('main img').length") == 0
        assert await ada.page.value("window.pwned") is None
        await ada.write("Kind of call", "small")
        await ada.see("gpt-4o @ p")


async def test_the_menu_of_a_small_screen_closes_again(ada: Person) -> None:
    """It lies over its button, so what is beside it closes it, and so does Escape."""
    await ada.page.send(
        "Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False
    )
    shown = "document.querySelector('nav.side.open') !== null"
    for close in (
        "document.querySelector('main').click()",
        "dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))",
    ):
        await ada.press("Menu")
        await ada.page.until(shown)
        # Again until it is heard: listeners are there a moment after the menu.
        await ada.page.until(f"({close}, !({shown}))")
