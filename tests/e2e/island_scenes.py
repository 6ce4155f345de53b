"""Scenes on the island (see `island.py`), where the public hosts are ours and every packet for them is seen."""

from __future__ import annotations

import sys
import time
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from tests.e2e.asking import SDKS, order
from tests.e2e.conftest import LANES
from tests.e2e.island import ADDRESSES, Resolver, resolving
from tests.e2e.programs import Program, agent
from tests.e2e.serving import PLACEHOLDERS, Serve, bare_environment, eventually, serving
from tests.fakes.provider import FakeProvider
from tokenhub_core.ca import CertificateAuthority

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True)
class Island:
    """The public hosts, and who has asked for them."""

    resolver: Resolver
    hosts: dict[str, FakeProvider]
    ca_file: Path

    @property
    def visits(self) -> int:
        """How many connections have reached a public host."""
        return sum(len(host.connections) for host in self.hosts.values())

    def forget(self) -> None:
        self.resolver.asked.clear()
        for host in self.hosts.values():
            host.connections.clear()
            host.requests.clear()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def island(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Island]:
    theirs = CertificateAuthority.open(tmp_path_factory.mktemp("ca"), tuple(ADDRESSES), now=time.time)
    hosts = {
        name: FakeProvider(tls=theirs.server_context(name), host=address, listen=443)
        for name, address in ADDRESSES.items()
    }
    async with (
        resolving() as resolver,
        hosts["api.openai.com"],
        hosts["api.anthropic.com"],
    ):
        yield Island(resolver, hosts, theirs.certificate_file)


@dataclass(frozen=True)
class Lane:
    name: str
    serve: Serve
    program: Program


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=LANES)
async def lane(
    request: pytest.FixtureRequest, island: Island, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lane]:
    """A plain `tokenhub serve`: nothing is configured but the authority of the island's hosts."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = {"TOKENHUB_CA_FILE": str(island.ca_file), "TOKENHUB_ALLOW_PRIVATE": "192.0.2.0/24"}
    async with (
        serving(folder, "--lane", request.param, settings=settings) as serve,
        agent(serve) as program,
    ):
        yield Lane(request.param, serve, program)


async def test_with_nothing_configured_the_origin_answers_with_the_programs_own_key(
    lane: Lane, island: Island
) -> None:
    """Both SDKs, streamed and not: the host that was meant gets the call as it was, and it is on record."""
    for sdk in SDKS:
        for stream in (False, True):
            island.forget()
            said = await lane.program(order(sdk, stream), model=sdk.model, **sdk.ask("Hello"))

            assert sdk.text(said["answer"]).startswith('You asked: "Hello".')
            assert said["headers"]["x-tokenhub-reason"] == "routed-origin"
            assert said["headers"]["x-tokenhub-provider"] == f"origin:{sdk.host}"
            (received,) = island.hosts[sdk.host].requests
            key = received.header("authorization").removeprefix("Bearer ") or received.header("x-api-key")
            assert key == PLACEHOLDERS[f"{sdk.name.upper()}_API_KEY"]
            assert received.header("user-agent").startswith(f"{sdk.name.title()}"[:4])
            record = await lane.serve.record(said["headers"]["x-request-id"])
            assert (record["outcome"], record["origin_host"]) == ("ok", sdk.host)
            # Known public models have their public price, also there.
            assert record["cost_nanousd"] > 0


async def test_an_error_of_the_origin_is_the_programs_own(lane: Lane, island: Island) -> None:
    """A key that the host refuses: status and class are the host's, and it is asked once."""
    island.forget()
    host = island.hosts["api.openai.com"]
    host.script("gpt-4o", ["401"])
    error = (await lane.program("chat", model="gpt-4o", **SDKS[0].ask("Hello")))["error"]
    host.script("gpt-4o", ["ok"])

    assert (error["type"], error["status"]) == ("AuthenticationError", 401)
    assert len(host.requests) == 1


async def test_what_is_not_routed_passes_through_to_the_origin(lane: Lane, island: Island) -> None:
    """The list of models comes from the host itself, asked with the program's own key."""
    island.forget()
    said = await lane.program("models")

    assert said.get("ids") == [], said
    (received,) = island.hosts["api.openai.com"].requests
    assert (received.method, received.path) == ("GET", "/v1/models")
    assert received.header("authorization") == "Bearer sk-placeholder"
    if lane.name == "handoff":

        async def passed() -> list[str]:
            return [row["path"] for row in await lane.serve.records() if row["outcome"] == "passed"]

        assert await eventually(passed) == ["/v1/models"]


async def test_a_routed_call_sends_no_packet_to_the_host_that_it_was_meant_for(
    lane: Lane, island: Island
) -> None:
    """No name is looked up, no connection made: by the program, by the proxy, by the engine."""
    for sdk in SDKS:
        async with lane.serve.provider(sdk.model, speaks=sdk.name) as provider:
            island.forget()
            for stream in (False, True):
                said = await lane.program(order(sdk, stream), model=sdk.model, **sdk.ask("Hello"))
                assert said["headers"]["x-tokenhub-provider"] == provider.id
            assert provider.fake.calls(sdk.model) == 2
            assert (island.resolver.asked, island.visits) == ([], 0)


async def test_without_us_the_same_program_is_seen(island: Island, tmp_path: Path) -> None:
    """The island notices a program that is not behind us: its look-up, its connection and its key."""
    island.forget()
    process = await create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("agent.py")),
        env=bare_environment(tmp_path, SSL_CERT_FILE=str(island.ca_file), **PLACEHOLDERS),
        stdin=PIPE,
        stdout=PIPE,
    )
    ask = orjson.dumps({"do": "chat", "with": {"model": "gpt-4o", **SDKS[0].ask("Hello")}})
    out, _ = await process.communicate(ask)

    assert b'"answer"' in out
    assert "api.openai.com" in island.resolver.asked
    assert island.visits == 1
