"""A call comes to the same on the durable way as on the direct one: the same answer, the same one record."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.engine import Bench, chat
from tests.workflows.house import durably
from tests.workflows.server import Temporal


async def test_a_call_is_answered_through_a_workflow(temporal: Temporal, tmp_path: Path) -> None:
    """A plain call goes through Temporal and back."""
    bench = Bench(defaults={"durable": True})
    async with durably(temporal, tmp_path, bench) as house:
        reply, body = await house.ask(chat())
        assert reply.status == 200, body
        assert house.durable.fallbacks == 0
        print(bench.recorder.one)
