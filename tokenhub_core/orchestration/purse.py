"""The limit of one call, shared out among its steps. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenhub_core.orchestration.asks import Goal, bound
from tokenhub_core.types import NANO


@dataclass(slots=True)
class Purse:
    """The limit of one call, shared out among its steps; nano-dollars. `limit` None: there is none."""

    limit: int | None
    steps: int
    """That may still begin."""
    spent: int = 0
    promised: dict[str, int] = field(default_factory=dict)

    def share(self) -> int | None:
        """Return what the next step may cost."""
        if self.limit is None:
            return None
        left = self.limit - self.spent - sum(self.promised.values())
        return max(0, left) // max(1, self.steps)

    def begin(self, name: str) -> int | None:
        """Return what this step may cost, and set it aside."""
        share = self.share()
        self.steps -= 1
        if share is not None:
            self.promised[name] = share
        return share

    def end(self, name: str, nanousd: int) -> None:
        """Hear what a step did cost."""
        self.promised.pop(name, None)
        self.spent += nanousd


def purse(dollars: float | None, goal: Goal) -> Purse:
    """Return the purse of a call that may cost so much."""
    return Purse(None if dollars is None else int(dollars * NANO), bound(goal))
