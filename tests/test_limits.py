"""Several credentials of one provider, through the whole application and over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import orjson
import pytest

from tests.fakes.engine import message
from tests.fakes.house import House, Told, house
from tests.fakes.limited import Metered
from tests.patience import PATIENCE
from tokenhub_core.types import Json

A, B = "sk-CANARY-first-0123456789", "sk-CANARY-second-0123456789"


async def two_keys(it: House, fake: Metered, name: str = "p", model: str = "gpt-4o") -> None:
    """Register a provider with the keys A and B, both in memory."""
    body = {"id": name, "base_url": fake.url, "cred_store": "memory", "api_key": A}
    await it.done("POST", "/providers", body)
    await it.done(
        "POST", f"/providers/{name}/credentials", {"name": "second", "cred_store": "memory", "api_key": B}
    )
    prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
    await it.done("POST", "/models", {"id": model, "provider_id": name, **prices})


async def keys(it: House, name: str = "p") -> dict[str, Json]:
    items = (await it.done("GET", f"/providers/{name}/credentials"))["items"]
    return {item["name"]: item for item in items}


@asynccontextmanager
async def served(tmp_path: Path, **environ: str) -> AsyncIterator[House]:
    async with house(tmp_path, environ=environ) as it:
        yield it


async def test_a_key_without_money_is_stood_in_for_and_stays_parked_over_a_restart(tmp_path: Path) -> None:
    """The caller sees one good answer; the provider's health is untouched; the next start does not ask that key."""
    environ = {"FIRST": A, "SECOND": B}
    async with Metered() as fake:
        fake.say(A, "insufficient_quota")
        async with house(tmp_path, environ=environ) as it:
            await it.done("POST", "/providers", {"id": "p", "base_url": fake.url, "cred_store": "env:FIRST"})
            await it.done("POST", "/providers/p/credentials", {"name": "second", "cred_store": "env:SECOND"})
            await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
            told = await it.chat()
            assert (told.status, told.header("x-tokenhub-attempts")) == (200, "2")
            assert (fake.asked, fake.served) == ({A: 1, B: 1}, {B: 1})
            shown = await keys(it)
            assert {name: one["state"] for name, one in shown.items()} == {
                "default": "parked",
                "second": "ready",
            }
            health = (await it.done("GET", "/health"))["providers"][0]
            assert (health["state"], health["consecutive_errors"]) == ("healthy", 0)
            await it.chat()
        async with house(tmp_path, environ=environ) as it:
            (before,), (after,) = shown["default"]["parkings"], (await keys(it))["default"]["parkings"]
            # Rounded for the store and then for us, a moment may come out a thousandth later.
            moments = {name: pytest.approx(before[name], abs=0.002) for name in ("since", "until")}
            assert after == {**before, **moments}
            assert (await it.chat()).status == 200
    assert fake.asked == {A: 1, B: 3}


@pytest.mark.parametrize("what", ["invalid_api_key", "forbidden", "slow_down"])
async def test_what_one_key_meets_the_next_one_may_not(tmp_path: Path, what: str) -> None:
    """Refused, denied or too fast: the second key serves the same call, and the provider is as healthy as before."""
    async with served(tmp_path) as it, Metered() as fake:
        await two_keys(it, fake)
        fake.say(A, what)
        assert (await it.chat()).status == 200
        assert (await it.chat()).status == 200
        assert fake.asked == {A: 1, B: 2}
        assert (await it.done("GET", "/health"))["providers"][0]["state"] == "healthy"
        parkings = (await keys(it))["default"]["parkings"]
        assert [one["model"] for one in parkings] == {
            "invalid_api_key": [""],
            "forbidden": ["gpt-4o"],
            "slow_down": [],
        }[what]


async def test_a_providers_own_fault_is_no_fault_of_its_key(tmp_path: Path) -> None:
    """A 500 parks nothing and is not tried again with another key, as if that could help."""
    async with served(tmp_path) as it, Metered() as fake:
        await two_keys(it, fake)
        fake.say(A, "broken")
        await it.chat()
        assert {one["state"] for one in (await keys(it)).values()} == {"ready"}
        assert fake.asked[B] == 0


async def test_what_is_used_up_is_routed_around_before_any_429(tmp_path: Path) -> None:
    """One call was left; the next ones go to the other provider, and the decision says why and until when."""
    async with served(tmp_path) as it, Metered(limit=1) as small, Metered() as large:
        await it.done(
            "POST", "/providers", {"id": "small", "base_url": small.url, "cred_store": "memory", "api_key": A}
        )
        await it.done(
            "POST", "/providers", {"id": "large", "base_url": large.url, "cred_store": "memory", "api_key": B}
        )
        await it.done(
            "POST",
            "/models",
            {"id": "gpt-4o", "provider_id": "small", "input_per_1k": 0.001, "output_per_1k": 0.001},
        )
        await it.done(
            "POST",
            "/models",
            {"id": "gpt-4o", "provider_id": "large", "input_per_1k": 0.009, "output_per_1k": 0.009},
        )
        by = [(await it.chat()).header("x-tokenhub-provider") for _ in range(3)]
        assert by == ["small", "large", "large"]
        assert small.over == 0
        told = await it.chat()
        decision = await it.done("GET", f"/decisions/{told.header('x-tokenhub-decision')}")
        [skip] = [one for one in decision["skips"] if one["reason"] == "rate_limited"]
        assert skip["provider"] == "small"
        assert skip["detail"].startswith("requests until 20")


async def test_a_hundred_parallel_calls_share_the_ten_that_are_left(tmp_path: Path) -> None:
    """No 429 of the provider's, ten answers, ninety of our own 429s that say when to come back."""
    async with served(tmp_path) as it, Metered(limit=11) as fake:
        await it.done(
            "POST", "/providers", {"id": "p", "base_url": fake.url, "cred_store": "memory", "api_key": A}
        )
        await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
        await it.chat()
        assert (await keys(it))["default"]["limits"][0]["remaining"] == 10
        told = await asyncio.gather(*(it.chat() for _ in range(100)))
        refused = [one for one in told if one.status == 429]
        assert (len(told) - len(refused), len(refused)) == (10, 90)
        assert (fake.over, fake.asked[A]) == (0, 11)
        assert all(50 <= int(one.header("retry-after")) <= 60 for one in refused)
        assert (await keys(it))["default"]["state"] == "limited"


def refusal(told: Told) -> tuple[int, str]:
    error = orjson.loads(told.body)["error"]
    return told.status, str(error["type"])


async def test_where_all_are_parked_the_caller_is_told_in_his_own_dialect(tmp_path: Path) -> None:
    """Out of money: 429 with a Retry-After. All keys refused: 503, for there is nothing that a caller could do."""
    async with served(tmp_path) as it, Metered() as fake:
        await two_keys(it, fake)
        for key in (A, B):
            fake.say(key, "insufficient_quota")
        await it.chat()
        asked = fake.asked.total()
        told = await it.chat()
        assert refusal(told) == (429, "insufficient_quota")
        assert 0 < int(told.header("retry-after")) <= 3600
        anthropic = await it.ask("POST", "/v1/messages", message(model="gpt-4o"))
        assert refusal(anthropic) == (429, "rate_limit_error")
        assert fake.asked.total() == asked
        for name in ("default", "second"):
            await it.done("POST", f"/providers/p/credentials/{name}/unpark")
        for key in (A, B):
            fake.say(key, "invalid_api_key")
        assert (await it.chat()).status == 502
        assert (await it.chat()).status == 503
        assert (await it.ask("POST", "/v1/messages", message(model="gpt-4o"))).status == 503


async def test_an_operator_unparks_and_every_change_is_kept(tmp_path: Path) -> None:
    """The balance was filled up: the key serves again at once; the history says who did what."""
    async with served(tmp_path) as it, Metered() as fake:
        await two_keys(it, fake)
        fake.say(A, "insufficient_quota")
        with it.bus.listen() as listener:
            await it.chat()
            fake.say(A, "ok")
            shown = await it.done("POST", "/providers/p/credentials/default/unpark")
            kinds = [event.type for event in listener.take() if event.type.startswith("credential_")]
        assert (shown["state"], shown["unparked"]) == ("ready", 1)
        assert kinds == ["credential_parked", "credential_unparked"]
        await it.chat()
        assert fake.served[A] == 1
        history = (await it.done("GET", "/providers/p/parkings"))["items"]
        assert [(one["action"], one["by"], one["reason"]) for one in history] == [
            ("unparked", "operator", "exhausted"),
            ("parked", "automatic", "exhausted"),
        ]
        with it.bus.listen(after=0) as listener:
            # The watcher writes both within a second.
            async with asyncio.timeout(PATIENCE):
                while not any(one.data.get("action") == "credential.unpark" for one in listener.take()):
                    await listener.ready()
        audited = (await it.done("GET", "/audit?action=credential"))["entries"]
        assert [(one["action"], one["after"]["by"]) for one in audited[:2]] == [
            ("credential.unpark", "operator"),
            ("credential.park", "automatic"),
        ]
        metrics = (await it.ask("GET", "/metrics", headers=it.bearer)).body.decode()
        assert (
            'tokenhub_credential_parkings_total{provider="p",credential="default",reason="exhausted"} 1.0'
            in metrics
        )


def kept(folder: Path) -> tuple[bytes, bytes]:
    """Return all bytes below a folder, and the rows of the database in it as text."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    database = next(path for path in files if path.name == "tokenhub.sqlite")
    with closing(sqlite3.connect(database)) as connection:
        rows = "\n".join(connection.iterdump()).encode()
    return b"".join(path.read_bytes() for path in files), rows


async def test_no_credential_is_found_in_what_is_kept_or_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither keys nor their plain hashes: not in the database, events, logs, metrics or any answer."""
    caplog.set_level(logging.DEBUG)
    async with served(tmp_path) as it, Metered(limit=5) as fake:
        await two_keys(it, fake)
        fake.say(A, "invalid_api_key")
        with it.bus.listen() as listener:
            for _ in range(8):
                await it.chat()
            events = b"".join(orjson.dumps(event.data) for event in listener.take())
        await keys(it)
        await it.done("GET", "/providers")
        await it.done("GET", "/providers/p/parkings")
        metrics = (await it.ask("GET", "/metrics", headers=it.bearer)).body
        seen = b"\n".join(it.seen)
    files, rows = await asyncio.to_thread(kept, tmp_path)
    everything = (files, rows, events, metrics, seen, caplog.text.encode())
    for key in (A, B):
        forms = [
            key.encode(),
            *(hashlib.new(name, key.encode()).hexdigest().encode() for name in ("sha256", "sha1", "md5")),
        ]
        forms += [
            hashlib.blake2b(key.encode(), digest_size=size).hexdigest().encode() for size in (16, 32, 64)
        ]
        assert not [form for form in forms for place in everything if form in place]
    assert b"parking_history" in rows
