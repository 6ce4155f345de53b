"""A provider that says exactly what a scene has it say, and what it says: answers with tool calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.fakes.house import House
from tests.patience import PATIENCE
from tokenhub_core.types import Json

ARGUMENTS = '{"city": "Paris", "n": 2}'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
DONE = b"data: [DONE]\n\n"


@dataclass
class Provider:
    """Answers every call alike. `hold` keeps the end of a stream back until it is set; `cut` breaks it off."""

    pieces: list[bytes]
    kind: str = "application/json"
    cut: bool = False
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[Json] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        response = web.StreamResponse(headers={"content-type": self.kind})
        await response.prepare(request)
        for piece in self.pieces[:-1]:
            await response.write(piece)
        await self.hold.wait()
        if self.cut:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(self.pieces[-1])
        await response.write_eof()
        return response


@asynccontextmanager
async def saying(
    *pieces: bytes, kind: str = "", cut: bool = False, hold: bool = False
) -> AsyncIterator[Provider]:
    """Serve a provider that says these pieces: one is a whole answer, several are a stream."""
    usual = "text/event-stream" if len(pieces) > 1 else "application/json"
    provider = Provider([*pieces], kind or usual, cut)
    if not hold:
        provider.hold.set()
    app = web.Application()
    app.router.add_post("/{rest:.*}", provider.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.port = runner.addresses[0][1]
    try:
        yield provider
    finally:
        await runner.cleanup()


async def register(
    it: House, provider: Provider, *, name: str = "p", weight: int = 5, quirks: tuple[str, ...] = ()
) -> None:
    """Let the provider have the model `m`."""
    body = {"id": name, "type": "openai", "base_url": provider.url, "cred_store": "memory", "api_key": "sk-p"}
    await it.done("POST", "/providers", body)
    prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
    model = {"id": "m", "provider_id": name, "weight": weight, "quirks": list(quirks)}
    await it.done("POST", "/models", model | prices)


def call(arguments: str = ARGUMENTS, name: str = "f", id_: str = "call_1") -> Json:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def whole(*calls: Json, text: str | None = None) -> bytes:
    """Return a whole answer of OpenAI's chat."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = list(calls)
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return orjson.dumps(answer | {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})


def chunk(finish: str | None = None, **delta: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(told) + b"\n\n"


def streamed(arguments: str = ARGUMENTS, text: str = "Let me see.") -> list[bytes]:
    """Return the pieces of a stream of OpenAI's chat: words, then one call, its arguments in pieces of five."""
    begun = {"index": 0, **call("")}
    parts = [arguments[at : at + 5] for at in range(0, len(arguments), 5)]
    return [
        chunk(role="assistant", content=text),
        chunk(tool_calls=[begun]),
        *(chunk(tool_calls=[{"index": 0, "function": {"arguments": part}}]) for part in parts),
        chunk("tool_calls"),
        DONE,
    ]


async def delivered(it: House, request_id: str) -> Json:
    """Return what is proved of a call, once it is known what was delivered."""
    async with asyncio.timeout(PATIENCE):
        for delay in itertools.repeat(0.01):
            told = await it.admin("GET", f"/proofs/{request_id}")
            if told.status == 200 and told.json["delivered"] is not None:
                found: Json = told.json
                return found
            await asyncio.sleep(delay)
    raise AssertionError
