"""What every scene of this folder starts from."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.addon.conftest import _keys_are_read_once, confdir, data_dir, lane, proxied
from tests.bad_inputs.scenes import Bad, bad_house

__all__ = ["_keys_are_read_once", "confdir", "data_dir", "lane", "proxied"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bad]:
    """A house that all scenes of a file share: that nothing is left in it is what they are about."""
    async with bad_house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest.fixture
def bad(stage: Bad, caplog: pytest.LogCaptureFixture) -> Bad:
    """The house, and a client of whom a bad call could leave something behind."""
    caplog.set_level(logging.INFO)
    stage.log = caplog
    return stage
