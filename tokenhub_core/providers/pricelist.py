"""Registered models against a price list: what would cost something else.

A price that an operator set by hand is never compared: it is theirs. The list has the form of models.dev; the one that
is installed is `catalogue.load`, any other is known by the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from tokenhub_core.types import Model, Prices, Provider

type PriceOf = Callable[[Model, Provider | None], Prices | None]
"""What a model costs at its provider by some list, None where the list has no price."""

MANUAL: Final = "manual"
"""What `Model.pricing_source` says of prices that were set by hand."""
MAX_BYTES: Final = 16 << 20
"""The largest list."""
_SHOWN: Final = 12


class Change(msgspec.Struct, frozen=True):
    """One model whose price is another one in the list."""

    model: Model
    """As it stands."""
    prices: Prices
    """As the list has them."""


class Difference(msgspec.Struct, frozen=True):
    """A list, compared."""

    changes: tuple[Change, ...]
    same: int
    manual: int
    """Models whose price was set by hand."""
    unlisted: int
    """Models that the list has no price for: they keep theirs."""


def source(data: bytes) -> str:
    """Return what `Model.pricing_source` says of prices from a list with these bytes."""
    return f"sha256:{digest(data)[:_SHOWN]}"


def digest(data: bytes) -> str:
    """Return the SHA-256 of a list."""
    return hashlib.sha256(data).hexdigest()


def compare(models: Iterable[Model], providers: Mapping[str, Provider], price_of: PriceOf) -> Difference:
    """Return what the list would change, in the order of the models."""
    changes: list[Change] = []
    same = manual = unlisted = 0
    for model in models:
        if model.pricing_source == MANUAL:
            manual += 1
            continue
        listed = price_of(model, providers.get(model.provider_id))
        if listed is None:
            unlisted += 1
        elif listed == model.prices and model.pricing_source != "unknown":
            same += 1
        else:
            changes.append(Change(model, listed))
    return Difference(tuple(changes), same, manual, unlisted)
