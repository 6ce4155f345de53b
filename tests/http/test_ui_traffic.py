"""What people look at on the admin pages, and what they do there beside setting things up: each page's main deed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.e2e.serving import eventually
from tests.fakes.browser import NEEDED, browser
from tests.fakes.house import House, house
from tests.fakes.person import Person
from tests.fakes.provider import FakeProvider
from tests.fakes.traffic import records
from tests.http.test_ui_access import AXE, faults
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.recognise import HOSTS

pytestmark = NEEDED

PASSWORD = "correct horse battery"
ROWS = "document.querySelectorAll('tbody tr').length"


async def test_decisions_are_filtered_held_and_opened(it: House, ada: Person) -> None:
    """By words and by outcome; what comes meanwhile waits, is counted, and is there when one goes on."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await it.chat(headers={"user-agent": "early/1"})
        await it.chat("nobody", {"user-agent": "lost/1"})
        await ada.go("Live")
        rows = "document.querySelectorAll('table[aria-label=Decisions] tbody tr').length"
        await ada.page.until(f"{rows} === 2")
        await ada.write("Filter", "EARLY")
        await ada.page.until(f"{rows} === 1")
        await ada.write("Filter", "")
        await ada.write("Outcome", "error")
        await ada.page.until(f"{rows} === 1")
        await ada.see("lost/1")
        await ada.write("Outcome", "all")
        await ada.press("Hold")
        await it.chat(headers={"user-agent": "late/1"})
        await ada.press("Go on (1 new)")
        await ada.page.until(f"{rows} === 3")
        await ada.open("late/1")
        await ada.see("Candidates")


async def test_a_call_under_way_is_seen_until_it_ends(it: House, ada: Person) -> None:
    """Who asks, whom it waits for; the overview counts it."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await it.chat()
        fake.script("*", ["hang"])
        asking = asyncio.create_task(it.chat(headers={"user-agent": "patient/1"}))
        await fake.until(requests=2)
        await ada.go("Live")
        row = "document.querySelector('table[aria-label=\"Under way\"] tbody tr')?.innerText"
        await ada.page.until(f"({row} ?? '').startsWith('waiting\\tpatient/1')")
        await ada.page.value(AXE)
        assert await faults(ada.page) == []
        await ada.go("Overview")
        figure = (
            "[...document.querySelectorAll('.figure')].find(one => one.innerText.startsWith('Under way'))"
        )
        await ada.page.until(f"{figure}?.querySelector('dd').innerText.trim() === '1'")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await ada.go("Live")
        await ada.see("No call is under way.")


async def test_the_log_is_searched_and_what_flows_is_drawn(it: House, ada: Person) -> None:
    """The overview's figures, the log by program, the river by cost, the trends beside those of before."""
    calls = list(records(90, until=time.time(), over=1800))
    for one in calls:
        await it.app.recorder.commit(one)
    await ada.page.open(f"{it.url}/ui/requests")
    await ada.page.until(f"{ROWS} === 90")
    await ada.prepare()
    mine = sum(one.caller.program == "search" for one in calls)
    await ada.write("Program", "search")
    await ada.page.until(f"{ROWS} === {mine}")
    await ada.press("Clear")
    await ada.page.until(f"{ROWS} === 90")
    await ada.go("Overview")
    figure = "document.querySelector('.figure dd')?.innerText.trim()"
    await ada.page.until(f"{figure} === '90'")
    await ada.see("nightly-report")
    await ada.go("Flow")
    river = "document.querySelector('svg[aria-label=\"Calls from programs to models\"]')"
    await ada.page.until(f"{river}?.querySelectorAll('path').length > 4")
    await ada.write("Width shows", "cost")
    await ada.page.until(f"{river}?.textContent.includes('claude-haiku-4-5')")
    await ada.go("Trends")
    await ada.page.until("document.querySelectorAll('canvas').length > 4")
    await ada.write("Compare by", "program")
    await ada.see("nightly-report")
    await ada.write("with the period before", True)
    await ada.page.until("document.querySelectorAll('canvas').length > 4")


async def test_what_became_of_a_provider_is_there_after_a_restart(tmp_path: Path) -> None:
    """It was let go of; another process, and a page that was not open then, show when and why."""
    async with FakeProvider() as fake:
        async with house(tmp_path) as it:
            await it.provider(fake, "p", "gpt-4o")
            fake.script("*", ["status:500"])

            async def down() -> bool:
                await it.chat()
                moves = (await it.done("GET", "/health/history?provider=p"))["items"]
                return any(one["after"] == "down" for one in moves)

            await eventually(down)
            refused = await it.admin("GET", "/health/history?limit=0")
            assert (refused.status, refused.fault["param"]) == (400, "limit")
            assert (await it.done("GET", "/health/history?provider=q"))["items"] == []
            assert (await it.done("GET", "/health/history?until=1000"))["items"] == []
        async with house(tmp_path) as it, browser(tmp_path) as page:
            ada = Person(page)
            await ada.arrive(it)
            await ada.go("Health")
            row = "[...document.querySelectorAll('table[aria-label=History] tbody tr')].map(one => one.innerText)"
            await page.until(f"{row}.some(one => one.includes('\\tp\\tdegraded\\tdown'))")
            await page.until("document.querySelector('.strip i.bad') !== null")
            await page.value(AXE)
            assert await faults(page) == []
            assert page.complaints == []


async def test_hosts_secrets_and_proofs_are_looked_after(it: House, ada: Person) -> None:
    """A host is added and removed, a secret kept, read and removed, the vault locked and opened, the chain verified."""
    CertificateAuthority.open(it.app.settings.data_dir / "ca", HOSTS, now=time.time)
    await ada.go("Interception")
    await ada.press("Add a host")
    await ada.write("Host", "llm.example.com")
    await ada.press("Add")
    await ada.done()
    await ada.see("llm.example.com")
    assert (await it.done("GET", "/ca"))["added"] == ["llm.example.com=openai_chat"]
    await ada.press("Remove")
    await ada.page.until("!hands.sees('llm.example.com')")
    assert (await it.done("GET", "/ca"))["added"] == []
    await ada.go("Vault")
    await ada.press("Give it a password")
    await ada.write("Password", PASSWORD)
    await ada.write("Again", PASSWORD)
    await ada.press("Set")
    await ada.done()
    await ada.press("Keep a secret")
    await ada.write("Name", "mine")
    await ada.write("Value", "s3cret")
    await ada.press("Keep")
    await ada.done()
    await ada.press("Read")
    await ada.see("s3cret")
    await ada.press("Remove")
    await ada.see("None")
    await ada.press("Lock")
    await ada.press("Unlock")
    await ada.write("Password", PASSWORD)
    await ada.press("Unlock")
    await ada.done()
    await ada.see("unlocked")
    await ada.go("Proofs")
    await ada.press("Verify")
    await ada.see("All 0 entries are as they were written")


async def test_an_experiment_is_reported_and_another_policy_rehearsed(it: House, ada: Person) -> None:
    """Each variant with what came of it; who would serve, and what that rests on; workflows say how they begin."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o", "gpt-4o-mini")
        variants = [{"model_id": "gpt-4o", "weight": 1}, {"model_id": "gpt-4o-mini", "weight": 1}]
        await it.done("POST", "/aliases", {"name": "smart", "variants": variants, "strategy": "round_robin"})
        for _ in range(4):
            await it.chat("smart")
        await ada.go("Aliases")
        await ada.open("smart")
        await ada.see("4 calls")
        rows = "[...document.querySelectorAll('table[aria-label=Variants] tbody tr')]"
        shown = f"{rows}.map(one => one.cells[1].innerText)"
        assert await ada.page.until(f"{shown}.length && {shown}") == ["2", "2"]
        await ada.press("Close")
        await ada.done()
        await ada.go("Rehearsal")
        await ada.press("Rehearse")
        await ada.see("Who would serve")
        await ada.see("What this rests on")
        await ada.go("Workflows")
        await ada.see("Durable calls are off")
