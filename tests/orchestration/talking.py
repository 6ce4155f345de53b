"""Models who say what a scene wants them to, bill for it, and can be kept waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.fakes.engine import Bench
from tests.fakes.transport import Scripted, completion
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.types import Dialect, Json, Model, Prices, Provider, ProviderType

PRICES = Prices(1000, 2000)
"""Nano-dollars per token, of every model here."""


def provider(name: str) -> Provider:
    """Return a provider that speaks chat completions."""
    return Provider(name, ProviderType.SIMULATOR, (f"sim://{name}",), Dialect.OPENAI_CHAT)


def model(name: str, at: str, weight: int = 5) -> Model:
    """Return a model at a provider."""
    return Model(name, at, weight=weight, max_context_tokens=100_000, prices=PRICES)


THREE = (model("a", "p", 8), model("b", "p", 7), model("c", "q", 6))


@dataclass
class Heard:
    """One call as a model got it."""

    model: str
    provider: str
    body: Json

    @property
    def texts(self) -> list[str]:
        """What each of its messages says."""
        return [_text(one["content"]) for one in self.body["messages"]]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


@dataclass
class Talking:
    """A transport: `says` answers each call, with a text, a message, a status, or an event to wait for for ever."""

    says: Callable[[Heard], str | Json | int | asyncio.Event]
    heard: list[Heard] = field(default_factory=list)
    billed: int = 0
    """Nano-dollars."""
    cancelled: int = 0

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Scripted:
        """Answer a call; what was answered is billed."""
        del timeouts
        body = orjson.loads(request.body)
        one = Heard(body["model"], request.url.removeprefix("sim://").partition("/")[0], body)
        self.heard.append(one)
        said = self.says(one)
        if isinstance(said, asyncio.Event):
            said.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if isinstance(said, int):
            return Scripted(orjson.dumps({"error": {"message": "no"}}), status=said)
        # By what was asked, not by how many asked before: who is asked at once comes in any order.
        asked = 10 + sum(map(len, one.texts))
        usage = {"prompt_tokens": asked, "completion_tokens": 5, "total_tokens": asked + 5}
        self.billed += round(asked * PRICES.input + 5 * PRICES.output)
        whole = completion(model=one.model, usage=usage)
        message: Json = (
            {"content": said} if isinstance(said, str) else dict(said) if isinstance(said, dict) else {}
        )
        whole["choices"][0]["message"] |= message
        if message.get("tool_calls"):
            whole["choices"][0]["finish_reason"] = "tool_calls"
        return Scripted(orjson.dumps(whole))


def bench(
    says: Callable[[Heard], str | Json | int | asyncio.Event], models: Sequence[Model] = THREE, **more: Any
) -> tuple[Bench, Talking]:
    """Return an engine whose models talk so."""
    talking = Talking(says)
    names = dict.fromkeys(one.provider_id for one in models)
    return Bench(models=models, providers=[*map(provider, names)], transport=talking, **more), talking


async def read(frames: AsyncIterator[bytes] | None) -> bytes:
    """Return a stream to its end."""
    assert frames is not None
    return b"".join([frame async for frame in frames])
