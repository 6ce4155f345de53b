"""The main job, seen from the program: the official SDKs, unmodified, on their default base URLs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASK = [{"role": "user", "content": "What is a gateway?"}]


async def test_x(world: World) -> None:
    async with world.serve.provider("gpt-4o") as provider:
        said = await world.program("chat", model="gpt-4o", messages=ASK)
        print(said)
        said = await world.program("chat_stream", model="gpt-4o", messages=ASK)
        print(said)
        print(await world.serve.record(said["headers"]["x-request-id"]))
        print(provider.fake.requests)
    async with world.serve.provider("claude-x", speaks="anthropic") as provider:
        said = await world.program("message", model="claude-x", max_tokens=100, messages=ASK)
        print(said)
        said = await world.program("message_stream", model="claude-x", max_tokens=100, messages=ASK)
        print(said)
        print(await world.serve.record(said["headers"]["x-request-id"]))
