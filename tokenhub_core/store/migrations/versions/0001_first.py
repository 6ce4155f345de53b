"""The first schema: catalog, routing config, vault, settings, request log.

A migration never changes once released, so it spells the tables out and borrows nothing from `schema`. There is no
way back down: older versions refuse a newer database, and a backup restores the older one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables in an empty database."""
    _catalog()
    _single_rows()
    _vault_entries()
    _request_logs()


def _catalog() -> None:
    op.create_table(
        "providers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("endpoints", sa.Text, nullable=False),
        sa.Column("dialect", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("cred_store", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_providers"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("upstream", sa.Text, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("max_context_tokens", sa.BigInteger, nullable=False),
        sa.Column("max_output_tokens", sa.BigInteger, nullable=False),
        sa.Column("input_nanousd", sa.Double, nullable=False),
        sa.Column("output_nanousd", sa.Double, nullable=False),
        sa.Column("cache_read_nanousd", sa.Double),
        sa.Column("cache_write_nanousd", sa.Double),
        sa.Column("pricing_source", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("lacks", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", "provider_id", name="pk_models"),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name="fk_models_provider_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_models_provider_id", "models", ["provider_id"])


def _single_rows() -> None:
    op.create_table(
        "routing_config",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("default_mode", sa.Text),
        sa.Column("default_max_budget_usd", sa.Double),
        sa.Column("default_max_latency_ms", sa.Integer),
        sa.Column("on_malformed_directive", sa.Text),
        sa.Column("fallback", sa.Boolean),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routing_config"),
        sa.CheckConstraint("id = 1", name=op.f("ck_routing_config_single")),
    )
    op.create_table(
        "vault_header",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("header", sa.Text, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vault_header"),
        sa.CheckConstraint("id = 1", name=op.f("ck_vault_header_single")),
    )


def _vault_entries() -> None:
    op.create_table(
        "vault_entries",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_vault_entries"),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )


def _request_logs() -> None:
    words = [
        *("lane", "client_mode", "peer", "program", "proxy_user", "origin_host", "client_request_id"),
        *("requested_model", "model_id", "provider_id", "mode", "reason", "directive", "tags"),
    ]
    tokens = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    durations = ("queue_ms", "route_ms", "ttft_ms", "total_ms")
    op.create_table(
        "request_logs",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("dialect", sa.Text),
        sa.Column("stream", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in words),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in tokens),
        sa.Column("usage_estimated", sa.Boolean, nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Double) for name in durations),
        sa.Column("error_class", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("losses", sa.Text, nullable=False),
        sa.Column("identical", sa.Boolean, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("stop_reason", sa.Text, nullable=False),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.Column("decision", sa.Text),
        sa.UniqueConstraint("id", name="uq_request_logs_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_request_logs_at", "request_logs", ["at"])
    op.create_index("ix_request_logs_model", "request_logs", ["model_id", "seq"])
    op.create_index("ix_request_logs_provider", "request_logs", ["provider_id", "seq"])
    op.create_index("ix_request_logs_outcome", "request_logs", ["outcome", "seq"])
