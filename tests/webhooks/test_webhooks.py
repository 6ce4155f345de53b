"""Webhooks in a running house, told over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from tests.fakes.house import House, house
from tests.patience import PATIENCE
from tokenhub_core.addresses import Guard
from tokenhub_core.http.outgoing import outgoing
from tokenhub_core.providers.transport import tls_context
from tokenhub_core.store import webhooks as rows
from tokenhub_core.store.database import open_database
from tokenhub_core.types import Json
from tokenhub_core.webhooks import values

PASSWORD = "correct horse battery"
OPEN = {"VAULT_PASSWORD": PASSWORD}


@dataclass
class Receiver:
    """Somebody who is told, and what they answer."""

    url: str
    got: asyncio.Queue[tuple[dict[str, str], bytes]] = field(default_factory=asyncio.Queue)
    answers: list[int] = field(default_factory=list)
    held: asyncio.Event | None = None
    """Nothing is answered before it is set."""

    async def next(self) -> tuple[dict[str, str], Json]:
        async with asyncio.timeout(PATIENCE):
            headers, body = await self.got.get()
        return headers, orjson.loads(body)


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        if who.held is not None:
            await who.held.wait()
        status = who.answers.pop(0) if who.answers else 204
        headers = {key.lower(): value for key, value in request.headers.items()}
        who.got.put_nowait((headers, body))
        return web.Response(status=status, headers={"location": who.url} if status == 302 else None)

    application = web.Application()
    application.router.add_post("/hook", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    who = Receiver(f"http://127.0.0.1:{runner.addresses[0][1]}/hook")
    try:
        yield who
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, settings=OPEN) as opened:
        yield opened


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for the next try."""
    monkeypatch.setattr(values, "SCHEDULE", (0.0,) * len(values.SCHEDULE))


async def hooked(it: House, url: str, *kinds: str) -> Json:
    return await it.done("POST", "/webhooks", {"url": url, "kinds": list(kinds or ("config_change",))})


async def changed(it: House, mode: str = "cheap") -> None:
    await it.done("PUT", "/routing-config", {"default_mode": mode})


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    """Return what `check` finds, once that is something."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await check()):  # noqa: ASYNC110 - as for a client
            await asyncio.sleep(0.02)
    return found


async def dead(it: House, hook: Json) -> list[Json]:
    found: list[Json] = (await it.done("GET", f"/webhooks/{hook['id']}/deliveries?state=dead"))["items"]
    return found


async def test_an_event_is_told_and_signed(it: House, receiver: Receiver) -> None:
    """Of the kinds that were chosen; the signature is made of what arrives. The secret is shown once."""
    hook = await hooked(it, receiver.url)
    assert hook["secret"].startswith("whsec_")
    (listed,) = (await it.done("GET", "/webhooks"))["items"]
    assert listed == {name: value for name, value in hook.items() if name != "secret"}
    it.bus.publish("health_change", {"provider_id": "p"})
    await changed(it)
    async with asyncio.timeout(PATIENCE):
        headers, raw = await receiver.got.get()
    told = orjson.loads(raw)
    assert (told["type"], told["data"]["action"]) == ("config_change", "routing.create")
    key = base64.b64decode(hook["secret"].removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + raw
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    assert hook["secret"].encode() not in b"".join(it.seen[1:])
    assert {"webhook.create", "secret.create"} <= {
        one["action"] for one in (await it.done("GET", "/audit"))["entries"]
    }


async def test_an_event_is_told_until_it_is_taken(it: House, receiver: Receiver, at_once: None) -> None:
    """With the same id and body at each try; a redirect is not followed, and is no taking."""
    receiver.answers = [500, 302, 204]
    hook = await hooked(it, receiver.url)
    await changed(it)
    tries = [await receiver.next() for _ in range(3)]
    assert len({headers["webhook-id"] for headers, _ in tries}) == 1
    assert tries[0][1] == tries[2][1]
    waiting = f"/webhooks/{hook['id']}/deliveries"

    async def empty() -> bool:
        return not (await it.done("GET", waiting))["items"]

    await until(empty)
    assert receiver.got.empty()


async def test_what_is_never_taken_is_given_up_and_can_be_tried_anew(
    it: House, receiver: Receiver, at_once: None
) -> None:
    """After so many tries; an event says so, the list says why."""
    receiver.answers = [503] * values.TRIES
    hook = await hooked(it, receiver.url)
    with it.bus.listen() as listener:
        await changed(it)
        (found,) = await until(lambda: dead(it, hook))
        told = [event for event in listener.take() if event.type == "webhook_dead"]
    assert (found["attempts"], found["cause"], found["due_at"]) == (values.TRIES, "http_503", None)
    assert [event.data["event_id"] for event in told] == [found["event_id"]]
    assert receiver.got.qsize() == values.TRIES
    assert await it.done("POST", f"/webhooks/{hook['id']}/retry") == {"retried": 1}
    told_ids = [(await receiver.next())[0]["webhook-id"] for _ in range(values.TRIES + 1)]
    assert set(told_ids) == {found["event_id"]}


async def test_who_is_gone_is_asked_no_more(it: House, receiver: Receiver) -> None:
    """410 disables the webhook; what it was not told is in the list of dead ones."""
    receiver.answers = [410]
    hook = await hooked(it, receiver.url)
    await changed(it)
    await receiver.next()
    await until(lambda: dead(it, hook))

    async def disabled() -> bool:
        return (await it.done("GET", "/webhooks"))["items"][0]["enabled"] is False

    await until(disabled)
    await changed(it, "normal")
    assert receiver.got.empty()


async def test_what_waits_is_told_after_a_restart(tmp_path: Path) -> None:
    """Nobody was there to be told; another process tells it when somebody is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with house(tmp_path, settings=OPEN) as it:
        hook = await hooked(it, f"http://127.0.0.1:{port}/hook")
        await changed(it)

        async def tried() -> bool:
            found = (await it.done("GET", f"/webhooks/{hook['id']}/deliveries"))["items"]
            return bool(found) and found[0]["cause"] == "unreachable"

        await until(tried)
        work = f"UPDATE deliveries SET due_at = 0 WHERE webhook_id = '{hook['id']}'"
    _executed(tmp_path / "data" / "tokenhub.sqlite", work)
    async with receiving(port) as receiver, house(tmp_path, settings=OPEN):
        headers, told = await receiver.next()
    assert (headers["webhook-id"].startswith("evt_"), told["type"]) == (True, "config_change")


def _executed(path: Path, statement: str) -> None:
    database = open_database(str(path))
    with database.writing() as connection:
        connection.exec_driver_sql(statement)
    database.close()


async def test_who_is_slow_holds_nobody_up(it: House, receiver: Receiver) -> None:
    """Not the other receiver, and no call: its queue alone grows."""
    receiver.held = asyncio.Event()
    async with receiving() as quick:
        slow = await hooked(it, receiver.url, "route_error")
        await hooked(it, quick.url, "route_error")
        for _ in range(3):
            assert (await it.chat("nobody")).status == 404
        ids = {(await quick.next())[1]["data"]["request_id"] for _ in range(3)}
        assert (len(ids), receiver.got.empty()) == (3, True)
        waits = (await it.done("GET", f"/webhooks/{slow['id']}/deliveries"))["items"]
        assert len(waits) == 3
        receiver.held.set()
        assert {(await receiver.next())[1]["data"]["request_id"] for _ in range(3)} == ids


async def test_while_the_vault_is_locked_everything_waits(it: House, receiver: Receiver) -> None:
    """No try is counted, and it goes out when the vault is open."""
    hook = await hooked(it, receiver.url)
    await it.done("POST", "/vault/lock")
    await changed(it)

    async def waiting() -> list[Json]:
        found: list[Json] = (await it.done("GET", f"/webhooks/{hook['id']}/deliveries"))["items"]
        return found

    (one,) = await until(waiting)
    assert (one["attempts"], one["cause"]) == (0, "")
    assert (await it.admin("POST", f"/webhooks/{hook['id']}/test")).status == 503
    assert (await it.admin("POST", "/webhooks", {"url": receiver.url, "kinds": ["audit"]})).status == 503
    await it.done("POST", "/vault/unlock", {"admin_password": PASSWORD})
    assert (await receiver.next())[0]["webhook-id"] == one["event_id"]


async def test_a_queue_that_is_full_says_what_it_leaves_out(
    it: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event counts them: none goes silently."""
    monkeypatch.setattr(rows, "MOST_WAITING", 1)
    receiver.held = asyncio.Event()
    hook = await hooked(it, receiver.url)
    with it.bus.listen() as listener:
        for mode in ("cheap", "normal", "cheap"):
            await changed(it, mode)
        lost: list[Json] = []

        async def told() -> bool:
            lost.extend(event.data for event in listener.take() if event.type == "webhook_lost")
            return sum(int(one["count"]) for one in lost) == 2

        await until(told)
    assert {one["webhook_id"] for one in lost} == {hook["id"]}
    receiver.held.set()


async def test_a_webhook_is_changed_tested_and_removed(it: House, receiver: Receiver) -> None:
    """Another secret signs from then on; with it go its queue and its secret."""
    hook = await hooked(it, receiver.url)
    path = f"/webhooks/{hook['id']}"
    assert await it.done("POST", f"{path}/test") == {"told": True, "status": 204, "cause": ""}
    assert (await receiver.next())[1]["type"] == "test"
    assert (await it.done("POST", f"{path}/secret"))["secret"] != hook["secret"]
    assert (await it.done("PATCH", path, {"kinds": ["audit"], "enabled": False}))["kinds"] == ["audit"]
    await it.done("DELETE", path)
    assert (await it.done("GET", "/webhooks"))["items"] == []
    assert [one for one in it.app.vault.names() if one.startswith("webhook:")] == []
    for method, rest in (
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("POST", "/retry"),
        ("GET", "/deliveries"),
    ):
        assert (await it.admin(method, path + rest, {} if method == "PATCH" else None)).status == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"url": "http://hooks.example", "kinds": ["audit"]}, "url"),
        ({"url": "https://u:p@hooks.example", "kinds": ["audit"]}, "url"),
        ({"url": "https://169.254.169.254/", "kinds": ["audit"]}, "url"),
        ({"url": "ftp://x", "kinds": ["audit"]}, "url"),
        ({"url": "https://hooks.example", "kinds": []}, "kinds"),
        ({"url": "https://hooks.example", "kinds": ["webhook_dead"]}, "kinds"),
    ],
)
async def test_a_webhook_that_cannot_be_is_refused(it: House, body: Json, param: str) -> None:
    """By its field, and nothing is stored."""
    told = await it.admin("POST", "/webhooks", body)
    assert (told.status, told.fault["param"]) == (400, param)
    assert (await it.done("GET", "/webhooks"))["items"] == []


async def test_nothing_is_posted_where_no_provider_may_be(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to a private address, an own port, an address of the cloud's own."""
    port = int(receiver.url.rpartition(":")[2].partition("/")[0])
    async with outgoing(Guard(own_ports={port}), tls_context(None)) as post:
        assert (await post(receiver.url, {}, b"")).cause == "forbidden_address"
        assert (await post("http://169.254.169.254/", {}, b"")).cause == "forbidden_address"
    async with outgoing(Guard(), tls_context(None)) as post:
        assert (await post(receiver.url, {}, b"{}")).status == 204
        assert receiver.got.qsize() == 1

        async def resolved(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
        named = receiver.url.replace("127.0.0.1", "hooks.example")
        assert (await post(named, {}, b"{}")).cause == "unreachable"
    async with outgoing(Guard(["hooks.example"]), tls_context(None)) as post:
        assert (await post(named, {}, b"{}")).status == 204
