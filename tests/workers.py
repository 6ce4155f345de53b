"""How a run is shared out among workers: a plugin of pytest that `scripts/test` names, where xdist is installed.

A file stays on one worker, so that what its tests share is made once. Scenes that share one `tokenhub serve` go by
its lane instead, and the ends of ends come first: a run lasts as long as what was begun last.
"""

from __future__ import annotations

import re
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_OF_ONE_WORLD: Final = re.compile(r"tests/e2e/.*[\[-](handoff|inspect)[\]-]")
_OF_ONE_SERVER: Final = "tests/workflows/"
"""Scenes that share one Temporal."""


def unit(nodeid: str) -> str:
    """Return the name of what a test is run together with."""
    if nodeid.startswith(_OF_ONE_SERVER):
        return _OF_ONE_SERVER
    world = _OF_ONE_WORLD.match(nodeid)
    return f"tests/e2e {world[1]}" if world else nodeid.partition("::")[0]


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Shares out units in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Scheduling:
    """Share out by unit."""
    config.option.loadscopereorder = False
    return _Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, on each worker alike."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: "/e2e/" not in item.nodeid)
