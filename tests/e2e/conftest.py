"""What the scenes start from: for each lane one `tokenhub serve` and one program, shared by all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.e2e.programs import Program, agent
from tests.e2e.serving import Serve, serving

LANES = ("handoff", "inspect")

MAX_BODY = 4 << 20
"""Bytes; small enough for a scene to send more."""


@dataclass(frozen=True)
class World:
    """A lane with everything in it."""

    lane: str
    serve: Serve
    program: Program


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=LANES)
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """One lane after the other. Nothing may reach an origin here: a call that nobody serves fails."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = {
        "TOKENHUB_ORIGIN": "false",
        "TOKENHUB_ALLOW_PRIVATE": "localhost",
        "TOKENHUB_MAX_BODY_BYTES": str(MAX_BODY),
    }
    async with (
        serving(folder, "--lane", request.param, settings=settings) as serve,
        agent(serve) as program,
    ):
        yield World(request.param, serve, program)
