"""What every scene of this folder starts from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
from mitmproxy.certs import CertStore

from tests.addon.inspection import inspecting
from tests.addon.scenes import Proxy, ScriptedEngine, Upstream


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CA for all scenes: making a key takes longer than most of them."""
    folder = tmp_path_factory.mktemp("mitmproxy")
    CertStore.from_store(folder, "mitmproxy", 2048)
    return folder


class Running(Protocol):
    """What a scene needs to know of a lane that runs."""

    @property
    def proxy(self) -> Proxy: ...

    @property
    def upstream(self) -> Upstream: ...


type Lanes = Callable[..., AbstractAsyncContextManager[Running]]
"""Starts a lane: `lane(engine, mode="regular", upstream=None, **mitmproxy_options)`."""


@pytest.fixture(params=["inspect"])
def lane(request: pytest.FixtureRequest, confdir: Path) -> Lanes:
    """Every lane in turn."""

    def start(engine: ScriptedEngine, **how: object) -> AbstractAsyncContextManager[Running]:
        return inspecting(confdir, engine, **how)  # type: ignore[arg-type] # the caller's options

    return start
