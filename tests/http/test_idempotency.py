"""`Idempotency-Key` on the side server's port, in front of a provider on a socket that counts its calls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.fakes.engine import chat
from tests.fakes.house import House, Told, house
from tests.fakes.provider import FakeProvider

REPLAY: Final = "idempotency-replay"


def keyed(key: str) -> dict[str, str]:
    return {"idempotency-key": key}


async def ask(it: House, session: aiohttp.ClientSession, key: str, *, stream: bool) -> Told:
    """Ask by a session that opens as many connections as it needs."""
    return await replace(it, session=session).chat(headers=keyed(key), stream=stream)


async def storm(it: House, fake: FakeProvider, *, rounds: int, stream: bool) -> None:
    """Send a hundred duplicates at once, round after round: each round is one call to the provider."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for turn in range(rounds):
            told = await asyncio.gather(
                *[ask(it, session, f"round {stream} {turn}", stream=stream) for _ in range(100)]
            )
            assert len(fake.requests) == turn + 1
            assert {one.status for one in told} == {200}
            assert len({one.body for one in told}) == 1
            assert [one.header(REPLAY) for one in told].count("") == 1
            it.seen.clear()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hundred_duplicates_are_one_call(tmp_path: Path, fake: FakeProvider, stream: bool) -> None:
    """Over a hundred connections at once, in every round."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        await storm(it, fake, rounds=4, stream=stream)


@pytest.mark.load
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.timeout(3600)
async def test_a_hundred_duplicates_are_one_call_a_thousand_times(
    tmp_path: Path, fake: FakeProvider, stream: bool
) -> None:
    """The same for long."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        await storm(it, fake, rounds=1000, stream=stream)


async def test_a_duplicate_is_answered_again_in_every_dialect(tmp_path: Path, fake: FakeProvider) -> None:
    """The same bytes and the same decision; another body is a 422; a provider hears of none of it."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        paths = {
            "/v1/chat/completions": chat(),
            "/v1/messages": {**chat(), "max_tokens": 5},
            "/v1/responses": {"model": "gpt-4o", "input": "Hello"},
        }
        for path, body in paths.items():
            first = await it.ask("POST", path, body, keyed(path))
            again = await it.ask("POST", path, body, keyed(path))
            other = await it.ask("POST", path, {**body, "temperature": 0.5}, keyed(path))
            assert [first.status, again.status, other.status] == [200, 200, 422], path
            assert (again.body, again.header(REPLAY)) == (first.body, "true")
            for name in ("x-tokenhub-decision", "x-tokenhub-model", "x-request-id"):
                assert again.header(name) == first.header(name) != ""
            assert other.header("x-tokenhub-original") == first.header("x-request-id")
        assert len(fake.requests) == len(paths)
        logged = (await it.done("GET", "/logs"))["logs"]
        assert len(logged) == 3 * len(paths)
        assert sum(one["cost_nanousd"] > 0 for one in logged) == len(paths)


async def test_a_key_is_not_passed_on(tmp_path: Path, fake: FakeProvider) -> None:
    """A provider that knows the field would take our retries for duplicates."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        await it.chat(headers=keyed("k"))
    assert fake.requests[0].header("idempotency-key") == ""


async def test_after_a_restart_a_call_is_not_made_again(tmp_path: Path, fake: FakeProvider) -> None:
    """The mark is in the database; without being asked to, nothing of the answer is."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        first = await it.chat(headers=keyed("a secret key"))
        assert first.status == 200
        answer = first.json["choices"][0]["message"]["content"]
    async with house(tmp_path) as it:
        told = await it.chat(headers=keyed("a secret key"))
        assert (told.status, told.header("x-should-retry")) == (409, "false")
        assert told.header("x-tokenhub-original") == first.header("x-request-id")
    assert len(fake.requests) == 1
    files = [file for file in (tmp_path / "data").glob("tokenhub.sqlite*") if file.is_file()]
    assert files
    for file in files:
        held = file.read_bytes()
        assert answer.encode() not in held
        assert b"a secret key" not in held


async def test_answers_are_stored_where_the_operator_says_so(tmp_path: Path, fake: FakeProvider) -> None:
    """Then a restart changes nothing for whoever sends a call again."""
    settings = {"IDEMPOTENCY_STORE": "on"}
    async with house(tmp_path, settings=settings) as it:
        await it.provider(fake, "p", "gpt-4o")
        first = await it.chat(headers=keyed("k"))
    async with house(tmp_path, settings=settings) as it:
        told = await it.chat(headers=keyed("k"))
        assert (told.body, told.header(REPLAY)) == (first.body, "true")
    assert len(fake.requests) == 1


async def test_a_key_that_is_too_long_is_refused(tmp_path: Path, fake: FakeProvider) -> None:
    """One character too many is a 400 in the caller's dialect; a megabyte the HTTP parser turns away."""
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        assert (await it.chat(headers=keyed("x" * 255))).status == 200
        told = await it.chat(headers=keyed("x" * 256))
        assert (told.status, told.json["error"]["code"]) == (400, "idempotency_key")
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIdempotency-Key: "
        )
        # It may cut the connection before all has come.
        with suppress(ConnectionError):
            assert (await it.raw(head + b"x" * (1 << 20) + b"\r\n\r\n"))[8:13] == b" 400 "
        assert b" 400 " in (await it.raw(head + b"a\x00b\r\nContent-Length: 2\r\n\r\n{}"))[:15]
        assert len(fake.requests) == 1


async def test_a_client_that_cuts_its_connection_frees_its_key(tmp_path: Path, fake: FakeProvider) -> None:
    """The provider's connection ends too, and the same key makes the call."""
    fake.script("gpt-4o", ["hang", "ok"])
    async with house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        task = asyncio.create_task(it.chat(headers=keyed("k")))
        await fake.until(requests=1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await fake.until(closed=1)
        told = await it.chat(headers=keyed("k"))
        assert (told.status, told.header(REPLAY)) == (200, "")
