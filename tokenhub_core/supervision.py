"""Which worker is started, stopped and killed when: the supervisor of `tokenhub serve --workers N`, without processes.

    begin     one worker goes first: it makes what a first start makes; what it cannot start with, none can
    ready     the first one lets the others begin, a successor lets the one before it leave
    gone      whoever was not asked to leave is started again, each time later where that happens again and again
    reload    one slot after another gets a successor; where one does not become ready, the older ones stay
    stop      all leave; who is asked again is to hurry, and is killed in the end
    beat      a worker's loop has come round; one that was not heard of for too long is killed, and started again

A slot is a worker's place, with listening sockets of its own. There may be two workers in one slot while one follows
the other. A slot with none that is ready, and is heard of, is tended by all that are. Pure; times are monotonic
seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

_CANNOT: Final = 1
"""The exit code where nothing is left that serves."""
LOOK: Final = 2.0
"""Seconds between two looks at who was heard of."""


class Phase(StrEnum):
    """Where a worker is."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


class Patience(msgspec.Struct, frozen=True):
    """Seconds, and how many failures in a row are too many where nobody serves."""

    start: float = 120.0
    """For a worker to become ready."""
    leave: float = 45.0
    """For a worker to leave that was asked to, its drain included."""
    stable: float = 10.0
    """A worker that was ready for so long has failed for the first time."""
    first: float = 0.1
    """From a first failure to the next start; each further one waits twice as long."""
    most: float = 30.0
    failures: int = 5
    quiet: float = 5.0
    """For a worker that serves to be heard of before others accept beside it."""
    hung: float | None = 60.0
    """For a worker that serves to be heard of; None: for ever. It says so every second, however busy it is."""


class Start(msgspec.Struct, frozen=True):
    """Start a worker in a slot."""

    slot: int
    number: int
    alone: bool
    """No other worker serves: it has nobody to ask."""


class Stop(msgspec.Struct, frozen=True):
    """Ask a worker to leave; asked again, it is to hurry."""

    number: int


class Kill(msgspec.Struct, frozen=True):
    """Kill a worker."""

    number: int


class Tend(msgspec.Struct, frozen=True):
    """From now on these slots have nobody of their own."""

    slots: tuple[int, ...]


class Tell(msgspec.Struct, frozen=True):
    """Something for the log."""

    what: str
    bad: bool = False


class End(msgspec.Struct, frozen=True):
    """Nothing is left to be done."""

    code: int


type Action = Start | Stop | Kill | Tend | Tell | End


@dataclass(slots=True)
class _Worker:
    number: int
    slot: int
    since: float
    """When it came into its phase."""
    phase: Phase = Phase.STARTING
    heard: float = 0.0
    """When its loop last came round."""
    quiet: bool = False
    """It was not heard of for so long that others accept from its sockets, too."""
    killed: bool = False


@dataclass(slots=True)
class _Slot:
    failures: int = 0
    due: float | None = None
    """When the next worker is to be started in it."""


class Supervision:
    """The state. Every method returns what is to be done now, in order."""

    def __init__(self, slots: int, patience: Patience = Patience()) -> None:  # noqa: B008 - a frozen value
        self._patience = patience
        self._slots = [_Slot() for _ in range(slots)]
        self._workers: dict[int, _Worker] = {}
        self._last = 0
        self._served = False
        """Some worker was ready once."""
        self._stops = 0
        self._code = 0
        self._rolling: list[int] = []
        """Slots that wait for a successor; the first has one that is starting."""
        self._tended: tuple[int, ...] = ()
        self._looked = 0.0
        """When it was last seen who is to be heard of."""

    @property
    def phases(self) -> dict[int, Phase]:
        """Return where each worker is, by its number."""
        return {one.number: one.phase for one in self._workers.values()}

    @property
    def tended(self) -> tuple[int, ...]:
        """Return the slots that have nobody of their own."""
        return self._tended

    @property
    def due(self) -> float | None:
        """Return when `tick` has something to do, None while there is nothing to wait for."""
        times = [slot.due for slot in self._slots if slot.due is not None]
        times += [
            one.since + self._allowed(one) for one in self._workers.values() if one.phase is not Phase.READY
        ]
        if self._patience.hung is not None and self._any(Phase.READY):
            times.append(self._looked + LOOK)
        return min(times, default=None)

    def begin(self, now: float) -> list[Action]:
        """Start the first worker."""
        return self._done([self._started(0, now)])

    def ready(self, number: int, now: float) -> list[Action]:
        """Hear that a worker serves."""
        worker = self._workers.get(number)
        if worker is None or worker.phase is not Phase.STARTING:
            return []
        worker.phase, worker.since, worker.heard = Phase.READY, now, now
        actions: list[Action] = [
            self._asked(one, now)
            for one in self._in(worker.slot)
            if one is not worker and one.phase is Phase.READY
        ]
        if not self._served:
            self._served = True
            actions += [self._started(slot, now) for slot in range(1, len(self._slots))]
        if self._rolling[:1] == [worker.slot]:
            del self._rolling[0]
            actions += self._roll(now)
        return self._done(actions)

    def beat(self, number: int, now: float) -> list[Action]:
        """Hear that a worker's loop has come round."""
        worker = self._workers.get(number)
        if worker is None:
            return []
        worker.heard = now
        if not worker.quiet:
            return []
        worker.quiet = False
        return self._done([])

    def gone(self, number: int, code: int, now: float) -> list[Action]:
        """Hear that a worker has ended; a negative code is the signal that did it."""
        worker = self._workers.pop(number, None)
        if worker is None:
            return []
        if self._stops:
            return self._ended([])
        if not self._served:
            self._code = code if code > 0 else _CANNOT
            return self._given_up([])
        if worker.phase is Phase.LEAVING:
            return self._done([])
        if any(one.phase is not Phase.LEAVING for one in self._in(worker.slot)):
            self._rolling.clear()
            what = f"worker {number} did not become ready (exit {code}): the older ones go on"
            return self._done([Tell(what, bad=True)])
        slot = self._slots[worker.slot]
        stable = worker.phase is Phase.READY and now - worker.since >= self._patience.stable
        slot.failures = 1 if stable else slot.failures + 1
        if self._rolling[:1] == [worker.slot]:
            self._rolling.clear()
        if slot.failures >= self._patience.failures and not self._any(Phase.READY):
            self._code = _CANNOT
            return self._given_up(
                [Tell(f"workers end one after another, the last with exit {code}", bad=True)]
            )
        wait = min(self._patience.first * 2 ** (slot.failures - 1), self._patience.most)
        slot.due = now + wait
        return self._done(
            [Tell(f"worker {number} has ended (exit {code}): started again in {wait:g} s", bad=True)]
        )

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for one in [*self._workers.values()]:
            if one.phase is not Phase.READY and now >= one.since + self._allowed(one):
                actions += [
                    Tell(f"worker {one.number} is killed: {one.phase} for too long", bad=True),
                    Kill(one.number),
                ]
                one.since = now
        actions += self._hung(now)
        for number, slot in enumerate(self._slots):
            if slot.due is not None and now >= slot.due:
                actions.append(self._started(number, now))
        return self._done(actions)

    def reload(self, now: float) -> list[Action]:
        """Let every worker have a successor, one slot after another."""
        if self._stops or not self._served:
            return []
        idle = not self._rolling
        # A slot whose successor is starting already gets another one: it may have read what was before.
        self._rolling = self._rolling[:1] + list(range(len(self._slots)))
        actions: list[Action] = [Tell("reloading: one worker after another")]
        return self._done(actions + (self._roll(now) if idle else []))

    def stop(self, now: float) -> list[Action]:
        """Let all leave; the second time they are to hurry, the third time they are killed."""
        self._stops += 1
        for slot in self._slots:
            slot.due = None
        self._rolling.clear()
        if self._stops > 2:
            return self._ended([Kill(number) for number in self._workers])
        return self._ended([self._asked(one, now) for one in self._workers.values()])

    # --- inside

    def _hung(self, now: float) -> list[Action]:
        """Kill who serves and was not heard of. What it has accepted is lost anyhow; the rest others accept."""
        late, self._looked = now - self._looked > 2 * LOOK, now
        if self._patience.hung is None or self._stops:
            return []
        actions: list[Action] = []
        for one in self._workers.values():
            if one.phase is not Phase.READY:
                continue
            if late:
                # It was we who did not come round, or were only just asked to look: what they said waits to be read.
                one.heard = now
                continue
            seconds = now - one.heard
            one.quiet = seconds >= self._patience.quiet
            if seconds >= self._patience.hung and not one.killed:
                one.killed = True
                actions += [
                    Tell(f"worker {one.number} is killed: not heard of for {seconds:.0f} s", bad=True),
                    Kill(one.number),
                ]
        return actions

    def _started(self, slot: int, now: float) -> Start:
        self._slots[slot].due = None
        self._last += 1
        alone = not self._any(Phase.READY)
        self._workers[self._last] = _Worker(self._last, slot, now)
        return Start(slot, self._last, alone)

    def _asked(self, worker: _Worker, now: float) -> Stop:
        worker.phase, worker.since = Phase.LEAVING, now
        return Stop(worker.number)

    def _roll(self, now: float) -> list[Action]:
        while self._rolling:
            slot = self._rolling[0]
            # One that is starting, or is to be started, is a successor already.
            if self._slots[slot].due is None and all(
                one.phase is not Phase.STARTING for one in self._in(slot)
            ):
                return [self._started(slot, now)]
            del self._rolling[0]
        return []

    def _allowed(self, worker: _Worker) -> float:
        return self._patience.start if worker.phase is Phase.STARTING else self._patience.leave

    def _in(self, slot: int) -> Iterator[_Worker]:
        return (one for one in [*self._workers.values()] if one.slot == slot)

    def _any(self, phase: Phase) -> bool:
        return any(one.phase is phase for one in self._workers.values())

    def _given_up(self, actions: list[Action]) -> list[Action]:
        self._stops = 3
        for slot in self._slots:
            slot.due = None
        return self._ended([*actions, *(Kill(number) for number in self._workers)])

    def _ended(self, actions: list[Action]) -> list[Action]:
        return actions if self._workers else [*actions, End(self._code)]

    def _done(self, actions: list[Action]) -> list[Action]:
        """Add who is to be tended, where that has changed."""
        served = {one.slot for one in self._workers.values() if one.phase is Phase.READY and not one.quiet}
        tended = tuple(slot for slot in range(len(self._slots)) if slot not in served)
        if tended == self._tended or not served:
            return actions
        self._tended = tended
        # First: the one that is asked to leave, or has gone, must not leave a gap.
        return [Tend(tended), *actions]
