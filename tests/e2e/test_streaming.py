"""A stream reaches the program while it is made, and ends when the program has had enough."""

from __future__ import annotations

from statistics import median

import pytest

from tests.e2e.asking import SDKS, Sdk, other
from tests.e2e.conftest import World
from tests.e2e.serving import Registered, eventually, measured, prices, until
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Json

pytestmark = pytest.mark.asyncio(loop_scope="session")

each_pair = pytest.mark.parametrize("crossed", [False, True], ids=["same", "crossed"])
each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])

SLOW = Profile(tokens_per_second=100)
"""Some seventy tokens in less than a second."""
VERY_SLOW = Profile(tokens_per_second=25)
"""The same in three seconds: a program that leaves early is gone before the end on a busy machine, too."""


@each_sdk
@each_pair
async def test_what_is_written_is_read_before_the_rest_is_written(
    world: World, sdk: Sdk, crossed: bool
) -> None:
    """The program has the first word long before the provider writes its last, and every one in between.

    A busy machine may hold up a stream, but not each of three.
    """
    speaks = other(sdk) if crossed else sdk
    async with world.serve.provider("m", speaks=speaks.name, profile=SLOW) as provider:
        shares: list[tuple[float, ...]] = []
        for attempt in range(3):
            said = await world.program(sdk.stream, model="m", **sdk.ask("Tell me"))

            peer, received = provider.fake.connections[-1], provider.fake.requests[attempt]
            assert peer.wrote is not None
            took = peer.wrote - received.at
            assert took > 0.5
            shares.append(tuple((said["at"][at] - received.at) / took for at in (0, len(said["at"]) // 2)))
            if shares[-1][0] < 1 / 2 and shares[-1][1] < 5 / 6:
                break
        first, middle = shares[-1]
        assert first < 1 / 2, shares
        # The middle comes when it is made: nothing is held back until a later word.
        assert middle < 5 / 6, shares


async def cancelled(world: World, provider: Registered) -> Json:
    """Return the record of the call that was given up."""

    (record,) = await eventually(lambda: world.serve.records_of(provider))
    health = (await world.serve.admin("GET", "/health"))["providers"]
    (view,) = [item for item in health if item["provider_id"] == provider.id]
    assert (view["state"], view.get("consecutive_failures", 0)) == ("healthy", 0), view
    return record


@each_sdk
@each_pair
async def test_a_program_that_hangs_up_stops_the_provider(world: World, sdk: Sdk, crossed: bool) -> None:
    """When the program leaves, the provider's connection is closed, and the record says so."""
    speaks = other(sdk) if crossed else sdk
    async with world.serve.provider("m", speaks=speaks.name, profile=VERY_SLOW) as provider:
        said = await world.program(sdk.leave, after=8, model="m", **sdk.ask("Tell me"))
        await provider.fake.until(closed=1)

        record = await cancelled(world, provider)
        assert (record["id"], record["outcome"], record["status"], record["error_class"]) == (
            said["headers"]["x-request-id"],
            "cancelled",
            499,
            "client_cancelled",
        )
        # What was produced until then has its price, whatever the provider had said of it by then.
        assert record["usage_estimated"]
        assert 2 <= record["output_tokens"] <= 60
        assert record["cost_nanousd"] == prices(record["input_tokens"], record["output_tokens"])


@each_sdk
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_program_that_waits_no_longer_stops_the_provider(
    world: World, sdk: Sdk, stream: bool
) -> None:
    """The SDK's own timeout, before anything has come: nothing is tried again, and one record remains."""
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        provider.fake.script("m", ["hang"])
        do = sdk.stream if stream else sdk.whole
        said = await world.program(do, retries=0, timeout=1.0, model="m", **sdk.ask("Hello"))

        assert said["error"]["type"] == "APITimeoutError"
        await provider.fake.until(closed=1)
        record = await cancelled(world, provider)
        assert (record["outcome"], len(record["attempts"])) == ("cancelled", 1)
        assert provider.fake.calls("m") == 1


@pytest.mark.load
@each_sdk
async def test_the_provider_is_let_go_within_a_second(world: World, sdk: Sdk) -> None:
    """Also at its slowest, on a machine with nothing else to do."""
    took = []
    async with world.serve.provider("m", speaks=sdk.name, profile=VERY_SLOW) as provider:
        for attempt in range(9):
            said = await world.program(sdk.leave, after=8, model="m", **sdk.ask("Tell me"))
            await provider.fake.until(closed=attempt + 1)
            closed = provider.fake.connections[attempt].closed
            assert closed is not None
            took.append(closed - said["left"])
    measured(f"a provider is let go after {median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms")
    assert max(took) < 1.0


async def test_after_many_that_hung_up_nothing_is_left(world: World) -> None:
    """Twenty abandoned streams leave no call in flight and no connection to the provider."""
    async with world.serve.provider("m", profile=VERY_SLOW) as provider:
        for _ in range(20):
            await world.program("chat_leave", after=2, model="m", **SDKS[0].ask("Tell me"))
        await provider.fake.until(closed=len(provider.fake.connections))

        async def all_recorded() -> bool:
            rows = await world.serve.records_of(provider)
            return [row["outcome"] for row in rows] == ["cancelled"] * 20

        assert await eventually(all_recorded)
        await until(lambda: all(peer.closed for peer in provider.fake.connections))
