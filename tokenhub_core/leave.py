"""What a directive may do: by the operator's settings, by host, and by the client's key.

The ladder, from the top. The operator says what is possible. The key of a call says which of it its texts may
choose. Text chooses within both and only downwards: a lower budget, less time, a higher floor, a mode, a model or a
provider that the key may use. No directive names a host, a URL, a credential or a log setting: the grammar has no
word for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final

import msgspec

from tokenhub_core.errors import ConfigError
from tokenhub_core.orchestration import asked
from tokenhub_core.policy import ANY_MODEL
from tokenhub_core.recognise import bare_host
from tokenhub_core.types import ANY, ApiKey

ROLES: Final = frozenset({"user", "system", "developer"})
"""Roles that may be given leave. What models, tools and functions said never is."""

NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mode": "mode",
        "max_budget_usd": "budget",
        "max_latency_ms": "latency",
        "min_weight": "min_weight",
        "output_schema": "output_schema",
        "model": "model",
        "provider": "provider",
        "durable": "durable",
        "tags": "tags",
        "output_format": "output_format",
        "strip_think": "strip_think",
        "output_max_tokens": "output_max_tokens",
        "validate": "validate",
        "buffered": "buffered",
        "guarded": "guarded",
        "resume": "resume",
    }
)
"""What a directive calls the fields of a policy."""

PARTS: Final[Mapping[str, str]] = MappingProxyType({"voters": "mode", "iterations": "mode"})
"""Words that belong to another one: they are allowed with it and not without it."""

STEPS: Final = 5
"""The most calls that a directive may make of one, where nobody says otherwise."""

DIRECT: Final = "direct"
"""Stands, among hosts, for calls that came to us and were meant for no host."""

_CEILINGS: Final[Mapping[str, str]] = MappingProxyType(
    {"budget": "max_budget_usd", "latency": "max_latency_ms", "mode": "max_steps"}
)


class Leave(msgspec.Struct, frozen=True):
    """What directives may do in one call."""

    roles: frozenset[str] = frozenset({"user"})
    """Whose directives are read; empty: nobody's."""
    names: frozenset[str] | None = None
    """Which are honoured, None for all."""
    max_budget_usd: float | None = None
    """The most that one may ask for; None: no ceiling but the operator's default."""
    max_latency_ms: int | None = None
    signed: bool = False
    """Whether only signed ones are honoured."""
    models: tuple[str, ...] = (ANY,)
    providers: tuple[str, ...] = (ANY,)
    max_steps: int | None = None
    """The most calls that a mode may make of one; None: no ceiling."""


class Leaves(msgspec.Struct, frozen=True):
    """What the operator decided, for every call and by host."""

    operator: Leave = Leave(max_steps=STEPS)
    hosts: Mapping[str, Leave] = msgspec.field(default_factory=dict)

    def of(self, host: str, key: ApiKey | None) -> Leave:
        """Return the leave of a call that was meant for `host` (empty: for us) and is made with `key`."""
        leave = self.operator if key is None else _of_key(self.operator, key)
        bound = self.hosts.get(host or DIRECT) or (self.hosts.get(ANY) if host else None)
        return leave if bound is None else _within(leave, bound)


def _of_key(operator: Leave, key: ApiKey) -> Leave:
    trust = key.trust
    return Leave(
        operator.roles if trust.roles is None else trust.roles & ROLES,
        _both(operator.names, trust.names),
        _least(operator.max_budget_usd, trust.max_budget_usd),
        _least(operator.max_latency_ms, trust.max_latency_ms),
        trust.signed,
        key.models,
        key.providers,
        _least(operator.max_steps, trust.max_steps),
    )


def _within(leave: Leave, bound: Leave) -> Leave:
    return Leave(
        leave.roles & bound.roles,
        _both(leave.names, bound.names),
        _least(leave.max_budget_usd, bound.max_budget_usd),
        _least(leave.max_latency_ms, bound.max_latency_ms),
        leave.signed,
        leave.models,
        leave.providers,
        _least(leave.max_steps, bound.max_steps),
    )


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _least[N: (int, float)](one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def granted(
    wishes: Mapping[str, Any], leave: Leave, limits: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the wishes (by the field names of `Policy`) that are allowed, and the names of those that are not.

    `limits` is the operator's policy: none of it is widened.
    """
    kept = {field: value for field, value in wishes.items() if _allowed(field, value, leave, limits)}
    if not _below(asked.steps(wishes), leave.max_steps):
        kept.pop("mode", None)
    for part, whole in PARTS.items():
        if whole not in kept:
            kept.pop(part, None)
    return kept, tuple(NAMES[field] for field in wishes if field not in kept and field not in PARTS)


def _allowed(field: str, value: Any, leave: Leave, limits: Mapping[str, Any]) -> bool:
    if field in PARTS:
        return True  # with what it belongs to
    if leave.names is not None and NAMES[field] not in leave.names:
        return False
    match field:
        case "max_budget_usd":
            return _below(value, limits.get(field)) and _below(value, leave.max_budget_usd)
        case "max_latency_ms":
            return _below(value, limits.get(field)) and _below(value, leave.max_latency_ms)
        case "min_weight":
            return bool(value >= limits.get(field, 0))
        case "model":
            return value is None or value in ANY_MODEL or _listed(value, leave.models)
        case "validate" | "strip_think" | "buffered" | "guarded" | "resume":
            return bool(value) or not limits.get(field)
        case "provider":
            return _listed(value, leave.providers)
        case _:
            return True


def _below(value: float | None, bound: float | None) -> bool:
    return bound is None or (value is not None and value <= bound)


def _listed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def by_host(items: Iterable[str]) -> dict[str, Leave]:
    """Return the leaves of `host=off` and `host=NAME[:CEILING]+…` items; raises ConfigError that names the item.

    `*` stands for every host that calls may be meant for, `direct` for calls that were meant for none.
    """
    return {bare_host(item.partition("=")[0]): _leave(item) for item in items}


def _leave(item: str) -> Leave:
    host, _, said = item.partition("=")
    if not bare_host(host):
        raise ConfigError(f"directives of {item!r}: must be host=off or host=name+name")
    if said == "off":
        return Leave(frozenset())
    names: set[str] = set()
    ceilings: dict[str, Any] = {}
    for word in said.split("+"):
        name, colon, ceiling = word.partition(":")
        if name not in NAMES.values() or (colon and name not in _CEILINGS):
            known = ", ".join(NAMES.values())
            raise ConfigError(
                f"directives of {item!r}: {word!r} is none of {known}; budget, latency and mode may have a :ceiling"
            )
        names.add(name)
        if colon:
            ceilings[_CEILINGS[name]] = _ceiling(item, name, ceiling)
    return Leave(ROLES, frozenset(names), **ceilings)


def _ceiling(item: str, name: str, text: str) -> float | int:
    try:
        value = float(text) if name == "budget" else int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise ConfigError(f"directives of {item!r}: {text!r} is no ceiling of {name}")
    return value
