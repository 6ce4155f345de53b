"""Scenes of two machines (see `machines.py`): each with a network, a provider and clients of its own.

What they share, PostgreSQL and Redis, stands where this process is, and a machine's one link leads there. So a link
that is down takes away what is shared, and neither clients nor the provider.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.calling import asked
from tests.e2e.machines import NETWORK, Machine, machines
from tests.e2e.serving import TOKENHUB, Exit, Serve, eventually, measured, start
from tests.fakes import postgres
from tests.fakes import redis as fake
from tests.fakes.provider import FakeProvider
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.types import Json

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(3000)]

ROUNDS: Final = int(os.environ.get("ROUNDS", "20"))
"""How often a hundred callers are let loose at the edge of a budget."""
REVOKED: Final = 10
CALLERS: Final = 100
LIMIT: Final = 40
"""Requests."""
PORT: Final = 9000
"""Of the provider, on either machine."""
MODEL: Final = "m-openai"
WELL: Final = 2.0
BROKEN: Final = 4.0
EDGE: Final = 200
"""Requests of the budget that ends in the middle of an outage, or about then."""


@dataclass
class Node:
    """One machine with its TokenHub and its provider."""

    machine: Machine
    serve: Serve
    fake: FakeProvider

    async def call(self, secret: str) -> tuple[int, str]:
        """Make one call as a program on this machine does; return its status and its id."""
        body = asked("openai", MODEL, stream=False) | {"max_tokens": 9}
        url = f"{self.serve.info.side_url}/v1/chat/completions"
        headers = {"authorization": f"Bearer {secret}"}
        async with self.serve.session.post(url, json=body, headers=headers) as response:
            await response.read()
            return response.status, response.headers.get("x-request-id", "")

    async def takes(self, secret: str) -> bool:
        return (await self.call(secret))[0] == 200


@dataclass
class Fleet:
    """Both machines, and what they share."""

    one: Node
    two: Node
    database: postgres.Server
    redis: fake.Server

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.one, self.two

    async def key(self) -> Json:
        """Make a key that both know."""
        made = await self.one.serve.admin("POST", "/apikeys", {"name": "n"})
        for node in self.nodes:
            await eventually(partial(node.takes, made["key"]))
        return made

    async def budgets(self, key: str, **limits: int) -> list[str]:
        """Give a key a budget of each unit, known to both machines; return their ids."""
        made = []
        for unit, limit in limits.items():
            body = {"owner": f"key:{key}", "period": "total", "unit": unit, "limit": limit}
            made.append(str((await self.one.serve.admin("POST", "/budgets", body))["id"]))
        await eventually(partial(self._told, made))
        return made

    async def _told(self, ids: list[str]) -> bool:
        listed = await self.two.serve.admin("GET", "/budgets")
        return {*ids} <= {one["id"] for one in listed["items"]}

    async def records(self, key: str) -> list[Json]:
        """Return all records of a key."""
        found: list[Json] = []
        before = ""
        while True:
            page = await self.one.serve.admin("GET", f"/logs?limit=1000&key={key}{before}")
            found += page["logs"]
            if page["next"] is None:
                return found
            before = f"&before={page['next']}"

    async def spent(self, budget: str) -> list[int]:
        """Return what is spent of a budget, as each machine says it."""
        return [(await node.serve.admin("GET", f"/budgets/{budget}"))["spent"] for node in self.nodes]

    async def agree(self, budget: str, spent: int) -> None:
        """Return when both say that so much is spent."""

        async def told() -> bool:
            return await self.spent(budget) == [spent] * 2

        await eventually(told, within=PROGRAM_PATIENCE)


@asynccontextmanager
async def node(
    machine: Machine, folder: Path, database: postgres.Server, redis: fake.Server
) -> AsyncIterator[Node]:
    (folder / "data").mkdir(parents=True, mode=0o700)
    write_atomic(folder / "data" / "salt", bytes(32))
    write_atomic(folder / "data" / "admin-token", b"t" * 32)
    password = quote(postgres.PASSWORD, safe="")
    settings = {
        "TOKENHUB_DB_DSN": f"postgresql://tokenhub:{password}@{machine.shared}:{database.port}/postgres?sslmode=disable",
        "TOKENHUB_DB_TIMEOUT_SECS": "2",
        "TOKENHUB_REDIS_URL": f"redis://{machine.shared}:{redis.port}/0",
        "TOKENHUB_ALLOW_PRIVATE": "localhost",
        # Of a tree that is installed nowhere.
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
    }
    connector = aiohttp.TCPConnector(limit=0, socket_factory=machine.socket)
    provider = FakeProvider(listen=PORT)
    with machine.entered():
        await provider.__aenter__()
    try:
        async with aiohttp.ClientSession(connector=connector) as session:
            command = (*machine.command, *TOKENHUB)
            serve = await start(folder, settings=settings, command=command, session=session)
            assert not isinstance(serve, Exit), serve
            try:
                yield Node(machine, serve, provider)
            finally:
                await serve.kill()
    finally:
        await provider.__aexit__()


type Outage = Callable[[Fleet], AbstractAsyncContextManager[None]]


@contextmanager
def shared(folder: Path) -> Iterator[tuple[postgres.Server, fake.Server]]:
    """Run PostgreSQL and Redis where every machine reaches them."""
    database, redis = postgres.Server.made(listen_addresses="*"), fake.Server(folder, bind="0.0.0.0")
    database.put("pg_hba.conf", f"local all all trust\nhost all all {NETWORK} scram-sha-256\n".encode())
    try:
        database.start()
        redis.start()
        yield database, redis
    finally:
        redis.stop()
        database.remove()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Two machines for all scenes of this file; the second knows what was registered at the first."""
    folder = tmp_path_factory.mktemp("machines")
    async with AsyncExitStack() as stack:
        database, redis = stack.enter_context(shared(folder))
        one, two = [
            await stack.enter_async_context(node(machine, folder / machine.name, database, redis))
            for machine in stack.enter_context(machines("one", "two"))
        ]
        provider = {"id": "p-openai", "type": "openai", "base_url": one.fake.url, "cred_store": "none"}
        await one.serve.admin("POST", "/providers", provider)
        prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
        await one.serve.admin("POST", "/models", {"id": MODEL, "provider_id": "p-openai", **prices})
        yield Fleet(one, two, database, redis)


async def refused(node: Node, secret: str) -> float:
    """Return after how many seconds from now a machine refuses a key."""
    begun, status = time.monotonic(), 200
    while status == 200:
        status, _ = await node.call(secret)
    assert status == 401
    return time.monotonic() - begun


@pytest.mark.parametrize("redis", ["there", "gone"])
async def test_a_key_that_is_revoked_on_one_machine_is_refused_on_the_other(fleet: Fleet, redis: str) -> None:
    """Within a second of the answer that says so; without Redis, too."""
    took = []
    for _ in range(REVOKED):
        key = await fleet.key()
        if redis == "gone":
            fleet.redis.pause()
        try:
            await fleet.one.serve.admin("DELETE", f"/apikeys/{key['id']}")
            took.append(await refused(fleet.two, key["key"]))
        finally:
            fleet.redis.resume()
    measured(
        f"a revoked key, Redis {redis}: refused on the other machine {median(took) * 1000:.0f} ms later"
        f" (median of {len(took)}; the longest {max(took) * 1000:.0f} ms)"
    )
    assert median(took) < 1


async def test_a_hundred_callers_of_two_machines_overspend_nothing(fleet: Fleet) -> None:
    """Round by round: both machines and the log say the same of what was spent."""
    served = []
    for _ in range(ROUNDS):
        key = await fleet.key()
        already = await fleet.records(key["id"])
        ids = await fleet.budgets(key["id"], requests=LIMIT)
        told = await asyncio.gather(*(fleet.nodes[number % 2].call(key["key"]) for number in range(CALLERS)))
        statuses = Counter(status for status, _ in told)
        assert set(statuses) == {200, 402}, statuses
        records = [one for one in await fleet.records(key["id"]) if one["outcome"] == "ok"]
        assert len(records) - len(already) == statuses[200] <= LIMIT
        await fleet.agree(ids[0], statuses[200])
        served.append(statuses[200])
    measured(
        f"{ROUNDS} rounds of {CALLERS} callers on two machines: {min(served)} to {max(served)} of {LIMIT} requests"
        f" served, 0 overspent"
    )


class Load:
    """Calls both machines without a pause, and remembers what came of it by phase and machine."""

    def __init__(self, fleet: Fleet, secret: str) -> None:
        self._fleet = fleet
        self._secret = secret
        self.phase = "before"
        self.told: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.served: list[str] = []

    async def _calls(self, node: Node) -> None:
        while self.phase != "end":
            phase, begun = self.phase, time.monotonic()
            status, name = await node.call(self._secret)
            # What was under way when the phase changed is of neither.
            place = (phase if phase == self.phase else f"{phase} to {self.phase}", node.machine.name)
            self.told.setdefault(place, []).append((status, time.monotonic() - begun))
            if status == 200:
                self.served.append(name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._calls(node)) for node in self._fleet.nodes * 2]
        try:
            yield
        finally:
            self.phase = "end"
            await asyncio.gather(*tasks)

    def statuses(self, machine: str, *phases: str) -> set[int]:
        """Return what a machine has answered, in these phases or in all."""
        return {
            status
            for (phase, where), told in self.told.items()
            if where == machine and phase in (phases or {phase})
            for status, _ in told
        }

    def figures(self, what: str) -> None:
        for (phase, machine), told in sorted(self.told.items()):
            counts = dict(Counter(status for status, _ in told))
            measured(
                f"{what}, {phase}, {machine}: {counts}, the longest {max(took for _, took in told):.2f} s"
            )


@asynccontextmanager
async def link_down(fleet: Fleet) -> AsyncIterator[None]:
    """Take the second machine's link down: it has neither PostgreSQL nor Redis."""
    fleet.two.machine.cut()
    try:
        yield
    finally:
        fleet.two.machine.mend()


@asynccontextmanager
async def database_stopped(fleet: Fleet) -> AsyncIterator[None]:
    fleet.database.pause()
    try:
        yield
    finally:
        fleet.database.resume()


@asynccontextmanager
async def database_killed(fleet: Fleet) -> AsyncIterator[None]:
    """Kill every process of PostgreSQL; what was committed is in its files."""
    fleet.database.stop(signal.SIGKILL)
    try:
        yield
    finally:
        await asyncio.to_thread(fleet.database.start)


@asynccontextmanager
async def redis_stopped(fleet: Fleet) -> AsyncIterator[None]:
    fleet.redis.pause()
    try:
        yield
    finally:
        fleet.redis.resume()


@asynccontextmanager
async def redis_killed(fleet: Fleet) -> AsyncIterator[None]:
    """Kill Redis; it comes back and knows nothing."""
    fleet.redis.stop()
    try:
        yield
    finally:
        await asyncio.to_thread(fleet.redis.start)


@pytest.mark.parametrize(
    ("outage", "without"),
    [
        pytest.param(link_down, {"two"}, id="link down"),
        pytest.param(database_stopped, {"one", "two"}, id="PostgreSQL stopped"),
        pytest.param(database_killed, {"one", "two"}, id="PostgreSQL killed"),
        pytest.param(redis_stopped, set(), id="Redis stopped"),
        pytest.param(redis_killed, set(), id="Redis killed"),
    ],
)
async def test_what_is_gone_for_a_while_loses_no_answer_and_overspends_nothing(
    fleet: Fleet, request: pytest.FixtureRequest, outage: Outage, without: set[str]
) -> None:
    """Who has no database refuses, everybody else serves on; all serve when it is back. Every answer is in the log."""
    free, bound = await fleet.key(), await fleet.key()
    (budget,) = await fleet.budgets(bound["id"], requests=EDGE)
    already = len(await fleet.records(bound["id"]))
    plain, edge = Load(fleet, free["key"]), Load(fleet, bound["key"])

    def phase(name: str) -> None:
        plain.phase = edge.phase = name

    async with plain.running(), edge.running():
        await asyncio.sleep(WELL)
        phase("gone")
        async with outage(fleet):
            await asyncio.sleep(BROKEN)
            phase("back")
        for node in fleet.nodes:
            await eventually(partial(node.takes, free["key"]), within=PROGRAM_PATIENCE)
        phase("well")
        await asyncio.sleep(WELL)
    what = request.node.callspec.id
    plain.figures(f"{what}, no budget")
    edge.figures(f"{what}, a budget of {EDGE}")
    for machine in ("one", "two"):
        assert plain.statuses(machine, "before") == plain.statuses(machine, "well") == {200}
        assert plain.statuses(machine) == ({200, 503} if machine in without else {200})
        assert edge.statuses(machine) <= plain.statuses(machine) | {402}
    for load, key in ((plain, free), (edge, bound)):
        kept = {one["id"] for one in await fleet.records(key["id"])}
        assert {*load.served} <= kept
    counted = sum(1 for one in await fleet.records(bound["id"]) if one["attempts"]) - already
    assert len(edge.served) <= counted <= EDGE
    await fleet.agree(budget, counted)
    measured(
        f"{what}: {counted} of {EDGE} requests spent, {len(plain.served) + len(edge.served)} answers, none lost"
    )
