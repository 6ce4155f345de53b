"""Real clients at the doors: they show the key of their proxy's URL, and know what they are told."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import orjson
import pytest
from openai import APIConnectionError, AsyncOpenAI, AuthenticationError, PermissionDeniedError

from tests.addon.clients import (
    CHAT,
    KEY,
    OPENAI,
)
from tests.addon.lanes import Lanes
from tests.addon.scripted import ScriptedEngine, whole
from tests.e2e.programs import needs_curl
from tests.fakes.keys import ANN, OTHER, SECRET, WRONG, Book, limited
from tokenhub_core.ports import Reply
from tokenhub_core.types import Lane, Snapshot

SHUT: dict[str, Any] = {"tokenhub_anonymous": False}
ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
        ],
    }
)


async def _said(_: Snapshot) -> Reply:
    return whole(ANSWER)


async def test_openais_sdk_shows_the_key_of_its_proxys_url(proxied: Lanes) -> None:
    """Its own key stays for its host; without one in the URL, or with a wrong one, there is no connection."""
    engine = ScriptedEngine(_said)
    async with proxied(engine, book=Book(), **SHUT) as running:

        async def ask(user: str) -> str | None:
            url = f"http://{user}{running.proxy.host}:{running.proxy.port}"
            async with (
                httpx2.AsyncClient(proxy=url, verify=running.proxy.trust()) as client,
                AsyncOpenAI(api_key=KEY, http_client=client, max_retries=0) as sdk,
            ):
                told = await sdk.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]
                )
                return told.choices[0].message.content

        assert await ask(f"x:{SECRET}@") == "hello"
        for user in ("", f"x:{WRONG}@"):
            with pytest.raises(APIConnectionError) as caught:
                await ask(user)
            assert "407" in str(caught.value.__cause__)
        (snapshot,) = engine.snapshots
        assert snapshot.caller.key == ANN
        assert ("authorization", f"Bearer {KEY}") in snapshot.headers


async def test_openais_sdk_knows_what_it_is_told(lane: Lanes) -> None:
    """A missing right and a wrong key are the errors that it has for them."""
    book = Book(**{OTHER: limited(scopes=frozenset())})
    async with lane(ScriptedEngine(_said), book=book) as running:
        direct = running.lane is Lane.DIRECT
        here = f"http://{running.proxy.host}:{running.proxy.port}"
        async with httpx2.AsyncClient(proxy=None if direct else here, verify=running.proxy.trust()) as client:
            for secret, error in ((WRONG, AuthenticationError), (OTHER, PermissionDeniedError)):
                sdk = AsyncOpenAI(
                    api_key=secret,
                    base_url=f"{here}/v1" if direct else None,
                    http_client=client,
                    max_retries=0,
                )
                with pytest.raises(error):
                    await sdk.chat.completions.create(model="gpt-4o", messages=[])


@needs_curl
@pytest.mark.parametrize("more", [[], ["--proxy-anyauth"]])
async def test_curl_shows_the_key_of_its_proxys_url(proxied: Lanes, more: list[str]) -> None:
    """At once, and also where it waits for a 407 to be asked; without one it says what it got."""
    async with proxied(ScriptedEngine(_said), book=Book(), **SHUT) as running:

        async def curl(user: str) -> tuple[int, bytes]:
            where = f"{running.proxy.host}:{running.proxy.port}"
            command = ["curl", "-sS", *more, "-x", f"http://{user}{where}", "--cacert", running.proxy.cafile]
            command += ["-d", "{}", f"https://{OPENAI}{CHAT}"]
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
            return process.returncode or 0, said

        assert await curl(f"x:{SECRET}@") == (0, ANSWER)
        code, said = await curl("")
        assert code == 56
        assert b"407" in said
