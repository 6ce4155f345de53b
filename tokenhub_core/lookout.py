"""What watches every exchange, and the watch that tells of health and of parked credentials."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.admission.parking import Change
from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.budgets import Budgets
from tokenhub_core.errors import TokenHubError
from tokenhub_core.health.tracker import HealthTracker, State, Transition
from tokenhub_core.learning import Learning
from tokenhub_core.parkings import Parkings
from tokenhub_core.ports import Clock
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.telemetry.recorder import StoreRecorder

TICK: Final = 1.0
"""Seconds between two looks at provider health."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What watches every exchange."""

    bus: Bus
    metrics: Metrics
    health: HealthTracker
    learning: Learning
    recorder: StoreRecorder
    keyring: Keyring
    parkings: Parkings
    budgets: Budgets


async def look(clock: Clock, audit: Audit, watched: Watched) -> None:
    """Tell of health transitions and parkings, and keep the gauges."""
    bus, metrics, health = watched.bus, watched.metrics, watched.health
    while True:
        await asyncio.sleep(TICK)
        now = clock.monotonic()
        for moved in health.transitions():
            await _note_health(audit, moved)
            bus.publish(
                "health_change",
                {
                    "timestamp": clock.now() - (now - moved.at),
                    "provider_id": moved.provider,
                    "old_state": moved.before.value,
                    "new_state": moved.after.value,
                    "reason": moved.reason,
                },
            )
        for change in watched.parkings.fresh():
            await _note_parking(audit, change)
        metrics.parkings((one.place.provider, one.place.credential) for one in watched.keyring.parkings())
        metrics.health((name, view.state.value) for name, view in health.snapshot(now).items())
        health.prune(now)


async def _note_health(audit: Audit, moved: Transition) -> None:
    """Write that a provider is used less, or again. The watcher goes on where the store does not."""
    if State.DOWN not in {moved.before, moved.after}:
        return
    with suppress(TokenHubError):
        await audit.note(
            Action.PROVIDER_HEALTH,
            moved.provider,
            before={"state": moved.before.value},
            after={"state": moved.after.value},
            reason=moved.reason,
        )


async def _note_parking(audit: Audit, change: Change) -> None:
    """Write that a credential is out of use, or in use again; who did it stands in the entry."""
    place = change.parking.place
    with suppress(TokenHubError):
        await audit.note(
            Action.CREDENTIAL_PARK if change.parked else Action.CREDENTIAL_UNPARK,
            f"{place.credential} @ {place.provider}",
            after={"model": place.model, "reason": change.parking.reason.value, "by": change.by.value},
            reason=change.why,
        )
