"""The official SDKs have a call answered in several steps by a directive alone, and notice nothing but the answer."""

from __future__ import annotations

import pytest

from tests.e2e.asking import SDKS, Sdk
from tests.e2e.conftest import World
from tests.e2e.serving import prices

pytestmark = pytest.mark.asyncio(loop_scope="session")

each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])


@each_sdk
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("wish", "steps"),
    [("mode=vote voters=2", 3), ("mode=adversarial iterations=2", 5), ("mode=refine iterations=1", 2)],
    ids=["vote", "adversarial", "refine"],
)
async def test_a_directive_has_a_call_answered_in_steps(
    world: World, sdk: Sdk, wish: str, steps: int, stream: bool
) -> None:
    """One answer for the SDK, in its own types; every step a call of its own, and all of them in one record."""
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        do = sdk.stream if stream else sdk.whole
        asked = sdk.ask(f"@@tokenhub {wish} provider={provider.id}\nSay hello.")
        said = await world.program(do, model="m", **asked)

        headers, requests = said["headers"], provider.fake.requests
        assert sdk.text(said["answer"]).startswith("You asked: ")
        assert sdk.stop(said["answer"]) == sdk.text_stop
        assert not any(b"@@tokenhub" in one.body for one in requests)
        record = await world.serve.record(headers["x-request-id"])
        made = record["composition"]
        assert headers["x-tokenhub-mode"] == made["mode"] == wish.split(maxsplit=1)[0].removeprefix("mode=")
        assert made["most"] == steps
        assert headers["x-tokenhub-steps"] == str(steps if stream else len(made["steps"]))
        assert len(requests) == len(record["attempts"]) == len(made["steps"])
        assert [one["step"] for one in record["attempts"]] == [one["name"] for one in made["steps"]]
        assert record["cost_nanousd"] == sum(one["cost_nanousd"] for one in made["steps"])
        assert record["cost_nanousd"] == prices(record["input_tokens"], record["output_tokens"])


@each_sdk
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_planning_by_a_directive_is_one_call(world: World, sdk: Sdk, stream: bool) -> None:
    """It is the weights that differ: one request, one attempt, and what that costs."""
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        do = sdk.stream if stream else sdk.whole
        asked = sdk.ask(f"@@tokenhub mode=planning provider={provider.id}\nSay hello.")
        said = await world.program(do, model="m", **asked)

        assert sdk.text(said["answer"]).startswith("You asked: ")
        record = await world.serve.record(said["headers"]["x-request-id"])
        assert (record["mode"], record["directive"]) == ("planning", "honoured")
        assert len(provider.fake.requests) == len(record["attempts"]) == 1
        assert record["cost_nanousd"] == prices(record["input_tokens"], record["output_tokens"])
