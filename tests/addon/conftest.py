"""What every scene of this folder starts from."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mitmproxy import certs

from tests.addon import lanes
from tests.addon.lanes import Front, Lanes
from tests.addon.passed import Passing, in_front_of_a_host
from tests.addon.scripted import ScriptedEngine
from tokenhub_addon.loop import loop_factory
from tokenhub_core.types import Lane


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Hand connections off on both loops: each has TLS of its own."""
    found = {"asyncio": asyncio.new_event_loop}
    served = loop_factory() if item.nodeid.startswith("tests/addon/test_handoff.py") else None
    return {**found, "uvloop": served} if served else found


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CA for all scenes: making a key takes longer than most of them."""
    folder = tmp_path_factory.mktemp("mitmproxy")
    certs.CertStore.from_store(folder, "mitmproxy", 2048)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _keys_are_read_once() -> Iterator[None]:
    """Every start of mitmproxy reads its CA's key, and checking a key takes longer than most scenes."""
    once = functools.cache(certs.load_pem_private_key)
    with mock.patch.object(certs, "load_pem_private_key", once):
        yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data directory of `serve` for all scenes."""
    folder = tmp_path_factory.mktemp("data")
    folder.chmod(0o700)
    return folder


@pytest.fixture(params=list(Lane))
def lane(request: pytest.FixtureRequest, confdir: Path, data_dir: Path) -> Lanes:
    """Every lane in turn: both of the proxy, and the direct API."""
    return _lanes(confdir, data_dir)[request.param]


@pytest.fixture(params=[Lane.INSPECT, Lane.HANDOFF])
def proxied(request: pytest.FixtureRequest, confdir: Path, data_dir: Path) -> Lanes:
    """Every lane of the proxy in turn: for what the direct API has no part in."""
    return _lanes(confdir, data_dir)[request.param]


@pytest.fixture(params=[Lane.INSPECT, Lane.HANDOFF])
def passing(request: pytest.FixtureRequest, confdir: Path, data_dir: Path, tmp_path: Path) -> Passing:
    """Each lane of the proxy in turn, in front of a host that speaks TLS, with a recorder."""
    return in_front_of_a_host(request.param, confdir, data_dir, tmp_path)


def _lanes(confdir: Path, data_dir: Path) -> dict[Lane, Lanes]:
    def inspect(engine: ScriptedEngine, **how: Any) -> AbstractAsyncContextManager[Front]:
        return lanes.inspected(confdir, engine, **how)

    return {
        Lane.INSPECT: inspect,
        Lane.HANDOFF: functools.partial(lanes.handed_off, data_dir),
        Lane.DIRECT: functools.partial(lanes.direct, data_dir),
    }
