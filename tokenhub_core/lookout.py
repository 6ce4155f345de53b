"""What watches every exchange, and the watch that tells of health and of parked credentials."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from tokenhub_core.admission.foreign import Leak
from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.admission.parking import Change
from tokenhub_core.audit.denials import Attempt
from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.budgets import Budgets
from tokenhub_core.chronicle import Chronicle
from tokenhub_core.errors import TokenHubError
from tokenhub_core.health.circuits import Circuits, Turned
from tokenhub_core.health.tracker import HealthTracker, State, Transition
from tokenhub_core.learning import Learning
from tokenhub_core.otel.tracing import Tracing
from tokenhub_core.parkings import Parkings
from tokenhub_core.ports import Clock
from tokenhub_core.proof.prover import Prover
from tokenhub_core.store.chronicle import Moved
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.telemetry.recorder import StoreRecorder

TICK: Final = 1.0
"""Seconds between two looks at provider health."""


_log: Final = logging.getLogger(__name__)
_KEPT: Final = 1000
"""Alarms that wait to be written."""


class Leaks:
    """Raises the alarm over keys that leave, or would have left, for hosts that they are not for."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self._bus = bus
        self._metrics = metrics
        self._fresh: deque[Leak] = deque(maxlen=_KEPT)

    def tell(self, leak: Leak) -> None:
        """Count one and tell everybody; the audit log hears of it at the next look."""
        self._metrics.leaked(leak.kind)
        self._bus.publish("credential_leak", structs.asdict(leak))
        self._fresh.append(leak)

    async def note(self, audit: Audit) -> None:
        """Write those that are new; many of one caller become one entry."""
        while self._fresh:
            leak = self._fresh.popleft()
            reason = "credential_leak" if leak.refused else "credential_sent"
            await audit.denied(Attempt(leak.peer, reason, leak.host, leak.key_id or "anonymous"))


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
    leaks: Leaks
    budgets: Budgets
    chronicle: Chronicle
    prover: Prover | None = None
    tracing: Tracing | None = None
    circuits: Circuits = field(default_factory=Circuits)


def blocked(bus: Bus, metrics: Metrics, seconds: float, where: str) -> None:
    """Tell that the event loop stood still."""
    metrics.blocked()
    bus.publish("loop_blocked", {"seconds": round(seconds, 3), "where": where})


async def look(clock: Clock, audit: Audit, watched: Watched) -> None:
    """Tell of health transitions and parkings, and keep the gauges."""
    bus, metrics, health = watched.bus, watched.metrics, watched.health
    while True:
        await asyncio.sleep(TICK)
        now = clock.monotonic()
        moves = [moved for moved in health.transitions() if not moved.told]
        watched.chronicle.note([_moved(moved, clock.now() - now) for moved in moves])
        for moved in moves:
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
        for turned in watched.circuits.fresh():
            _tell_circuit(bus, clock, turned)
        await watched.leaks.note(audit)
        metrics.parkings((one.place.provider, one.place.credential) for one in watched.keyring.parkings())
        metrics.health((name, view.state.value) for name, view in health.snapshot(now).items())
        health.prune(now)


def _tell_circuit(bus: Bus, clock: Clock, turned: Turned) -> None:
    """Tell that something we need has failed, or is there again."""
    if turned.open:
        _log.error("%s has failed (%s) and is only looked for", turned.name, turned.reason or "several times")
    else:
        _log.warning("%s is there again", turned.name)
    bus.publish("circuit_change", {"timestamp": clock.now(), **structs.asdict(turned)})


def _moved(moved: Transition, age: float) -> Moved:
    at, before, after = moved.at + age, moved.before.value, moved.after.value
    return Moved(at, moved.provider, "health", "", "", before, after, moved.reason)


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
