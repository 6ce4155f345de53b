"""Merging wishes and limits into one policy, with a reason for every field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import structs

from tokenhub_core.errors import client_fault
from tokenhub_core.routing import estimate
from tokenhub_core.types import ANY, ApiKey, Dialect, Features, Need, Policy

ANY_MODEL: Final = frozenset({"", "*", "auto", "tokenhub/auto"})
"""Model names by which a caller leaves the choice to the router."""

_FIELDS: Final = frozenset(Policy.__struct_fields__) - {"why", "allowed_models", "allowed_providers"}
"""What a layer can set. What a key is good for is nobody's wish."""
_FREEING: Final = ("mode", "min_weight")
_WILD: Final = re.compile(r"[*?\[]")
_WORDS: Final = frozenset({Need.CHAT})
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


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


def for_call(
    defaults: Layer, requested_model: str, directive: Mapping[str, Any], asked: Mapping[str, Any] = _NOTHING
) -> Policy:
    """Return the policy of one call; `asked` is what its own fields ask for, where its dialect has such fields.

    The model that the caller names is served, unless a directive names another one, or asks for a mode or a
    weight: who writes `mode=cheap` into a prompt wants the router to choose, whatever name the program's
    configuration holds.
    """
    model = None if requested_model in ANY_MODEL else requested_model
    layers = [defaults, Layer("request", {**asked, "model": model} if model else asked)]
    if directive:
        wishes = dict(directive)
        if wishes.get("model") in ANY_MODEL:
            wishes["model"] = None
        if "model" not in wishes and any(name in wishes for name in _FREEING):
            wishes["model"] = None
        layers.append(Layer("directive", wishes))
    return merge(layers)


def for_key(key: ApiKey, wishes: Policy, alias: str, meant: Iterable[str]) -> Policy:
    """Return the policy within what the caller's key is good for; nothing that the caller writes widens it.

    `meant` are the ids of the models that the alias comes to in this call, where it asked for one; see `within`.
    """
    models = None if ANY in key.models else key.models
    providers = None if ANY in key.providers else key.providers
    return within(wishes, models, providers, alias=alias, meant=meant, source=f"key {key.id}")


def within(
    wishes: Policy,
    models: Sequence[str] | None,
    providers: Sequence[str] | None,
    *,
    alias: str,
    meant: Iterable[str],
    source: str,
) -> Policy:
    """Return the policy with its models and providers bounded by patterns; None: not at all.

    Who may ask for an alias may have, in this call, what it comes to: the operator says what that is.
    """
    if models is not None and alias and any(fnmatchcase(alias, pattern) for pattern in models):
        models = tuple(dict.fromkeys((*models, *map(_literal, sorted(meant)))))
    limits = {
        name: tuple(patterns)
        for name, patterns in (("allowed_models", models), ("allowed_providers", providers))
        if patterns is not None
    }
    if not limits:
        return wishes
    return structs.replace(wishes, **limits, why={**wishes.why, **dict.fromkeys(limits, source)})


def _literal(name: str) -> str:
    """Return the pattern that only this name matches."""
    return _WILD.sub("[\\g<0>]", name)


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
    features = structs.replace(features, needs=features.needs | wanted | wishes.needs)
    if wishes.input_tokens:
        least = wishes.input_tokens * estimate.BYTES_PER_TOKEN
        features = structs.replace(features, text_bytes=max(features.text_bytes, least))
    return features, wishes
