"""`tokenhub serve --workers 2`: one of them dies, all are renewed, and whoever comes by is served as by one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.calling import asked
from tests.e2e.serving import Exit, Serve, eventually, start, until
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE, PROGRAM_PATIENCE
from tokenhub_core.types import Json

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL: Final = "m-openai"
TOKEN: Final = "t" * 32
PASSWORD: Final = "correct horse battery"


def workers(serve: Serve) -> list[int]:
    """Return the process ids of the workers that are there."""
    children = Path(f"/proc/{serve.process.pid}/task/{serve.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def say(folder: Path, **variables: str) -> None:
    """Let the environment file say this, and nothing else."""
    path = folder / "env"
    path.write_text("".join(f"TOKENHUB_{name}={value}\n" for name, value in variables.items()))
    path.chmod(0o600)


def alive(pid: int) -> bool:
    """Tell whether a process is there."""
    return Path(f"/proc/{pid}").exists()


class Many:
    """A server with two workers, and a provider for it."""

    def __init__(self, serve: Serve, fake: FakeProvider) -> None:
        self.serve = serve
        self.fake = fake

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Json]:
        """Ask over a connection of its own: which worker answers is the kernel's choice."""
        given = {"authorization": f"Bearer {TOKEN}"} if headers is None else headers
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.serve.info.side_url + path, json=body, headers=given) as response,
        ):
            data: Json = (
                await response.json() if "json" in response.content_type else {"text": await response.text()}
            )
            return response.status, data

    async def done(self, method: str, path: str, body: object = None) -> Json:
        status, data = await self.ask(method, f"/admin/v1{path}", body)
        assert status < 300, (path, status, data)
        return data

    async def each(self, path: str) -> list[Json]:
        """Ask so often that every worker has been asked: of 24 connections all go to one of two once in 8 million."""
        return [data for _, data in await asyncio.gather(*(self.ask("GET", path) for _ in range(24)))]

    async def call(self) -> int:
        body = asked("openai", MODEL, stream=False) | {"max_tokens": 9}
        return (await self.ask("POST", "/v1/chat/completions", body))[0]

    async def whole(self, but: int = 0) -> list[int]:
        """Return the workers once there are two that serve, without this one."""

        async def both() -> list[int]:
            pids = workers(self.serve)
            two = len(pids) == 2 and but not in pids
            return pids if two and await self.answering() == 2 else []

        return await eventually(both, within=PROGRAM_PATIENCE)

    async def answering(self) -> int:
        """Return how many workers have a part in the figures."""
        text = (await self.ask("GET", "/metrics"))[1]["text"]
        line = next(one for one in text.splitlines() if one.startswith("tokenhub_processes "))
        return round(float(line.split()[1]))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def many(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Many]:
    """Serve with two workers for the scenes of this file."""
    folder = tmp_path_factory.mktemp("workers")
    say(folder)
    settings = {
        "TOKENHUB_ALLOW_PRIVATE": "localhost",
        "TOKENHUB_ADMIN_TOKEN": TOKEN,
        "TOKENHUB_ENV_FILE": str(folder / "env"),
        # Of a tree that is installed nowhere.
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
        "TOKENHUB_WORKER_HANG_SECS": "10",
    }
    async with FakeProvider() as fake, aiohttp.ClientSession() as session:
        serve = await start(folder, "--workers", "2", settings=settings, session=session)
        assert not isinstance(serve, Exit), serve
        try:
            it = Many(serve, fake)
            await it.whole()
            yield it
        except BaseException:
            await serve.kill()
            raise
        left = workers(serve)
        await serve.stop()
        assert not any(map(alive, left))


async def test_what_one_worker_is_told_all_know_when_it_answers(many: Many) -> None:
    """A provider, its key in memory and its model: the next calls go to whichever worker, and succeed."""
    await many.done(
        "POST",
        "/providers",
        {
            "id": "p",
            "type": "openai",
            "base_url": many.fake.url,
            "cred_store": "memory",
            "api_key": "sk-canary-p",
        },
    )
    await many.done(
        "POST", "/models", {"id": MODEL, "provider_id": "p", "input_per_1k": 0.002, "output_per_1k": 0.008}
    )

    assert await asyncio.gather(*(many.call() for _ in range(24))) == [200] * 24


async def test_the_figures_are_those_of_all(many: Many) -> None:
    """Whichever worker is asked adds up what both have counted."""

    async def counted() -> bool:
        told = await many.each("/metrics")
        totals = {
            sum(
                float(line.split()[-1])
                for line in one["text"].splitlines()
                if line.startswith("tokenhub_requests_total")
            )
            for one in told
        }
        return totals == {24.0}

    await eventually(counted)


async def test_the_vault_is_open_in_all_or_in_none(many: Many) -> None:
    """It is made and locked at one worker, and a new worker has what the others have."""
    await many.done("POST", "/vault/init", {"admin_password": PASSWORD})
    await eventually(lambda: _states(many, "unlocked"))
    await many.done("PUT", "/vault/secrets/s", {"value": "very secret"})
    told = await many.each("/admin/v1/vault/secrets/s")
    assert {one.get("value") for one in told} == {"very secret"}

    victim = workers(many.serve)[0]
    os.kill(victim, signal.SIGKILL)
    await many.whole(victim)
    await eventually(lambda: _states(many, "unlocked"))

    await many.done("POST", "/vault/lock")
    await eventually(lambda: _states(many, "locked"))
    assert PASSWORD not in many.serve.output


async def _states(many: Many, state: str) -> bool:
    return {one["state"] for one in await many.each("/admin/v1/vault")} == {state}


async def test_a_limit_of_a_key_is_one_limit_whichever_worker_is_called(many: Many) -> None:
    """Of thirty calls over connections of their own no more are let in than one process would let in."""
    key = await many.done("POST", "/apikeys", {"name": "k", "limits": {"requests_per_minute": 6}})
    headers = {"authorization": f"Bearer {key['key']}"}
    body = asked("openai", MODEL, stream=False) | {"max_tokens": 9}
    told = await asyncio.gather(
        *(many.ask("POST", "/v1/chat/completions", body, headers=headers) for _ in range(30))
    )
    statuses = [status for status, _ in told]

    assert set(statuses) == {200, 429}
    # One drains in ten seconds.
    assert 1 <= statuses.count(200) <= 8


async def test_a_login_link_is_good_at_every_worker_and_once(many: Many) -> None:
    """Who gave it out need not be who is asked; two who use it at once get one session."""
    for _ in range(4):
        ticket = (await many.done("POST", "/login-links"))["ticket"]
        told = await asyncio.gather(
            *(many.ask("POST", "/admin/v1/login", {"ticket": ticket}, headers={}) for _ in range(4))
        )
        assert sorted(status for status, _ in told).count(200) == 1, told


async def test_when_a_worker_is_killed_the_others_go_on_and_it_comes_back(many: Many) -> None:
    """Not one connection is refused or left waiting: what waited in its sockets the other one accepts."""
    victim = workers(many.serve)[0]
    stop = asyncio.Event()
    told: list[int] = []

    async def calling() -> None:
        while not stop.is_set():
            try:
                told.append(await many.call())
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                told.append(-1)  # it had accepted this one

    callers = [asyncio.create_task(calling()) for _ in range(4)]
    await until(lambda: len(told) > 8)
    before = len(told)
    os.kill(victim, signal.SIGKILL)
    await many.whole(victim)
    meanwhile = len(told) - before
    stop.set()
    await asyncio.gather(*callers)

    assert victim not in workers(many.serve)
    assert told.count(-1) <= len(callers)
    assert set(told) <= {200, -1}
    # Every second connection comes to the dead worker's sockets: without another one there each caller soon waits.
    assert meanwhile > 40, meanwhile
    assert "has ended (exit -9)" in many.serve.output


async def test_a_listener_at_one_worker_hears_the_calls_of_all(many: Many) -> None:
    """Each once, whichever worker makes it."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"{many.serve.info.side_url}/admin/v1/events"
    marked = {"user-agent": "marked/1"}
    body = asked("openai", MODEL, stream=False) | {"max_tokens": 9}
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers) as stream,
    ):
        event = b""
        # An id that names two processes: the other one has heard that somebody listens.
        while b"," not in event.partition(b"\n")[0]:
            await many.call()
            event = await stream.content.readuntil(b"\n\n")
        calls = (many.ask("POST", "/v1/chat/completions", body, headers=marked) for _ in range(16))
        assert {status for status, _ in await asyncio.gather(*calls)} == {200}
        heard = 0
        while heard < 16:
            heard += b'"program":"marked/1"' in await stream.content.readuntil(b"\n\n")


async def test_a_worker_that_hangs_is_replaced(many: Many) -> None:
    """Stopped in its tracks it says nothing: it is killed, and another one has its place."""
    victim = workers(many.serve)[0]
    os.kill(victim, signal.SIGSTOP)
    await many.whole(victim)

    assert "is killed: not heard of for 1" in many.serve.output
    assert await asyncio.gather(*(many.call() for _ in range(8))) == [200] * 8


async def test_a_provider_that_one_worker_has_ejected_all_leave_alone(many: Many) -> None:
    """Whichever worker is asked, it is down."""
    many.fake.script("*", ("status:500",))
    await asyncio.gather(*(many.call() for _ in range(12)))

    async def down() -> bool:
        told = await many.each("/admin/v1/health")
        return {one["providers"][0]["state"] for one in told} == {"down"}

    await eventually(down)
    many.fake.script("*", ("ok",))
    await many.done("PATCH", "/providers/p", {"base_url": many.fake.url, "api_key": "sk-canary-q"})

    async def healthy() -> bool:
        told = await many.each("/admin/v1/health")
        return {one["providers"][0]["state"] for one in told} == {"healthy"}

    await eventually(healthy)


async def test_a_hang_up_lets_every_worker_go_on_with_what_the_file_says_now(many: Many) -> None:
    """All of them or, where it cannot be used, none; and each is the process that it was."""
    before, folder = set(workers(many.serve)), many.serve.data.parent

    async def modes() -> set[str]:
        return {told["effective"]["default_mode"] for told in await many.each("/admin/v1/routing-config")}

    async def all_are(mode: str) -> bool:
        return await modes() == {mode}

    # One of them, as it would be without a supervisor; then the supervisor.
    say(folder, DEFAULT_MODE="planning")
    os.kill(min(before), signal.SIGHUP)
    await eventually(partial(all_are, "planning"), within=PROGRAM_PATIENCE)
    say(folder, DEFAULT_MODE="cheap")
    many.serve.process.send_signal(signal.SIGHUP)
    await eventually(partial(all_are, "cheap"), within=PROGRAM_PATIENCE)

    say(folder, DEFAULT_MODE="high_confidence", CA_FILE="/nowhere.pem")
    status, told = await many.ask("POST", "/admin/v1/reload")
    assert (status, told["error"]["code"]) == (400, "settings_unusable")
    assert await modes() == {"cheap"}

    say(folder, DEFAULT_MODE="normal")
    assert (await many.done("POST", "/reload"))["workers"] == 2
    assert await modes() == {"normal"}
    assert set(workers(many.serve)) == before


async def test_a_renewal_renews_every_worker_and_no_call_notices(many: Many) -> None:
    """SIGUSR2: successors accept from the same sockets before the older ones leave."""
    before = set(workers(many.serve))
    stop = asyncio.Event()
    told: list[int] = []

    async def calling() -> None:
        while not stop.is_set():
            told.append(await many.call())

    callers = [asyncio.create_task(calling()) for _ in range(4)]
    many.serve.process.send_signal(signal.SIGUSR2)

    async def renewed() -> bool:
        pids = set(workers(many.serve))
        return len(pids) == 2 and not pids & before

    await eventually(renewed, within=PROGRAM_PATIENCE)
    stop.set()
    await asyncio.gather(*callers)

    assert set(told) == {200}


async def test_a_port_that_is_taken_is_one_line_and_nothing_is_left(many: Many, tmp_path: Path) -> None:
    """It is found before any worker starts."""
    port = many.serve.info.side_url.rpartition(":")[2]
    async with aiohttp.ClientSession() as session:
        serve = await start(tmp_path, "--workers", "2", "--admin-port", port, session=session)

    assert serve == Exit(2, f"tokenhub: cannot listen on 127.0.0.1:{port}: address already in use\n")
