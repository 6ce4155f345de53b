"""The names that can be asked for, in the shapes in which the dialects list models: models, and aliases of them.

Shapes: the API references of OpenAI (`GET /v1/models`), Anthropic (the same), Google (`GET /v1beta/models`) and Ollama
(`GET /api/tags`). When a model was made, and how large it is on disk, is not known here: the fields say zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tokenhub_core.admission.doorkeeper import matches
from tokenhub_core.routing.aliases import ANY
from tokenhub_core.routing.fleet import named
from tokenhub_core.types import Alias, ApiKey, Fleet, Json, Model, Need, Strategy

_LONG_AGO: Final = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Name:
    """Something that can be asked for by its name."""

    id: str
    provider: str
    """The first of its providers; empty for an alias."""
    models: tuple[Model, ...]
    """What may serve it."""

    @property
    def shown(self) -> str:
        """Return what people read."""
        return self.id if self.provider else f"{self.id} (alias)"

    @property
    def context(self) -> int:
        """Return how many tokens fit whichever model serves, 0 where that is not known."""
        return _least(model.max_context_tokens for model in self.models)

    @property
    def output(self) -> int:
        """Return how many tokens whichever model serves can answer with, 0 where that is not known."""
        return _least(model.max_output_tokens for model in self.models)


def names(view: Fleet, key: ApiKey | None = None) -> list[Name]:
    """Return all that could serve: enabled models by id, then the enabled aliases that stand for one of them.

    A model that several providers serve is one name; one provider's stands first. An alias that a model hides, and the
    one that stands for no name (`*`), are none. With a `key` only what it is good for is told, and of it no more than
    that: a name, where it may ask for the name or for a model behind it.
    """
    found = []
    for id_, models in view.by_id.items():
        if enabled := _good(key, id_, _enabled(view, models)):
            found.append(Name(id_, enabled[0].provider_id, enabled))
    for alias in view.aliases.values():
        apart = alias.enabled and alias.name != ANY and alias.name not in view.by_id
        if apart and (enabled := _good(key, alias.name, _enabled(view, _meant(view, alias)))):
            found.append(Name(alias.name, "", enabled))
    return found


def openai(name: Name) -> Json:
    """Return a name as OpenAI lists a model, with the two spellings of its context that compatible servers added."""
    return {
        "id": name.id,
        "object": "model",
        "created": 0,
        "owned_by": name.provider or "alias",
        "context_length": name.context,
        "max_model_len": name.context,
    }


def anthropic(name: Name) -> Json:
    """Return a name as Anthropic lists a model."""
    return {"type": "model", "id": name.id, "display_name": name.shown, "created_at": _LONG_AGO}


def gemini(name: Name) -> Json:
    """Return a name as Google lists a model; what is not known is left out."""
    limits = {"inputTokenLimit": name.context, "outputTokenLimit": name.output}
    words = not all(Need.CHAT in model.lacks for model in name.models)
    return {
        "name": f"models/{name.id}",
        "displayName": name.shown,
        **{key: value for key, value in limits.items() if value},
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent"] if words else [],
    }


def ollama(name: Name) -> Json:
    """Return a name as Ollama lists a model. Its own program shows the first twelve digits of the digest."""
    return {
        "name": name.id,
        "model": name.id,
        "modified_at": _LONG_AGO,
        "size": 0,
        "digest": hashlib.sha256(name.id.encode("utf-8", "surrogatepass")).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "",
            "family": name.provider or "alias",
            "families": [],
            "parameter_size": "",
            "quantization_level": "",
        },
    }


def _enabled(view: Fleet, models: Iterable[Model]) -> tuple[Model, ...]:
    return tuple(model for model in models if model.enabled and view.providers[model.provider_id].enabled)


def _good(key: ApiKey | None, name: str, models: tuple[Model, ...]) -> tuple[Model, ...]:
    """Return those of the models behind a name that a key is good for; see `policy.within`."""
    if key is None:
        return models
    named = matches(key.models, name)
    return tuple(
        model
        for model in models
        if (named or matches(key.models, model.id)) and matches(key.providers, model.provider_id)
    )


def _meant(view: Fleet, alias: Alias) -> Iterator[Model]:
    """Yield the models that an alias may come to."""
    if alias.strategy is Strategy.POOL:
        for id_ in sorted(view.pools.get(alias.name, ())):
            yield from view.by_id[id_]
        return
    for target in alias.targets:
        if target.weight:
            yield from named(view, target.model)


def _least(limits: Iterable[int]) -> int:
    return min(filter(None, limits), default=0)
