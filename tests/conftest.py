"""What every test runs under: generated inputs are the same in each run, and nothing is held to a time.

And the databases: a test that takes `dsn` runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes import postgres
from tests.fakes.databases import Shared
from tests.lanes import is_long

# Without changes a run has the result of the one before; `scripts/test search` looks for examples that no run has
# had. How long an example takes is the machine's affair.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "search", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long, before marks are looked at."""
    for item in items:
        if is_long(item.nodeid):
            item.add_marker(pytest.mark.long)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read files of which nothing is to be run: each worker would for a minute."""
    if "not long" not in config.option.markexpr or collection_path.is_dir():
        return None
    return is_long(collection_path.relative_to(config.rootpath).as_posix()) or None


@pytest.fixture(scope="session")
def shared_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Return what gives the address of an empty PostgreSQL database, the same one each time."""
    if reason := postgres.missing():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with ExitStack() as stack:
        users = stack.enter_context(postgres.holding(root))
        yield stack.enter_context(Shared(postgres.shared(root, users))).emptied


@pytest.fixture
def postgresql(shared_postgresql: Callable[[], str]) -> str:
    """Return the address of an empty PostgreSQL database at the newest schema."""
    return shared_postgresql()


@pytest.fixture(params=["sqlite", "postgresql"])
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty database, of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "tokenhub.sqlite")
    found: str = request.getfixturevalue("postgresql")
    return found
