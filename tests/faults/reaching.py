"""F01 to F05: the provider cannot be reached, or does not answer at all."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final
from unittest import mock

from tests.e2e.serving import until
from tests.fakes.certificates import authority, server_context
from tests.fakes.listener import listener
from tests.fakes.provider import closed_port
from tests.faults import off
from tests.faults.case import Case, Lab
from tests.faults.chaos import Chaos
from tests.faults.world import QUICK, Turn, World

_STUCK: Final = 6.0
"""Seconds; what should have gone on at a deadline of one second is stuck then."""


@asynccontextmanager
async def odd(it: World, name: str, url: str) -> AsyncIterator[str]:
    """Register a provider at `url` that is tried before the spare one of the first slot; yield the model's name."""
    provider = {
        "id": name,
        "type": "openai",
        "base_url": url,
        "cred_store": "memory",
        "api_key": "sk-canary-odd",
    }
    await it.admin("POST", "/providers", provider)
    for owner, price in ((name, 0.0001), ("spare0-openai", 0.01)):
        model = {"id": f"model-{name}", "provider_id": owner, "input_per_1k": price, "output_per_1k": price}
        await it.admin("POST", "/models", model)
    try:
        yield f"model-{name}"
    finally:
        await it.admin("DELETE", f"/providers/{name}")
        await it.admin("DELETE", f"/models/model-{name}?provider=spare0-openai")


async def hop(
    lab: Lab, n: int, model: str, causes: set[str], *, within: float = _STUCK, provider: str = ""
) -> None:
    """Call so many times; each is answered by the spare provider, and nothing is charged for the one before it."""
    it = await lab.world()
    spare = it.slots[0].spare
    for number in range(n):
        turn = it.turn(number * len(it.slots), apart=True, caller="openai", stream=number % 2 == 0)
        _forgiven(it, provider)
        async with asyncio.timeout(within):
            got = await turn.call(model=model)
        assert got.status == 200, got.body[:300]
        turn.whole(got, spare)
        attempts = (await turn.record(got))["attempts"]
        assert [one["provider"] for one in attempts] == [provider, "spare0-openai"], attempts
        assert attempts[0]["cause"] in causes, attempts[0]
        assert attempts[0]["cost_nanousd"] == 0


def _forgiven(it: World, provider: str) -> None:
    means = it.executor.means
    means.health.forget(provider)
    means.retries._buckets.pop(provider, None)


async def _refused(lab: Lab, n: int) -> None:
    it = await lab.world()
    async with odd(it, "closed", f"http://127.0.0.1:{closed_port()}") as model:
        await hop(lab, n, model, {"connect_refused"}, provider="closed")


@contextmanager
def _full() -> Iterator[int]:
    """A port whose queue is full: whoever connects hears nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for one in fillers:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        time.sleep(0.05)
        yield server.getsockname()[1]
        for one in fillers:
            one.close()


async def _hanging_connect(lab: Lab, n: int) -> None:
    it = await lab.world()
    with _full() as port:
        async with odd(it, "full", f"http://127.0.0.1:{port}") as model:
            from_here = it.executor.patience
            if from_here.connect < 1000:
                it.executor.patience = QUICK
            try:
                await hop(lab, n, model, {"connect_timeout"}, provider="full")
            finally:
                it.executor.patience = from_here


class _Resolver:
    """In the place of the system's resolver, for names that end in `fault.test`; it blocks its thread, as that does."""

    def __init__(self, system: Callable[..., Any]) -> None:
        self._system = system
        self.mood = "none"

    def __call__(self, host: Any, *given: Any, **more: Any) -> Any:
        if not str(host).endswith("fault.test"):
            return self._system(host, *given, **more)
        match self.mood:
            case "none":
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            case "again":
                raise socket.gaierror(socket.EAI_AGAIN, "the servers failed")
            case "slow":
                time.sleep(1.2)
                raise socket.gaierror(socket.EAI_AGAIN, "too late")
        return []


async def _unresolved(lab: Lab, n: int) -> None:
    it = await lab.world()
    resolver = _Resolver(socket.getaddrinfo)
    gaps: list[float] = []
    beating = asyncio.create_task(_beat(gaps))
    with mock.patch.object(socket, "getaddrinfo", resolver):
        async with odd(it, "nameless", "http://fault.test:9") as model:
            before = it.executor.patience
            it.executor.patience = QUICK
            try:
                for number in range(n):
                    resolver.mood = ("none", "again", "empty", "slow")[number % 4]
                    await hop(lab, 1, model, {"dns", "connect_timeout"}, provider="nameless")
            finally:
                it.executor.patience = before
    beating.cancel()
    lab.told["longest_beat"] = round(max(gaps), 3)
    assert max(gaps) < 1.0, "the loop stood still while a name was looked up"


async def _beat(gaps: list[float]) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.02)
        now = time.monotonic()
        gaps.append(now - last)
        last = now


async def _tls(lab: Lab, n: int) -> None:
    """Five servers that nobody should talk to; each is told apart, and none of them is shown a credential."""
    it = await lab.world()
    folder = lab.room()
    known, unknown = authority(folder, "known"), authority(folder, "unknown")
    pool: Any = it.executor.means.transport
    trust: ssl.SSLContext = pool._pool._context
    trust.load_verify_locations(str(known[2]))
    contexts = {
        "tls_expired": server_context(folder, known, expired=True),
        "tls_wrong_name": server_context(folder, known, address="127.0.0.9"),
        "tls_untrusted": server_context(folder, unknown),
    }
    async with AsyncExitStack() as stack:
        fakes = {cause: await stack.enter_async_context(Chaos(tls=tls)) for cause, tls in contexts.items()}
        ports = {cause: fake.port for cause, fake in fakes.items()}
        ports["tls_protocol"] = await stack.enter_async_context(listener(_alert))
        ports["tls_truncated"] = await stack.enter_async_context(listener(_hangs_up))
        for cause, port in ports.items():
            name = cause.replace("_", "-")
            async with odd(it, name, f"https://127.0.0.1:{port}") as model:
                await hop(lab, max(1, n // 5), model, {cause}, provider=name)
        assert [fake.requests for fake in fakes.values()] == [[], [], []], "a credential was shown"


async def _alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a ClientHello with a fatal alert."""
    await reader.read(4096)
    writer.write(b"\x15\x03\x03\x00\x02\x02\x28")
    await writer.drain()
    await reader.read(1)


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(4096)
    writer.close()


@contextmanager
def _unverified(lab: Lab) -> Iterator[None]:
    """Believe every certificate."""
    assert lab._world is not None
    pool: Any = lab._world.executor.means.transport
    context: ssl.SSLContext = pool._pool._context
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        yield
    finally:
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True


async def hanging(turn: Turn, *, fault: str = "hang", causes: tuple[str, ...] = ()) -> None:
    """Hold a provider that falls silent before anybody has seen a word to be replaced without a trace."""
    turn.meets(fault)
    async with asyncio.timeout(_STUCK):
        got = await turn.call()
    turn.whole(got)
    attempts = (await turn.record(got))["attempts"]
    assert len(attempts) == 2
    assert not causes or attempts[0]["cause"] in causes, attempts[0]
    silent = turn.first.connections[turn.first.requests[0].connection]
    await until(lambda: silent.closed, within=1.0)


CASES: Final = (
    Case(
        "F01",
        "the provider's port is closed",
        "another provider answers, nothing is charged, and the attempt says connect_refused",
        "failover to the next candidate of the plan",
        "the first failure ends the call",
        _refused,
        off.no_failover,
        quick=True,
    ),
    Case(
        "F02",
        "connecting hangs: nothing comes back",
        "another provider answers once the connect deadline has passed",
        "the connect deadline",
        "no deadlines",
        _hanging_connect,
        off.no_deadlines,
        n=10,
        red=1,
    ),
    Case(
        "F03",
        "the name is unknown, its servers fail, answer nothing, or are slow",
        "another provider answers, and the loop goes on while the resolver blocks its thread",
        "names are looked up in threads under the connect deadline, and a failure is a failover",
        "the first failure ends the call",
        _unresolved,
        off.no_failover,
        red=2,
    ),
    Case(
        "F04",
        "TLS fails: expired, for another name, unknown authority, alert, cut off",
        "another provider answers, the five are told apart, and no credential is shown",
        "verification of certificates",
        "every certificate is believed",
        _tls,
        _unverified,
        red=5,
    ),
    Case(
        "F05",
        "the call is accepted and never answered",
        "another provider answers at the deadline, and the silent one's connection is closed within a second",
        "the deadline for the first content, and for whole answers",
        "no deadlines",
        lambda lab, n: lab.turns(
            n, partial(hanging, causes=("ttft_timeout", "total_timeout")), patience=QUICK
        ),
        off.no_deadlines,
        red=2,
    ),
)
