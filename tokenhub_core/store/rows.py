"""What a record looks like as a row, and a row as what the admin API shows. Pure.

A record holds strings from strangers: callers choose model names, ids and paths, providers choose messages and
counts. Whatever they chose must be storable, because a record that cannot be written is a request that cannot be
answered. So text is made valid UTF-8 and cut, counts are held within 64 bits, and numbers that are none become null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from msgspec import structs

from tokenhub_core.routing.decision import pack, unpack
from tokenhub_core.types import Attempt, Composition, Json, Plan, Record, Shadow

COLUMNS: Final = (
    "id",
    "at",
    "outcome",
    "status",
    "method",
    "path",
    "dialect",
    "stream",
    "lane",
    "client_mode",
    "peer",
    "program",
    "proxy_user",
    "origin_host",
    "client_request_id",
    "requested_model",
    "alias",
    "variant",
    "model_id",
    "provider_id",
    "mode",
    "reason",
    "directive",
    "tags",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "usage_estimated",
    "cost_nanousd",
    "queue_ms",
    "route_ms",
    "ttft_ms",
    "total_ms",
    "error_class",
    "message",
    "losses",
    "identical",
    "simulated",
    "stop_reason",
    "attempts",
    "decision",
    "shadow",
    "key_id",
    "project",
    "composition",
)
"""The columns of `record_row`, in its order."""

MICROS: Final = 1_000_000
"""Microseconds per second."""

_NAME: Final = 256
_MESSAGE: Final = 2000
_SILENCE: Final = 1000.0
"""Milliseconds of silence in a stream that are worth a word."""
_INT_MAX: Final = 2**63 - 1
_HARMLESS: Final = frozenset({"alt", "api-version", "beta"})
_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,40}\Z")
_JSON_COLUMNS: Final = ("tags", "losses", "attempts", "decision", "shadow", "composition")


def micros(seconds: float) -> int:
    """Return `seconds` since the epoch as stored: whole microseconds."""
    return round(seconds * MICROS)


def text(value: str, limit: int = _NAME) -> str:
    """Return `value` as every store can hold it: valid UTF-8, no NUL, at most `limit` characters."""
    if len(value) > limit:
        value = value[: limit - 1] + "…"
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def bare_path(path: str) -> str:
    """Return `path` with its query cut down to parameters that never hold a secret.

    Keys travel in queries (`?key=…`), under names that nobody can list; so the few harmless parameters are kept and
    everything else becomes one `*`.
    """
    head, mark, query = path.partition("?")
    if not mark:
        return text(path, 512)
    kept = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name in _HARMLESS and _PLAIN.match(value) and part not in kept:
            kept.append(part)
        elif "*" not in kept:
            kept.append("*")
    return text(f"{head}?{'&'.join(kept)}", 512)


def attempts_json(attempts: Sequence[Attempt]) -> str:
    """Return the attempts as a JSON list, in order."""
    return dumps([_attempt(attempt) for attempt in attempts])


def plan_json(plan: Plan, made: Composition | None = None) -> str:
    """Return the decision as JSON, in the form of `routing.decision`, with those of the steps that had their own."""
    steps = {one.name: one.plan for one in made.steps if one.plan is not None} if made is not None else {}
    return dumps(pack(plan, steps))


def record_row(record: Record) -> tuple[Any, ...]:
    """Return the record's values in the order of `COLUMNS`."""
    caller, usage, timings, plan = record.caller, record.usage, record.timings, record.plan
    return (
        record.id,
        micros(record.at),
        record.outcome.value,
        record.status,
        text(record.method, 32),
        bare_path(record.path),
        record.dialect.value if record.dialect else None,
        record.stream,
        caller.lane.value,
        text(caller.mode, 80),
        text(caller.peer),
        text(caller.program),
        text(caller.proxy_user),
        text(record.origin_host),
        text(record.client_request_id),
        text(record.requested_model),
        text(record.alias) or None,
        text(record.variant),
        text(record.model),
        text(record.provider),
        plan.policy.mode.value if plan else "",
        record.reason,
        record.directive,
        dumps(list(plan.policy.tags)) if plan else "[]",
        whole(usage.input_tokens),
        whole(usage.output_tokens),
        whole(usage.cache_read_tokens),
        whole(usage.cache_write_tokens),
        whole(usage.reasoning_tokens),
        record.usage_estimated,
        whole(record.cost_nanousd),
        _ms(timings.queue_ms),
        _ms(timings.route_ms),
        _ms(timings.ttft_ms),
        _ms(timings.total_ms),
        record.fault,
        text(record.message, _MESSAGE),
        dumps(list(record.losses)),
        record.identical,
        record.simulated,
        text(record.stop, 80),
        attempts_json(record.attempts),
        plan_json(plan, record.composition) if plan else None,
        dumps(_shadow(record.shadow)) if record.shadow else None,
        text(caller.key.id) if caller.key else None,
        (text(caller.key.project) or None) if caller.key else None,
        dumps(_composition(record.composition)) if record.composition else None,
    )


def entry(row: Mapping[str, Any]) -> Json:
    """Return a stored row as an object: JSON columns decoded, everything else as stored."""
    shown = dict(row)
    for name in _JSON_COLUMNS:
        if shown.get(name) is not None:
            shown[name] = orjson.loads(shown[name])
    if shown.get("decision") is not None:
        shown["decision"] = unpack(shown["decision"])
    return shown


def dumps(value: object) -> str:
    """Return `value` as JSON text that can always be stored and read again."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(_clean(value)).decode()


def whole(value: int) -> int:
    """Return `value` within the 64 bits that a column has."""
    return max(-_INT_MAX, min(_INT_MAX, value))


def _shadow(shadow: Shadow) -> Json:
    told = structs.asdict(shadow)
    return {**told, "model": text(shadow.model), "message": text(shadow.message, _MESSAGE)}


def _composition(made: Composition) -> Json:
    steps = [
        {name: value for name, value in structs.asdict(one).items() if name != "plan"} for one in made.steps
    ]
    return {**structs.asdict(made), "steps": steps}


def _attempt(attempt: Attempt) -> Json:
    usage = attempt.usage
    told = {
        "n": attempt.n,
        "model": attempt.model,
        "provider": attempt.provider,
        "started_ms": _ms(attempt.started_ms),
        "first_byte_ms": _ms(attempt.first_byte_ms),
        "ended_ms": _ms(attempt.ended_ms),
        "status": attempt.status,
        "cause": attempt.cause,
        "message": text(attempt.message, _MESSAGE),
        "blame": attempt.blame,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_nanousd": attempt.cost_nanousd,
        "change": attempt.change,
        "provider_request_id": text(attempt.provider_request_id),
    }
    if attempt.head_ms is not None:
        told["head_ms"] = _ms(attempt.head_ms)
    if attempt.ttft_limit_ms is not None:
        told["ttft_limit_ms"] = _ms(attempt.ttft_limit_ms)
    if attempt.silence_ms is not None and attempt.silence_ms >= _SILENCE:
        told["silence_ms"] = _ms(attempt.silence_ms)
    if attempt.stall_limit_ms is not None:
        told["stall_limit_ms"] = _ms(attempt.stall_limit_ms)
    return {**told, "step": attempt.step} if attempt.step else told


def _ms(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 3)


def _clean(value: object) -> object:
    match value:
        case str():
            return text(str(value), _MESSAGE)
        case bool() | None:
            return value
        case int():
            return whole(value)
        case Mapping():
            return {text(str(key)): _clean(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_clean(inner) for inner in value]
        case _:
            return value
