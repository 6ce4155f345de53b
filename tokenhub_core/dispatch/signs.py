"""What providers' words mean, one table per dialect: the only place where messages are searched for phrases.

The tables hold observed facts: codes and error types are those of the official SDKs and API references, phrases
those that providers are known to send.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tokenhub_core.errors import Kind
from tokenhub_core.types import Dialect

_BAD: Final = frozenset({400, 413, 422})
"""The statuses under which a provider says that a call does not fit."""
_MONEY: Final = frozenset({400, 402, 403, 429})
_KEY: Final = frozenset({400, 403})
_BUSY: Final = frozenset({500, 502, 503})


@dataclass(frozen=True, slots=True)
class Sign:
    """A message that holds all `parts` (lower case), under one of `statuses`, means `kind`; None: nothing."""

    kind: Kind | None
    statuses: frozenset[int]
    parts: tuple[str, ...]


def _signs(kind: Kind | None, statuses: frozenset[int], *phrases: str) -> tuple[Sign, ...]:
    """Return one row per phrase; ` … ` in a phrase stands for anything."""
    return tuple(Sign(kind, statuses, tuple(phrase.split(" … "))) for phrase in phrases)


@dataclass(frozen=True, slots=True)
class Table:
    """What a dialect's words mean: settled kinds, message signatures, and the status behind each type."""

    words: Mapping[str, Kind]
    signs: tuple[Sign, ...]
    implied: Mapping[str, int]


_EXCLUDED: Final = (
    *_signs(Kind.RATE_LIMITED, _BAD, "throttlingexception"),
    *_signs(None, _BAD, "rate limit", "rate_limit", "too many requests", "tokens per minute"),
    *_signs(None, _BAD, "string_above_max_length", "string too long"),
)

_OPENAI: Final = Table(
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
        "image_content_policy_violation": Kind.REFUSED,
        "misalignment_policy_violation": Kind.REFUSED,
        "bio_policy": Kind.REFUSED,
        "responsibleaipolicyviolation": Kind.REFUSED,
        "invalid_api_key": Kind.AUTH,
        "account_deactivated": Kind.AUTH,
        "model_not_found": Kind.NOT_FOUND,
        "deploymentnotfound": Kind.NOT_FOUND,
        # Azure: the deployment is there, but another kind of model runs in it.
        "operationnotsupported": Kind.NOT_FOUND,
        "nocapacity": Kind.OVERLOADED,
        # Google's words for a limit, in its chat completions; the message always talks of a quota.
        "resource_exhausted": Kind.RATE_LIMITED,
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
            "too many tokens: total number of tokens",
            "too long to fit into the model",
            "exceeded max context length",
            "exceeds the context length",
        ),
        *_signs(
            Kind.QUOTA, _MONEY, "exceeded your current quota", "insufficient balance", "insufficient credits"
        ),
        *_signs(Kind.REFUSED, _BAD, "content management policy", "limited access to this content for safety"),
        *_signs(Kind.AUTH, _KEY, "incorrect api key", "api key not valid", "invalid api key"),
        # The key is right, and restricted: it is good for other calls.
        *_signs(Kind.FORBIDDEN, frozenset({401}), "missing scopes"),
        *_signs(Kind.OVERLOADED, _BUSY, "overloaded"),
    ),
    implied={
        "invalid_request_error": 400,
        "invalid_prompt": 400,
        "invalid_image": 400,
        "invalid_image_format": 400,
        "invalid_base64_image": 400,
        "invalid_image_url": 400,
        "invalid_image_mode": 400,
        "image_too_large": 400,
        "image_too_small": 400,
        "image_parse_error": 400,
        "image_file_too_large": 400,
        "image_file_not_found": 400,
        "empty_image_file": 400,
        "unsupported_image_media_type": 400,
        "failed_to_download_image": 400,
        "image_content_policy_violation": 400,
        "misalignment_policy_violation": 400,
        "bio_policy": 400,
        "context_length_exceeded": 400,
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
        "vector_store_timeout": 504,
    },
)

_ANTHROPIC: Final = Table(
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

_GEMINI: Final = Table(
    words={
        "api_key_invalid": Kind.AUTH,
        "unauthenticated": Kind.AUTH,
    },
    signs=(
        *_signs(
            Kind.OVERFLOW,
            _BAD,
            "input token count … exceeds the maximum number of tokens",
            "exceeds the maximum number of tokens allowed",
        ),
        *_signs(Kind.TOO_LARGE, _BAD, "request payload size exceeds"),
        # Every limit's message talks of a quota that was exceeded: which one it was decides.
        *_signs(Kind.QUOTA, frozenset({429}), "perday", "limit: 0,", "spending cap", "prepayment credits"),
        *_signs(Kind.AUTH, _KEY, "api key not valid", "api key expired", "reported as leaked"),
        *_signs(Kind.FORBIDDEN, _BAD, "user location is not supported", "free tier is not available"),
        *_signs(Kind.OVERLOADED, _BUSY, "overloaded", "high demand"),
    ),
    implied={
        "invalid_argument": 400,
        "failed_precondition": 400,
        "out_of_range": 400,
        "unauthenticated": 401,
        "permission_denied": 403,
        "not_found": 404,
        "already_exists": 409,
        "aborted": 409,
        "resource_exhausted": 429,
        "internal": 500,
        "unknown": 500,
        "data_loss": 500,
        "unimplemented": 501,
        "unavailable": 503,
        "deadline_exceeded": 504,
    },
)

_OLLAMA: Final = Table(
    words={},
    signs=(
        # The runner's refusals come as errors of the server.
        *_signs(
            Kind.OVERFLOW,
            _BAD | {500},
            "exceeded max context length",
            "exceeds the context length",
            "exceeds the available context size",
            "prompt too long",
        ),
        *_signs(Kind.QUOTA, _MONEY, "usage limit"),
        *_signs(Kind.OVERLOADED, _BUSY, "overloaded", "server busy", "pending requests exceeded"),
    ),
    implied={},
)

TABLES: Final[Mapping[Dialect, Table]] = MappingProxyType(
    {
        Dialect.OPENAI_CHAT: _OPENAI,
        Dialect.ANTHROPIC_MESSAGES: _ANTHROPIC,
        Dialect.OPENAI_RESPONSES: _OPENAI,
        Dialect.OPENAI_COMPLETIONS: _OPENAI,
        Dialect.OPENAI_EMBEDDINGS: _OPENAI,
        Dialect.ANTHROPIC_COUNT_TOKENS: _ANTHROPIC,
        Dialect.GEMINI: _GEMINI,
        Dialect.OLLAMA_CHAT: _OLLAMA,
        Dialect.OLLAMA_GENERATE: _OLLAMA,
    }
)
"""The table of each dialect; dialects of one family share it, as their servers do."""
