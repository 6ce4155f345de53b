"""From what a provider said to a `Fault`: decided here, once, and nowhere else by looking at words.

Three kinds of evidence, in order of trust:

1. the words of the error object that are meant for machines (`code`, `details.error_code`, `type`), where one
   of them settles the matter whatever the status is;
2. the signatures: phrases in the error's *message* that are the only sign some providers give that a context
   was exceeded, a balance is used up or a filter struck. A small ordered table per dialect, each row tied to
   the statuses it is seen with; rows that rule out come first. The rest of the body is never searched, since
   providers quote their callers;
3. the status. Where an error hides in a success or in a stream, the one that its `type` stands for.

The tables hold observed facts: the error types are those of the official SDKs, the phrases those that
providers are known to send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from tokenhub_core.dispatch.backoff import parse_retry_after
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Dialect, Failed, Headers, Json, header

_BODY_LIMIT: Final = 64 * 1024
_MESSAGE_LIMIT: Final = 500
_WORD_LIMIT: Final = 200

_BAD: Final = frozenset({400, 413, 422})
"""The statuses under which a provider says that a call does not fit."""
_MONEY: Final = frozenset({400, 402, 403, 429})
_KEY: Final = frozenset({400, 403})
_BUSY: Final = frozenset({500, 502, 503})


@dataclass(frozen=True, slots=True)
class _Sign:
    """A message that holds all `parts` (lower case), under one of `statuses`, means `kind`; None: nothing."""

    kind: Kind | None
    statuses: frozenset[int]
    parts: tuple[str, ...]


def _signs(kind: Kind | None, statuses: frozenset[int], *phrases: str) -> tuple[_Sign, ...]:
    """Return one row per phrase; ` … ` in a phrase stands for anything."""
    return tuple(_Sign(kind, statuses, tuple(phrase.split(" … "))) for phrase in phrases)


@dataclass(frozen=True, slots=True)
class _Table:
    """What a dialect's words mean: settled kinds, message signatures, and the status behind each type."""

    words: Mapping[str, Kind]
    signs: tuple[_Sign, ...]
    implied: Mapping[str, int]


_EXCLUDED: Final = (
    *_signs(Kind.RATE_LIMITED, _BAD, "throttlingexception"),
    *_signs(None, _BAD, "rate limit", "rate_limit", "too many requests", "tokens per minute"),
    *_signs(None, _BAD, "string_above_max_length", "string too long"),
)

_OPENAI: Final = _Table(
    words={
        "context_length_exceeded": Kind.OVERFLOW,
        "exceed_context_size_error": Kind.OVERFLOW,
        "insufficient_quota": Kind.QUOTA,
        "billing_hard_limit_reached": Kind.QUOTA,
        "billing_not_active": Kind.QUOTA,
        "budget_exceeded": Kind.QUOTA,
        "rate_limit_exceeded": Kind.RATE_LIMITED,
        "rate_limit_error": Kind.RATE_LIMITED,
        "overloaded_error": Kind.OVERLOADED,
        "engine_overloaded": Kind.OVERLOADED,
        "content_filter": Kind.REFUSED,
        "content_policy_violation": Kind.REFUSED,
        "moderation_blocked": Kind.REFUSED,
        "responsibleaipolicyviolation": Kind.REFUSED,
        "invalid_api_key": Kind.AUTH,
        "account_deactivated": Kind.AUTH,
        "model_not_found": Kind.NOT_FOUND,
        "deploymentnotfound": Kind.NOT_FOUND,
        "string_above_max_length": Kind.INVALID,
    },
    signs=(
        *_EXCLUDED,
        *_signs(
            Kind.OVERFLOW,
            _BAD,
            "maximum context length",
            "exceeds the context window",
            "context window exceeds limit",
            "exceeds the available context size",
            "greater than the context length",
            "longer than the model's context length",
            "input token count … exceeds the maximum number of tokens",
            "maximum prompt length is",
            "reduce the length of the messages",
            "inputs` tokens + `max_new_tokens` must be",
            "exceeded model token limit",
            "prompt token count … exceeds the limit of",
            "prompt is too long",
            "input is too long",
            "too many input tokens",
            "exceed model maximum",
            "current length is … while limit is",
        ),
        *_signs(
            Kind.QUOTA, _MONEY, "exceeded your current quota", "insufficient balance", "insufficient credits"
        ),
        *_signs(Kind.REFUSED, _BAD, "content management policy", "limited access to this content for safety"),
        *_signs(Kind.AUTH, _KEY, "incorrect api key", "api key not valid", "invalid api key"),
        *_signs(Kind.OVERLOADED, _BUSY, "overloaded"),
    ),
    implied={
        "invalid_request_error": 400,
        "invalid_prompt": 400,
        "bad_request_error": 400,
        "badrequesterror": 400,
        "authentication_error": 401,
        "permission_error": 403,
        "permission_denied": 403,
        "not_found_error": 404,
        "notfounderror": 404,
        "insufficient_quota": 429,
        "rate_limit_exceeded": 429,
        "rate_limit_error": 429,
        "server_error": 500,
        "api_error": 500,
        "internal_error": 500,
        "internal_server_error": 500,
        "service_unavailable": 503,
        "overloaded_error": 529,
        "timeout": 504,
    },
)

_ANTHROPIC: Final = _Table(
    words={
        "billing_error": Kind.QUOTA,
        "enforced_spend_limit_reached": Kind.QUOTA,
        "contract_spend_limit_reached": Kind.QUOTA,
        "linked_organization_spend_limit_reached": Kind.QUOTA,
        "linked_organization_billing_unavailable": Kind.QUOTA,
        "ramp_limit_exceeded": Kind.RATE_LIMITED,
        "overloaded_error": Kind.OVERLOADED,
        "request_too_large": Kind.TOO_LARGE,
    },
    signs=(
        *_EXCLUDED,
        *_signs(
            Kind.OVERFLOW,
            _BAD,
            "prompt is too long",
            "exceed context limit",
            "exceeds the context window",
            "input is too long",
            "too many input tokens",
            "exceed model maximum",
            "maximum context length",
        ),
        *_signs(
            Kind.QUOTA,
            _MONEY,
            "credit balance is too low",
            "api usage limits",
            "monthly spend limit",
            "spending limit",
        ),
        *_signs(Kind.REFUSED, _BAD, "blocked by content filtering policy"),
    ),
    implied={
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "conflict_error": 409,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    },
)

_TABLES: Final[Mapping[Dialect, _Table]] = {
    Dialect.OPENAI_CHAT: _OPENAI,
    Dialect.ANTHROPIC_MESSAGES: _ANTHROPIC,
}

# 408, 409 and 425 are transient because both official SDKs retry them (409 is their lock timeout); 424 is
# Bedrock's "the model failed". 405 and 410 say that the place is wrong, as 404 does.
_STATUS: Final[Mapping[int, Kind]] = {
    401: Kind.AUTH,
    402: Kind.QUOTA,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    405: Kind.NOT_FOUND,
    407: Kind.AUTH,
    408: Kind.TRANSIENT,
    409: Kind.TRANSIENT,
    410: Kind.NOT_FOUND,
    413: Kind.TOO_LARGE,
    424: Kind.TRANSIENT,
    425: Kind.TRANSIENT,
    429: Kind.RATE_LIMITED,
    451: Kind.FORBIDDEN,
    529: Kind.OVERLOADED,
}

_BLAME: Final[Mapping[Kind, Blame]] = {
    Kind.OVERFLOW: Blame.CLIENT,
    Kind.REFUSED: Blame.CLIENT,
    Kind.INVALID: Blame.CLIENT,
    Kind.TOO_LARGE: Blame.CLIENT,
    Kind.RATE_LIMITED: Blame.CREDENTIAL,
    Kind.QUOTA: Blame.CREDENTIAL,
    Kind.AUTH: Blame.CREDENTIAL,
    Kind.FORBIDDEN: Blame.CREDENTIAL,
    # Our catalogue sent the call to a place that does not know the model.
    Kind.NOT_FOUND: Blame.US,
    Kind.OVERLOADED: Blame.PROVIDER,
    Kind.TRANSIENT: Blame.PROVIDER,
}

_CODE: Final[Mapping[Kind, str]] = {
    Kind.OVERFLOW: "context_length_exceeded",
    Kind.REFUSED: "content_filter",
    Kind.QUOTA: "insufficient_quota",
}
"""The code that callers get where the provider gave none."""

_WORDED: Final = frozenset(_CODE)
"""Kinds that say more than the status they come with: they are their own label."""


@dataclass(frozen=True, slots=True)
class _Said:
    """An error object, read. `code` is its most precise word, `status` the one it names (0: none)."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""
    status: int = 0
    request_id: str = ""


def classify(dialect: Dialect, status: int, headers: Headers, body: bytes, *, now: float) -> Fault:
    """Return the fault behind a response that is no success (`status` outside 200 to 299).

    Any bytes will do as `body`; only its first 64 KiB are looked at, and only an error object's own message is
    ever passed on. `now` is seconds since the epoch, for `retry-after` dates.
    """
    request_id = header(headers, "x-request-id") or header(headers, "request-id")
    if 300 <= status < 400:
        # Never followed: a redirect would carry the credential to a host that nobody configured.
        return Fault(
            Kind.TRANSIENT,
            Blame.PROVIDER,
            f"the provider answered {status}, a redirect, which is not followed",
            cause="redirect",
            upstream_status=status,
            provider_request_id=_word(request_id),
        )
    said = _read(_decoded(body))
    return _fault(
        dialect,
        said,
        status,
        cause=f"http_{status}" if 400 <= status < 600 else "http_other",
        silent=f"the provider answered {status} without a readable error",
        retry_after=parse_retry_after(headers, now=now),
        request_id=request_id,
    )


def classify_body(dialect: Dialect, data: Json) -> Fault | None:
    """Return the fault that hides in the decoded body of a success, None where the body is none.

    An error is a top-level `error` that is not empty (some aggregators send it with status 200 and an integer
    `code`), or a top-level `type` of `error`. `upstream_status` becomes the status that it stands for.
    """
    if not data.get("error") and data.get("type") != "error":
        return None
    said = _read(data)
    status = _meant(dialect, said, 0)
    silent = "the provider answered with an error inside a success, without saying which"
    return _fault(dialect, said, status, cause=f"body_{status}", silent=silent)


def classify_failed(dialect: Dialect, failed: Failed) -> Fault:
    """Return the fault behind an error inside a stream. `upstream_status` is the status it stands for."""
    said = _Said(message=_clean(failed.message), code=_word(failed.code))
    status = _meant(dialect, said, failed.status)
    silent = "the provider broke off its stream with an error, without saying which"
    return _fault(dialect, said, status, cause=f"stream_{status}", silent=silent)


def _meant(dialect: Dialect, said: _Said, status: int) -> int:
    """Return the status that an error stands for which did not come as a response of its own."""
    implied = _TABLES[dialect].implied
    for word in (said.code, said.type):
        if word.lower() in implied:
            return implied[word.lower()]
    named = said.status or status
    return named if 400 <= named < 600 else 502


def _fault(
    dialect: Dialect,
    said: _Said,
    status: int,
    *,
    cause: str,
    silent: str,
    retry_after: float | None = None,
    request_id: str = "",
) -> Fault:
    kind = _kind(_TABLES[dialect], said, status)
    message = said.message or silent
    return Fault(
        kind,
        _BLAME[kind],
        _masked(message) if kind is Kind.AUTH else message,
        cause=kind.value if kind in _WORDED else cause,
        status=status if kind is Kind.INVALID and 400 <= status < 500 else 0,
        retry_after=retry_after,
        code=said.code or _CODE.get(kind, ""),
        param=said.param,
        upstream_status=status,
        provider_request_id=_word(request_id) or said.request_id,
    )


def _kind(table: _Table, said: _Said, status: int) -> Kind:
    for word in (said.code, said.type):
        if word.lower() in table.words:
            return table.words[word.lower()]
    message = said.message.lower()
    for sign in table.signs:
        if status in sign.statuses and all(part in message for part in sign.parts):
            if sign.kind is None:
                break
            return sign.kind
    return _STATUS.get(status) or (Kind.INVALID if 400 <= status < 500 else Kind.TRANSIENT)


def _decoded(body: bytes) -> object:
    try:
        return orjson.loads(body[:_BODY_LIMIT])
    except orjson.JSONDecodeError:
        return None


def _read(data: object) -> _Said:
    """Read an error object in any of the shapes that providers of these dialects send."""
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict):
        return _Said()
    error = data.get("error")
    if isinstance(error, str):
        return _Said(message=_clean(error))
    if not isinstance(error, dict):
        # Flat shapes: {"object": "error", "message": …}, {"message": …}, {"detail": …}.
        error = data
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    code = code or error.get("code")
    message = error.get("message") or error.get("detail")
    number = int(code) if isinstance(code, int | str) and re.fullmatch("[1-5][0-9]{2}", str(code)) else 0
    return _Said(
        message=_clean(message) if isinstance(message, str) else "",
        code="" if number else _word(code),
        type=_word(error.get("type")),
        param=_word(error.get("param")),
        status=number,
        request_id=_word(data.get("request_id")),
    )


def _clean(text: str) -> str:
    """Return one line of text that can be encoded, at most 500 characters."""
    line = " ".join(text[: 4 * _MESSAGE_LIMIT].split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)[:_MESSAGE_LIMIT]


def _word(value: object) -> str:
    """Return a short token for labels and headers; empty where there is none."""
    if not isinstance(value, str):
        return ""
    return "".join(c for c in value[:_WORD_LIMIT] if " " <= c <= "~").strip()


_KEYLIKE: Final = re.compile(r"[A-Za-z0-9_*+=-]{12,}")


def _masked(message: str) -> str:
    """Return the message without anything that could be (a part of) a credential: some providers quote it."""
    return _KEYLIKE.sub(
        lambda found: "[masked]" if re.search("[0-9*]", found.group()) else found.group(), message
    )
