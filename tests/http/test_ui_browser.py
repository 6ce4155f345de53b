"""The first page in a real browser: its own policy holds, and what strangers write stays text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.browser import FOUND, Page, browser
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.http import sessions

pytestmark = pytest.mark.skipif(
    FOUND is None, reason="no browser here: the Debian package is called chromium"
)

EVIL = (
    "<img src=x onerror=\"window.pwned=1;alert('img')\">",
    "<script>window.pwned=1;alert('script')</script>",
    '"><svg/onload=window.pwned=1>',
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "</td></tr></table><iframe srcdoc='<script>parent.pwned=1</script>'>",
    "<style>@import 'http://127.0.0.1:1/x';</style>",
)
ROWS = "[...document.querySelectorAll('#rows tr')].map(row => [...row.cells].map(cell => cell.textContent))"


async def signed_in(page: Page, it: House) -> None:
    """Open the page as it is printed at the start, and wait until it listens."""
    await page.open(f"{it.url}/login#{it.app.login_ticket()}")
    await page.until("document.getElementById('state').textContent === 'live'")


async def test_a_call_appears_while_one_watches(tmp_path: Path) -> None:
    """Who asked, what for, who served, why, what it cost; nothing that the page's policy refuses."""
    async with FakeProvider() as fake, house(tmp_path) as it, browser(tmp_path) as page:
        await it.provider(fake, "p", "gpt-4o")
        await it.chat(headers={"user-agent": "early/1"})
        await signed_in(page, it)
        assert await page.until("document.querySelectorAll('#rows tr').length") == 1
        await it.chat("nobody", {"user-agent": "late/1"})
        assert await page.until("document.querySelectorAll('#rows tr').length === 2")
        late, early = await page.value(ROWS)
        assert (early[1:5], early[5]) == (["early/1", "gpt-4o", "gpt-4o @ p", "routed-hint-exact"], "1")
        assert early[9].startswith("$0.")
        assert late[1:4] == ["late/1", "nobody", ""]
        assert "not registered" in late[4]
        totals = "['calls', 'failed'].map(name => document.getElementById(name).textContent)"
        assert await page.value(totals) == ["2", "1"]
        assert page.complaints == []


async def test_what_strangers_write_is_text(tmp_path: Path) -> None:
    """Markup and code as model, program, provider and model id: shown letter for letter, never run."""
    async with FakeProvider() as fake, house(tmp_path) as it, browser(tmp_path) as page:
        for number, evil in enumerate(EVIL):
            name = evil.replace("/", "|").replace(":", ";")[:64]
            await it.provider(fake, name, api_key="sk")
            await it.done("POST", "/models", {"id": f"{evil}{number}", "provider_id": name})
            await it.chat(f"{evil}{number}", {"user-agent": evil.replace(" ", "_")})
            await it.chat(evil, {"user-agent": "x", "x-request-id": evil})
        await signed_in(page, it)
        await page.until(f"document.querySelectorAll('#rows tr').length === {2 * len(EVIL)}")
        shown = await page.value(ROWS)
        for number, evil in enumerate(EVIL):
            assert any(row[2] == f"{evil}{number}" and row[3].startswith(evil) for row in shown), evil
            assert any(row[1] == evil.replace(" ", "_")[:80] for row in shown), evil
        inside = "document.querySelectorAll('#rows *:not(tr):not(td), iframe, img, svg').length"
        assert await page.value(inside) == 0
        assert await page.value("window.pwned") is None
        assert (page.dialogs, page.complaints) == ([], [])


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
        await page.until("document.getElementById('state').textContent === 'live'")
        assert page.complaints == []


async def test_a_wrong_token_is_refused_and_a_session_ends(tmp_path: Path) -> None:
    """In words, at the form; signing out ends it at the server, and a session that is gone leads back to the form."""
    async with house(tmp_path) as it, browser(tmp_path) as page:
        await page.open(it.url)
        await page.until("!document.getElementById('login').hidden")
        submit = (
            "document.getElementById('secret').value = '{}'; document.querySelector('#login button').click()"
        )
        await page.value(submit.format("wrong"))
        refused = await page.until("document.getElementById('refused').textContent")
        assert refused == "the admin token is required, or a session"
        await page.value(submit.format(it.token))
        await page.until("document.getElementById('state').textContent === 'live'")
        await page.value("document.getElementById('leave').click()")
        await page.until("document.getElementById('state').textContent === 'signed out'")
        assert await page.value("fetch('/admin/v1/info').then(answer => answer.status)") == 401
        assert await page.value("document.getElementById('live').hidden")


async def test_a_user_signs_in_and_out_also_after_a_reload(tmp_path: Path) -> None:
    """By name and password; what a write has to show is fetched again, and a link works once."""
    async with house(tmp_path) as it, browser(tmp_path) as page:
        user = {"name": "ada", "role": "viewer", "password": "correct horse battery"}
        await it.done("POST", "/users", user)
        ticket = it.app.login_ticket()
        await it.ask("POST", "/admin/v1/login", {"ticket": ticket})
        await page.open(f"{it.url}/login#{ticket}")
        assert "was used" in await page.until("document.getElementById('refused').textContent")
        assert await page.value("location.href") == f"{it.url}/"
        await page.until("!document.getElementById('login').hidden")
        fill = "document.getElementById('{}').value = '{}'"
        await page.value(fill.format("user", "ada"))
        await page.value(fill.format("secret", user["password"]))
        await page.value("document.querySelector('#login button').click()")
        await page.until("document.getElementById('state').textContent === 'live'")
        assert await page.value("document.getElementById('secret').value") == ""
        actors = [one["actor"] for one in (await it.done("GET", "/sessions"))["items"]]
        assert actors[-1] == "user:ada"
        await page.open("about:blank")
        await page.open(f"{it.url}/")
        await page.until("document.getElementById('state').textContent === 'live'")
        await page.value("document.getElementById('leave').click()")
        await page.until("document.getElementById('state').textContent === 'signed out'")
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
        await page.until("document.getElementById('state').textContent === 'the session has ended'")
        assert not await page.value("document.getElementById('login').hidden")


async def test_another_page_cannot_reach_in(tmp_path: Path) -> None:
    """From another site's page, in the same browser with a session open: no read, no call, no frame."""
    async with house(tmp_path, simulate=True) as it, browser(tmp_path) as page:
        await signed_in(page, it)
        other = it.url.replace("127.0.0.1", "localhost")
        await page.open(f"{other}/assets/style.css")
        await page.until("document.body !== null && location.hostname === 'localhost'")
        tries = f"""Promise.all([
            fetch('{it.url}/admin/v1/info', {{credentials: 'include'}}),
            fetch('{it.url}/v1/models'),
            fetch('{it.url}/v1/chat/completions', {{method: 'POST', mode: 'no-cors', body:
                '{{"model":"gpt-4o","messages":[{{"role":"user","content":"x"}}]}}'}}),
        ].map(one => one.then(answer => answer.type, () => 'refused')))"""
        # The policy of that page forbids all three; without it the browser or the server does.
        await page.send("Page.setBypassCSP", enabled=True)
        await page.open(f"{other}/assets/app.js")
        await page.until("location.pathname === '/assets/app.js' && document.body !== null")
        assert await page.value(tries) == ["refused", "refused", "opaque"]
        assert (await it.done("GET", "/logs"))["logs"] == []
