"""The main job, seen from the program: the official SDKs, unmodified, on their default base URLs."""

from __future__ import annotations

import re

import orjson
import pytest

from tests.e2e.asking import BOTH_TOOLS, SDKS, Sdk, order, other
from tests.e2e.conftest import MAX_BODY, World
from tests.e2e.programs import agent
from tests.e2e.serving import Registered, prices
from tests.fakes.provider import Received
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Json

pytestmark = pytest.mark.asyncio(loop_scope="session")

each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
each_pair = pytest.mark.parametrize("crossed", [False, True], ids=["same", "crossed"])
each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])


def credential(received: Received) -> str:
    return received.header("authorization").removeprefix("Bearer ") or received.header("x-api-key")


async def only_record(world: World, provider: Registered) -> Json:
    """Return the record of the only call that this provider has served."""
    (found,) = await world.serve.records_of(provider)
    return found


@each_way
@each_sdk
async def test_a_call_is_answered_by_our_provider_and_leaves_one_exact_record(
    world: World, sdk: Sdk, stream: bool
) -> None:
    """The text, the usage and the headers reach the program; the key is ours; one record says it all."""
    async with world.serve.provider(sdk.model, speaks=sdk.name) as provider:
        more = {"stream_options": {"include_usage": True}} if stream and sdk.name == "openai" else {}
        said = await world.program(order(sdk, stream), model=sdk.model, **sdk.ask("What is new?", **more))

        answer, (received,) = said["answer"], provider.fake.requests
        assert sdk.text(answer).startswith('You asked: "What is new?".')
        assert (answer["model"], sdk.stop(answer)) == (sdk.model, sdk.text_stop)
        assert credential(received) == provider.key
        assert not [value for _, value in received.headers if "placeholder" in value]

        told = {k[11:]: v for k, v in said["headers"].items() if k.startswith("x-tokenhub-")}
        assert told == {
            "model": sdk.model,
            "provider": provider.id,
            "reason": "routed-hint-exact",
            "attempts": "1",
            "decision": said["headers"]["x-request-id"],
        }
        record = await only_record(world, provider)
        tokens = sdk.usage(answer)
        assert min(tokens) > 0
        assert {key: record[key] for key in ("id", "outcome", "status", "stream", "identical")} == {
            "id": said["headers"]["x-request-id"],
            "outcome": "ok",
            "status": 200,
            "stream": stream,
            "identical": True,
        }
        assert (record["input_tokens"], record["output_tokens"]) == tokens
        assert record["cost_nanousd"] == prices(*tokens)
        assert (record["lane"], record["origin_host"], record["peer"]) == (world.lane, sdk.host, "127.0.0.1")
        (attempt,) = record["attempts"]
        assert (attempt["provider"], attempt["status"], attempt["cause"]) == (provider.id, 200, "")
        assert 0 < record["ttft_ms"] <= record["total_ms"]


async def test_a_stream_without_usage_is_counted_all_the_same(world: World) -> None:
    """The program did not ask for the usage and does not see it; the record has it."""
    async with world.serve.provider("gpt-4o") as provider:
        said = await world.program("chat_stream", model="gpt-4o", **SDKS[0].ask("Hello"))

        assert not [chunk for chunk in said["chunks"] if chunk.get("usage") or not chunk["choices"]]
        record = await only_record(world, provider)
        assert record["output_tokens"] > 0
        assert not record["usage_estimated"]


@each_way
@each_sdk
@each_pair
async def test_two_tools_at_once_and_their_results(
    world: World, sdk: Sdk, stream: bool, crossed: bool
) -> None:
    """Parallel tool calls come out typed and parsed, and the results find their way back to the model."""
    speaks = other(sdk) if crossed else sdk
    do = order(sdk, stream)
    async with world.serve.provider("m", speaks=speaks.name) as provider:
        asked = sdk.ask(BOTH_TOOLS, model="m", **sdk.tools())
        answer = (await world.program(do, **asked))["answer"]
        calls = sdk.calls(answer)

        assert [call.name for call in calls] == ["get_weather", "get_time"]
        assert [call.inputs for call in calls] == [{"city": "Paris"}] * 2
        assert len({call.id for call in calls}) == 2
        assert sdk.stop(answer) == sdk.tool_stop

        results = {call.id: f"{call.name} says 21" for call in calls}
        last = (await world.program(do, **sdk.results(asked, answer, results)))["answer"]

        for call in calls:
            assert f'The tool {call.name} answered: "{call.name} says 21".' in sdk.text(last)
        assert sdk.stop(last) == sdk.text_stop
        assert [received.path for received in provider.fake.requests] == [speaks.path] * 2


@each_way
@each_sdk
async def test_another_dialect_serves_and_the_program_does_not_notice(
    world: World, sdk: Sdk, stream: bool
) -> None:
    """System prompt, text and picture arrive in the provider's dialect; the answer in the program's."""
    speaks = other(sdk)
    async with world.serve.provider("m", speaks=speaks.name) as provider:
        more = {"stream_options": {"include_usage": True}} if stream and sdk.name == "openai" else {}
        said = await world.program(order(sdk, stream), model="m", **sdk.rich("What is this?"), **more)

        answer, (received,) = said["answer"], provider.fake.requests
        assert sdk.text(answer).startswith('You asked: "What is this?".')
        assert (answer["model"], sdk.stop(answer)) == ("m", sdk.text_stop)
        assert (received.path, credential(received)) == (speaks.path, provider.key)
        assert speaks.read(received.json) == speaks.read(speaks.rich("What is this?"))

        record = await only_record(world, provider)
        assert (record["input_tokens"], record["output_tokens"]) == sdk.usage(answer)
        assert (record["dialect"], record["identical"]) == (sdk.dialect, False)
        # Nothing that the program could miss: what is left behind is the provider's own affair.
        assert set(record["losses"]) <= {"service_tier", "system_fingerprint"}


@each_way
@each_sdk
@each_pair
async def test_chunks_that_are_cut_anywhere_are_put_together(
    world: World, sdk: Sdk, stream: bool, crossed: bool
) -> None:
    """A provider's chunks of seven bytes: letters, events and line ends are cut in the middle."""
    speaks = other(sdk) if crossed else sdk
    async with world.serve.provider("m", speaks=speaks.name) as provider:
        provider.fake.script("m", ["bytes:7"])
        said = await world.program(order(sdk, stream), model="m", **sdk.ask("Grüße aus 東京 🚀"))

        assert sdk.text(said["answer"]).startswith('You asked: "Grüße aus 東京 🚀".')


@each_sdk
@each_pair
async def test_a_large_call_arrives_whole(world: World, sdk: Sdk, crossed: bool) -> None:
    """A long document, of many packets: not a byte of it is lost on the way."""
    speaks = other(sdk) if crossed else sdk
    text = "".join(f"line {number} of a long document\n" for number in range(MAX_BODY // 50))
    async with world.serve.provider("m", speaks=speaks.name) as provider:
        said = await world.program(sdk.whole, model="m", **sdk.ask(text))

        assert sdk.text(said["answer"]).startswith('You asked: "line 0 of a long document')
        (received,) = provider.fake.requests
        assert text in orjson.dumps(received.json["messages"]).decode().replace("\\n", "\n")


@each_sdk
async def test_a_call_that_is_too_large_is_refused_in_the_sdks_own_class(world: World, sdk: Sdk) -> None:
    """413 with our words, once; nothing is sent on."""
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        error = (await world.program(sdk.whole, model="m", **sdk.ask("x" * (MAX_BODY + 1))))["error"]

        assert error["status"] == 413
        assert "APIStatusError" in error["is"]
        assert f"the request body is larger than {MAX_BODY} bytes" in error["message"]
        assert re.fullmatch(r"req_[0-9a-f]{32}", error["request_id"])
        assert provider.fake.requests == []


async def test_thirty_streams_at_once(world: World) -> None:
    """Each of thirty threads of one program gets its own answer, all at the same time, and has its own record."""
    async with world.serve.provider("m", profile=Profile(tokens_per_second=200)) as provider:
        questions = [f"Question {number}?" for number in range(30)]
        said = await world.program("chat_at_once", model="m", texts=questions)

        for question, text in zip(questions, said["texts"], strict=True):
            assert text.startswith(f'You asked: "{question}".')
        records = await world.serve.records_of(provider)
        assert [row["outcome"] for row in records] == ["ok"] * 30
        # One after the other, no two connections would be in use at a time.
        peers = provider.fake.connections
        ends = [peer.wrote for peer in peers if peer.wrote is not None]
        in_use = sum(ends) - sum(peer.opened for peer in peers)
        assert in_use > 2 * (max(ends) - min(peer.opened for peer in peers))


@pytest.mark.load
async def test_the_side_server_serves_the_same_sdks(world: World) -> None:
    """By base URL instead of by proxy: the same answers from the same engine, and no origin to speak of."""
    side = world.serve.info.side_url
    async with agent(world.serve, OPENAI_BASE_URL=f"{side}/v1", ANTHROPIC_BASE_URL=side) as program:
        for sdk in SDKS:
            for speaks in SDKS:
                for stream in (False, True):
                    async with world.serve.provider("m", speaks=speaks.name) as provider:
                        said = await program(order(sdk, stream), model="m", **sdk.ask("Hello"))
                        assert sdk.text(said["answer"]).startswith('You asked: "Hello".')
                        record = await only_record(world, provider)
                        assert (record["lane"], record["origin_host"]) == ("direct", "")
