"""From what a provider said to a `Fault`: decided here, once, and nowhere else by looking at words.

Three kinds of evidence, in order of trust:

1. the words of the error object that are meant for machines (`code`, `details.error_code`, `type`), where one
   of them settles the matter whatever the status is;
2. the signatures: phrases in the error's *message* (and in the names of the limits it lists) that are the only
   sign some providers give that a context was exceeded, a balance is used up or a filter struck. A small ordered
   table per dialect, each row tied to the statuses it is seen with; rows that rule out come first. The rest of
   the body is never searched, since providers quote their callers;
3. the status. Where an error hides in a success or in a stream, the one that its `type` stands for.

Words and signatures stand in `signs`, a table per dialect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from tokenhub_core.dispatch.backoff import LONGEST, parse_retry_after
from tokenhub_core.dispatch.signs import TABLES, Table
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.redaction import SECRETS, redacted
from tokenhub_core.types import Dialect, Failed, Headers, Json, header

_BODY_LIMIT: Final = 64 * 1024
_MESSAGE_LIMIT: Final = 500
_WORD_LIMIT: Final = 200
_COMPLAINTS: Final = 5
_SECONDS: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s", re.ASCII)
"""A `google.protobuf.Duration` in JSON."""

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
    """An error object, read. `code` is its most precise word, `status` the one it names (0: none).

    `limits` names the limits that were hit, `wait` the seconds to come back in, where they stand in the body.
    """

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""
    status: int = 0
    request_id: str = ""
    limits: str = ""
    wait: float | None = None


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
    fault = _fault(
        dialect,
        said,
        status,
        cause=f"http_{status}" if 400 <= status < 600 else "http_other",
        silent=f"the provider answered {status} without a readable error",
        retry_after=parse_retry_after(headers, now=now),
        request_id=request_id,
    )
    # The official SDKs' own sign between their servers and themselves.
    return replace(fault, final=True) if header(headers, "x-should-retry").lower() == "false" else fault


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
    implied = TABLES[dialect].implied
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
    kind = _kind(TABLES[dialect], said, status)
    message = said.message or silent
    return Fault(
        kind,
        _BLAME[kind],
        _masked(message) if kind is Kind.AUTH else redacted(message, SECRETS),
        cause=kind.value if kind in _WORDED else cause,
        status=status if kind is Kind.INVALID and 400 <= status < 500 else 0,
        retry_after=said.wait if retry_after is None else retry_after,
        code=said.code or _CODE.get(kind, ""),
        param=said.param,
        upstream_status=status,
        provider_request_id=_word(request_id) or said.request_id,
    )


def _kind(table: Table, said: _Said, status: int) -> Kind:
    for word in (said.code, said.type):
        if word.lower() in table.words:
            return table.words[word.lower()]
    message = f"{said.message} {said.limits}".lower()
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
    found = _details(error.get("details"))
    inner = error.get("innererror")
    code = found.code or error.get("code") or (inner.get("code") if isinstance(inner, dict) else None)
    number = int(code) if isinstance(code, int | str) and re.fullmatch("[1-5][0-9]{2}", str(code)) else 0
    return replace(
        found,
        message=_clean(_text(error.get("message")) or _text(error.get("detail"))),
        code="" if number else _word(code),
        type=_word(error.get("type")) or _word(error.get("status")),
        param=_word(error.get("param")),
        status=number,
        request_id=_word(data.get("request_id")),
    )


def _text(value: object) -> str:
    """Return a message, also where it is a list of complaints about fields, as validation libraries make it."""
    match value:
        case str():
            return value
        case {"detail": detail} if not isinstance(detail, dict):
            return _text(detail)
        case list():
            return "; ".join(filter(None, map(_complaint, value[:_COMPLAINTS])))
        case _:
            return ""


def _complaint(item: object) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("msg"), str):
        return ""
    place = item.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list | tuple) else ""
    return f"{where}: {item['msg']}" if where else str(item["msg"])


def _details(details: object) -> _Said:
    """Read what stands beside the message: Anthropic's `error_code`, or Google's list of typed details.

    Of the latter (`google.rpc`): the reason of an `ErrorInfo`, the quotas of a `QuotaFailure`, and a `RetryInfo`.
    """
    if isinstance(details, dict):
        return _Said(code=_word(details.get("error_code")))
    reason, wait = "", None
    quotas: list[str] = []
    for item in details if isinstance(details, list) else ():
        if not isinstance(item, dict):
            continue
        reason = reason or _word(item.get("reason"))
        delay = item.get("retryDelay")
        if isinstance(delay, str) and (seconds := _SECONDS.fullmatch(delay)):
            wait = min(float(seconds[1]), LONGEST)
        violations = item.get("violations")
        broken = violations if isinstance(violations, list) else []
        quotas += [_word(one.get("quotaId")) for one in broken if isinstance(one, dict)]
    return _Said(code=reason, limits=" ".join(quotas), wait=wait)


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
