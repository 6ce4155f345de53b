"""Durable calls: what is needed to go on with one, and which of its attempts were begun."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add two tables that are empty until somebody asks for a durable call."""
    op.create_table(
        "durable_calls",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_durable_calls"),
    )
    op.create_index("ix_durable_calls_until", "durable_calls", ["until"])
    op.create_table(
        "durable_attempts",
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("begun_at", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("sealed", sa.LargeBinary),
        sa.PrimaryKeyConstraint("call_id", "n", name="pk_durable_attempts"),
    )
    op.create_index("ix_durable_attempts_until", "durable_attempts", ["until"])
