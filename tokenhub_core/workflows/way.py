"""What the engine and the admin API know of durable calls; who makes them so is an extra. Pure."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from tokenhub_core.dispatch.job import Job, Live, Whole
from tokenhub_core.health.breaker import Breaker
from tokenhub_core.orchestration.steps import Frame
from tokenhub_core.orchestration.telling import Composed
from tokenhub_core.progress import Progress
from tokenhub_core.types import Bond, Headers, Policy, Request, Snapshot


class Workflow(msgspec.Struct, frozen=True):
    """One workflow, as Temporal knows it. Moments in seconds since the epoch."""

    workflow_id: str
    run_id: str
    type: str
    status: str
    """One of `STATUSES`."""
    start_time: float
    close_time: float | None = None
    duration_ms: float | None = None
    """Of one that has ended."""


class Happening(msgspec.Struct, frozen=True):
    """One event of a history, without what it carries."""

    event_id: int
    event_type: str
    timestamp: float


STATUSES: Final = (
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CANCELED",
    "TERMINATED",
    "CONTINUED_AS_NEW",
    "TIMED_OUT",
)


class Resumed(msgspec.Struct, frozen=True):
    """What a durable call came to whose front door is gone."""

    answer: bytes | None = None
    """None: it has failed, or was never begun and never will be."""
    headers: Headers = ()
    """The provider's own."""
    recorded: bool = True
    """What is kept of it is not needed any more."""


class Framing(Protocol):
    """Says what the steps of a call share, by what this process knows of the fleet."""

    def __call__(
        self,
        snapshot: Snapshot,
        request: Request,
        wishes: Policy,
        *,
        model: str,
        bond: Bond | None,
        most_output: int | None,
    ) -> Frame:
        """Return it; raises `TokenHubError` where its answer is to fit a schema that is none."""
        ...


class Durability(Protocol):
    """A way to have calls made that go on whatever dies, and a look at those under way.

    Of the looks each raises `TokenHubError` where Temporal cannot be asked.
    """

    breaker: Breaker
    """Says whether it is asked at all."""

    def takes(self, ready: Job | Composed) -> bool:
        """Tell whether the call goes this way."""
        ...

    async def run(self, ready: Job | Composed, progress: Progress) -> Whole | Live:
        """Return the answer; raises `TokenHubError` where there is none. The trace says who makes the record."""
        ...

    async def resumed(self, request_id: str) -> Resumed | None:
        """Return what a call came to that another front door took, once it is over; None where nobody knows."""
        ...

    def given(self, request_id: str) -> None:
        """Hear that such a call's answer has found its caller."""
        ...

    async def workflows(self, *, limit: int, status: str = "") -> list[Workflow]:
        """Return the latest ones, those of one status where that is said."""
        ...

    async def workflow(self, workflow_id: str) -> Workflow | None:
        """Return one, None where there is none of that id."""
        ...

    async def history(self, workflow_id: str, *, limit: int) -> list[Happening] | None:
        """Return the first events of one, None where there is none of that id."""
        ...

    async def cancel(self, workflow_id: str) -> bool:
        """Ask one to end; False where there is none of that id that runs."""
        ...
