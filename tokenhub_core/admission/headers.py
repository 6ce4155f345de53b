"""What answers tell of rate limits: one table per vendor, from field names to windows. Nothing is searched for.

Names and forms are those of the vendors' API references; `RateLimit` and `RateLimit-Policy` those of the IETF draft
(draft-ietf-httpapi-ratelimit-headers, its older forms too). Values come from strangers: a number that is none, is
negative or does not end is no number, and a reset lies at most as far away as the window can be long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec
import orjson

from tokenhub_core.dispatch.backoff import parse_date
from tokenhub_core.types import Dialect, Headers, header

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86_400.0
PERIODS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "second": 1.0,
        "minute": MINUTE,
        "hour": HOUR,
        "5h": 5 * HOUR,
        "day": DAY,
        "7d": 7 * DAY,
        "month": 31 * DAY,
    }
)
"""Seconds of the windows whose length their name tells."""

_MOST: Final = 1e15
"""Of anything: no limit is larger."""
_LONGEST_VALUE: Final = 64
_MOMENTS: Final = frozenset({"date", "epoch", "epoch_ms", "moment"})
"""Forms that count from the answer's own clock."""
_LONGEST_FIELD: Final = 1024
_BODY_LIMIT: Final = 64 * 1024
_SOME: Final = 1e-3
"""What is taken to be left of a share that is used up and not refused: its owner may pay for more."""


class Metric(StrEnum):
    """What a window counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    SHARE = "share"
    """A part of a whole whose size is not told; 1 is all of it."""


class Seen(msgspec.Struct, frozen=True):
    """One window as one answer told it. `remaining` None: it did not say. Durations in seconds from the answer."""

    metric: Metric
    window: str
    """Its name: `minute`, `day`, …; empty where the vendor gives it none."""
    limit: float | None = None
    remaining: float | None = None
    resets: float | None = None
    by_model: bool = False
    """It counts calls to this model only."""
    refills: bool = False
    """It fills up steadily (a token bucket) and is full at the reset; else it is what it is until then."""
    model: str = ""
    """The model's name where the answer itself tells it."""


@dataclass(frozen=True, slots=True)
class _Field:
    """What one header field holds: `part` of a window, written in `form`."""

    metric: Metric
    window: str
    part: str
    form: str
    by_model: bool = True
    refills: bool = False


type Table = Mapping[str, _Field]

_R, _T = Metric.REQUESTS, Metric.TOKENS
_IN, _OUT = Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS
_PARTS: Final = ("limit", "remaining", "reset")


def _three(
    pattern: str, metric: Metric, window: str, reset: str, *, by_model: bool = True, refills: bool = False
) -> dict[str, _Field]:
    """Return the three fields of a window; `{}` in `pattern` stands for the part, `reset` is that part's form."""
    forms = ("count", "count", reset)
    return {
        pattern.format(part): _Field(metric, window, part, form, by_model, refills)
        for part, form in zip(_PARTS, forms, strict=True)
    }


def _openai(*, refills: bool, requests: str = "", tokens: str = "") -> dict[str, _Field]:
    return {
        **_three("x-ratelimit-{}-requests", _R, requests, "duration", refills=refills),
        **_three("x-ratelimit-{}-tokens", _T, tokens, "duration", refills=refills),
    }


def _unified() -> dict[str, _Field]:
    """Return the fields of Anthropic's subscriptions, whose windows count shares over all models."""
    share, fields = Metric.SHARE, {}
    for window in ("", "5h", "7d"):
        stem = f"anthropic-ratelimit-unified-{window}-" if window else "anthropic-ratelimit-unified-"
        fields[f"{stem}status"] = _Field(share, window or "unified", "status", "status", by_model=False)
        fields[f"{stem}reset"] = _Field(share, window or "unified", "reset", "epoch", by_model=False)
        if window:
            fields[f"{stem}utilization"] = _Field(share, window, "used", "count", by_model=False)
    return fields


_IETF: Final[Table] = MappingProxyType(
    {
        **_three("ratelimit-{}", _R, "", "moment", by_model=False),
        "ratelimit": _Field(_R, "", "items", "items", by_model=False),
        "ratelimit-policy": _Field(_R, "", "policy", "items", by_model=False),
    }
)
_OLD: Final = _three("x-ratelimit-{}", _R, "", "moment", by_model=False)
"""What many gateways send; the reset is told in seconds by some and as a moment by others."""

_TABLES: Final[Mapping[str, Table]] = MappingProxyType(
    {
        "openai": {
            **_openai(refills=True),
            **_three("x-ratelimit-{}-project-tokens", _T, "project", "duration", refills=True),
        },
        "azure": _openai(refills=True),
        # Of Groq, requests are counted by the day and tokens by the minute.
        "groq": _openai(refills=True, requests="day", tokens="minute"),
        "mistral": {
            **_three("x-ratelimit-{}-req-minute", _R, "minute", "moment"),
            **_three("x-ratelimit-{}-tokens-minute", _T, "minute", "moment"),
            **_three("x-ratelimit-{}-tokens-month", _T, "month", "moment"),
            **_three("ratelimitbysize-{}", _T, "minute", "moment"),
            **_three("x-ratelimitbysize-{}-minute", _T, "minute", "moment"),
            **_three("x-ratelimitbysize-{}-month", _T, "month", "moment"),
        },
        "cerebras": {
            name: field
            for metric, noun in ((_R, "requests"), (_T, "tokens"))
            for window in ("minute", "hour", "day")
            for name, field in _three(f"x-ratelimit-{{}}-{noun}-{window}", metric, window, "moment").items()
        },
        "together": {
            **_three("x-ratelimit-{}", _R, "", "moment"),
            **_three("x-tokenlimit-{}", _T, "", "moment"),
        },
        "openrouter": _three("x-ratelimit-{}", _R, "", "epoch_ms", by_model=False),
        "anthropic": {
            **{
                name: field
                for metric in (_R, _T, _IN, _OUT)
                for name, field in _three(
                    f"anthropic-ratelimit-{metric.value.replace('_', '-')}-{{}}",
                    metric,
                    "minute",
                    "date",
                    refills=True,
                ).items()
            },
            **_unified(),
        },
        "gemini": {},
        "ollama": {},
        # Whatever else speaks OpenAI's dialects: its names, and nothing assumed of how a window fills up.
        "": {**_openai(refills=False), **_OLD},
    }
)
_WHOLE: Final[Mapping[str, Table]] = MappingProxyType(
    {name: {**_IETF, **own} for name, own in _TABLES.items()}
)
_NAMES: Final = frozenset(name for one in _WHOLE.values() for name in one)
_BY_DIALECT: Final[Mapping[Dialect, str]] = MappingProxyType(
    {
        Dialect.ANTHROPIC_MESSAGES: "anthropic",
        Dialect.ANTHROPIC_COUNT_TOKENS: "anthropic",
        Dialect.GEMINI: "gemini",
        Dialect.OLLAMA_CHAT: "ollama",
        Dialect.OLLAMA_GENERATE: "ollama",
    }
)


def mentioned(headers: Headers) -> bool:
    """Tell whether any vendor's table knows one of these fields; the quick look before `read`."""
    return not _NAMES.isdisjoint([name for name, _ in headers])


def table(vendor: str, dialect: Dialect) -> Table:
    """Return the table of a vendor (an id of `providers.vendors`), else that of a dialect's family."""
    return _WHOLE[vendor if vendor in _WHOLE and vendor else _BY_DIALECT.get(dialect, "")]


def read(fields: Table, headers: Headers, *, at: float) -> tuple[Seen, ...]:
    """Return the windows that an answer tells of. Never raises; time grows with the length of the fields.

    `at` is the answer's arrival in seconds since the epoch; moments count from the answer's own `date` where it has
    one, so that the difference of two machines' clocks does not matter.
    """
    found: dict[tuple[Metric, str, bool], tuple[_Field, dict[str, float]]] = {}
    items: dict[str, str] = {}
    sent: float | None = None
    for name, value in headers:
        field = fields.get(name)
        if field is None:
            continue
        if field.form == "items":
            items.setdefault(field.part, value)
            continue
        if sent is None and field.form in _MOMENTS:
            told_at = parse_date(header(headers, "date"))
            sent = at if told_at is None else told_at
        number = _number(field, value, at if sent is None else sent)
        if number is not None:
            key = (field.metric, field.window, field.by_model)
            found.setdefault(key, (field, {}))[1].setdefault(field.part, number)
    told = [_seen(field, parts) for field, parts in found.values()]
    return (*told, *_items(items.get("items", ""), items.get("policy", "")))


def _seen(field: _Field, parts: Mapping[str, float]) -> Seen:
    limit, remaining = parts.get("limit"), parts.get("remaining")
    if field.metric is Metric.SHARE:
        limit = 1.0
        remaining = 0.0 if parts.get("status") == 0.0 else max(1.0 - parts.get("used", 0.0), _SOME)
    elif limit is not None and remaining is not None:
        remaining = min(remaining, limit)
    return Seen(
        field.metric,
        field.window,
        limit,
        remaining,
        _within(parts.get("reset"), field.window),
        field.by_model,
        field.refills,
    )


def _within(resets: float | None, window: str) -> float | None:
    """Return a reset held within what its window can be; one without a name can be a day."""
    return None if resets is None else min(max(resets, 0.0), 1.1 * PERIODS.get(window, DAY))


# --- numbers -----------------------------------------------------------------------------------------------

_COUNT: Final = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_UNITS: Final[Mapping[str, float]] = MappingProxyType(
    {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}
)
_PIECE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)


def _number(field: _Field, value: str, sent: float) -> float | None:
    """Return what a field holds: a count, or the seconds from the answer to a reset."""
    if len(value) > _LONGEST_VALUE:
        return None
    value = value.strip()
    match field.form:
        case "status":
            return 0.0 if value == "rejected" else 1.0
        case "duration":
            return duration(value)
        case "date":
            when = _date(value)
            return None if when is None else when - sent
    number = _count(value)
    if number is None:
        return None
    match field.form:
        case "epoch":
            return number - sent
        case "epoch_ms":
            return number / 1000 - sent
        case "moment":
            # Seconds, seconds since the epoch, or milliseconds since it: no window is 30 years long.
            return number if number < 1e9 else (number if number < 1e11 else number / 1000) - sent
    return number


def _count(value: str) -> float | None:
    return min(float(value), _MOST) if _COUNT.fullmatch(value) else None


def duration(value: str) -> float | None:
    """Return the seconds of `6m0s`, `120ms`, `1h2m3.5s` or a plain number of seconds; None for anything else."""
    if len(value) > _LONGEST_VALUE:
        return None
    if (plain := _count(value)) is not None:
        return plain
    total, place = 0.0, 0
    while place < len(value):
        piece = _PIECE.match(value, place)
        if piece is None:
            return None
        total += float(piece[1]) * _UNITS[piece[2]]
        place = piece.end()
    return min(total, _MOST) if value else None


def _date(value: str) -> float | None:
    """Return the moment of an RFC 3339 date; one without a zone is UTC."""
    try:
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# --- the IETF's fields -------------------------------------------------------------------------------------

_ITEM: Final = re.compile(
    r'("[^"]{0,64}"|[A-Za-z*][\w.*:/-]{0,63})(=\d{1,18})?((?:;[^,;]{0,64}){0,8})', re.ASCII
)
_UNIT: Final = MappingProxyType({"requests": _R, "tokens": _T})


def _items(limits: str, policy: str) -> Iterable[Seen]:
    """Read `"name";r=50;t=30` with `"name";q=100;w=60`, and the older `limit=100, remaining=50, reset=30`."""
    told, rules = _list(limits), _list(policy)
    if "remaining" in told:
        limit, left, resets = (_plain(told.get(name, {}).get("")) for name in _PARTS)
        return (Seen(_R, "", limit, left, _within(resets, "")),)
    seen = []
    for name, parts in told.items():
        rule = rules.get(name, {})
        metric = _UNIT.get(str(rule.get("qu", parts.get("qu", "requests"))))
        remaining = _plain(parts.get("r"))
        if metric is None or remaining is None:
            continue
        resets = _within(_plain(parts.get("t", rule.get("w"))), "")
        seen.append(Seen(metric, name, _plain(rule.get("q")), remaining, resets))
    return seen


def _plain(value: float | str | None) -> float | None:
    return value if isinstance(value, float) else None


def _list(text: str) -> dict[str, dict[str, float | str]]:
    """Return the items of a list of structured fields (RFC 9651) with those of their parameters that are plain."""
    if len(text) > _LONGEST_FIELD:
        return {}
    found: dict[str, dict[str, float | str]] = {}
    for one in text.split(","):
        item = _ITEM.fullmatch(one.strip())
        if item is None:
            continue
        parts = found.setdefault(item[1].strip('"'), {})
        if item[2] is not None:
            parts[""] = float(item[2][1:])
        for parameter in filter(None, item[3].split(";")):
            name, _, value = parameter.strip().partition("=")
            number = _count(value)
            parts[name] = value.strip('"') if number is None else number
    return found


# --- bodies ------------------------------------------------------------------------------------------------

_FREE: Final = "-FreeTier"
_QUOTAS: Final[Mapping[str, tuple[Metric, str]]] = MappingProxyType(
    {
        "GenerateRequestsPerMinutePerProjectPerModel": (_R, "minute"),
        "GenerateRequestsPerDayPerProjectPerModel": (_R, "day"),
        "GenerateContentInputTokensPerModelPerMinute": (_IN, "minute"),
        "GenerateContentInputTokensPerModelPerDay": (_IN, "day"),
        "GenerateContentPaidTierInputTokensPerModelPerMinute": (_IN, "minute"),
        "GenerateContentPaidTierInputTokensPerModelPerDay": (_IN, "day"),
    }
)
"""Google's quotas by their ids, which end in `-FreeTier` where they are those of the free tier."""


def read_body(dialect: Dialect, body: bytes, *, at: float) -> tuple[Seen, ...]:
    """Return the windows that the body of a refusal tells of: Gemini says there what others say in headers.

    Each quota of a `QuotaFailure` is used up; a `RetryInfo` says for how long, and a day's ends at midnight of the
    US Pacific coast.
    """
    if dialect is not Dialect.GEMINI:
        return ()
    try:
        data = orjson.loads(body[:_BODY_LIMIT])
    except orjson.JSONDecodeError:
        return ()
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    match data:
        case {"error": {"details": list(details)}}:
            pass
        case _:
            return ()
    waits = [duration(one["retryDelay"]) for one in details if _holds(one, "retryDelay", str)]
    seen = []
    for one in details:
        for broken in one["violations"] if _holds(one, "violations", list) else ():
            quota = str(broken.get("quotaId", "")) if isinstance(broken, dict) else ""
            if (known := _QUOTAS.get(quota.removesuffix(_FREE))) is None:
                continue
            metric, window = known
            resets = pacific_midnight(at) - at if window == "day" else next(filter(None, waits), None)
            dimensions = broken.get("quotaDimensions")
            model = dimensions.get("model") if isinstance(dimensions, dict) else None
            seen.append(
                Seen(
                    metric,
                    window,
                    _count(str(broken.get("quotaValue", ""))[:_LONGEST_VALUE]),
                    0.0,
                    _within(resets, window),
                    by_model=True,
                    model=model[:200] if isinstance(model, str) else "",
                )
            )
    return tuple(seen)


def _holds(value: object, name: str, kind: type) -> bool:
    return isinstance(value, dict) and isinstance(value.get(name), kind)


def pacific_midnight(at: float) -> float:
    """Return the next midnight of the US Pacific coast by its standard time, in summer an hour after the true one."""
    return (at - 8 * HOUR) // DAY * DAY + DAY + 8 * HOUR
