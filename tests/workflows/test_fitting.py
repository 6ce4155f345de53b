"""Answers that are checked or shaped come to the same on the durable way: the same text, the same one record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, override

import pytest

from tests.fakes.engine import Bench, chat
from tests.fakes.transport import Scripted
from tests.shaping.speaking import BAD, COST, GOOD, SCHEMA, Speaking, bench
from tests.workflows.house import House, durably
from tests.workflows.server import Temporal
from tests.workflows.test_once import NOWHERE, attempt, kept
from tests.workflows.test_parity import CREATED, comparable
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.preparing import Rules
from tokenhub_core.store.durable import By
from tokenhub_core.types import Dialect, Form, Outcome
from tokenhub_core.workflows import shapes

CHECKED: Mapping[str, Any] = {"output_schema": SCHEMA}
HELD: Mapping[str, Any] = {**CHECKED, "buffered": True}


class FailsSecond(Speaking):
    """A provider whose second answer is an error."""

    @override
    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Scripted:
        answer = await super().send(request, timeouts)
        if len(self.sent) == 2:
            answer.status = 500
        return answer


@dataclass(frozen=True)
class Scene:
    """One call, what is wanted of its answer, and what the provider says."""

    name: str
    texts: Sequence[str]
    wishes: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    status: int = 200
    sent: int = 1
    outcome: Outcome = Outcome.OK
    rules: Callable[[], Rules] = Rules
    speaks: type[Speaking] = Speaking

    def bench(self) -> Bench:
        speaking = self.speaks(Dialect.OPENAI_CHAT, self.texts)
        return bench(speaking, defaults={**self.wishes, "durable": True}, rules=self.rules())


SCENES = (
    Scene("fits", [GOOD], CHECKED),
    Scene("mended", [BAD, GOOD], CHECKED, sent=2),
    Scene("never fits", [BAD], CHECKED, status=422, sent=2, outcome=Outcome.ERROR),
    Scene("no second attempt", [BAD], CHECKED, False, 422, 1, Outcome.ERROR, lambda: Rules(max_attempts=1)),
    Scene("second try fails", [BAD], CHECKED, False, 422, 2, Outcome.ERROR, speaks=FailsSecond),
    Scene("held, mended", [BAD, GOOD], HELD, stream=True, sent=2),
    Scene("held, never fits", [BAD], HELD, True, 422, 2, Outcome.ERROR),
    Scene("flows, does not fit", [BAD], CHECKED, stream=True, outcome=Outcome.ERROR),
    Scene("shaped", ["<think>hm</think>\n**Yes**"], {"strip_think": True, "output_format": Form.TEXT}),
    Scene("shaped stream", ["<think>hm</think>Yes"], {"strip_think": True}, stream=True),
    Scene("cut", ["word " * 50], {"output_max_tokens": 5}),
    Scene("fence", [f"```json\n{GOOD}\n```"], {**CHECKED, "output_format": Form.JSON}),
    Scene("own schema", [BAD, GOOD], {"validate": True}, sent=2),
)
OWN = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def body_of(scene: Scene) -> Any:
    more: dict[str, Any] = {"response_format": OWN} if "validate" in scene.wishes else {}
    return chat(model="m", stream=scene.stream, **more)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_a_checked_answer_comes_to_the_same(scene: Scene, temporal: Temporal, tmp_path: Path) -> None:
    """Status, text, attempts, reason and cost are those of the direct way; a second try is made once."""
    durable, direct = scene.bench(), scene.bench()
    async with durably(temporal, tmp_path, durable) as house:
        reply, body = await durable.ask(body_of(scene))
        assert house.durable.fallbacks == 0
    direct.prefix = durable.prefix
    expected, expected_body = await direct.ask(body_of(scene))

    speaking = durable.transport
    assert isinstance(speaking, Speaking)
    assert (reply.status, len(speaking.sent)) == (expected.status, scene.sent) == (scene.status, scene.sent)
    assert CREATED.sub(b"", body) == CREATED.sub(b"", expected_body)
    record = durable.recorder.one
    assert comparable(record) == comparable(direct.recorder.one)
    assert record.outcome is scene.outcome
    assert durable.ledger.spent_nanousd == direct.ledger.spent_nanousd
    assert durable.ledger.reserved_nanousd == 0


def checked(*texts: str) -> tuple[Bench, Speaking]:
    speaking = Speaking(Dialect.OPENAI_CHAT, texts)
    return bench(speaking, defaults={**CHECKED, "durable": True}), speaking


async def _unfit(house: House) -> tuple[shapes.Step, shapes.Told]:
    """Make a first attempt whose answer does not fit; return the step of the second one, and what was told."""
    step = await kept(house, chat(model="m"))
    told = await attempt(house, step)
    assert (told.unfit, told.again is not None) == (True, True)
    again = shapes.Step(step.id, 0, 1, 30.0, None, "", told.trace)
    return shapes.repairing(again, 1, 0), told


async def test_a_second_try_that_is_asked_for_again_is_told_and_not_made(tmp_path: Path) -> None:
    """It is an attempt with a mark of its own."""
    one, speaking = checked(BAD, GOOD)
    async with durably(NOWHERE, tmp_path, one) as house:
        step, _ = await _unfit(house)
        first, again = await attempt(house, step), await attempt(house, step)

    assert first == again
    assert (first.fault, len(speaking.sent)) == (None, 2)
    assert [line.change for line in first.trace.attempts] == ["", "schema-repair"]
    assert speaking.asked[1]["messages"][-2] == {"role": "assistant", "content": BAD}


async def test_a_second_try_whose_maker_died_is_lost_and_paid(tmp_path: Path) -> None:
    """A mark without an outcome: nothing is sent again, and the first answer stays refused."""
    one, speaking = checked(BAD, GOOD)
    async with durably(NOWHERE, tmp_path, one) as house:
        step, _ = await _unfit(house)
        await house.rows.begin(step.id, step.n, By.WORKFLOW, now=one.clock.now())
        told = await attempt(house, step)

    assert (told.fault, len(speaking.sent)) == (shapes.LOST, 1)
    assert [line.cause for line in told.trace.attempts] == ["invalid_output", "worker_lost"]
    assert told.trace.attempts[0].cost_nanousd == COST


async def test_an_answer_that_does_not_fit_is_never_given_from_the_store(tmp_path: Path) -> None:
    """What is kept of it is for the second try alone; nobody who looks for an answer finds one."""
    one, _ = checked(BAD)
    async with durably(NOWHERE, tmp_path, one) as house:
        step, told = await _unfit(house)
        (mark,) = await house.rows.marks(step.id)
        assert mark.outcome is not None
        outcome = house.durable.safe.outcome(step.id, 1, mark.outcome)

    assert (outcome.answer, outcome.said, outcome.told) == (None, BAD, told)


async def test_who_leaves_in_a_second_try_ends_it(temporal: Temporal, tmp_path: Path) -> None:
    """The record says that the caller left, and has both attempts."""
    reached = asyncio.Event()

    class Waits(Speaking):
        @override
        async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Scripted:
            answer = await super().send(request, timeouts)
            if len(self.sent) == 2:
                reached.set()
                await asyncio.Event().wait()
            return answer

    one = bench(Waits(Dialect.OPENAI_CHAT, [BAD]), defaults={**CHECKED, "durable": True})
    async with durably(temporal, tmp_path, one) as house:
        asking = asyncio.create_task(house.ask(chat(model="m")))
        await reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await house.durable.close()

    record = one.recorder.one
    assert record.outcome is Outcome.CANCELLED
    assert [line.cause for line in record.attempts] == ["invalid_output", "client_cancelled"]
