"""Decisions as they are stored: everything that a plan followed from, kept small, and everything that it came to.

    version, reason, seed, dialect, origin, fleet_version, lone, input_tokens, output_tokens, context
    asked        the call as routing saw it
    affinity     who served the conversation before, what told, and what locks; null where nobody is known
    policy       with its whys; of an output schema only that there was one: it is the caller's text
    weights      of the terms of a score, in this mode
    columns      the names of what each row holds; `terms.cost` is the member `cost` of the object `terms`
    chances      the targets of the alias that drew one of them for this call, each with its share; absent without one
    common       the columns whose value is the same in every row, and that value
    twins        the columns that say the same as another one in every row, and which one
    candidates   one row each, in the order in which they were to be tried
    spared       rows of unhealthy candidates that were scored and not to be tried
    passed_over  candidates that were not asked, since budgets had too little left when their turn came; absent
                 without any. The plan does not follow from them, so none is made of them again
    steps        of a call that several calls answer: the decisions of the steps that were decided for themselves, by
                 the step's name, each in this form; absent without any. The decision around them is the first step's
    skips        who was left out: reason → provider → models, each by its id or as [id, detail]

A fleet can hold a thousand models, so names stand once and not in every row, and of a model only what its score was
made of; where there are only a few rows, looking for what they share would cost more than it saves. The columns name
themselves: what is added to a candidate is read by an older reader as one more member, and needs no other `VERSION`.
`routing.recompute` makes the plan again from this.

`pack` makes the stored form, `unpack` the one in which the API shows it: an object for each candidate and each skip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import structs

from tokenhub_core.routing import scoring
from tokenhub_core.routing.pricing import at
from tokenhub_core.types import (
    Candidate,
    Draw,
    Expected,
    Facts,
    Json,
    Plan,
    Policy,
    Skip,
    Standing,
    Terms,
)

VERSION: Final = 1
"""Of what the members mean. Decisions from before there were versions have none, and cannot be recomputed."""

_OBJECTS: Final = {"terms": Terms, "facts": Facts, "expected": Expected, "standing": Standing}
_PLAIN: Final = (
    "model",
    "provider",
    "score",
    "estimated_nanousd",
    "pinned",
    "dialect",
    "losses",
    "input_nanousd",
    "output_nanousd",
    "max_context_tokens",
    "max_output_tokens",
)
_COLUMNS: Final = (
    *_PLAIN,
    *(f"{name}.{field}" for name, kind in _OBJECTS.items() for field in kind.__struct_fields__),
)
_DRAWN: Final = tuple(f"draw.{field}" for field in Draw.__struct_fields__)
_WARM: Final = ("cache_read_nanousd",)
"""Only where somebody is expected to read from a cache: what that costs where it is not what other input does."""
_WEIGHTS: Final = {mode: structs.asdict(terms) for mode, terms in scoring.WEIGHTS.items()}
_HOW_STORED: Final = frozenset({"columns", "common", "twins"})
_LONGEST_NAME: Final = 256
"""Characters. A registered model's is shorter; at the host that a call was meant for, callers choose it."""
_TWINS: Final = {
    "estimated_nanousd": "facts.cost",
    "expected.nanousd": "facts.cost",
    "expected.latency_ms": "facts.latency_ms",
    "standing.latency_ms": "facts.latency_ms",
    "standing.error_rate": "facts.error_rate",
}
"""Columns that mostly say what another one does: where nothing was learned, and where the price is known."""
_NEVER_SHARED: Final = ("model", "provider", "score")
"""Columns that are not looked through for a common value: they have none."""
_FEW: Final = 4
"""So many rows are stored as they are."""


def pack(plan: Plan, steps: Mapping[str, Plan] = MappingProxyType({})) -> Json:
    """Return the plan as it is stored, with those of the later steps of its call."""
    everyone = (*plan.candidates, *plan.spared)
    drawn = bool(everyone) and all(candidate.draw for candidate in everyone)
    warm = plan.bond is not None and any(candidate.expected.cached_tokens for candidate in everyone)
    columns = _COLUMNS + (_DRAWN if drawn else ()) + (_WARM if warm else ())
    values = [_row(candidate, drawn=drawn, warm=warm) for candidate in everyone]
    table = _Table(columns, {}, {}, values) if len(values) <= _FEW else _folded(columns, values)
    found = {
        "version": VERSION,
        "reason": plan.reason,
        "seed": plan.seed,
        "dialect": plan.dialect.value,
        "origin": plan.origin,
        "fleet_version": plan.fleet_version,
        "lone": plan.lone,
        "input_tokens": plan.input_tokens,
        "output_tokens": plan.output_tokens,
        "context": plan.context,
        "asked": _asked(plan),
        "affinity": None if plan.bond is None else structs.asdict(plan.bond),
        "policy": policy_json(plan.policy),
        "weights": _WEIGHTS[plan.policy.mode],
        "columns": table.columns,
        "common": table.common,
        "twins": table.twins,
        "candidates": table.rows[: len(plan.candidates)],
        "spared": table.rows[len(plan.candidates) :],
        "skips": _grouped(plan.skips),
    }
    if plan.chances:
        found["chances"] = dict(plan.chances)
    if plan.passed_over:
        found["passed_over"] = [structs.asdict(skip) for skip in plan.passed_over]
    if steps:
        found["steps"] = {name: pack(one) for name, one in steps.items()}
    return found


def unpack(stored: Json) -> Json:
    """Return a stored decision as the API shows it; one from before there were versions is that already."""
    if "columns" not in stored:
        return stored
    shown = {name: value for name, value in stored.items() if name not in _HOW_STORED}
    names = (*stored["columns"], *stored["common"], *stored["twins"])
    paths = {name: name.partition(".") for name in names}
    for name in ("candidates", "spared"):
        shown[name] = [_nested(_whole(stored, row), paths) for row in stored[name]]
    if "steps" in stored:
        shown["steps"] = {name: unpack(one) for name, one in stored["steps"].items()}
    return {**shown, "skips": list(_listed(stored["skips"]))}


def shown(plan: Plan) -> Json:
    """Return a plan as the API shows it."""
    return unpack(pack(plan))


def policy_json(policy: Policy) -> Json:
    """Return a policy's fields with their whys, the caller's own text left out."""
    return {
        **structs.asdict(policy),
        "models": None if policy.models is None else sorted(policy.models),
        "model": policy.model and _name(policy.model),
        "output_schema": policy.output_schema is not None,
        "needs": sorted(policy.needs),
    }


def _asked(plan: Plan) -> Json | None:
    if plan.features is None:
        return None
    features = plan.features
    needs = sorted(need.value for need in features.needs)
    return {**structs.asdict(features), "model": _name(features.model), "needs": needs}


def _name(name: str) -> str:
    """Return a name that a caller chose, as long as a name can reasonably be."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _row(candidate: Candidate, *, drawn: bool, warm: bool) -> tuple[Any, ...]:
    """Return a candidate's values in the order of the columns."""
    model = candidate.model
    prices = at(model.prices, candidate.expected.input_tokens)
    row: tuple[Any, ...] = (
        _name(model.id),
        candidate.provider.id,
        candidate.score,
        candidate.estimated_nanousd,
        candidate.pinned,
        candidate.dialect.value,
        candidate.losses,
        prices.input,
        prices.output,
        model.max_context_tokens,
        model.max_output_tokens,
        *structs.astuple(candidate.terms),
        *structs.astuple(candidate.facts),
        *structs.astuple(candidate.expected),
        *structs.astuple(candidate.standing),
    )
    if drawn and candidate.draw:
        row = (*row, *structs.astuple(candidate.draw))
    return (*row, prices.cache_read) if warm else row


class _Table(msgspec.Struct, frozen=True):
    """Rows of candidates, what they share left out."""

    columns: tuple[str, ...]
    common: Json
    twins: Mapping[str, str]
    rows: list[tuple[Any, ...]]


def _folded(columns: tuple[str, ...], values: list[tuple[Any, ...]]) -> _Table:
    """Return the table without the columns that say the same in every row, or the same as another column."""
    lines = dict(zip(columns, zip(*values, strict=True), strict=True))
    twins = {name: other for name, other in _TWINS.items() if lines[name] == lines[other]}
    common = {
        name: line[0]
        for name, line in lines.items()
        if name not in twins and name not in _NEVER_SHARED and line.count(line[0]) == len(line)
    }
    kept = {name: line for name, line in lines.items() if name not in twins and name not in common}
    return _Table(tuple(kept), common, twins, list(zip(*kept.values(), strict=True)))


def _whole(stored: Json, row: Sequence[Any]) -> Json:
    """Return all columns of a row."""
    flat = {**dict(zip(stored["columns"], row, strict=True)), **stored["common"]}
    return {**flat, **{name: flat[other] for name, other in stored["twins"].items()}}


def _nested(flat: Mapping[str, Any], paths: Mapping[str, tuple[str, str, str]]) -> Json:
    """Return `terms.cost` as a member of an object `terms`."""
    found: Json = {}
    for name, value in flat.items():
        outer, dot, inner = paths[name]
        if not dot:
            found[name] = value
        elif outer in found:
            found[outer][inner] = value
        else:
            found[outer] = {inner: value}
    return found


def _grouped(skips: Sequence[Skip]) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = {}
    for skip in skips:
        model = _name(skip.model)
        one = [model, skip.detail] if skip.detail else model
        found.setdefault(skip.reason.value, {}).setdefault(skip.provider, []).append(one)
    return found


def _listed(grouped: Mapping[str, Mapping[str, Sequence[Any]]]) -> Iterator[Json]:
    for reason, providers in grouped.items():
        for provider, models in providers.items():
            for one in models:
                model, detail = (one, "") if isinstance(one, str) else one
                yield {"model": model, "provider": provider, "reason": reason, "detail": detail}
