"""Providers that fail: what another one can mend the program never sees; what nobody can it sees as an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.e2e.asking import SDKS, Sdk, order, other
from tests.e2e.conftest import World
from tests.e2e.programs import agent
from tests.e2e.serving import INPUT_PER_1K, serving
from tests.fakes.provider import closed_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
each_pair = pytest.mark.parametrize("crossed", [False, True], ids=["same", "crossed"])
each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])

CHEAP: Final[dict[str, Any]] = {"input_per_1k": INPUT_PER_1K / 10}
"""Makes a provider the first choice."""


# --- before the first visible byte --------------------------------------------------------------------------


@each_way
@each_sdk
@pytest.mark.parametrize(
    ("fault", "causes"),
    [
        ("refused", {"connect_refused"}),
        ("disconnect", {"disconnected"}),
        ("500", {"http_500"}),
        ("503", {"http_503"}),
        ("429:7", {"http_429"}),
        ("401", {"http_401"}),
        ("bad-json", {"bad_json", "bad_answer"}),
        ("lifecycle-error:529", {"stream_529", "stream_500", "body_529", "body_500"}),
        ("bad-http", {"bad_http"}),
        ("redirect:http://192.0.2.1/", {"redirect"}),
    ],
)
async def test_a_provider_that_fails_is_replaced_invisibly(
    world: World, sdk: Sdk, stream: bool, fault: str, causes: set[str]
) -> None:
    """The second provider of the model answers; only headers and record tell that there was a first one."""
    serve = world.serve
    nobody = f"http://127.0.0.1:{closed_port()}"
    async with (
        serve.provider("m", speaks=sdk.name, url=nobody if fault == "refused" else "", **CHEAP) as bad,
        serve.provider("m", speaks=other(sdk).name) as good,
    ):
        bad.fake.script("m", ["ok" if fault == "refused" else fault])
        said = await world.program(order(sdk, stream), model="m", **sdk.ask("Hello"))

        assert sdk.text(said["answer"]).startswith('You asked: "Hello".')
        assert said["headers"]["x-tokenhub-attempts"] == "2"
        assert said["headers"]["x-tokenhub-reason"] == "failover"
        assert said["headers"]["x-tokenhub-provider"] == good.id
        (record,) = await serve.records_of(bad)
        first, second = record["attempts"]
        assert (first["provider"], second["provider"], second["cause"]) == (bad.id, good.id, "")
        assert first["cause"] in causes
        assert record["outcome"] == "ok"
        assert good.fake.requests[0].header("authorization") in {"", f"Bearer {good.key}"}
        assert bad.key not in str(good.fake.requests)


IMPATIENCE = 1.5
"""Seconds; enough for a provider that answers at once, on a busy machine too."""


@pytest_asyncio.fixture(
    scope="module", loop_scope="session", params=["handoff", pytest.param("inspect", marks=pytest.mark.load)]
)
async def impatient(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """A lane whose patience with providers is short."""
    settings = {
        name: str(IMPATIENCE)
        for name in (
            "TOKENHUB_TTFT_TIMEOUT_SECS",
            "TOKENHUB_STALL_TIMEOUT_SECS",
            "TOKENHUB_PROVIDER_TIMEOUT_SECS",
        )
    }
    folder = tmp_path_factory.mktemp(f"impatient-{request.param}")
    async with (
        serving(folder, "--lane", request.param, settings={"TOKENHUB_ORIGIN": "false", **settings}) as serve,
        agent(serve) as program,
    ):
        yield World(request.param, serve, program)


@pytest.mark.parametrize(
    ("fault", "sdk", "stream"),
    [
        ("hang", SDKS[0], False),
        ("hang", SDKS[1], True),
        ("lifecycle-hang", SDKS[0], True),
        ("lifecycle-hang", SDKS[1], False),
    ],
    ids=["hang-openai-whole", "hang-anthropic-stream", "opening-openai-stream", "opening-anthropic-whole"],
)
async def test_a_provider_that_hangs_is_replaced_invisibly(
    impatient: World, sdk: Sdk, stream: bool, fault: str
) -> None:
    """Nothing at all, or a stream that opens and says nothing more: the next one is asked in time."""
    serve = impatient.serve
    async with (
        serve.provider("m", speaks=sdk.name, **CHEAP) as bad,
        serve.provider("m", speaks=sdk.name) as good,
    ):
        bad.fake.script("m", [fault])
        said = await impatient.program(order(sdk, stream), model="m", **sdk.ask("Hello"))

        assert sdk.text(said["answer"]).startswith('You asked: "Hello".')
        (record,) = await serve.records_of(bad)
        assert [a["provider"] for a in record["attempts"]] == [bad.id, good.id]
        assert record["attempts"][0]["cause"] in {"ttft_timeout", "total_timeout"}
        assert record["attempts"][0]["ended_ms"] > IMPATIENCE * 900
        # A provider that we gave up is not left to work for nobody.
        await bad.fake.until(closed=1)


# --- nobody can serve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sdk", "stream"),
    [(SDKS[0], True), (SDKS[1], False)],
    ids=["openai-stream", "anthropic-whole"],
)
async def test_when_all_fail_the_sdk_raises_its_own_error_with_our_words_and_asks_once(
    world: World, sdk: Sdk, stream: bool
) -> None:
    """Two providers, both broken: `InternalServerError`, our message, and no storm of retries on top of ours."""
    async with (
        world.serve.provider("m", speaks=sdk.name) as one,
        world.serve.provider("m", speaks=sdk.name) as two,
    ):
        for provider in (one, two):
            provider.fake.script("m", ["500"])
        error = (await world.program(order(sdk, stream), model="m", **sdk.ask("Hello")))["error"]

        assert (error["type"], error["module"], error["status"]) == ("InternalServerError", sdk.name, 502)
        assert "all 2 providers failed; last: The server had an error (simulated)" in error["message"]
        assert error["headers"]["x-should-retry"] == "false"
        (record,) = await world.serve.records_of(one)
        assert error["request_id"] == record["id"]
        assert (record["outcome"], record["status"], record["error_class"]) == ("error", 502, "all_failed")
        assert record["cost_nanousd"] == 0
        assert one.fake.calls("m") + two.fake.calls("m") == len(record["attempts"]) <= 5


@each_sdk
async def test_a_rate_limit_is_the_sdks_own_and_its_retries_obey(world: World, sdk: Sdk) -> None:
    """A limit of half a minute: 429 with Retry-After, in the class that programs know."""
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        provider.fake.script("m", ["429:30"])
        error = (await world.program(sdk.whole, retries=0, model="m", **sdk.ask("Hello")))["error"]

        assert (error["type"], error["status"]) == ("RateLimitError", 429)
        assert 28 <= float(error["headers"]["retry-after"]) <= 30
        assert "Rate limit reached" in error["message"]
        assert provider.fake.calls("m") == 1
        # A second call within the limit does not reach the provider.
        again = (await world.program(sdk.whole, retries=0, model="m", **sdk.ask("Hello")))["error"]
        assert (again["type"], again["status"]) == ("RateLimitError", 429)
        assert provider.fake.calls("m") == 1


async def test_a_short_rate_limit_is_waited_for(world: World) -> None:
    """The only provider asks for a second: the program gets its answer a second later, and no error."""
    sdk = SDKS[0]
    async with world.serve.provider("m", speaks=sdk.name) as provider:
        provider.fake.script("m", ["429:1", "ok"])
        said = await world.program(sdk.whole, model="m", **sdk.ask("Hello"))

        assert sdk.text(said["answer"])
        first, second = provider.fake.requests
        assert 1.0 <= second.at - first.at < 3.0
        assert len(await world.serve.records_of(provider)) == 1


@each_way
@each_sdk
@each_pair
@pytest.mark.parametrize(
    ("fault", "type_"), [("400", "BadRequestError"), ("422", "UnprocessableEntityError")]
)
async def test_the_programs_own_mistake_is_not_tried_elsewhere(
    world: World, sdk: Sdk, stream: bool, crossed: bool, fault: str, type_: str
) -> None:
    """One try, and the provider's status and words in the program's dialect."""
    first = other(sdk) if crossed else sdk
    async with (
        world.serve.provider("m", speaks=first.name, **CHEAP) as strict,
        world.serve.provider("m", speaks=first.name) as unasked,
    ):
        strict.fake.script("m", [fault])
        error = (await world.program(order(sdk, stream), model="m", **sdk.ask("Hello")))["error"]

        assert (error["type"], error["status"]) == (type_, int(fault))
        assert "The server had an error (simulated)" in error["message"]
        assert (strict.fake.calls("m"), unasked.fake.calls("m")) == (1, 0)


async def test_a_model_that_nobody_has_is_not_found(world: World) -> None:
    """Each SDK raises its `NotFoundError`, once, with what to do about it."""
    for sdk in SDKS:
        error = (await world.program(sdk.whole, model="nonsense", **sdk.ask("Hello")))["error"]
        assert (error["type"], error["module"]) == ("NotFoundError", sdk.name)
        assert "The model 'nonsense' is not registered." in error["message"]


# --- after the first visible byte ---------------------------------------------------------------------------


@each_sdk
@each_pair
@pytest.mark.parametrize("fault", ["reset", "truncate", "no-terminal", "content-error:500"])
async def test_a_stream_that_breaks_never_looks_like_an_end(
    world: World, sdk: Sdk, crossed: bool, fault: str
) -> None:
    """The program has seen words: it gets an error then, not an answer that is only shorter."""
    speaks = other(sdk) if crossed else sdk
    async with (
        world.serve.provider("m", speaks=speaks.name, **CHEAP) as broken,
        world.serve.provider("m", speaks=speaks.name) as spare,
    ):
        broken.fake.script("m", [fault])
        said = await world.program(sdk.stream, model="m", **sdk.ask("Tell me"))

        assert len(said["at"]) > 5
        assert "answer" not in said
        assert {"openai": "APIError", "anthropic": "APIStatusError"}[sdk.name] in said["error"]["is"]
        (record,) = await world.serve.records_of(broken)
        assert (record["id"], record["outcome"]) == (said["headers"]["x-request-id"], "error")
        assert record["message"] in said["error"]["message"]
        # What was produced is paid for; what broke is not tried again behind the program's back.
        assert record["output_tokens"] > 2
        assert len(record["attempts"]) == 1
        assert spare.fake.requests == []


@each_sdk
async def test_a_stream_that_falls_silent_ends_in_an_error(impatient: World, sdk: Sdk) -> None:
    """Half an answer and then nothing: the program hears so, and the provider's connection is closed."""
    async with impatient.serve.provider("m", speaks=sdk.name) as provider:
        provider.fake.script("m", ["stall"])
        said = await impatient.program(sdk.stream, model="m", **sdk.ask("Tell me"))

        assert "answer" not in said
        assert "no more of the answer came" in said["error"]["message"]
        await provider.fake.until(closed=1)
