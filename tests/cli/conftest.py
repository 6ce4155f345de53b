"""A running TokenHub for the commands that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Running, running


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out of the environment what would lead a command elsewhere."""
    for name in [name for name in os.environ if name.startswith("TOKENHUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def served(tmp_path: Path, bare_environment: None) -> Iterator[Running]:
    """Nothing configured, no origin, and a provider on a socket to register."""
    with running(tmp_path) as it:
        yield it


@pytest.fixture
def simulated(tmp_path: Path, bare_environment: None) -> Iterator[Running]:
    with running(tmp_path, simulate=True) as it:
        yield it
