"""Names, errors and texts that strangers choose are text on every page: thirty pieces of markup wherever they fit."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import orjson
import pytest
from aiohttp import web

from scripts.pages import WEB
from tests.fakes.browser import NEEDED, Page, browser
from tests.fakes.house import House, house
from tests.fakes.markup import PAYLOADS
from tests.fakes.person import Person
from tests.webhooks.test_webhooks import OPEN
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.recognise import HOSTS

pytestmark = [NEEDED, pytest.mark.timeout(400)]

_TITLES: Final = re.findall(r'path: "[^"]+", title: "([^"]+)"', (WEB / "src/places.ts").read_text())
_LOADING: Final = (
    "[...document.querySelectorAll('[role=status]')].some(one => one.textContent.includes('Loading…'))"
)
_FOREIGN: Final = """
document.querySelectorAll('iframe, img, object, embed, video, base, marquee, details, animate, math,'
  + ' main noscript, main script, main style, main link, main meta, [onerror], [onload], [onfocus], [srcdoc],'
  + ' a[href^="javascript"]').length
"""
"""Elements that our pages have nowhere."""
_TEXT: Final = "[...document.querySelectorAll('main, dialog[open]')].map(one => one.textContent).join('\\n')"
_ALL: Final = "\n".join(PAYLOADS)


def provider_name(evil: str) -> str:
    """Return it as the name of a provider, which has neither slash nor colon."""
    return evil.replace("/", "|").replace(":", ";")


def program(evil: str) -> str:
    """Return it as a program calls itself: up to the first space."""
    return evil.replace(" ", "/")


def address(evil: str) -> str:
    """Return it as the path of a webhook, without spaces and without a slash at its end."""
    return f"https://example.com/{program(evil)}".rstrip("/")


@asynccontextmanager
async def stranger() -> AsyncIterator[str]:
    """Serve a provider whose answers, errors and ids are markup; `fail N` in a prompt asks for an error."""

    async def handle(request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        words = str(asked["messages"][-1]["content"])
        if failing := re.fullmatch(r"fail (\d+)", words):
            evil = PAYLOADS[int(failing[1])]
            error = {"error": {"message": evil, "type": evil, "code": evil, "param": evil}}
            return web.json_response(error, status=400, headers={"x-request-id": evil})
        message = {"role": "assistant", "content": _ALL}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        told = {"id": "x", "object": "chat.completion", "created": 1, "model": asked["model"]}
        return web.json_response({**told, "choices": [choice], "usage": usage})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def planted(it: House, url: str) -> dict[str, dict[str, list[str]]]:
    """Put each payload wherever the server takes it; return page → place → what has to be read there."""
    CertificateAuthority.open(it.app.settings.data_dir / "ca", HOSTS, now=time.time)
    numbered = [(evil, f"{evil}{number}") for number, evil in enumerate(PAYLOADS)]
    where = {"type": "openai", "endpoints": [f"{url}/v1"], "cred_store": "env:STRANGER"}
    plain = [{"id": "plain", **where}], [{"id": "plain-model", "provider_id": "plain"}]
    config = {
        "version": 1,
        "providers": [*plain[0], *({"id": provider_name(evil), **where} for evil in PAYLOADS)],
        "models": [
            *plain[1],
            *({"id": model, "provider_id": provider_name(evil)} for evil, model in numbered),
        ],
        "aliases": [{"name": evil, "variants": [{"model_id": model}]} for evil, model in numbered],
        "modes": [{"mode": "shadow", "host": "api.openai.com", "alias": evil} for evil in PAYLOADS],
        "budgets": [{"owner": f"project:{evil}", "limit": 1_000_000} for evil in PAYLOADS],
    }
    plan = await it.done("POST", "/config/plan", {"config": config})
    await it.done("POST", "/config/apply", {"config": config, "fingerprint": plan["fingerprint"]})
    for evil in PAYLOADS:
        key = {"name": evil, "project": evil, "tags": [evil], "models": ["*"], "providers": ["*"]}
        await it.done("POST", "/apikeys", key)
        await it.done("POST", "/webhooks", {"url": address(evil), "kinds": ["ca_expiring"]})
        await it.done("PUT", f"/vault/secrets/{quote(evil, safe='')}", {"value": evil})
    # Served; asked of nobody; refused by the provider in its own words. Live has the newest events only.
    for number, (evil, model) in enumerate(numbered):
        assert (await it.chat(model, {"user-agent": program(evil)})).status == 200
        assert (await it.chat(f"{evil}?", {"user-agent": "x"})).status == 404
        assert (await it.chat("plain-model", {"user-agent": "x"}, text=f"fail {number}")).status == 400
    assert (await it.chat("plain-model", {"user-agent": "whole/1"}, text=_ALL)).status == 200
    models = [f"{evil}{number}" for number, evil in enumerate(PAYLOADS)]
    providers, evils = [provider_name(evil) for evil in PAYLOADS], list(PAYLOADS)
    served = [f"{model} @ {name}" for model, name in zip(models, providers, strict=True)]
    programs = [program(evil) for evil in PAYLOADS]
    asked = [f"{evil}?" for evil in PAYLOADS]
    return {
        "Live": {"program": programs, "asked for": asked, "served by": served, "error": evils},
        "Requests": {"program": programs, "asked for": asked, "served by": served, "error": evils},
        "Providers": {"provider": providers},
        "Models": {"model": models},
        "Aliases": {"alias": evils, "variant": models},
        "Exploring": {"arm": served},
        "Shadow": {"alias of a mode": evils},
        "API keys": {"key": evils},
        "Budgets": {"owner": [f"project:{evil}" for evil in PAYLOADS]},
        "Vault": {"secret": evils},
        "Webhooks": {"address": [address(evil) for evil in PAYLOADS]},
    }


async def nothing_ran(page: Page, where: str) -> None:
    """No element of theirs is there, and none of their code has run."""
    assert await page.value(_FOREIGN) == 0, where
    assert await page.value("window.pwned") is None, where


async def read(page: Page, texts: Iterable[str], where: str) -> None:
    """Wait until all of these can be read, letter for letter."""
    wanted = orjson.dumps(list(texts)).decode()
    missing = f"(told => {wanted}.filter(one => !told.includes(one)))({_TEXT})"
    await page.until(f"{missing}.length === 0")
    await nothing_ran(page, where)


async def test_what_strangers_write_is_text(tmp_path: Path) -> None:
    """On every page, and on what opens over it: each payload is shown letter for letter, and none runs."""
    settings, environ = {**OPEN, "CAPTURE": "full"}, {"STRANGER": "sk-stranger"}
    async with (
        stranger() as url,
        house(tmp_path, settings=settings, environ=environ) as it,
        browser(tmp_path) as page,
    ):
        shown = await planted(it, url)
        ada = Person(page)
        await ada.arrive(it)
        for title in _TITLES:
            await ada.go(title)
            await page.until(f"!({_LOADING})")
            for place, texts in shown.pop(title, {}).items():
                await read(page, texts, f"{title}, {place}")
            await nothing_ran(page, title)
        assert shown == {}
        await ada.go("Requests")
        await ada.open("whole/1")
        await ada.press("Text")
        await ada.press("Read it")
        # The prompt and the answer are all of them.
        wanted = orjson.dumps(PAYLOADS).decode()
        twice = f"({_TEXT}).split(one).length > 2"
        await page.until(f"{wanted}.every(one => {twice})")
        await nothing_ran(page, "a call's text")
        await ada.press("Close")
        await ada.done()
        for title, row in (
            ("Providers", provider_name(PAYLOADS[0])),
            ("Models", f"{PAYLOADS[4]}4"),
            ("Aliases", PAYLOADS[5]),
            ("API keys", PAYLOADS[7]),
            ("Webhooks", address(PAYLOADS[12])),
            ("Audit", PAYLOADS[17]),
        ):
            await ada.go(title)
            await ada.open(row)
            await page.until("document.querySelector('dialog[open]') !== null")
            await read(page, [row], f"{title}, opened")
            await page.send("Input.dispatchKeyEvent", type="keyDown", key="Escape", windowsVirtualKeyCode=27)
            await ada.done()
        assert (page.dialogs, page.complaints) == ([], [])
