"""Names and the fleet."""

from __future__ import annotations

import pytest

from tokenhub_core.routing.fleet import build, named
from tokenhub_core.types import Model, Provider, ProviderType

PROVIDERS = [Provider(name, ProviderType.OPENAI, ("https://x",)) for name in ("one", "two")]


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("b", [("b", "one"), ("b", "two")]),
        ("a/b", [("a/b", "one")]),
        ("two/b", [("b", "two")]),
        ("vendor/b", [("b", "one"), ("b", "two")]),
        ("vendor/unknown", []),
        ("unknown", []),
    ],
)
def test_a_name_is_the_exact_id_first(asked: str, served: list[tuple[str, str]]) -> None:
    """The exact id wins, then `provider/model`, then the id behind a vendor prefix."""
    fleet = build(PROVIDERS, [Model("b", "two"), Model("b", "one"), Model("a/b", "one")], version=1)
    assert [(model.id, model.provider_id) for model in named(fleet, asked)] == served
