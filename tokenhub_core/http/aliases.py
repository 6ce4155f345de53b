"""The admin API's part about aliases: `/admin/v1/aliases`, and what came of each."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta, structs

from tokenhub_core.catalog import Catalog
from tokenhub_core.errors import client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.routing import experiment
from tokenhub_core.routing.aliases import ANY, MAX_WEIGHT, missing
from tokenhub_core.store.log import RequestLog
from tokenhub_core.types import Alias, Form, Json, Sticky, Strategy, Target

PATH: Final = "/admin/v1/aliases"
_REPORT: Final = "/report"
MAX_CALLS: Final = 200_000
"""The most calls that one report is made of, the newest ones; what it has to hold at once."""


class Variant(msgspec.Struct, forbid_unknown_fields=True):
    """A model as a caller would name it, or a pool's pattern, and its weight; 0 takes it out."""

    model_id: str
    weight: Annotated[int, Meta(ge=0, le=MAX_WEIGHT)] = 1


class AliasBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /aliases`."""

    name: str
    variants: list[Variant]
    strategy: Strategy = Strategy.WEIGHTED
    sticky_by: Sticky = Sticky.REQUEST
    enabled: bool = True
    output_format: Form | None = None
    """The form of its answers' text where the call asks for none."""
    strip_think: bool = False


class AliasPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /aliases/{name}`: what is absent stays; variants are replaced as a whole."""

    variants: list[Variant] | msgspec.UnsetType = msgspec.UNSET
    strategy: Strategy | msgspec.UnsetType = msgspec.UNSET
    sticky_by: Sticky | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    output_format: Form | msgspec.UnsetType | None = msgspec.UNSET
    strip_think: bool | msgspec.UnsetType = msgspec.UNSET


class Aliases:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, catalog: Catalog, requests: RequestLog) -> None:
        self._catalog = catalog
        self._requests = requests

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._list),
            web.post(PATH, self._put),
            web.get(PATH + r"/{name:.+}" + _REPORT, self._report),
            web.get(PATH + r"/{name:.+}", self._one),
            web.patch(PATH + r"/{name:.+}", self._patch),
            web.delete(PATH + r"/{name:.+}", self._delete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        del request
        items = [self._shown(alias) for alias in self._catalog.fleet.aliases.values()]
        return answer({"items": items, "total": len(items)})

    async def _one(self, request: web.Request) -> web.Response:
        return answer(self._shown(self._catalog.alias(request.match_info["name"])))

    async def _put(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, AliasBody)
        known = body.name in self._catalog.fleet.aliases
        return answer(self._shown(await self._catalog.put_alias(alias_of(body))), 200 if known else 201)

    async def _patch(self, request: web.Request) -> web.Response:
        changes = shapes.given(await shapes.read(request, AliasPatch))
        known = self._catalog.alias(request.match_info["name"])
        alias = Alias(
            known.name,
            _targets(changes["variants"]) if "variants" in changes else known.targets,
            changes.get("strategy", known.strategy),
            changes.get("sticky_by", known.sticky),
            changes.get("enabled", known.enabled),
            changes.get("output_format", known.output_format),
            changes.get("strip_think", known.strip_think),
        )
        return answer(self._shown(await self._catalog.put_alias(alias)))

    async def _delete(self, request: web.Request) -> web.Response:
        await self._catalog.delete_alias(request.match_info["name"])
        return answer({"ok": True})

    async def _report(self, request: web.Request) -> web.Response:
        """Say what each variant came to; also of an alias that is not there any more."""
        name = request.match_info["name"]
        since, until = shapes.moment(request, "since"), shapes.moment(request, "until")
        alias = self._catalog.fleet.aliases.get(name)

        def made() -> Json:
            calls = self._requests.calls(name, limit=MAX_CALLS + 1, since=since, until=until)
            if alias is None and not calls:
                self._catalog.alias(name)
            pool = alias is None or alias.strategy is Strategy.POOL
            listed = [] if pool or alias is None else [target.model for target in alias.targets]
            found = experiment.report(calls[:MAX_CALLS], listed)
            weights = {target.model: target.weight for target in alias.targets} if alias else {}
            return {
                "alias": name,
                "since": since,
                "until": until,
                "confidence": 0.95,
                "complete": len(calls) <= MAX_CALLS,
                "requests": min(len(calls), MAX_CALLS),
                "variants": [_row(one, weights.get(one.variant)) for one in found],
            }

        return answer(await asyncio.to_thread(made))

    def _shown(self, alias: Alias) -> Json:
        view = self._catalog.fleet
        gone = missing(alias, view)
        shown: Json = {
            "name": alias.name,
            "strategy": alias.strategy.value,
            "variants": [
                {"model_id": one.model, "weight": one.weight, "missing": gone.get(one.model, "")}
                for one in alias.targets
            ],
            "sticky_by": alias.sticky.value,
            "enabled": alias.enabled,
            "output_format": alias.output_format,
            "strip_think": alias.strip_think,
            "shadowed": alias.name != ANY and alias.name in view.by_id,
        }
        if alias.strategy is Strategy.POOL:
            shown["models"] = sorted(view.pools.get(alias.name, ()))
        return shown


def alias_of(body: AliasBody) -> Alias:
    """Return the alias that a body describes; raises `TokenHubError` where its name has another meaning in a path."""
    if body.name.endswith(_REPORT):
        raise client_fault(f"a name does not end with {_REPORT}", param="name")
    return Alias(
        body.name,
        _targets(body.variants),
        body.strategy,
        body.sticky_by,
        body.enabled,
        body.output_format,
        body.strip_think,
    )


def alias_json(alias: Alias) -> Json:
    """Return an alias as `AliasBody` takes it."""
    return {
        "name": alias.name,
        "variants": [{"model_id": one.model, "weight": one.weight} for one in alias.targets],
        "strategy": alias.strategy.value,
        "sticky_by": alias.sticky.value,
        "enabled": alias.enabled,
        "output_format": alias.output_format.value if alias.output_format else None,
        "strip_think": alias.strip_think,
    }


def _targets(variants: list[Variant]) -> tuple[Target, ...]:
    return tuple(Target(one.model_id, one.weight) for one in variants)


def _row(one: experiment.Outcomes, weight: int | None) -> Json:
    row: dict[str, Any] = {
        name: structs.asdict(value) if isinstance(value, experiment.Figure) else value
        for name, value in structs.asdict(one).items()
    }
    return {"model_id": row.pop("variant"), "weight": weight, **row}
