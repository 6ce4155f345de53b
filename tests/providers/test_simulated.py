"""The simulator inside the process, and the switch between it and the network."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from tests.fakes.provider import FakeProvider
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Timeouts, Transport, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.simulated import RoutingTransport, SimulatedTransport
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.types import header

QUICK = Timeouts(connect=1.0, ttft=0.2, stall=0.2)


def ask(base: str = "sim://openai", *, model: str = "gpt-4o", stream: bool = False) -> UpstreamRequest:
    body = {
        "model": model,
        "stream": stream,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    operation = "messages" if base.endswith("anthropic") else "chat/completions"
    return UpstreamRequest("POST", f"{base}/v1/{operation}", (), orjson.dumps(body))


def simulator(*faults: str, speed: float = 0.0) -> SimulatedTransport:
    return SimulatedTransport(
        profiles={"gpt-4o": Profile(faults=faults)}, speed=speed, now=lambda: 1_700_000_000.9
    )


async def whole(transport: Transport, request: UpstreamRequest, timeouts: Timeouts = QUICK) -> bytes:
    response = await transport.send(request, timeouts)
    try:
        return await response.read(1 << 20)
    finally:
        await response.close()


async def outcome(transport: Transport, *, stream: bool, base: str = "sim://openai") -> str:
    """Return how an exchange ends, as one word and kind."""
    try:
        await whole(transport, ask(base, stream=stream))
    except TokenHubError as exc:
        return f"{exc.fault.kind}/{exc.fault.cause}/{exc.fault.blame}/{exc.fault.http_status}"
    return "whole"


async def test_a_simulated_call_is_answered_and_marked() -> None:
    """In the dialect of its path, with the clock's time stamp."""
    response = await simulator().send(ask(), QUICK)
    assert (response.status, header(response.headers, "x-tokenhub-simulated")) == (200, "1")
    data = orjson.loads(await response.read(1 << 20))
    assert (data["object"], data["created"]) == ("chat.completion", 1_700_000_000)
    await response.close()
    assert orjson.loads(await whole(simulator(), ask("sim://anthropic")))["type"] == "message"


async def test_each_model_counts_its_own_calls() -> None:
    """A script moves on with its model's calls only."""
    transport = simulator("500", "ok")
    statuses = []
    for model in ("gpt-4o", "gpt-4.1", "gpt-4o"):
        response = await transport.send(ask(model=model), QUICK)
        statuses.append(response.status)
    assert statuses == [500, 200, 200]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    ["ok", "500", "hang", "disconnect", "stall", "reset", "truncate", "lifecycle-hang", "no-terminal"],
)
async def test_the_simulator_fails_exactly_as_the_network_does(fault: str, *, stream: bool) -> None:
    """The same script ends in the same typed fault, in process and over a socket."""
    async with FakeProvider() as provider, HttpTransport() as network:
        provider.script("gpt-4o", [fault])
        real = await outcome(network, stream=stream, base=provider.url)
    assert await outcome(simulator(fault), stream=stream) == real


async def test_an_answer_over_the_limit_is_the_same_fault() -> None:
    """`read` has a cap here too."""
    response = await simulator().send(ask(), QUICK)
    with pytest.raises(TokenHubError) as raised:
        await response.read(10)
    fault: Fault = raised.value.fault
    assert (fault.kind, fault.blame, fault.http_status) == (Kind.TOO_LARGE, Blame.PROVIDER, 502)


async def test_a_model_slower_than_the_limits_times_out() -> None:
    """A simulated model's own pace is held against the caller's limits."""
    slow = SimulatedTransport(profiles={"gpt-4o": Profile(ttft=60.0)})
    assert (await outcome(slow, stream=True)).startswith("timeout/ttft_timeout")
    dull = SimulatedTransport(profiles={"gpt-4o": Profile(tokens_per_second=0.01)})
    assert (await outcome(dull, stream=True)).startswith("timeout/stall_timeout")


async def test_speed_divides_every_delay() -> None:
    """What would take minutes takes milliseconds when it is a thousand times as fast."""
    profile = {"gpt-4o": Profile(ttft=300.0)}
    started = time.monotonic()
    await whole(SimulatedTransport(profiles=profile, speed=6000.0), ask())
    assert 0.04 < time.monotonic() - started < 60


async def test_a_simulated_answer_can_be_cancelled() -> None:
    """A model that hangs without a limit lets go of a caller who leaves."""
    task = asyncio.create_task(whole(simulator("hang"), ask(), Timeouts(ttft=None)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_probe_gets_the_list_of_models() -> None:
    """What a health check asks a provider for."""
    for host, model in (("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5")):
        data = orjson.loads(
            await whole(simulator(), UpstreamRequest("GET", f"sim://{host}/v1/models", (), b""))
        )
        assert model in [item["id"] for item in data["data"]]


async def test_a_body_that_is_no_json_gets_a_400() -> None:
    """As from a real provider."""
    for body in (b"{", b"[]"):
        request = UpstreamRequest("POST", "sim://openai/v1/chat/completions", (), body)
        response = await simulator().send(request, QUICK)
        assert response.status == 400


async def test_the_url_decides_who_sends() -> None:
    """`sim:` stays inside, everything else goes out."""

    class Named:
        def __init__(self) -> None:
            self.urls: list[str] = []

        async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
            self.urls.append(request.url)
            return await simulator().send(request, timeouts)

    network, inside = Named(), Named()
    routing = RoutingTransport(network, inside)
    for base in ("sim://openai", "https://sim.example.com", "http://sim:8000"):
        await routing.send(ask(base), QUICK)
    assert inside.urls == ["sim://openai/v1/chat/completions"]
    assert len(network.urls) == 2
