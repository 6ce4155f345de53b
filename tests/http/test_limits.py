"""Limits on callers, met on the side server's port and by what passes through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from tests.fakes.engine import Bench
from tests.fakes.house import house
from tests.fakes.limited import Metered
from tests.http.test_passthrough import CONNECTION, Front, on_port, settled
from tests.patience import PATIENCE
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.http.consumer import Door
from tokenhub_core.http.passthrough import Passthrough
from tokenhub_core.recognise import Recognised
from tokenhub_core.types import Dialect, KeyLimits, Outcome, Scope

PROXIED: Final = {"x-forwarded-for": "198.51.100.1"}


async def test_callers_without_a_key_are_limited_by_address(tmp_path: Path) -> None:
    """By connection and not by port; headers of a stranger change nothing; the refusal is counted."""
    async with house(tmp_path, simulate=True, settings={"ADDRESS_REQUESTS_PER_MINUTE": "2"}) as it:
        assert [(await it.chat(headers=PROXIED)).status for _ in range(2)] == [200, 200]
        told = await it.chat(headers={"x-forwarded-for": "198.51.100.2"})
        assert (told.status, told.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 0 < int(told.header("retry-after")) <= 30
        assert told.header("x-ratelimit-remaining-requests") == "0"
        metrics = await it.ask("GET", "/metrics")
        assert b'tokenhub_limit_refusals_total{limit="address_requests"} 1.0' in metrics.body


async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(tmp_path: Path) -> None:
    """As its proxy tells."""
    settings = {"ADDRESS_REQUESTS_PER_MINUTE": "1", "TRUSTED_PROXIES": "127.0.0.0/8"}
    async with house(tmp_path, simulate=True, settings=settings) as it:
        assert (await it.chat(headers=PROXIED)).status == 200
        assert (await it.chat(headers={"x-forwarded-for": "198.51.100.2"})).status == 200
        assert (await it.chat(headers={"x-forwarded-for": "9.9.9.9, 198.51.100.1"})).status == 429


async def test_a_providers_limits_are_shown_where_we_set_none_and_nowhere_else(tmp_path: Path) -> None:
    """Both at once nobody could tell apart."""
    for limit, shown in (("none", "7"), ("5", "5")):
        async with (
            Metered(limit=7) as provider,
            house(tmp_path / limit, settings={"ADDRESS_REQUESTS_PER_MINUTE": limit}) as it,
        ):
            body = {"id": "p", "base_url": provider.url, "cred_store": "memory", "api_key": "sk-p"}
            await it.done("POST", "/providers", body)
            await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
            told = await it.chat()
            assert told.status == 200
            fields = [value for name, value in told.headers if name == "x-ratelimit-limit-requests"]
            assert fields == [shown]


async def test_the_admin_api_is_limited_before_it_is_asked_who_comes(tmp_path: Path) -> None:
    """Failed attempts count as well, from loopback too; an event stream counts once; calls are another matter."""
    async with house(tmp_path, simulate=True, settings={"ADMIN_REQUESTS_PER_MINUTE": "4"}) as it:
        async with it.session.get(f"{it.url}/admin/v1/events", headers=it.bearer) as stream:
            assert stream.status == 200
            for _ in range(2):
                assert (await it.ask("GET", "/admin/v1/providers")).status == 401
            assert (await it.admin("GET", "/providers")).status == 200
            told = await it.admin("GET", "/providers")
        assert (told.status, told.fault["code"]) == (429, "admin_requests")
        assert 0 < int(told.header("retry-after")) <= 15
        assert (await it.chat()).status == 200
        assert (await it.ask("GET", "/healthz")).status == 200


# --- what passes through ------------------------------------------------------------------------------------


@asynccontextmanager
async def passing(upstream: int, **limits: int) -> AsyncIterator[tuple[Front, Throttle]]:
    """Pass everything on to a port, for callers who are limited by their address."""
    bench, throttle = Bench(), Throttle(addresses=KeyLimits(**limits))
    door = Door(bench.engine, DIALECTS, bench.clock, lambda: bytes(10), 1000, throttle=throttle)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as outgoing,
        aiohttp.ClientSession() as session,
    ):
        passed = Passthrough(
            door, bench.recorder, outgoing, allowed=True, base_url=lambda _: f"http://127.0.0.1:{upstream}"
        )

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            entry = door.admit(request, Dialect.OPENAI_CHAT, Scope.PASSTHROUGH, CONNECTION)
            return await passed(request, CONNECTION, Recognised(Dialect.OPENAI_CHAT, "passthrough"), entry)

        async with on_port(handle) as port:
            yield Front(port, session, bench.recorder), throttle


async def test_what_passes_through_is_limited_too() -> None:
    """Requests: the second one is refused in the dialect of its host, never reaches it, and is recorded."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({})

    async with on_port(answer) as port, passing(port, requests_per_minute=1) as (it, _):
        async with it.session.get(it.url("/v1/files")) as response:
            assert response.status == 200
        async with it.session.get(it.url("/v1/files")) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "60")
            assert (await response.json())["error"]["type"] == "rate_limit_error"
        await settled(it, 2)
    assert asked == ["/v1/files"]
    record = it.recorder.records[1]
    assert (record.outcome, record.status, record.fault) == (Outcome.ERROR, 429, "address_requests")


async def test_what_passes_through_holds_its_place_until_it_ends() -> None:
    """While the first answer runs no second one begins; afterwards, and after a client that left, one does."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        begun.set()
        if request.path == "/slow":
            await go_on.wait()
        return response

    async with on_port(answer) as port, passing(port, concurrency=1) as (it, _):
        async with asyncio.timeout(PATIENCE), it.session.get(it.url("/slow")) as response:
            await begun.wait()
            async with it.session.get(it.url("/quick")) as other:
                assert other.status == 429
            go_on.set()
            assert await response.read() == b"x"
        await settled(it, 2)
        go_on.clear()
        async with it.session.get(it.url("/quick")) as other:
            assert other.status == 200
        await settled(it, 3)
        begun.clear()
        async with asyncio.timeout(PATIENCE):
            gone = await it.session.get(it.url("/slow"))
            await begun.wait()
            gone.close()
            await settled(it, 4)
        async with it.session.get(it.url("/quick")) as other:
            assert other.status == 200


async def test_the_tokens_of_what_passes_count_when_they_are_known() -> None:
    """Nothing was set aside for them; the next routed call waits."""
    usage = {"prompt_tokens": 90, "completion_tokens": 60, "total_tokens": 150}
    body = {"object": "chat.completion", "model": "gpt-4o", "choices": [], "usage": usage}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        del request
        return web.json_response(body)

    async with on_port(answer) as port, passing(port, tokens_per_minute=100) as (it, throttle):
        async with it.session.post(it.url("/v1/chat/completions"), data=b"{}") as response:
            assert response.status == 200
        await settled(it, 1)
        account = throttle._by_address.of(CONNECTION.peer, KeyLimits(tokens_per_minute=100), 0)
    assert account.tokens.left(100, account.tokens._at) == 0
    assert account.tokens.level(100, account.tokens._at) == 150 * 60_000_000_000
