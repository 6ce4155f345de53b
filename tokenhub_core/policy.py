"""Merging wishes and limits into one policy, with a reason for every field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import structs

from tokenhub_core.errors import client_fault
from tokenhub_core.types import Dialect, Features, Need, Policy

ANY_MODEL: Final = frozenset({"", "*", "auto", "tokenhub/auto"})
"""Model names by which a caller leaves the choice to the router."""

_FIELDS: Final = frozenset(Policy.__struct_fields__) - {"why"}
_FREEING: Final = ("mode", "min_weight")
_WORDS: Final = frozenset({Need.CHAT})


class Layer(msgspec.Struct, frozen=True):
    """One source of wishes, by the field names of `Policy`. A None lifts a limit that an earlier layer set."""

    source: str
    values: Mapping[str, Any] = msgspec.field(default_factory=dict)


def merge(layers: Sequence[Layer]) -> Policy:
    """Return the policy of these layers, later ones over earlier ones, `why` naming each field's layer.

    Raises KeyError for a field that no policy has.
    """
    values: dict[str, Any] = {}
    why: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.values.items():
            if name not in _FIELDS:
                raise KeyError(name)
            values[name] = value
            why[name] = layer.source
    return Policy(**values, why=why)


def for_call(defaults: Layer, requested_model: str, directive: Mapping[str, Any]) -> Policy:
    """Return the policy of one call.

    The model that the caller names is served, unless a directive names another one, or asks for a mode or a
    weight: who writes `mode=cheap` into a prompt wants the router to choose, whatever name the program's
    configuration holds.
    """
    model = None if requested_model in ANY_MODEL else requested_model
    layers = [defaults, Layer("request", {"model": model} if model else {})]
    if directive:
        wishes = dict(directive)
        if wishes.get("model") in ANY_MODEL:
            wishes["model"] = None
        if "model" not in wishes and any(name in wishes for name in _FREEING):
            wishes["model"] = None
        layers.append(Layer("directive", wishes))
    return merge(layers)


def framed(dialect: Dialect, features: Features, wishes: Policy) -> tuple[Features, Policy]:
    """Return the call and its policy with what follows from the dialect: who translates needs words in return.

    The answer of a dialect that is not translated is one model's own: vectors of two models do not go together.
    Raises `TokenHubError` where it names none.
    """
    if not dialect.translates:
        if wishes.model is None:
            message = "this operation needs the name of a model: no other one gives the same answer"
            raise client_fault(message, cause="model_required", param="model")
        return features, structs.replace(wishes, fallback=False)
    wanted = _WORDS if wishes.output_schema is None else _WORDS | {Need.JSON_SCHEMA}
    return structs.replace(features, needs=features.needs | wanted), wishes
