"""The fleet: one frozen view, derived facts computed from one source."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from tokenhub_core.types import Alias, Fleet, Model, Provider, Strategy


def build(
    providers: Iterable[Provider], models: Iterable[Model], *, version: int, aliases: Iterable[Alias] = ()
) -> Fleet:
    """Return the fleet of these providers, models and aliases, in a stable order."""
    ordered = tuple(sorted(models, key=lambda model: (model.id, model.provider_id)))
    by_id: dict[str, tuple[Model, ...]] = {}
    for model in ordered:
        by_id[model.id] = (*by_id.get(model.id, ()), model)
    by_name = {alias.name: alias for alias in sorted(aliases, key=lambda alias: alias.name)}
    return Fleet(
        version,
        {p.id: p for p in sorted(providers, key=lambda provider: provider.id)},
        ordered,
        by_id,
        by_name,
        pools(by_name.values(), by_id),
    )


def pools(aliases: Iterable[Alias], ids: Collection[str]) -> dict[str, frozenset[str]]:
    """Return, by name, the ids that the patterns of each pool match."""
    return {one.name: _pool(one, ids) for one in aliases if one.strategy is Strategy.POOL}


def named(fleet: Fleet, name: str) -> tuple[Model, ...]:
    """Return the models that a caller's `name` means, or nothing.

    Three readings, the first that fits: the exact id (ids may hold slashes); `provider/model`, at that
    provider only; and a vendor prefix before the first slash, which is dropped.
    """
    if exact := fleet.by_id.get(name):
        return exact
    prefix, slash, bare = name.partition("/")
    if not slash:
        return ()
    models = fleet.by_id.get(bare, ())
    return tuple(m for m in models if m.provider_id == prefix) or models


def _pool(alias: Alias, ids: Iterable[str]) -> frozenset[str]:
    patterns = [target.model for target in alias.targets if target.weight]
    return frozenset(id_ for id_ in ids if any(fnmatchcase(id_, pattern) for pattern in patterns))
