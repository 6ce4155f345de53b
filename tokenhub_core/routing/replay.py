"""A logged call decided once more, under another policy: whom it would have gone to, and how surely. Pure.

Two kinds of facts to decide with. *Today's*: the fleet, its prices and its health, and what was learned, as they are
now; the engine's own `decide` runs on the call's recorded features, and whoever was registered since is a candidate.
Rate limits are left out: what is used up this minute says nothing of a week. Who served the conversation is as logged.
*As logged*: the candidates that the call had, with the facts that were recorded of them, scored and ordered again as
`recompute` does. Stricter limits leave out more of them; those that were left out then stay out, because their facts
were not kept.

A policy that draws (Thompson sampling, a weighted alias) is not drawn from: each choice counts with its probability.
The draw of the log must not decide again what the log is measured by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from msgspec import structs

from tokenhub_core import leave, policy
from tokenhub_core.errors import Fault, TokenHubError
from tokenhub_core.numeric import np
from tokenhub_core.policy import ANY_MODEL, Layer
from tokenhub_core.routing import aliases, fleet
from tokenhub_core.routing.bandit import Arm, propensities
from tokenhub_core.routing.decision import VERSION
from tokenhub_core.routing.eligibility import Circumstances, Wire
from tokenhub_core.routing.plan import OriginOption, decide
from tokenhub_core.routing.recompute import bond_of, losses, rescored
from tokenhub_core.types import (
    NANO,
    Alias,
    Candidate,
    Dialect,
    Features,
    Fleet,
    Json,
    Plan,
    Policy,
    Skip,
    Skipped,
    Sticky,
    Strategy,
)

_FIELDS: Final = frozenset(Policy.__struct_fields__) - {
    "why",
    "models",
    "output_schema",
    "allowed_models",
    "allowed_providers",
}


class Ground(msgspec.Struct, frozen=True):
    """What calls are decided with at one moment."""

    view: Fleet
    defaults: Layer
    now: Circumstances
    origin: Callable[[str, str, Dialect], OriginOption | None]
    """Returns the host that a call was meant for as an option: its name, the model's name, the caller's dialect."""


class Wish(msgspec.Struct, frozen=True):
    """The policy that is rehearsed."""

    values: Mapping[str, Any] = {}
    """Of `Policy`'s fields, in place of the operator's defaults; what callers wished for themselves stays."""
    model: str = ""
    """The model that every call names instead of its own: `*` leaves the choice to the router. Empty: its own."""
    aliases: tuple[Alias, ...] = ()
    """In place of the registered ones of these names, or beside them."""
    explore: str = ""
    """`thompson` or `off`; empty: as it is, or as it was logged."""


class Choice(msgspec.Struct, frozen=True):
    """One way that the call could go under the policy, and how likely."""

    share: float
    plan: Plan | None
    """None where the call is refused before anybody is looked at."""
    fault: Fault | None = None

    def arms(self) -> dict[Arm, float]:
        """Return the probability of each first choice, those of the plan adding up to `share`."""
        if self.plan is None or not self.plan.candidates:
            return {}
        first = self.plan.candidates[0]
        if first.draw is None:
            return {arm_of(first): self.share}
        return {arm_of(one): self.share * one.draw.propensity for one in self.plan.candidates if one.draw}


def arm_of(candidate: Candidate) -> Arm:
    """Return the candidate's model and provider."""
    return candidate.model.id, candidate.provider.id


def readable(decision: Json | None) -> bool:
    """Tell whether a recorded decision can be decided again: an older version cannot."""
    return decision is not None and decision.get("version") == VERSION and decision["asked"] is not None


def logged(decision: Json) -> dict[Arm, float]:
    """Return the propensity of every first choice that the logged policy could have made, as far as it is known.

    Drawn values tell it of all candidates; the shares of an alias that drew among its targets of those targets. Any
    other decision was bound to be what it was.
    """
    rows = decision["candidates"]
    if not rows:
        return {}
    if "draw" in rows[0]:
        return {(row["model"], row["provider"]): row["draw"]["propensity"] for row in rows}
    first = rows[0]["model"], rows[0]["provider"]
    shares: Mapping[str, float] = decision.get("chances") or {}
    if not shares:
        return {first: 1.0}
    found: dict[Arm, float] = {}
    drawn = decision["policy"]["model"]
    for variant, share in shares.items():
        arm = first if variant == drawn else _best(rows, variant)
        if arm is not None:
            found[arm] = found.get(arm, 0.0) + share
    return found


def _best(rows: Sequence[Json], name: str) -> Arm | None:
    """Return whom a call for this name would have gone to first among recorded candidates."""
    fitting = [row for row in rows if _means(name, row["model"], row["provider"])]
    if not fitting:
        return None
    best = min(fitting, key=lambda row: row["score"])
    return best["model"], best["provider"]


def _means(name: str, model: str, provider: str) -> bool:
    """Tell whether a name means this model there; see `fleet.named`."""
    return name in {model, f"{provider}/{model}"} or name.partition("/")[2] == model


class Today:
    """Decides with today's facts."""

    def __init__(self, ground: Ground, wish: Wish) -> None:
        known = {**ground.view.aliases, **{alias.name: alias for alias in wish.aliases}}
        self._view = _with(ground.view, known)
        self._variants = {name: _variants(self._view, alias) for name, alias in known.items()}
        self._ground = ground
        self._wish = wish
        self._defaults = Layer("rehearsed", {**ground.defaults.values, **wish.values})

    def choices(self, entry: Json) -> list[Choice]:
        """Return the ways that a logged call could go. `entry` is a row of `RequestLog.decided`."""
        decision = entry["decision"]
        features = msgspec.convert(decision["asked"], Features)
        dialect = Dialect(decision["dialect"])
        wishes = self._wishes(entry, features.model, dialect)
        rows = [*decision["candidates"], *decision["spared"]]
        wire = Wire(dialect, losses(rows))
        now = structs.replace(self._ground.now, program=entry["program"], bond=bond_of(decision))
        name = wishes.model or aliases.ANY
        views = [(1.0, self._view)] if name in self._view.by_id else self._variants.get(name)
        found = []
        for share, view in views or [(1.0, self._view)]:
            try:
                meant = aliases.applied(wishes, view, aliases.Asking(entry["id"], key=_key(entry)))
                framed, bound = policy.framed(dialect, features, self._bounded(entry, meant, view))
            except TokenHubError as error:
                found.append(Choice(share, None, error.fault))
                continue
            plan, fault = decide(
                view,
                framed,
                bound,
                now=now,
                seed=entry["id"],
                wire=wire,
                origin=self._origin(entry, meant.model or bound.model or "", dialect),
            )
            found.append(Choice(share, plan, fault))
        return found

    def _wishes(self, entry: Json, asked: str, dialect: Dialect) -> Policy:
        """Return the policy of the call with the operator's part replaced, its directive's wishes as they were."""
        recorded = entry["decision"]["policy"]
        wished = {
            field: recorded[field]
            for field, source in recorded["why"].items()
            if field in _FIELDS and source.partition(",")[0] == "directive"
        }
        if "model" in wished and entry["alias"]:
            wished["model"] = entry["alias"]
        granted, _ = leave.granted(_typed(wished), leave.Leave(), self._defaults.values)
        wishes = policy.for_call(self._defaults, asked, granted)
        if self._wish.model and dialect.translates:
            wishes = structs.replace(
                wishes, model=None if self._wish.model in ANY_MODEL else self._wish.model
            )
        return wishes

    def _bounded(self, entry: Json, meant: aliases.Applied, view: Fleet) -> Policy:
        """Return the policy within what the caller's key was good for."""
        recorded = entry["decision"]["policy"]
        return policy.within(
            meant.policy,
            recorded.get("allowed_models"),
            recorded.get("allowed_providers"),
            alias=meant.alias,
            meant=aliases.meant(meant, view),
            source=recorded["why"].get("allowed_models", "key"),
        )

    def _origin(self, entry: Json, name: str, dialect: Dialect) -> OriginOption | None:
        if not entry["origin_host"] or name in ANY_MODEL:
            return None
        return self._ground.origin(entry["origin_host"], name, dialect)


class AsLogged:
    """Decides with the facts that were recorded with each call."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish

    def choices(self, entry: Json) -> list[Choice]:
        """Return the way that a logged call would go."""
        decision = entry["decision"]
        rows = [*decision["candidates"], *decision["spared"]]
        wishes = self._wishes(decision)
        pins = {(row["model"], row["provider"]) for row in rows if row["pinned"]}
        if self._wish.model:
            pins = {
                (row["model"], row["provider"])
                for row in rows
                if wishes.model and _means(wishes.model, row["model"], row["provider"])
            }
        kept, skips = [], []
        for row in rows:
            pinned = (row["model"], row["provider"]) in pins
            reason = _left_out(row, wishes, pinned=pinned)
            if reason is None:
                kept.append({**row, "pinned": pinned})
            else:
                skips.append(Skip(row["model"], row["provider"], reason))
        told = rescored(decision, kept, wishes, explored=self._wish.explore != "off" and wishes.model is None)
        plan = structs.replace(told, skips=(*told.skips, *skips))
        if len(kept) < len(rows) and plan.candidates and plan.candidates[0].draw:
            plan = structs.replace(plan, candidates=_surer(plan.candidates))
        return [Choice(1.0, plan)]

    def _wishes(self, decision: Json) -> Policy:
        recorded = decision["policy"]
        own = {field for field, source in recorded["why"].items() if source.partition(",")[0] != "default"}
        values = {field: recorded[field] for field in _FIELDS if field in recorded}
        values |= {field: value for field, value in self._wish.values.items() if field not in own}
        if self._wish.model and Dialect(decision["dialect"]).translates:
            values["model"] = None if self._wish.model in ANY_MODEL else self._wish.model
        values |= {name: recorded[name] for name in ("models", "why")}
        values |= {name: recorded.get(name) for name in ("allowed_models", "allowed_providers")}
        values["output_schema"] = {} if recorded["output_schema"] else None
        return msgspec.convert(values, Policy)


def _left_out(row: Json, wishes: Policy, *, pinned: bool) -> Skipped | None:
    """Return the limit that a recorded candidate breaks, in the order of `Skipped`."""
    named_only = wishes.model is not None and not wishes.fallback and not pinned
    elsewhere = wishes.provider is not None and row["provider"] != wishes.provider
    if named_only or elsewhere or (wishes.models is not None and row["model"] not in wishes.models):
        return Skipped.NOT_REQUESTED
    if row["facts"]["weight"] < wishes.min_weight:
        return Skipped.WEIGHT_BELOW_MINIMUM
    if not wishes.lossy and row["losses"]:
        return Skipped.LOSSY
    limit = wishes.max_budget_usd
    if limit is not None and (row["facts"]["cost"] is None or row["estimated_nanousd"] > limit * NANO):
        return Skipped.BUDGET_EXCEEDED
    return None


def _surer(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return drawn candidates with the propensities that they have without those who were left out."""
    draws = [one.draw for one in candidates if one.draw]
    alpha, beta = (np.array([getattr(draw, name) for draw in draws]) for name in ("alpha", "beta"))
    first = propensities(alpha, beta, np.array([one.terms.loss for one in candidates]))
    return tuple(
        structs.replace(one, draw=structs.replace(draw, propensity=share))
        for one, draw, share in zip(candidates, draws, first.tolist(), strict=True)
    )


def _typed(wished: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded wishes in the types of a policy."""
    typed = msgspec.convert(wished, Policy)
    return {name: getattr(typed, name) for name in wished}


def _key(entry: Json) -> str:
    return aliases.caller_key(entry.get("key_id", ""), entry["proxy_user"], entry["peer"])


def _with(view: Fleet, known: Mapping[str, Alias]) -> Fleet:
    """Return the fleet with these aliases; of a pool the models that its patterns match."""
    return Fleet(
        view.version, view.providers, view.models, view.by_id, known, fleet.pools(known.values(), view.by_id)
    )


def _variants(view: Fleet, alias: Alias) -> list[tuple[float, Fleet]]:
    """Return each target's share with the fleet in which the alias leads to it; one entry where nothing is drawn.

    Turns and conversations are not in the log: over many calls they come to the same shares.
    """
    if not alias.enabled or alias.strategy is Strategy.POOL or alias.sticky is Sticky.KEY:
        return [(1.0, view)]
    shares = aliases.shares(alias, aliases.missing(alias, view))
    return [
        (share, _with(view, {**view.aliases, alias.name: replace(alias, targets=(target,))}))
        for target in alias.targets
        if (share := shares.get(target.model, 0.0))
    ] or [(1.0, view)]
