"""The tables, as values: what is stored, under which name, in which unit.

Times are integers, microseconds since the epoch: text times compare wrongly as soon as two writers spell them
differently. Money is integer nano-dollars (prices per token are fractions of one and therefore floats), durations
are milliseconds. JSON is text that this package builds and reads; no query looks inside. Only types that SQLite and
PostgreSQL share are used. No prompt has a column, and no completion has but `idempotency.answer`, which stays empty
unless the operator asks for it.

The definitions describe the newest revision; `migrations/` holds the way there, and a test compares the two.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

from tokenhub_core.store import tables

REVISIONS: Final = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0017",
    "0018",
    "0020",
    "0021",
    "0022",
    "0023",
    "0024",
    "0025",
    "0029",
    "0032",
)
"""Every revision this version knows, oldest first. A database at any other one was written by a newer version."""

HEAD: Final = REVISIONS[-1]
"""The revision that the tables below describe."""

METADATA: Final = tables.METADATA
_SEQ: Final = tables.SEQ
_some: Final = tables.some


def _needed(kind: type[TypeEngine[Any]], names: str) -> list[Column[Any]]:
    """Return columns of one type that are never NULL."""
    return [Column(name, kind, nullable=False) for name in names.split()]


PROVIDERS: Final = Table(
    "providers",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("endpoints", Text, nullable=False),  # a JSON list of base URLs
    Column("dialect", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("cred_store", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("on_disconnect", Text, nullable=False, server_default="cancel"),
)

CREDENTIALS: Final = Table(
    "credentials",
    METADATA,
    Column("provider_id", Text, ForeignKey("providers.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("store", Text, nullable=False),  # empty: where the provider's own `cred_store` says
    Column("enabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# Of providers that only the environment knows, too: these rows belong to no row of `providers`.
PARKINGS: Final = Table(
    "parkings",
    METADATA,
    Column("provider_id", Text, primary_key=True),
    Column("credential", Text, primary_key=True),
    Column("model", Text, primary_key=True),  # empty: for all models
    Column("reason", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
)

PARKING_HISTORY: Final = Table(
    "parking_history",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("credential", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("parked", Boolean, nullable=False),  # whether it was parked or unparked
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
    Index("ix_parking_history_provider_id", "provider_id", "seq"),
    sqlite_autoincrement=True,
)

MODELS: Final = Table(
    "models",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("provider_id", Text, ForeignKey("providers.id", ondelete="CASCADE"), primary_key=True),
    Column("upstream", Text, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("max_context_tokens", BigInteger, nullable=False),
    Column("max_output_tokens", BigInteger, nullable=False),
    Column("input_nanousd", Double, nullable=False),
    Column("output_nanousd", Double, nullable=False),
    Column("cache_read_nanousd", Double),
    Column("cache_write_nanousd", Double),
    Column("reasoning_nanousd", Double),
    Column("batch_share", Double),
    Column("price_tiers", Text, nullable=False, server_default="[]"),  # a JSON list, prices as above
    Column("pricing_source", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("lacks", Text, nullable=False),  # a JSON list of needs
    Column("quirks", Text, nullable=False, server_default="[]"),  # a JSON list of names
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_models_provider_id", "provider_id"),
)

ALIASES: Final = Table(
    "aliases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("strategy", Text, nullable=False),
    Column("targets", Text, nullable=False),  # a JSON list of {model, weight}
    Column("sticky", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("output_format", Text),
    Column("strip_think", Boolean),
)

HOST_MODES: Final = Table(
    "host_modes",
    METADATA,
    Column("host", Text, primary_key=True),  # `*`: any
    Column("proxy_user", Text, primary_key=True),  # empty: any
    Column("alias", Text, primary_key=True),  # empty: any
    Column("mode", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

ROUTING_CONFIG: Final = Table(
    "routing_config",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # NULL means: not set here, the built-in default holds.
    Column("default_mode", Text),
    Column("default_max_budget_usd", Double),
    Column("default_max_latency_ms", Integer),
    Column("on_malformed_directive", Text),
    Column("fallback", Boolean),
    Column("explore", Text),
    Column("affinity", Text),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

VAULT_HEADER: Final = Table(
    "vault_header",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("header", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

VAULT_ENTRIES: Final = Table(
    "vault_entries",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # nonce and ciphertext
    Column("updated_at", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False, server_default="0"),  # 0: of the vault's first format
)

VAULT_STATE: Final = Table(
    "vault_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("counter", BigInteger, nullable=False),  # changes of the set of entries
    Column("seals", BigInteger, nullable=False),  # nonces that the entries' key was used with
    Column("manifest", Text, nullable=False),  # JSON: the version of each entry by its name
    Column("removed", Text, nullable=False),  # a JSON list of names that went while the vault was locked
    Column("anchored", Boolean, nullable=False),  # whether a file beside the database knows the counter too
    Column("mac", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

VAULT_ATTEMPTS: Final = Table(
    "vault_attempts",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("failures", Integer, nullable=False),  # wrong passwords since the last right one
    Column("failed_at", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

AUDIT: Final = Table(
    "audit",
    METADATA,
    # Its place in the chain, given by the chain and not by the database.
    Column("seq", _SEQ, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    *_needed(Text, "actor source program request_id action subject outcome reason"),
    Column("count", BigInteger, nullable=False),
    Column("before", Text),  # JSON
    Column("after", Text),  # JSON
    Column("key_id", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("mac", LargeBinary),
    Index("ix_audit_at", "at"),
)

PROOFS: Final = Table(
    "proofs",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=False),  # as above
    Column("at", BigInteger, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("verdict", Text, nullable=False),  # the worst in it; empty for what was only received
    Column("body", Text, nullable=False),  # JSON: hashes, and no word of a call
    Column("key_id", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("mac", LargeBinary),
    Index("ix_proofs_request_id", "request_id"),
    Index("ix_proofs_verdict", "verdict", "seq"),
)

API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("scopes", Text, nullable=False),  # a JSON list, as are those down to tags
    Column("models", Text, nullable=False),
    Column("providers", Text, nullable=False),
    Column("hosts", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("limits", Text, nullable=False),  # JSON, as are trust and privacy
    Column("trust", Text, nullable=False),
    Column("privacy", Text, nullable=False),
    # 0 of a later time: never.
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("rotation_days", Integer, nullable=False),
    Column("rotate_at", BigInteger, nullable=False),
    Column("rotation_told", BigInteger, nullable=False),  # the `rotate_at` that was warned of
    Column("expiry_told", BigInteger, nullable=False),  # the `expires_at` that was warned of
    Column("last_used_at", BigInteger, nullable=False),
    Column("change", BigInteger, nullable=False),  # the number of its last change
    Index("ix_api_keys_created_at", "created_at", "id"),
    Index("ix_api_keys_change", "change"),
)

API_KEY_SECRETS: Final = Table(
    "api_key_secrets",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),  # a hash, with a key that is not in this database
    Column("key_id", Text, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
    Column("prefix", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("pepper", Text, nullable=False),  # which key the hash was made with
    Index("ix_api_key_secrets_key_id", "key_id"),
)

# Amounts in the budget's unit; of dollars, nano-dollars.
BUDGETS: Final = Table(
    "budgets",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("limit", BigInteger, nullable=False),
    Column("zone", Text, nullable=False),
    Column("thresholds", Text, nullable=False),  # a JSON list of per cents
    Column("hard", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("counted_from", BigInteger, nullable=False),
    UniqueConstraint("owner", "period", "unit"),
)

SPENDS: Final = Table(
    "spends",
    METADATA,
    Column("budget_id", Text, primary_key=True),
    Column("since", BigInteger, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("warned", Integer, nullable=False),  # the highest threshold that was told of, in per cent
)

# What of a budget a running process has spent, in the same unit, and may still spend until its lease ends.
SHARES: Final = Table(
    "shares",
    METADATA,
    Column("budget_id", Text, primary_key=True),
    Column("since", BigInteger, primary_key=True),
    Column("process", Text, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False),  # up to how much it may come, `spent` included
    Column("idle", BigInteger, nullable=False),  # what of that it held for nobody
    Column("wanted", BigInteger, nullable=False),  # what its calls wait for
    Column("until", BigInteger, nullable=False),
    Index("ix_shares_process", "process"),
)

ADMIN_USERS: Final = Table(
    "admin_users",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password", Text, nullable=False),  # a PHC string
    Column("enabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("password_at", BigInteger, nullable=False),
    Column("last_login_at", BigInteger, nullable=False),  # 0: never
    UniqueConstraint("name"),
)

ADMIN_TOKENS: Final = Table(
    "admin_tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("mark", LargeBinary, nullable=False),  # a hash, with a key that is not in this database
    Column("prefix", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),  # 0: never
    UniqueConstraint("name"),
    UniqueConstraint("mark"),
)

ADMIN_SESSIONS: Final = Table(
    "admin_sessions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("mark", LargeBinary, nullable=False),  # as above
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),  # a user, a token, or a mark of the bootstrap token
    Column("source", Text, nullable=False),
    Column("program", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    UniqueConstraint("mark"),
)

ADMIN_ATTEMPTS: Final = Table(
    "admin_attempts",
    METADATA,
    Column("mark", LargeBinary, primary_key=True),  # of a name or an address, as above
    Column("failures", Integer, nullable=False),
    Column("failed_at", BigInteger, nullable=False),
)

CAPTURES: Final = Table(
    "captures",
    METADATA,
    Column("id", Text, primary_key=True),  # the request's
    Column("at", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),  # when it is deleted
    Column("key_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Index("ix_captures_until", "until"),
)

SETTINGS: Final = Table(
    "settings",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

POSTERIORS: Final = Table(
    "posteriors",
    METADATA,
    Column("model_id", Text, primary_key=True),
    Column("provider_id", Text, primary_key=True),
    Column("context", Text, primary_key=True),  # empty: over all contexts
    Column("won", Double, nullable=False),
    Column("lost", Double, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

ESTIMATES: Final = Table(
    "estimates",
    METADATA,
    Column("measure", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("mean", Double, nullable=False),
    Column("error", Double, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

SPREADS: Final = Table(
    "spreads",
    METADATA,
    Column("model_id", Text, primary_key=True),
    Column("provider_id", Text, primary_key=True),
    Column("weights", Text, nullable=False),  # JSON: pairs of a bucket and its weight
    Column("next", Double, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

MARKS: Final = Table(
    "marks",
    METADATA,
    Column("mark", LargeBinary, primary_key=True),  # a hash, with a key that is not in this database
    Column("model_id", Text, nullable=False),  # empty: two have left this mark
    Column("provider_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)

REQUEST_LOGS: Final = Table(
    "request_logs",
    METADATA,
    # The row's place in the order of commits; pages are cut by it. It is the key so that SQLite keeps rows in that
    # order and appends; the request's id is unique beside it.
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("dialect", Text),
    Column("stream", Boolean, nullable=False),
    *_needed(Text, "lane client_mode peer program proxy_user origin_host client_request_id requested_model"),
    Column("alias", Text),  # NULL in most rows, which the index therefore leaves out
    *_needed(Text, "variant model_id provider_id mode reason directive tags"),
    *_needed(BigInteger, "input_tokens output_tokens cache_read_tokens cache_write_tokens reasoning_tokens"),
    Column("usage_estimated", Boolean, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("queue_ms", Double),
    Column("route_ms", Double),
    Column("ttft_ms", Double),
    Column("total_ms", Double),
    Column("error_class", Text, nullable=False),  # the fault's label
    Column("message", Text, nullable=False),
    Column("losses", Text, nullable=False),
    Column("identical", Boolean, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("stop_reason", Text, nullable=False),
    Column("attempts", Text, nullable=False),
    Column("decision", Text),
    Column("shadow", Text),  # a JSON object; NULL where the decision was followed, or there was none
    Column("key_id", Text),  # the client's key; NULL for somebody anonymous
    Column("project", Text),  # the key's, as it was then
    Column("composition", Text),  # a JSON object; NULL where one call made the answer
    UniqueConstraint("id"),
    Index("ix_request_logs_at", "at"),
    Index("ix_request_logs_model", "model_id", "seq"),
    Index("ix_request_logs_provider", "provider_id", "seq"),
    Index("ix_request_logs_outcome", "outcome", "seq"),
    _some("ix_request_logs_alias", "alias", "seq", where="alias IS NOT NULL"),
    _some("ix_request_logs_shadow", "seq", where="shadow IS NOT NULL"),
    _some("ix_request_logs_key_id", "key_id", "seq", where="key_id IS NOT NULL"),
    _some("ix_request_logs_project", "project", "seq", where="project IS NOT NULL"),
    _some("ix_request_logs_asked", "requested_model", "seq", where="requested_model <> model_id"),
    _some("ix_request_logs_directive", "directive", "seq", where="directive <> ''"),
    _some("ix_request_logs_tags", "seq", where="tags <> '[]'"),
    _some("ix_request_logs_error", "seq", where="error_class <> ''"),
    sqlite_autoincrement=True,  # a number is never used twice, so an old cursor never skips a new row
)

# Calls with an idempotency key. Its digests hold no key; the answer's columns are NULL unless it is kept here.
IDEMPOTENCY: Final = Table(
    "idempotency",
    METADATA,
    Column("id", LargeBinary, primary_key=True),  # the digest of owner and key
    Column("owner", Text, nullable=False),
    Column("asked", LargeBinary, nullable=False),  # the digest of the call
    Column("request_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),  # begun or done
    Column("begun_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("status", Integer),
    Column("headers", Text),  # a JSON list of pairs
    Column("answer", LargeBinary),
    Index("ix_idempotency_expires_at", "expires_at"),
)

# Calls that go on whatever dies, sealed: gone once their record is made.
DURABLE_CALLS: Final = Table(
    "durable_calls",
    METADATA,
    Column("id", Text, primary_key=True),  # the request's
    Column("until", BigInteger, nullable=False),  # when it is deleted at the latest
    Column("key_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Index("ix_durable_calls_until", "until"),
)

# A row is there before its attempt is sent, so nothing is sent twice.
DURABLE_ATTEMPTS: Final = Table(
    "durable_attempts",
    METADATA,
    Column("call_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("by", Text, nullable=False),  # workflow or direct
    Column("begun_at", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    # NULL while nobody knows what came of it.
    Column("key_id", Text),
    Column("sealed", LargeBinary),
    Index("ix_durable_attempts_until", "until"),
)

# Who is told of events, and what is still to be told to each, or cannot be.
WEBHOOKS: Final = Table(
    "webhooks",
    METADATA,
    Column("id", Text, primary_key=True),
    *_needed(Text, "url kinds"),  # a JSON list of names
    Column("enabled", Boolean, nullable=False),
    *_needed(BigInteger, "created_at updated_at"),
)

DELIVERIES: Final = Table(
    "deliveries",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    *_needed(Text, "event_id kind body"),
    Column("made_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),  # NULL: it was given up
    Column("attempts", Integer, nullable=False),
    Column("cause", Text, nullable=False),  # of the last one's failure
    UniqueConstraint("webhook_id", "event_id"),
    Index("ix_deliveries_due", "webhook_id", "due_at", "seq"),
    sqlite_autoincrement=True,
)

# Time series, which are many and have a file of their own.
SERIES: Final = tables.SERIES
SERIES_CELLS: Final = tables.SERIES_CELLS
HEALTH_HISTORY: Final = tables.HEALTH_HISTORY
