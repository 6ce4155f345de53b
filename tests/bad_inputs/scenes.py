"""A house with everything that a bad call could leave something in, and the condition that every one must meet.

    async with bad.harmless():
        told = await bad.send(door, b"")
        assert told.status == 400

What stands after it is the same for every row: the provider heard nothing, nothing was billed, no money, place, key
or connection is held, the log tells of no failure of ours, and the next call of the same client is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.dialects.test_bad_inputs import PLAIN
from tests.fakes.house import House, Told, house
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.types import Dialect, Json

MODEL: Final = "gpt-4o"
DOORS: Final[dict[Dialect, str]] = {
    Dialect.OPENAI_CHAT: "/v1/chat/completions",
    Dialect.OPENAI_RESPONSES: "/v1/responses",
    Dialect.ANTHROPIC_MESSAGES: "/v1/messages",
    Dialect.GEMINI: f"/v1beta/models/{MODEL}:generateContent",
    Dialect.OLLAMA_CHAT: "/api/chat",
}
"""Where a call of each dialect goes in."""


def plain(door: Dialect, **more: Any) -> Json:
    """Return a small call that is answered."""
    named = {} if door is Dialect.GEMINI else {"model": MODEL}
    short = {"stream": False} if door is Dialect.OLLAMA_CHAT else {}
    return {**PLAIN[door], **named, **short, **more}


def said(door: Dialect, told: Told) -> str:
    """Check that an error wears the dialect that its caller reads; return its message."""
    data = told.json
    assert told.header("x-request-id").startswith("req_")
    match door:
        case Dialect.OPENAI_CHAT | Dialect.OPENAI_RESPONSES:
            assert set(data["error"]) == {"message", "type", "param", "code"}
        case Dialect.ANTHROPIC_MESSAGES:
            assert data["type"] == "error"
            assert set(data["error"]) == {"type", "message"}
        case Dialect.GEMINI:
            assert data["error"]["code"] == told.status
            assert data["error"]["status"].isupper()
        case _:
            assert isinstance(data["error"], str)
            return str(data["error"])
    return str(data["error"]["message"])


@dataclass
class Bad:
    """A house with one provider, and one client whose key has a single place and a budget."""

    it: House
    fake: FakeProvider
    key: str
    key_id: str
    log: pytest.LogCaptureFixture | None = None
    turn: int = 0
    """How many blocks there were: each has an idempotency key of its own, which its bad calls must not use up."""

    @property
    def shown(self) -> dict[str, str]:
        """The client's key, as it is sent."""
        return {"authorization": f"Bearer {self.key}"}

    async def send(
        self, door: Dialect, body: object, headers: Mapping[str, str] | None = None, path: str = ""
    ) -> Told:
        """Make a call as the client, with its key and this block's idempotency key unless the headers say others."""
        shown = {**self.shown, "idempotency-key": f"turn {self.turn}", **(headers or {})}
        return await self.it.ask("POST", path or DOORS[door], body, shown)

    async def refused(
        self, door: Dialect, body: object, *statuses: int, headers: Mapping[str, str] | None = None
    ) -> str:
        """Make a call that must be refused so, 400 unless said otherwise, in its dialect; return the message."""
        told = await self.send(door, body, headers)
        assert told.status in (statuses or (400,)), (door, str(body)[:80], told, told.body[:200])
        return said(door, told)

    async def raw(self, head: str, rest: bytes = b"", *, path: str = "", **fields: str) -> bytes:
        """Send a request byte by byte, with what a right one has; return all that comes until the end."""
        return await self.told(self.request(head, rest, path=path, **fields))

    async def told(self, data: bytes) -> bytes:
        """Send bytes; return all that comes until the connection ends, however it does."""
        try:
            return await self.it.raw(data)
        except ConnectionError:
            return b""

    def request(self, head: str = "", rest: bytes = b"\r\n", *, path: str = "", **fields: str) -> bytes:
        """Return the bytes of a request: with the client's key, and what follows its last field."""
        lines = [head or f"POST {path or DOORS[Dialect.OPENAI_CHAT]} HTTP/1.1"]
        lines += [f"Host: 127.0.0.1:{self.it.port}", f"Authorization: Bearer {self.key}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        return "\r\n".join(lines).encode() + b"\r\n" + rest

    async def head(self, data: bytes) -> bytes:
        """Send bytes and return the head of what is answered, then leave."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.it.port)
        try:
            writer.write(data)
            async with asyncio.timeout(PATIENCE):
                return await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def harmless(self, *, calls: int = 0) -> AsyncIterator[None]:
        """Hold what happens inside to the condition; so many calls may reach the provider."""
        self.turn += 1
        if self.log is not None:
            self.log.clear()
        asked = len(self.fake.requests)
        records = await self._records()
        yield
        assert len(self.fake.requests) == asked + calls, "the provider heard of it"
        new = {one: cost for one, cost in (await self._records()).items() if one not in records}
        assert sum(cost > 0 for cost in new.values()) <= calls, "a refused call was billed"
        await self._nothing_held()
        await self._answers()
        self.no_failure()

    def no_failure(self) -> None:
        """Hold the log to it: no traceback, no error of ours, no secret."""
        assert self.log is not None
        # That the loop stands still may be the scene's own doing: what it sends is made in it.
        records = [one for one in self.log.records if one.name != "tokenhub_core.watchdog"]
        bad = [one for one in records if one.exc_info or one.levelno >= logging.ERROR]
        assert [one.getMessage() for one in bad] == []
        assert self.key not in self.log.text

    async def _answers(self) -> None:
        """The next call is answered: its place is free, and so is its idempotency key."""
        told = await self.send(Dialect.OPENAI_CHAT, plain(Dialect.OPENAI_CHAT))
        assert (told.status, told.header("idempotency-replay")) == (200, ""), told.body

    async def _records(self) -> dict[str, int]:
        found = await self.it.done("GET", "/logs?limit=1000")
        return {one["id"]: one["cost_nanousd"] for one in found["logs"]}

    async def _nothing_held(self) -> None:
        """Money that was reserved, and connections: both end with their call, or soon after it."""
        async with asyncio.timeout(PATIENCE):
            while await self._held():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)

    async def _held(self) -> bool:
        budgets = (await self.it.done("GET", "/budgets"))["items"]
        # The one that asks is open.
        return any(one["reserved"] for one in budgets) or self.it.connections > 1


@asynccontextmanager
async def bad_house(data: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[Bad]:
    """Open a house that anonymous callers are not let into."""
    given = {"ANONYMOUS": "off", **(settings or {})}
    async with FakeProvider() as fake, house(data, settings=given) as it:
        await it.provider(fake, "p", MODEL)
        body = {"name": "client", "limits": {"concurrency": 1}}
        made = (await it.admin("POST", "/apikeys", body)).json
        await it.done("POST", "/budgets", {"owner": f"key:{made['id']}", "limit": 10**7})
        yield Bad(it, fake, made["key"], made["id"])
