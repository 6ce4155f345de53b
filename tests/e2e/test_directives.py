"""Wishes in a prompt reach the engine, and nobody behind it."""

from __future__ import annotations

import pytest

from tests.e2e.asking import SDKS, Sdk
from tests.e2e.conftest import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])

WISH = "@@tokenhub mode=cheap tags=nightly\nSay hello."
BLOCK = "First.\n@@tokenhub\nmode=planning\ntags=nightly\n@@end\nSay hello."


@each_sdk
@pytest.mark.parametrize(
    ("content", "mode", "left"),
    [
        (WISH, "cheap", "Say hello."),
        (BLOCK, "planning", "First.\nSay hello."),
        ([{"type": "text", "text": WISH}], "cheap", [{"type": "text", "text": "Say hello."}]),
        (
            [{"type": "text", "text": "@@tokenhub mode=cheap"}, {"type": "text", "text": "Say hello."}],
            "cheap",
            [{"type": "text", "text": "Say hello."}],
        ),
    ],
    ids=["string", "block", "parts", "a part of its own"],
)
async def test_a_directive_is_honoured_and_never_reaches_the_provider(
    world: World, sdk: Sdk, content: object, mode: str, left: object
) -> None:
    """The header says so, the record knows the wish, and the provider gets the rest of the text only."""
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        asked = sdk.ask("", messages=[{"role": "user", "content": content}])
        said = await world.program(sdk.stream, model="m", **asked)

        assert said["headers"]["x-tokenhub-directive"] == "honoured"
        (received,) = provider.fake.requests
        assert b"tokenhub" not in received.body
        assert b"@@" not in received.body
        assert received.json["messages"] == [{"role": "user", "content": left}]
        record = await world.serve.record(said["headers"]["x-request-id"])
        assert (record["mode"], record["directive"]) == (mode, "honoured")
        assert "nightly" in record["tags"] or mode == "cheap"
        assert record["decision"]["policy"]["why"]["mode"] == "directive"


@each_sdk
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_malformed_directive_is_the_programs_mistake(world: World, sdk: Sdk, stream: bool) -> None:
    """`BadRequestError`, with the place in the message; nothing is sent, and the SDK does not try again."""
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        do = sdk.stream if stream else sdk.whole
        error = (await world.program(do, model="m", **sdk.ask("Hi\n@@tokenhub mode=chep")))["error"]

        assert (error["type"], error["status"]) == ("BadRequestError", 400)
        assert "messages[0].content, line 2, column 17" in error["message"]
        assert error["headers"]["x-tokenhub-directive"] == "invalid"
        assert provider.fake.requests == []
        record = await world.serve.record(error["request_id"])
        assert (record["outcome"], record["directive"]) == ("error", "invalid")


async def test_a_directive_chooses_the_provider(world: World) -> None:
    """Of two providers of one model the named one serves, though the other is cheaper."""
    async with (
        world.serve.provider("m", input_per_1k=0.0001) as cheaper,
        world.serve.provider("m") as named,
    ):
        said = await world.program(
            "chat", model="m", **SDKS[0].ask(f"@@tokenhub provider={named.id}\nSay hello.")
        )
        assert said["headers"]["x-tokenhub-provider"] == named.id
        assert (len(named.fake.requests), len(cheaper.fake.requests)) == (1, 0)
