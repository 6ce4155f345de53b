"""Workflows that began under an older version of us end under this one: their histories are read again.

`UPDATE_HISTORIES=1` writes what is missing in `histories`. A file is never written anew: an old history that does not
replay is what these scenes are there to find.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from tests.fakes.engine import Bench, chat
from tests.orchestration.talking import Heard, Talking
from tests.orchestration.talking import bench as talking_bench
from tests.patience import PATIENCE
from tests.shaping.speaking import BAD, GOOD, SCHEMA, Speaking
from tests.shaping.speaking import bench as speaking_bench
from tests.workflows.house import House, durably
from tests.workflows.server import Temporal
from tests.workflows.test_fitting import FailsSecond
from tests.workflows.test_plans import differ
from tests.workflows.upstream import Counting
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.store.durable import By
from tokenhub_core.types import Dialect, Json
from tokenhub_core.workflows import composed, shapes
from tokenhub_core.workflows.codec import converter
from tokenhub_core.workflows.composed import Begin
from tokenhub_core.workflows.definitions import Chat, Checked, Planned
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


def _counted(**profiles: Profile) -> Callable[[], tuple[Bench, Counting]]:
    """Return what makes an engine whose models behave so."""
    named = {MODELS[name]: profile for name, profile in profiles.items()}

    def made() -> tuple[Bench, Counting]:
        upstream = Counting(named)
        return Bench(transport=upstream, defaults={"durable": True}), upstream

    return made


def _speaking(*texts: str, speaks: type[Speaking] = Speaking) -> Callable[[], tuple[Bench, Speaking]]:
    def made() -> tuple[Bench, Speaking]:
        upstream = speaks(Dialect.OPENAI_CHAT, texts)
        return speaking_bench(upstream, defaults={"durable": True, "output_schema": SCHEMA}), upstream

    return made


def _talking(
    says: Callable[[Heard], str | Json | int | asyncio.Event],
) -> Callable[[], tuple[Bench, Talking]]:
    return lambda: talking_bench(says, defaults={"durable": True}, patience=Patience(ttft=60, whole=60))


async def _asks(body: Json, house: House, upstream: Any) -> None:
    await house.ask(body)


async def _leaves(body: Json, house: House, upstream: Talking) -> None:
    asking = asyncio.create_task(house.ask(body))
    async with asyncio.timeout(PATIENCE):
        while len(upstream.heard) < 3:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking


VOTE: Final = chat("@@tokenhub mode=vote\nHow much?", model="a")
ADVERSARIAL: Final = chat("@@tokenhub mode=adversarial\nHow much?", model="a")
REFINE: Final = chat("@@tokenhub mode=refine iterations=2\nHow much?", model="a")
PLAIN: Final = chat(model="m")
MODELS: Final = {"gpt": "gpt-4o", "claude": "claude-sonnet-4-5"}
_DOWN: Final = Profile(faults=("500",))

type Scene = tuple[Callable[[], tuple[Bench, Any]], Callable[[House, Any], Awaitable[None]]]

SCENES: Final[Mapping[str, Scene]] = {
    f"{shapes.CHAT}-answered": (_counted(), _asked),
    f"{shapes.CHAT}-failover": (_counted(gpt=_DOWN), _asked),
    f"{shapes.CHAT}-retried": (_counted(gpt=Profile(faults=("500", "ok")), claude=_DOWN), _asked),
    f"{shapes.CHAT}-given-up": (_counted(gpt=_DOWN, claude=_DOWN), _asked),
    f"{shapes.CHAT}-refused": (_counted(gpt=Profile(faults=("400",))), _asked),
    f"{shapes.CHAT}-cancelled": (_counted(), _left),
    f"{shapes.CHAT}-taken": (_counted(), _taken),
    f"{shapes.CHECKED}-fits": (_speaking(GOOD), partial(_asks, PLAIN)),
    f"{shapes.CHECKED}-mended": (_speaking(BAD, GOOD), partial(_asks, PLAIN)),
    f"{shapes.CHECKED}-never-fits": (_speaking(BAD), partial(_asks, PLAIN)),
    f"{shapes.CHECKED}-second-fails": (_speaking(BAD, speaks=FailsSecond), partial(_asks, PLAIN)),
    f"{composed.PLAN}-judged": (_talking(differ), partial(_asks, VOTE)),
    f"{composed.PLAN}-agreed": (
        _talking(lambda one: asyncio.Event() if one.model == "c" else "Four."),
        partial(_asks, VOTE),
    ),
    f"{composed.PLAN}-all-fail": (_talking(lambda one: 400), partial(_asks, VOTE)),
    f"{composed.PLAN}-adversarial": (_talking(differ), partial(_asks, ADVERSARIAL)),
    f"{composed.PLAN}-failover": (
        _talking(lambda one: 500 if one.model == "a" else "b"),
        partial(_asks, REFINE),
    ),
    f"{composed.PLAN}-cancelled": (_talking(lambda one: asyncio.Event()), partial(_leaves, VOTE)),
}
"""By the names of their files."""


@pytest.mark.skipif("UPDATE_HISTORIES" not in os.environ, reason="writes histories where that is asked for")
@pytest.mark.parametrize("name", SCENES)
async def test_write_histories(name: str, temporal: Temporal, tmp_path: Path) -> None:
    """Make the history of a scene, in the clear, where there is none."""
    kept = HISTORIES / f"{name}.json"
    if await asyncio.to_thread(kept.exists):
        return
    make, scene = SCENES[name]
    bench, upstream = make()
    async with durably(temporal, tmp_path, bench, sealed=False) as house:
        await scene(house, upstream)
        await house.durable.close()
        client = house.durable.client
        assert client is not None
        prefix = composed.PREFIX if name.startswith(composed.PLAN) else shapes.PREFIX
        handle = client.get_workflow_handle(f"{prefix}{bench.prefix}1")
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


KINDS: Final[Mapping[str, type]] = {shapes.CHAT: Chat, shapes.CHECKED: Checked, composed.PLAN: Planned}
STORED: Final = sorted(HISTORIES.glob("*.json"))


def test_every_scene_has_a_history() -> None:
    """One file for each, and none of a scene that nobody knows."""
    assert {path.stem for path in STORED} >= set(SCENES)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
async def test_a_stored_history_replays(path: Path) -> None:
    """What a workflow did then is what the same definition does now."""
    kind = next(one for one in KINDS if path.stem.startswith(one))
    await replay(path, KINDS[kind])


@workflow.defn(name=shapes.CHAT)
class Changed(Chat):
    """The same workflow, changed without a new version."""

    @workflow.run
    async def run(self, start: Start) -> Done:
        await workflow.sleep(1)
        return await super().run(start)


@workflow.defn(name=composed.PLAN)
class ChangedPlan(Planned):
    """The workflow of several steps, changed without a new version."""

    @workflow.run
    async def run(self, begin: Begin) -> Done:
        await workflow.sleep(1)
        return await super().run(begin)


@pytest.mark.parametrize(
    ("name", "changed"),
    [(f"{shapes.CHAT}-answered", Changed), (f"{composed.PLAN}-judged", ChangedPlan)],
    ids=["chat", "plan"],
)
async def test_a_change_without_a_version_is_found(name: str, changed: type) -> None:
    """A definition that does something else is refused by an old history."""
    with pytest.raises(workflow.NondeterminismError):
        await replay(HISTORIES / f"{name}.json", changed)
