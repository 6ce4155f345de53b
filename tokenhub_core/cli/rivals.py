"""The configurations of other gateways as ours: what is to be registered, and what becomes of every setting. Pure.

LiteLLM's `config.yaml` is read as its documentation describes it: `model_list`, `router_settings`, `litellm_settings`,
`general_settings`, with `os.environ/NAME` for what stands in the environment. "original" is the TokenHub that is
configured by `TOKENHUB_*` variables in a file of `NAME=value` lines, and by a credentials file in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from tokenhub_core.providers import vendors
from tokenhub_core.types import Json, ProviderType


class Fate(StrEnum):
    """What becomes of a setting."""

    CARRIED = "carried"
    CHANGED = "changed"
    """It is carried, and means something else here."""
    LEFT = "left"


class Note(msgspec.Struct, frozen=True):
    """What becomes of one setting, and why."""

    what: str
    fate: Fate
    words: str = ""


class Step(msgspec.Struct, frozen=True):
    """One request to the admin API."""

    path: str
    """Below `/admin/v1`."""
    body: Json

    def shown(self) -> Json:
        """Return the body for people, without a secret."""
        return {name: "…" if name == "api_key" else value for name, value in self.body.items()}


class Import(msgspec.Struct, frozen=True):
    """What is to be done, in this order, and what is to be said."""

    steps: tuple[Step, ...]
    notes: tuple[Note, ...]


# --- LiteLLM -------------------------------------------------------------------------------------------------

_ENVIRONMENT: Final = "os.environ/"
_VENDORS: Final = {
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "ollama_chat": "ollama",
    "google_ai_studio": "gemini",
    "text-completion-openai": "openai",
}
"""Names of providers that are others with us."""
_SERVERS: Final = {
    "hosted_vllm": ProviderType.VLLM,
    "vllm": ProviderType.VLLM,
    "openai_like": ProviderType.OPENAI_COMPATIBLE,
    "custom_openai": ProviderType.OPENAI_COMPATIBLE,
    "lm_studio": ProviderType.OPENAI_COMPATIBLE,
    "llamafile": ProviderType.OPENAI_COMPATIBLE,
}
"""Servers of one's own, which need an address."""
_PERIODS: Final = {"1d": "day", "24h": "day", "7d": "week", "1w": "week", "30d": "month", "1mo": "month"}
_FAILS_OVER: Final = "calls fail over by themselves to what can serve them; limit that with keys and aliases"

_LEFT: Final[Mapping[str, str]] = {
    "router_settings.routing_strategy": "candidates are scored by cost, latency, failures and weight",
    "router_settings.num_retries": "retries follow the class of the error, within one retry budget",
    "router_settings.allowed_fails": "health is watched per provider; see `tokenhub top`",
    "router_settings.cooldown_time": "health is watched per provider; see `tokenhub top`",
    "router_settings.fallbacks": _FAILS_OVER,
    "router_settings.context_window_fallbacks": "models that are too small for a call are no candidates for it",
    "router_settings.content_policy_fallbacks": _FAILS_OVER,
    "router_settings.timeout": "set TOKENHUB_TOTAL_TIMEOUT_SECS",
    "router_settings.redis_host": "processes share one database",
    "router_settings.redis_port": "processes share one database",
    "router_settings.redis_password": "processes share one database",
    "litellm_settings.drop_params": "what a model cannot take is named in x-tokenhub-loss; see TOKENHUB_LOSSY",
    "litellm_settings.num_retries": "retries follow the class of the error, within one retry budget",
    "litellm_settings.request_timeout": "set TOKENHUB_TOTAL_TIMEOUT_SECS",
    "litellm_settings.fallbacks": _FAILS_OVER,
    "litellm_settings.default_fallbacks": _FAILS_OVER,
    "litellm_settings.context_window_fallbacks": "models that are too small for a call are no candidates for it",
    "litellm_settings.cache": "answers are not cached; Idempotency-Key gives one again",
    "litellm_settings.cache_params": "answers are not cached; Idempotency-Key gives one again",
    "litellm_settings.success_callback": "every call is a record and an event; see docs/api.md",
    "litellm_settings.failure_callback": "every call is a record and an event; see docs/api.md",
    "litellm_settings.callbacks": "every call is a record and an event; see docs/api.md",
    "litellm_settings.set_verbose": "set TOKENHUB_LOG_LEVEL",
    "litellm_settings.json_logs": "the log is JSON where it is no terminal",
    "general_settings.master_key": "the admin token is made by `tokenhub serve`; keys by `tokenhub apikey create`",
    "general_settings.database_url": "set TOKENHUB_DB_DSN; the keys in it are hashes that nobody can carry over",
    "general_settings.alerting": "subscribe to events",
    "environment_variables": "set them where `tokenhub serve` is started",
}
"""Settings that are not carried → why, or what to do."""

_PARAMETERS: Final = frozenset(
    {
        "model",
        "api_key",
        "api_base",
        "base_url",
        "weight",
        "input_cost_per_token",
        "output_cost_per_token",
        "max_input_tokens",
        "max_output_tokens",
        "max_tokens",
    }
)


class _Place(msgspec.Struct, frozen=True):
    """A provider, as those that lead to the same one have it in common."""

    vendor: str
    type: ProviderType | None
    base: str
    key: str


def litellm(config: Mapping[str, Any], environ: Mapping[str, str]) -> Import:
    """Return what LiteLLM's configuration comes to; raises ValueError where it is none."""
    entries = config.get("model_list", [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise ValueError("model_list: expected a list of models")
    notes: list[Note] = []
    places: dict[_Place, str] = {}
    models: dict[tuple[str, str], Step] = {}
    groups: dict[str, list[Json]] = {}
    for at, entry in enumerate(entries):
        name, given = str(entry.get("model_name", "")), entry.get("litellm_params") or {}
        where = f"model_list[{at}] {name}"
        try:
            place, upstream = _placed(name, given, environ)
        except ValueError as error:
            notes.append(Note(where, Fate.LEFT, str(error)))
            continue
        if place not in places:
            places[place] = _fresh(place, [*places.values()])
        provider = places[place]
        models.setdefault(
            (upstream, provider), _model(upstream, provider, given, entry.get("model_info") or {})
        )
        groups.setdefault(name, []).append({"model_id": upstream, "weight": _weight(given.get("weight"))})
        notes.append(Note(where, Fate.CARRIED, f"{upstream} at {provider}"))
        words = "set limits by keys, and the rest in the call itself"
        notes += [Note(f"{where}: {extra}", Fate.LEFT, words) for extra in sorted({*given} - _PARAMETERS)]
    aliases, more = _aliases(groups, config)
    budgets, told = _budgets(config)
    notes += [*more, *told, *_rest(config)]
    providers = [_provider(place, name) for place, name in places.items()]
    return Import((*providers, *models.values(), *aliases, *budgets), tuple(notes))


def _placed(name: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[_Place, str]:
    """Return where a deployment is and what it is called there; raises ValueError that says why it is not carried."""
    model = str(given.get("model", ""))
    prefix, slash, rest = model.partition("/")
    if not model or "*" in model or "*" in name:
        raise ValueError(
            "wildcards name no model: register those that are meant, or `tokenhub provider add` for all"
        )
    vendor = _VENDORS.get(prefix, prefix) if slash else _guessed(model)
    upstream = rest if slash else model
    base = _filled(str(given.get("api_base") or given.get("base_url") or ""), environ)
    key = str(given.get("api_key") or "")
    if (server := _SERVERS.get(vendor)) is not None:
        if not base:
            raise ValueError(f"{vendor} needs an api_base")
        return _Place(vendor, server, base, key), upstream
    if vendors.named(vendor) is None:
        raise ValueError(f"there is no provider {vendor!r} here")
    if vendor == "azure" and not base:
        raise ValueError("azure needs an api_base")
    return _Place(vendor, None, base, key), upstream


def _guessed(model: str) -> str:
    """Return the provider of a model that names none."""
    return "anthropic" if model.startswith("claude") else "gemini" if model.startswith("gemini") else "openai"


def _filled(text: str, environ: Mapping[str, str]) -> str:
    if not text.startswith(_ENVIRONMENT):
        return text
    variable = text.removeprefix(_ENVIRONMENT)
    if not environ.get(variable):
        raise ValueError(f"its address is in {variable}, which is not set here")
    return environ[variable]


def _fresh(place: _Place, taken: Sequence[str]) -> str:
    """Return an id for a provider: its vendor's for the first one at the usual address, else with a number."""
    stem = re.sub(r"[^a-z0-9-]", "-", place.vendor)
    names = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _provider(place: _Place, name: str) -> Step:
    vendor = vendors.named(place.vendor)
    body: Json = {"id": name}
    if place.type is not None:
        body["type"] = place.type.value
    elif vendor is not None and (name != place.vendor or place.base):
        body["type"] = vendor.type.value
    if place.base or name != place.vendor:
        body["base_url"] = place.base or vendors.starting(place.vendor)[1]
    if place.key.startswith(_ENVIRONMENT):
        body["cred_store"] = f"env:{place.key.removeprefix(_ENVIRONMENT)}"
    elif place.key:
        body["api_key"] = place.key
    return Step("/providers", body)


def _model(name: str, provider: str, given: Mapping[str, Any], info: Mapping[str, Any]) -> Step:
    told = {**info, **given}
    body: Json = {"id": name, "provider_id": provider}
    prices = {kind: told.get(f"{kind}_cost_per_token") for kind in ("input", "output")}
    if all(isinstance(price, int | float) for price in prices.values()):
        body |= {f"{kind}_per_1k": round(float(price or 0) * 1000, 9) for kind, price in prices.items()}
    for field, ours in (
        ("max_input_tokens", "max_context_tokens"),
        ("max_output_tokens", "max_output_tokens"),
    ):
        if isinstance(info.get(field), int):
            body[ours] = info[field]
    return Step("/models", body)


def _weight(given: object) -> int:
    return max(1, min(100, round(given))) if isinstance(given, int | float) and given > 0 else 1


def _aliases(
    groups: Mapping[str, Sequence[Json]], config: Mapping[str, Any]
) -> tuple[list[Step], list[Note]]:
    """Return an alias for each name that is not the model's own, and for those of `model_group_alias`."""
    steps, notes = [], []
    for name, variants in groups.items():
        merged: dict[str, int] = {}
        for one in variants:
            merged[one["model_id"]] = merged.get(one["model_id"], 0) + one["weight"]
        if [*merged] == [name]:
            continue
        made = [{"model_id": model, "weight": min(weight, 100)} for model, weight in merged.items()]
        steps.append(Step("/aliases", {"name": name, "variants": made}))
        notes.append(Note(f"model_name {name}", Fate.CARRIED, f"an alias for {', '.join(merged)}"))
    others = (config.get("router_settings") or {}).get("model_group_alias") or {}
    for name, meant in others.items() if isinstance(others, dict) else ():
        target = meant.get("model") if isinstance(meant, dict) else meant
        found = groups.get(str(target))
        what = f"router_settings.model_group_alias.{name}"
        if not found:
            notes.append(Note(what, Fate.LEFT, f"there is no model {target!r}"))
            continue
        steps.append(Step("/aliases", {"name": str(name), "variants": [*found]}))
        notes.append(Note(what, Fate.CARRIED, f"an alias for {target}"))
    return steps, notes


def _budgets(config: Mapping[str, Any]) -> tuple[list[Step], list[Note]]:
    settings = config.get("litellm_settings") or {}
    limit, period = settings.get("max_budget"), str(settings.get("budget_duration") or "")
    if limit is None:
        return [], []
    what = "litellm_settings.max_budget"
    if not isinstance(limit, int | float) or limit < 0:
        return [], [Note(what, Fate.LEFT, "it is no amount")]
    ours = _PERIODS.get(period, "month" if period else "total")
    body = {"owner": "all", "limit": round(limit * 1_000_000), "period": ours, "unit": "usd"}
    exact = period in {"", "1d", "24h"}
    words = f"${limit:g} a {ours} for everybody" if ours != "total" else f"${limit:g} in all for everybody"
    note = Note(
        what, Fate.CARRIED if exact else Fate.CHANGED, words if exact else f"{words}, by the calendar"
    )
    return [Step("/budgets", body)], [note]


def _rest(config: Mapping[str, Any]) -> Iterator[Note]:
    """Yield what becomes of everything else, each by its name."""
    done = {
        "router_settings.model_group_alias",
        "litellm_settings.max_budget",
        "litellm_settings.budget_duration",
    }
    for section, value in config.items():
        if section == "model_list":
            continue
        inner = value if isinstance(value, dict) and section not in _LEFT else None
        names = [section] if inner is None else [f"{section}.{key}" for key in inner]
        for name in names:
            if name not in done:
                yield Note(name, Fate.LEFT, _LEFT.get(name, "there is no such setting here"))


# --- the original --------------------------------------------------------------------------------------------

_SAME: Final = frozenset(
    f"TOKENHUB_{name}"
    for name in (
        *("LOG_LEVEL", "DB_DSN", "VAULT_ENABLED", "PROVIDER_TIMEOUT_SECS", "CREDENTIALS_FILE"),
        *(
            "SHUTDOWN_DRAIN_SECS",
            "TEMPORAL_ENABLED",
            "TEMPORAL_HOST",
            "TEMPORAL_NAMESPACE",
            "TEMPORAL_TASK_QUEUE",
        ),
    )
)
_ROUTING: Final = {
    "TOKENHUB_DEFAULT_MODE": "default_mode",
    "TOKENHUB_DEFAULT_MAX_BUDGET_USD": "default_max_budget_usd",
    "TOKENHUB_DEFAULT_MAX_LATENCY_MS": "default_max_latency_ms",
}
_VARIABLES: Final[Mapping[str, str]] = {
    "TOKENHUB_LISTEN_ADDR": "set TOKENHUB_HOST and TOKENHUB_ADMIN_PORT",
    "TOKENHUB_VAULT_PASSWORD": "a secret: give it to `tokenhub vault init`, or set TOKENHUB_VAULT_PASSWORD_FILE",
    "TOKENHUB_ADMIN_TOKEN": "a secret: set it where `tokenhub serve` is started, or take the one that it makes",
    "TOKENHUB_EXPLORATION_TEMP": "exploration is Thompson sampling: `explore` in the routing config",
    "TOKENHUB_HEDGE_AFTER_MS": "set TOKENHUB_HEDGE; when to hedge is learned",
    "TOKENHUB_MAX_HEDGED_PROVIDERS": "two attempts at most",
    "TOKENHUB_CORS_ORIGINS": "pages of other sites may not call the admin API",
    "TOKENHUB_PRICING_REFRESH_ENABLED": "prices come with the program; `tokenhub prices refresh` compares",
    "TOKENHUB_PRICING_REFRESH_INTERVAL_SECS": "prices come with the program; `tokenhub prices refresh` compares",
    "TOKENHUB_HEALTH_PROBE_DISABLED": "nothing is probed: health is learned from calls",
}


def variables(lines: str) -> Import:
    """Return what a file of `NAME=value` lines of the original comes to; raises ValueError where it is none."""
    routing: Json = {}
    notes: list[Note] = []
    for number, line in enumerate(lines.splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, mark, value = text.partition("=")
        value = value.strip().strip("\"'")
        if not mark or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"line {number}: expected NAME=value")
        if (field := _ROUTING.get(name)) and value:
            try:
                routing[field] = _routing(field, value)
            except ValueError as error:
                notes.append(Note(name, Fate.LEFT, str(error)))
            else:
                notes.append(Note(name, Fate.CARRIED, f"{field} {value} in the routing config"))
        elif name in _SAME:
            notes.append(
                Note(name, Fate.CHANGED, "means the same here: set it where `tokenhub serve` is started")
            )
        else:
            notes.append(Note(name, Fate.LEFT, _VARIABLES.get(name, "there is no such setting here")))
    return Import((Step("/routing-config", routing),) if routing else (), tuple(notes))


def _routing(field: str, value: str) -> object:
    if field == "default_mode":
        if value == "thompson":
            raise ValueError("exploration is no mode: set `explore` to thompson in the routing config")
        return value
    try:
        return float(value) if field.endswith("usd") else int(value)
    except ValueError:
        raise ValueError(f"{value} is no number") from None


def credentials(file: Mapping[str, Any]) -> Import:
    """Return what a credentials file of the original comes to; raises ValueError where it is none."""
    steps, notes = [], []
    for kind in ("providers", "models"):
        if not isinstance(file.get(kind, []), list) or not all(
            isinstance(x, dict) for x in file.get(kind, [])
        ):
            raise ValueError(f"{kind}: expected a list")
    for one in file.get("providers", []):
        body = {
            n: one[n]
            for n in ("id", "type", "base_url", "api_key", "enabled")
            if one.get(n) not in (None, "")
        }
        steps.append(Step("/providers", body))
        notes.append(Note(f"provider {one.get('id')}", Fate.CARRIED))
        if one.get("autoload_models"):
            words = "register its models by name, or `tokenhub provider add` for those of the price list"
            notes.append(Note(f"provider {one.get('id')}: autoload_models", Fate.LEFT, words))
    for one in file.get("models", []):
        fields = (
            "id",
            "provider_id",
            "weight",
            "max_context_tokens",
            "input_per_1k",
            "output_per_1k",
            "enabled",
        )
        steps.append(Step("/models", {name: one[name] for name in fields if one.get(name) is not None}))
        notes.append(Note(f"model {one.get('id')}", Fate.CARRIED, f"at {one.get('provider_id')}"))
        if one.get("tool_name_map"):
            words = "see the repairs of models: docs/quirks.md"
            notes.append(Note(f"model {one.get('id')}: tool_name_map", Fate.LEFT, words))
    others = [name for name in file if name not in {"providers", "models"}]
    notes += [Note(name, Fate.LEFT, "there is no such setting here") for name in others]
    return Import(tuple(steps), tuple(notes))
