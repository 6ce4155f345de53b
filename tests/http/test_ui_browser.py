"""The pages in a real browser: calls as they end, the ways in and out, and what other sites cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.browser import NEEDED, Page, browser
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.http.test_ui import assets
from tokenhub_core.http import sessions

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
