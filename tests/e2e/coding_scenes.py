"""Scenes with coding agents on the island (see `island.py`), where nothing can be reached and every look-up is seen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e import packages
from tests.e2e.coding import CODING_AGENTS, COMMAND, LEFT, MODELS, SAYS, CodingAgent
from tests.e2e.conftest import LANES
from tests.e2e.island import Resolver, resolving
from tests.e2e.programs import run
from tests.e2e.serving import Serve, measured, serving
from tokenhub_core.types import Json

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Desk:
    """Where an agent works: a `tokenhub serve` that reaches no origin, and the agents' packages."""

    serve: Serve
    resolver: Resolver
    modules: Path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def resolver() -> AsyncIterator[Resolver]:
    async with resolving() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=LANES)
async def desk(
    request: pytest.FixtureRequest, resolver: Resolver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp(request.param)
    modules = packages.installed(packages.AGENTS)
    async with serving(folder, "--lane", request.param, settings={"TOKENHUB_ORIGIN": "false"}) as serve:
        yield Desk(serve, resolver, modules)


def settle(folder: Path, agent: CodingAgent) -> dict[str, str]:
    """Make an agent's home, its workspace and the program that it is to run; return its environment."""
    home, tools, work, scratch = (folder / name for name in ("home", "tools", "work", "scratch"))
    for place in (home, tools, work, scratch):
        place.mkdir()
    for name, content in agent.files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    program = tools / COMMAND
    program.write_text(f"#!/bin/sh\necho ran >>{LEFT}\necho '{SAYS}'\n")
    program.chmod(0o755)
    # Programs that start a shell of their own may have it read a profile that sets another PATH.
    for profile in (".profile", ".bashrc", ".bash_profile"):
        (home / profile).write_text(f'PATH="{tools}:$PATH"\n')
    return {
        **agent.environ,
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "TMPDIR": str(scratch),
        "CLAUDE_CODE_TMPDIR": str(scratch),
    }


@pytest.mark.parametrize("speaks", MODELS)
@pytest.mark.parametrize("agent", CODING_AGENTS, ids=[agent.name for agent in CODING_AGENTS])
async def test_an_agent_runs_its_tool_and_tells_what_it_said(
    desk: Desk, tmp_path: Path, agent: CodingAgent, speaks: str
) -> None:
    """A call, a tool that really runs, a second call with its result, and an answer that repeats it."""
    environ = settle(tmp_path, agent)
    model = MODELS[speaks]
    command = ("env", "-C", str(tmp_path / "work"), *agent.command(desk.modules, model))
    async with desk.serve.provider(model, speaks=speaks) as provider:
        desk.resolver.asked.clear()
        ran = await run(desk.serve, *command, options=(), **environ)

        assert ran.code == 0, ran.out[-2000:] + ran.err[-2000:]
        assert (tmp_path / "work" / LEFT).read_text() == "ran\n"
        assert SAYS in ran.out
        records = await desk.serve.records_of(provider)
        assert len(records) >= 2
        assert {(record["outcome"], record["status"]) for record in records} == {("ok", 200)}
        assert SAYS.encode() in provider.fake.requests[-1].body
        paths = {received.path for received in provider.fake.requests}
        if agent.speaks == speaks:  # nothing is translated, and nothing of the query is lost
            assert paths == {record["path"] for record in records}
        told(agent, speaks, records, paths)
        assert desk.resolver.asked == []


def told(agent: CodingAgent, speaks: str, records: list[Json], paths: set[str]) -> None:
    """Print what an agent asked for, what became of it, and what the provider's dialect could not carry of it."""
    asked = sorted({f"{record['origin_host']}{record['path']}" for record in records})
    lost = sorted({name for record in records for name in record["losses"]})
    measured(f"{agent.name} with {speaks}: {', '.join(asked)} -> {', '.join(sorted(paths))}; lost: {lost}")
