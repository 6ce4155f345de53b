"""What people do on the admin pages, from the first sign-in to the first call, in a real browser."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.browser import NEEDED, browser
from tests.fakes.house import House
from tests.fakes.person import Person
from tests.fakes.provider import FakeProvider

pytestmark = NEEDED

PASSWORD = "correct horse battery"


async def test_from_nothing_to_the_first_call(it: House, ada: Person) -> None:
    """Password, provider, key, and the call that turns the last step green: all on the pages."""
    async with FakeProvider() as fake:
        await ada.see("No calls in the last hour")
        await ada.press("Set up a client")
        await ada.press("To the vault")
        await ada.press("Give it a password")
        await ada.write("Password", PASSWORD)
        await ada.write("Again", PASSWORD)
        await ada.press("Set")
        await ada.see("unlocked")
        await ada.press("Set up a client")
        await ada.press("Register a provider")
        await ada.write("Name", "mine")
        await ada.write("Address", fake.url)
        await ada.write("API key", "sk-mine")
        await ada.write("Register the models that the price list knows", value=False)
        await ada.press("Register")
        await ada.see("1 registered.")
        await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "mine"})
        await ada.press("To the keys")
        await ada.press("Make a key")
        await ada.write("Name", "first")
        await ada.press("Make")
        await ada.see("The key of first")
        key = await ada.page.value("document.querySelector('dialog[open] pre').textContent")
        await ada.press("I have it")
        await ada.press("Set up a client")
        await ada.see("Waiting for it.")
        await it.chat(headers={"authorization": f"Bearer {key}", "user-agent": "mine/1"})
        await ada.see("It came: mine/1 asked for gpt-4o and was served by gpt-4o @ mine.")
        assert fake.requests[-1].header("authorization") == "Bearer sk-mine"


async def test_what_the_server_refuses_is_said_at_the_field(ada: Person) -> None:
    """In the server's words, at the field it names; nothing that was written is lost."""
    await ada.go("Providers")
    await ada.press("Register a provider")
    await ada.write("Name", "mine")
    await ada.write("Address", "ftp://nowhere")
    await ada.press("Register")
    wrong = "document.querySelector('dialog[open] input[aria-invalid=true]')"
    await ada.page.until(wrong)
    assert await ada.page.value(f"{wrong}.value") == "ftp://nowhere"
    # The browser notes what the server refuses; nothing else.
    assert [one for one in ada.page.complaints if "status of 400" not in one] == []
    ada.page.complaints.clear()


async def test_a_budget_is_made_changed_and_removed(it: House, ada: Person) -> None:
    """In dollars on the page, in micro-dollars in the books."""
    await ada.go("Budgets")
    await ada.press("Make a budget")
    await ada.write("Limit, dollars", "2.50")
    await ada.press("Save")
    await ada.see("of $2.50")
    (budget,) = (await it.done("GET", "/budgets"))["items"]
    assert (budget["limit"], budget["unit"], budget["period"]) == (2_500_000, "usd", "month")
    await ada.press("Change")
    await ada.write("Limit, dollars", "4")
    await ada.press("Save")
    await ada.see("of $4.00")
    await ada.press("Remove")
    await ada.see("Remove this budget?")
    await ada.press("Remove")
    await ada.see("No budget yet")
    assert (await it.done("GET", "/budgets"))["items"] == []


async def test_a_key_is_switched_off_rotated_and_revoked(it: House, ada: Person) -> None:
    """Each by one button, and the list follows."""
    made = await it.done("POST", "/apikeys", {"name": "app", "models": ["*"], "providers": ["*"]})
    await ada.go("API keys")
    await ada.open("app")
    await ada.press("Switch off")
    await ada.see("Switch on")
    assert (await it.done("GET", f"/apikeys/{made['id']}"))["enabled"] is False
    await ada.press("Rotate")
    await ada.press("I have it")
    assert (await it.done("GET", f"/apikeys/{made['id']}"))["previous"] != []
    await ada.press("Revoke")
    await ada.see("Revoke app?")
    await ada.press("Revoke")
    await ada.see("No key yet")
    assert (await it.done("GET", "/apikeys"))["total"] == 0


async def test_a_call_is_opened_and_explained(it: House, ada: Person) -> None:
    """Who served it, why, what each candidate scored, what was tried."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await it.chat(headers={"user-agent": "mine/1"})
        await ada.go("Requests")
        await ada.open("mine/1")
        await ada.see("gpt-4o @ p")
        await ada.see("Candidates")
        await ada.press("Attempts (1)")
        await ada.see("1. gpt-4o @ p")
        await ada.press("Details")
        await ada.see("openai_chat")


async def test_many_models_are_changed_at_once(it: House, ada: Person) -> None:
    """Pick, write one weight, and all that were picked have it."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await it.done("POST", "/models", {"id": "other", "provider_id": "p"})
        await ada.go("Models")
        await ada.press("Pick all 2")
        await ada.press("Change 2")
        await ada.write("Weight", "9")
        await ada.press("Save")
        await ada.see("2 models were changed.")
        assert {one["weight"] for one in (await it.done("GET", "/models"))["items"]} == {9}


async def test_prices_are_compared_and_taken(it: House, ada: Person) -> None:
    """The list's price stands beside the registered one, and is taken by one button."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await ada.go("Models")
        await ada.press("Compare prices")
        await ada.see("in the list.")


async def test_a_policy_is_tried_and_then_set(it: House, ada: Person) -> None:
    """The simulator shows where a call would go; the defaults are set on the next page."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await ada.go("Simulator")
        await ada.press("Compare with another policy")
        await ada.press("Decide")
        await ada.see("gpt-4o @ p")
        await ada.go("Policy")
        await ada.write("Mode", "cheap")
        await ada.press("Save")
        await ada.see("The defaults are changed.")
        assert (await it.done("GET", "/routing-config"))["default_mode"] == "cheap"


async def test_an_alias_and_a_mode_are_made(it: House, ada: Person) -> None:
    """A name for two models by weight; a host in shadow."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await ada.go("Aliases")
        await ada.press("Make an alias")
        await ada.write("Name", "smart")
        await ada.write("Variants", "gpt-4o 90")
        await ada.press("Save")
        await ada.see("gpt-4o · 90")
        await ada.go("Shadow")
        await ada.press("Set a mode")
        await ada.write("To the host", "api.openai.com")
        await ada.press("Save")
        await ada.done()
        await ada.see("api.openai.com")
        assert (await it.done("GET", "/aliases/smart"))["variants"][0]["weight"] == 90
        (mode,) = (await it.done("GET", "/modes"))["items"]
        assert (mode["host"], mode["mode"]) == ("api.openai.com", "shadow")


async def test_what_was_done_stands_in_the_audit_log_and_its_chain_is_whole(ada: Person) -> None:
    """A user is added, the log says so, and it verifies."""
    await ada.go("Access")
    await ada.press("Add a user")
    await ada.write("Name", "grace")
    await ada.write("Password", PASSWORD)
    await ada.press("Add")
    await ada.see("grace")
    await ada.go("Audit")
    await ada.see("user")
    await ada.press("Verify")
    await ada.see("entries are as they were written")


async def test_the_palette_goes_anywhere_by_keys(ada: Person) -> None:
    """Three keys: open it, a few letters, Enter."""
    press = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {}))"
    await ada.page.value(press.replace("{}", "{key: 'k', ctrlKey: true, bubbles: true}"))
    await ada.write("Page, deed or request id", "budg")
    await ada.page.until("document.querySelector('[role=option]')?.textContent.startsWith('Budgets')")
    await ada.page.value(
        "document.querySelector('[role=combobox]').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))"
    )
    await ada.page.until("document.querySelector('h1')?.textContent === 'Budgets'")


async def test_a_viewer_sees_and_has_no_buttons_to_change(it: House, tmp_path: Path) -> None:
    """What a role may not do is not offered; the server would refuse it anyway."""
    await it.done("POST", "/users", {"name": "vera", "role": "viewer", "password": PASSWORD})
    async with browser(tmp_path) as page:
        await page.open(it.url)
        vera = Person(page)
        await page.until("document.getElementById('login') !== null")
        await vera.prepare()
        await vera.write("User", "vera")
        await vera.write("Password, or an admin token without a user", PASSWORD)
        await vera.press("Sign in")
        await page.until("document.getElementById('state')?.textContent === 'live'")
        await vera.go("Providers")
        await vera.see("No provider yet")
        assert not await page.value("hands.sees('Register a provider')")
