"""What a reply says of its decision holds, through the proxy too."""

from __future__ import annotations

import pytest

from tests.e2e.asking import SDKS, Sdk
from tests.e2e.conftest import World
from tokenhub_core.routing.recompute import recompute

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_every_record_of_a_run_can_be_recomputed(world: World, sdk: Sdk, stream: bool) -> None:
    """The reply names its decision; all records so far, whatever came of them, give their plans again."""
    async with world.serve.provider("m", speaks=sdk.name):
        said = await world.program(sdk.stream if stream else sdk.whole, model="m", **sdk.ask("Say hello."))
        name = said["headers"]["x-tokenhub-decision"]
        assert name == said["headers"]["x-request-id"]
        told = await world.serve.admin("GET", f"/decisions/{name}")
        assert (told["served"]["model"], told["asked"]["stream"]) == ("m", stream)

    decisions = [
        (await world.serve.record(row["id"]))["decision"] for row in (await world.serve.records())[:100]
    ]
    made = [decision for decision in decisions if decision is not None]
    assert made
    for decision in made:
        again = recompute(decision)
        assert [(one.model.id, one.provider.id, one.score, one.terms.loss) for one in again.candidates] == [
            (one["model"], one["provider"], one["score"], one["terms"]["loss"])
            for one in decision["candidates"]
        ]
        assert again.reason == decision["reason"]
