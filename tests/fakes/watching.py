"""What watches calls that pass: with a price list of a scene's own, and an engine that decides or does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tokenhub_core.clock import SystemClock
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import Fault
from tokenhub_core.lending import Lender
from tokenhub_core.modes import HostMode, Match, Modes, Rule
from tokenhub_core.ports import Foreseen, Foreseer
from tokenhub_core.providers.catalogue import SOURCE, Catalogue
from tokenhub_core.routing.estimate import UNLEARNED, Estimates
from tokenhub_core.types import Caller, Dialect, Headers, Snapshot
from tokenhub_core.watching import Watcher

PRICES: Final = b"""{
    "openai": {"models": {
        "gpt-4o": {"id": "gpt-4o", "cost": {"input": 2.5, "output": 10, "cache_read": 1.25}}}},
    "anthropic": {"models": {
        "claude-sonnet-4-5": {"id": "claude-sonnet-4-5", "cost": {"input": 3, "output": 15}}}}
}"""
"""A price list in the form of models.dev."""


class Undecided:
    """An engine that decides nothing, and knows no alias."""

    def foresee(self, snapshot: Snapshot) -> Foreseen:
        return Foreseen()

    def alias_of(self, dialect: Dialect, path: str, headers: Headers, body: bytes) -> str:
        return ""


def watcher(
    *rules: Rule,
    engine: Foreseer | None = None,
    estimates: Estimates = UNLEARNED,
    max_body: int = 32 << 20,
    tunnelled: Callable[[str], None] = lambda _: None,
    admit: Callable[[Caller, float], Fault | None] = lambda *_: None,
    lender: Lender | None = None,
) -> Watcher:
    """Return a watcher with these rules."""
    modes = Modes(rules)
    return Watcher(
        engine=engine or Undecided(),
        modes=lambda: modes,
        prices=Catalogue(PRICES).price_at,
        price_list=SOURCE,
        dialects=DIALECTS,
        estimates=estimates,
        clock=SystemClock(),
        max_body_bytes=max_body,
        tunnelled=tunnelled,
        admit=admit,
        lender=lender,
    )


def rules(**modes: Sequence[str] | str) -> tuple[Rule, ...]:
    """Return rules for hosts, by `mode=hosts`."""
    return tuple(
        Rule(Match(host), HostMode(mode))
        for mode, hosts in modes.items()
        for host in ([hosts] if isinstance(hosts, str) else hosts)
    )
