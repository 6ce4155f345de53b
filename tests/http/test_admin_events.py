"""The event stream: what it says, how it resumes, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.http import admin
from tokenhub_core.telemetry.events import KEPT
from tokenhub_core.types import Json


@dataclass(frozen=True)
class Event:
    """One event as it came."""

    id: str
    type: str
    data: Any


class Stream:
    """Reads server-sent events."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    async def frame(self) -> str:
        """Return the next block of lines; fails where none comes."""
        async with asyncio.timeout(PATIENCE):
            return (await self._content.readuntil(b"\n\n")).decode()

    async def next(self) -> Event:
        """Return the next event, comments skipped."""
        while (frame := await self.frame()).startswith(":"):
            pass
        fields = dict(line.split(": ", 1) for line in frame.strip().split("\n"))
        return Event(fields.get("id", ""), fields["event"], orjson.loads(fields["data"]))

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            return await self._content.read() == b""


@asynccontextmanager
async def stream(
    it: House, query: str = "", headers: Mapping[str, str] | None = None, *, bare: bool = False
) -> AsyncIterator[Stream]:
    """Listen; the first event, which says so, is taken. `bare` shows no token."""
    url = f"{it.url}/admin/v1/events{query}"
    async with it.session.get(url, headers={**({} if bare else it.bearer), **(headers or {})}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        listening = Stream(response.content)
        assert await listening.next() == Event("", "connected", {"status": "ok"})
        yield listening


async def test_every_call_is_told_once_with_an_id(it: House, fake: FakeProvider) -> None:
    """What served, what it cost, how long it took; failures are told as such, empty fields not at all."""
    await it.provider(fake, "p", "gpt-4o")
    async with stream(it) as events:
        told = await it.chat(headers={"user-agent": "program/1.0 (x)"})
        good = await events.next()
        await it.chat("nobody")
        bad = await events.next()
    assert (good.type, bad.type, int(bad.id)) == ("route_success", "route_error", int(good.id) + 1)
    assert good.data["request_id"] == told.header("x-request-id")
    assert (good.data["model_id"], good.data["provider_id"], good.data["program"]) == (
        "gpt-4o",
        "p",
        "program/1.0",
    )
    usage = told.json["usage"]
    assert good.data["cost_usd"] == pytest.approx(
        usage["prompt_tokens"] * 2e-6 + usage["completion_tokens"] * 8e-6
    )
    assert good.data["timestamp"] == pytest.approx(time.time(), abs=60)
    assert "error_class" not in good.data
    assert (bad.data["requested_model"], bad.data["error_class"], bad.data["status"]) == (
        "nobody",
        "model_not_found",
        404,
    )


async def test_who_comes_back_misses_nothing(it: House) -> None:
    """`Last-Event-ID` resumes behind it, `?replay=true` begins with what is kept; without either, from now on."""
    bus = it.bus
    one, two, three, four = (str(bus.oldest + n) for n in range(1, 5))
    for number in range(1, 4):
        bus.publish("x", {"n": number})
    async with stream(it, headers={"last-event-id": one}) as events:
        assert [(await events.next()).id for _ in range(2)] == [two, three]
    async with stream(it, "?replay=true") as events:
        assert [(await events.next()).id for _ in range(3)] == [one, two, three]
    async with stream(it, "?replay=true", {"last-event-id": two}) as events:
        assert (await events.next()).id == three
    async with stream(it) as events:
        bus.publish("x", {})
        assert (await events.next()).id == four


@pytest.mark.parametrize("last", ["", "-1", "x", "1.5", "9" * 5000, "\u0661"])
async def test_a_last_id_that_is_none_is_left_aside(it: House, last: str) -> None:
    """The stream begins with what comes."""
    it.bus.publish("x", {})
    async with stream(it, headers={"last-event-id": last}) as events:
        it.bus.publish("y", {})
        assert (await events.next()).type == "y"


async def test_after_a_restart_an_old_id_means_everything(it: House) -> None:
    """A browser that comes back with one from before is told so, and gets what has happened since."""
    it.bus.publish("x", {})
    async with stream(it, headers={"last-event-id": "500"}) as events:
        lost = await events.next()
        assert (lost.type, lost.data) == ("lost", {"count": None, "restarted": True})
        assert (await events.next()).type == "x"


async def test_what_is_gone_is_counted(it: House) -> None:
    """Who was away for too long hears how many events it will not get, then the rest, from that id on."""
    first = it.bus.oldest
    for _ in range(KEPT + 10):
        it.bus.publish("x", {})
    async with stream(it, headers={"last-event-id": str(first + 3)}) as events:
        lost = await events.next()
        assert (lost.type, lost.data, lost.id) == ("lost", {"count": 7}, str(first + 10))
        assert (await events.next()).id == str(first + 11)
    async with stream(it, "?replay=true") as events:
        assert (await events.next()).id == str(first + 11)


async def test_a_listener_that_does_not_read_holds_nobody_up(it: House) -> None:
    """It loses events and is told how many; those who read get all of them meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=1)
    head = f"GET /admin/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {it.token}\r\n\r\n"
    writer.write(head.encode())
    await reader.readexactly(20)
    filler = "x" * 100_000
    async with stream(it) as events:
        for number in range(400):
            it.bus.publish("x", {"n": number, "filler": filler})
            assert (await events.next()).data["n"] == number
    total = asyncio.StreamReader(limit=1 << 30)
    while b"event: lost" not in bytes(total._buffer):  # type: ignore[attr-defined] # everything that came so far
        async with asyncio.timeout(PATIENCE):
            total.feed_data(await reader.read(1 << 20))
    writer.transport.abort()


async def test_a_silent_stream_says_that_it_lives(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment now and then, and events that come between two of them are not lost."""
    monkeypatch.setattr(admin, "HEARTBEAT", 0.02)
    async with stream(it) as events:
        assert await events.frame() == ": still here\n\n"
        for number in range(20):
            it.bus.publish("x", {"n": number})
            await asyncio.sleep(0.003)
        assert [(await events.next()).data["n"] for _ in range(20)] == list(range(20))


async def test_a_listener_that_left_is_forgotten(it: House) -> None:
    """At once, not at the next event."""
    async with stream(it), stream(it):
        assert (await it.done("GET", "/info"))["listeners"] == 2
    async with asyncio.timeout(PATIENCE):
        while (await it.done("GET", "/info"))["listeners"]:
            pass


async def test_a_stream_does_not_hold_up_a_shutdown(tmp_path: Path) -> None:
    """A page that is open in some browser must not make the server wait for its drain time."""
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(PATIENCE), house(tmp_path, drain=10 * PATIENCE) as it:
            url, headers = f"{it.url}/admin/v1/events", it.bearer
            response = await session.get(url, headers=headers)
            listening = Stream(response.content)
            await listening.next()
        async with asyncio.timeout(PATIENCE):
            await response.content.read()
        response.close()


async def test_a_call_with_odd_bytes_breaks_nobodys_stream(it: House, fake: FakeProvider) -> None:
    """A User-Agent that is not text is told as well as can be, and the next event comes."""
    await it.provider(fake, "p", "gpt-4o")
    async with stream(it) as events:
        body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += b"User-Agent: \xff\xfe\x80/1\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert b"200 OK" in await it.raw(head + body)
        first = await events.next()
        assert first.data["model_id"] == "gpt-4o"
        await it.chat()
        assert int((await events.next()).id) == int(first.id) + 1


async def test_an_ejection_is_told(it: House, fake: FakeProvider) -> None:
    """A provider that is driven to it: from healthy over degraded to down, with the fault's name."""
    await it.provider(fake, "p", "gpt-4o")
    fake.script("gpt-4o", ["500"])
    async with stream(it) as events:
        for _ in range(3):
            await it.chat()
        moved: list[Json] = []
        while len(moved) < 2:
            event = await events.next()
            if event.type == "health_change":
                moved.append(event.data)
    assert [(one["provider_id"], one["old_state"], one["new_state"], one["reason"]) for one in moved] == [
        ("p", "healthy", "degraded", "http_500"),
        ("p", "degraded", "down", "http_500"),
    ]
    assert all(one["timestamp"] == pytest.approx(time.time(), abs=60) for one in moved)


async def test_a_stream_has_no_head_without_a_body(it: House) -> None:
    """It is refused, and the connection is free for the next request: nothing of the stream follows."""
    head = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {it.token}\r\n"
    told = await it.raw(
        f"HEAD /admin/v1/events {head}\r\nGET /admin/v1/info {head}Connection: close\r\n\r\n".encode()
    )
    assert told.count(b"HTTP/1.1 405 Method Not Allowed") == told.count(b"HTTP/1.1 200 OK") == 1
    assert b"connected" not in told
