"""The pages in a real browser: their own policy holds, what strangers write stays text, other sites reach nothing."""

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
from tests.fakes.provider import FakeProvider
from tests.http.test_ui import assets
from tests.webhooks.test_webhooks import OPEN
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.http import sessions
from tokenhub_core.recognise import HOSTS

pytestmark = NEEDED

LINES = "document.querySelectorAll('table[aria-label=Decisions] tbody tr')"
ROWS = f"[...{LINES}].map(row => [...row.cells].map(cell => cell.textContent))"
LIVE = "document.getElementById('state')?.textContent === 'live'"
GATE = "document.getElementById('login') !== null"
REFUSED = "document.getElementById('refused')?.textContent"


async def signed_in(page: Page, it: House) -> None:
    """Open the page as it is printed at the start, and wait until it listens."""
    await page.open(f"{it.url}/login#{it.app.login_ticket()}")
    await page.until(LIVE)


async def go(page: Page, title: str) -> None:
    """Follow a link of the menu, and wait until that page is there."""
    link = f"[...document.querySelectorAll('nav a')].find(one => one.textContent === '{title}')"
    await page.value(f"{link}.click()")
    await page.until(f"document.title.startsWith('{title}')")


async def fill(page: Page, name: str, value: str) -> None:
    """Write into a field as a person does, so that the page hears of it."""
    field = f"document.querySelector('input[name={name}]')"
    await page.value(
        f"{field}.value = '{value}'; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )


async def sign_in(page: Page, user: str, secret: str) -> None:
    """Fill the form and send it."""
    await page.until(GATE)
    await fill(page, "user", user)
    await fill(page, "secret", secret)
    await page.value("document.querySelector('#login button').click()")


async def test_a_call_appears_while_one_watches(tmp_path: Path) -> None:
    """Who asked, what for, who served, why, what it cost; nothing that the page's policy refuses."""
    async with FakeProvider() as fake, house(tmp_path) as it, browser(tmp_path) as page:
        await it.provider(fake, "p", "gpt-4o")
        await it.chat(headers={"user-agent": "early/1"})
        await signed_in(page, it)
        await go(page, "Live")
        assert await page.until(f"{LINES}.length") == 1
        await it.chat("nobody", {"user-agent": "late/1"})
        assert await page.until(f"{LINES}.length === 2")
        late, early = await page.value(ROWS)
        assert early[1:7] == ["ok", "early/1", "gpt-4o", "gpt-4o @ p", "routed-hint-exact", "1"]
        assert early[10].startswith("$0.")
        assert late[1:5] == ["model_not_found", "late/1", "nobody", ""]
        assert "not registered" in late[5]
        assert page.complaints == []


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
    config = {
        "version": 1,
        "providers": [
            {"id": "plain", **where},
            *({"id": provider_name(evil), **where} for evil in PAYLOADS),
        ],
        "models": [
            {"id": "plain-model", "provider_id": "plain"},
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


@pytest.mark.timeout(400)
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
        # Were they markup it would be seen here, and the policy would keep their code from running all the same.
        markup = orjson.dumps("".join(PAYLOADS)).decode()
        await page.value(f"document.querySelector('main').insertAdjacentHTML('beforeend', {markup})")
        assert await page.value(_FOREIGN) > 0
        assert await page.value("window.pwned") is None


async def test_the_ticket_leaves_the_address_and_no_script_can_read_the_session(tmp_path: Path) -> None:
    """It is spent on a session: not in the address, not in storage, not in a cookie that scripts see."""
    async with house(tmp_path) as it, browser(tmp_path) as page:
        await signed_in(page, it)
        assert await page.value("location.href") == f"{it.url}/"
        readable = "document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
        assert await page.value(readable) == "{}{}"
        (cookie,) = (await page.send("Network.getCookies"))["cookies"]
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
        assert it.token not in str(cookie)
        kept = "['csrf', 'token', 'ticket'].filter(name => name in window).length"
        assert await page.value(kept) == 0
        await page.open("about:blank")
        await page.open(f"{it.url}/")
        await page.until(LIVE)
        assert page.complaints == []


async def test_a_wrong_token_is_refused_and_a_session_ends(tmp_path: Path) -> None:
    """In words, at the form; signing out ends it at the server, and a session that is gone leads back to the form."""
    async with house(tmp_path) as it, browser(tmp_path) as page:
        await page.open(it.url)
        await sign_in(page, "", "wrong")
        assert await page.until(REFUSED) == "the admin token is required, or a session"
        await sign_in(page, "", it.token)
        await page.until(LIVE)
        await page.value("document.getElementById('leave').click()")
        assert await page.until(REFUSED) == "Signed out."
        assert await page.value("fetch('/admin/v1/info').then(answer => answer.status)") == 401
        assert await page.value(GATE)


async def test_a_user_signs_in_and_out_also_after_a_reload(tmp_path: Path) -> None:
    """By name and password; what a write has to show is fetched again, and a link works once."""
    async with house(tmp_path) as it, browser(tmp_path) as page:
        user = {"name": "ada", "role": "viewer", "password": "correct horse battery"}
        await it.done("POST", "/users", user)
        ticket = it.app.login_ticket()
        await it.ask("POST", "/admin/v1/login", {"ticket": ticket})
        await page.open(f"{it.url}/login#{ticket}")
        assert "was used" in await page.until(REFUSED)
        assert await page.value("location.href") == f"{it.url}/"
        await sign_in(page, "ada", user["password"])
        await page.until(LIVE)
        actors = [one["actor"] for one in (await it.done("GET", "/sessions"))["items"]]
        assert actors[-1] == "user:ada"
        await page.open("about:blank")
        await page.open(f"{it.url}/")
        await page.until(LIVE)
        await page.value("document.getElementById('leave').click()")
        assert await page.until(REFUSED) == "Signed out."
        assert await page.value("fetch('/admin/v1/info').then(answer => answer.status)") == 401


async def test_a_page_that_loses_its_session_asks_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is cut when the session is ended elsewhere, and the form is there again."""
    monkeypatch.setattr(sessions, "RECHECK", 0.05)
    async with house(tmp_path) as it, browser(tmp_path) as page:
        await signed_in(page, it)
        (session,) = (await it.done("GET", "/sessions"))["items"]
        await it.done("DELETE", f"/sessions/{session['id']}")
        assert await page.until(REFUSED) == "The session has ended."
        assert await page.value(GATE)


async def test_another_page_cannot_reach_in(tmp_path: Path) -> None:
    """From another site's page, in the same browser with a session open: no read, no call, no frame."""
    async with house(tmp_path, simulate=True) as it, browser(tmp_path) as page:
        await signed_in(page, it)
        other = it.url.replace("127.0.0.1", "localhost")
        await page.open(other + assets("css")[0])
        await page.until("document.body !== null && location.hostname === 'localhost'")
        tries = f"""Promise.all([
            fetch('{it.url}/admin/v1/info', {{credentials: 'include'}}),
            fetch('{it.url}/v1/models'),
            fetch('{it.url}/v1/chat/completions', {{method: 'POST', mode: 'no-cors', body:
                '{{"model":"gpt-4o","messages":[{{"role":"user","content":"x"}}]}}'}}),
        ].map(one => one.then(answer => answer.type, () => 'refused')))"""
        # The policy of that page forbids all three; without it the browser or the server does.
        await page.send("Page.setBypassCSP", enabled=True)
        script = assets("js")[0]
        await page.open(other + script)
        await page.until(f"location.pathname === '{script}' && document.body !== null")
        assert await page.value(tries) == ["refused", "refused", "opaque"]
        # The refusals stand in the log; nobody was asked.
        assert [one for one in (await it.done("GET", "/logs"))["logs"] if one["model_id"]] == []
