"""Workflows that began under an older version of us end under this one: their histories are read again.

`UPDATE_HISTORIES=1` writes what is missing in `histories`. A file is never written anew: an old history that does not
replay is what these scenes are there to find.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from tests.fakes.engine import Bench, chat
from tests.workflows.house import House, durably
from tests.workflows.server import Temporal
from tests.workflows.upstream import Counting
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.store.durable import By
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.codec import converter
from tokenhub_core.workflows.definitions import Chat
from tokenhub_core.workflows.shapes import Done, Start

HISTORIES: Final = Path(__file__).with_name("histories")


async def _asked(house: House, upstream: Counting) -> None:
    await house.ask(chat())


async def _left(house: House, upstream: Counting) -> None:
    upstream.go.clear()
    asking = asyncio.create_task(house.ask(chat()))
    await upstream.reached.wait()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking


async def _taken(house: House, upstream: Counting) -> None:
    snapshot = house.bench.snapshot(chat())
    await house.rows.begin(snapshot.id, 1, By.DIRECT, now=0)
    asking = asyncio.create_task(house.bench.engine.exchange(snapshot))
    assert house.durable.client is not None
    while True:
        with suppress(Exception):
            await house.durable.client.get_workflow_handle(shapes.PREFIX + snapshot.id).result()
            break
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking


type Scene = tuple[Mapping[str, Profile], Callable[[House, Counting], Awaitable[None]]]

SCENES: Final[Mapping[str, Scene]] = {
    "answered": ({}, _asked),
    "failover": ({"gpt-4o": Profile(faults=("500",))}, _asked),
    "retried": (
        {"gpt-4o": Profile(faults=("500", "ok")), "claude-sonnet-4-5": Profile(faults=("500",))},
        _asked,
    ),
    "given-up": (
        {"gpt-4o": Profile(faults=("500",)), "claude-sonnet-4-5": Profile(faults=("500",))},
        _asked,
    ),
    "refused": ({"gpt-4o": Profile(faults=("400",))}, _asked),
    "cancelled": ({}, _left),
    "taken": ({}, _taken),
}


@pytest.mark.skipif("UPDATE_HISTORIES" not in os.environ, reason="writes histories where that is asked for")
@pytest.mark.parametrize("name", SCENES)
async def test_write_histories(name: str, temporal: Temporal, tmp_path: Path) -> None:
    """Make the history of a scene, in the clear, where there is none."""
    kept = HISTORIES / f"{shapes.CHAT}-{name}.json"
    if await asyncio.to_thread(kept.exists):
        return
    profiles, scene = SCENES[name]
    upstream = Counting(profiles)
    bench = Bench(transport=upstream, defaults={"durable": True})
    async with durably(temporal, tmp_path, bench, sealed=False) as house:
        await scene(house, upstream)
        await house.durable.close()
        client = house.durable.client
        assert client is not None
        handle = client.get_workflow_handle(f"{shapes.PREFIX}{bench.prefix}1")
        history = await handle.fetch_history()
    await asyncio.to_thread(kept.write_text, history.to_json())


async def replay(path: Path, definition: type) -> None:
    """Read a history again; raises where the definition would have done something else."""
    replayer = Replayer(
        workflows=[definition],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=converter(None),
    )
    text = await asyncio.to_thread(path.read_text)
    await replayer.replay_workflow(WorkflowHistory.from_json("chat-replayed", text))


STORED: Final = sorted(HISTORIES.glob("*.json"))


def test_every_scene_has_a_history() -> None:
    """One file for each, and none of a scene that nobody knows."""
    assert {path.stem for path in STORED} >= {f"{shapes.CHAT}-{name}" for name in SCENES}


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
async def test_a_stored_history_replays(path: Path) -> None:
    """What a workflow did then is what the same definition does now."""
    await replay(path, Chat)


@workflow.defn(name=shapes.CHAT)
class Changed(Chat):
    """The same workflow, changed without a new version."""

    @workflow.run
    async def run(self, start: Start) -> Done:
        await workflow.sleep(1)
        return await super().run(start)


async def test_a_change_without_a_version_is_found() -> None:
    """A definition that does something else is refused by an old history."""
    with pytest.raises(workflow.NondeterminismError):
        await replay(HISTORIES / f"{shapes.CHAT}-answered.json", Changed)
