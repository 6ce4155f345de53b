"""Who is told when a caller was given something else than the provider sent."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from msgspec import structs

from tokenhub_core.audit.entries import Action, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.proof.entries import Delivered, Draft
from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Json

_log: Final = logging.getLogger(__name__)


class Alarms:
    """Counts every delivery, and raises the alarm over those that were changed. Implements `prover.Told`."""

    def __init__(self, bus: Bus, metrics: Metrics, audit: Audit) -> None:
        self._bus = bus
        self._metrics = metrics
        self._audit = audit
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, draft: Draft) -> None:
        """Hear of one delivery."""
        self._metrics.proved(draft.verdict)
        if draft.verdict != Verdict.CHANGED or not isinstance(draft.said, Delivered):
            return
        told = alarm(draft.request_id, draft.said)
        _log.error("the answer of %s is not what %s sent", draft.request_id, draft.said.provider or "nobody")
        self._bus.publish("proof_changed", told)
        task = asyncio.get_running_loop().create_task(self._note(draft.request_id, told), name="proof alarm")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Return once every alarm is in the audit log."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _note(self, request_id: str, told: Json) -> None:
        await self._audit.try_note(Action.PROOF_CHANGED, request_id, after=told, outcome=Result.FAILED)


def alarm(request_id: str, said: Delivered) -> Json:
    """Return what is told of a changed answer: which calls, and no word of them."""
    wrong = [structs.asdict(call) for call in said.calls if call.verdict is Verdict.CHANGED]
    text = said.text is not None and said.text.verdict is Verdict.CHANGED
    return {
        "request_id": request_id,
        "provider": said.provider,
        "model": said.model,
        "calls": [{**call, "verdict": str(call["verdict"])} for call in wrong],
        "text": text,
    }
