from __future__ import annotations

import pytest

from tokenhub_core.dialects.registry import DIALECTS, dialect
from tokenhub_core.types import Dialect


def test_the_table_is_complete() -> None:
    """Every dialect that has a name has a module."""
    assert list(DIALECTS) == list(Dialect)


@pytest.mark.parametrize("name", list(Dialect))
def test_a_module_knows_its_own_name(name: Dialect) -> None:
    """What is looked up under a name calls itself that."""
    assert dialect(name).name is name
