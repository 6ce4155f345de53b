"""One vocabulary for everything that can go wrong.

A `Fault` is a fact: what kind, whose blame, when to come back, what to say. It is decided once, where the
evidence is (a dialect's error table, the transport, a check of ours), and never again by looking at words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What went wrong. The value is a metric label: a closed set."""

    OVERFLOW = "context_overflow"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota_exhausted"
    OVERLOADED = "overloaded"
    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    AUTH = "auth"
    FORBIDDEN = "forbidden"
    REFUSED = "refused"
    INVALID = "invalid_request"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    BUDGET = "budget_exceeded"
    NO_CANDIDATE = "no_candidate"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Blame(StrEnum):
    """Whose fault it is. Only `PROVIDER` moves a provider's health."""

    CLIENT = "client"
    PROVIDER = "provider"
    CREDENTIAL = "credential"
    US = "us"


_STATUS: Final[dict[Kind, int]] = {
    Kind.OVERFLOW: 400,
    Kind.RATE_LIMITED: 429,
    Kind.QUOTA: 429,
    Kind.OVERLOADED: 503,
    Kind.TRANSIENT: 502,
    Kind.TIMEOUT: 504,
    Kind.TRUNCATED: 502,
    Kind.AUTH: 401,
    Kind.FORBIDDEN: 403,
    Kind.REFUSED: 400,
    Kind.INVALID: 400,
    Kind.NOT_FOUND: 404,
    Kind.TOO_LARGE: 413,
    Kind.BUDGET: 402,
    Kind.NO_CANDIDATE: 503,
    Kind.CANCELLED: 499,
    Kind.INTERNAL: 500,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure, as a value.

    `cause` is a finer low-cardinality label than `kind` (`connect_refused`, `ttft_timeout`, `http_500`, …).
    `retry_after` is in seconds, already clamped. `status` is what the caller should get; 0 means the kind's own.
    `upstream_status` is what the provider answered; 0 when it did not. `final` says that the provider asked not to
    be tried with this again.
    """

    kind: Kind
    blame: Blame
    message: str
    cause: str = ""
    status: int = 0
    retry_after: float | None = None
    code: str = ""
    param: str = ""
    upstream_status: int = 0
    provider_request_id: str = ""
    final: bool = False

    @property
    def http_status(self) -> int:
        """Return the status to answer with."""
        return self.status or _STATUS[self.kind]

    @property
    def label(self) -> str:
        """Return the most precise low-cardinality label."""
        return self.cause or self.kind.value


class TokenHubError(Exception):
    """A fault on its way to whoever answers the caller."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def client_fault(
    message: str, *, kind: Kind = Kind.INVALID, cause: str = "", param: str = ""
) -> TokenHubError:
    """Return the error for something that the caller got wrong."""
    return TokenHubError(Fault(kind, Blame.CLIENT, message, cause=cause, param=param))


class ConfigError(Exception):
    """A setting, file or flag that cannot be used; the message is one line for the operator."""
