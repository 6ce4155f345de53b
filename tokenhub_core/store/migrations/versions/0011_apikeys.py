"""Clients' API keys, and the digests of their secrets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add two tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("providers", sa.Text, nullable=False),
        sa.Column("hosts", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("trust", sa.Text, nullable=False),
        sa.Column("privacy", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("rotation_days", sa.Integer, nullable=False),
        sa.Column("rotate_at", sa.BigInteger, nullable=False),
        sa.Column("rotation_told", sa.BigInteger, nullable=False),
        sa.Column("expiry_told", sa.BigInteger, nullable=False),
        sa.Column("last_used_at", sa.BigInteger, nullable=False),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_created_at", "api_keys", ["created_at", "id"])
    op.create_index("ix_api_keys_change", "api_keys", ["change"])
    op.create_table(
        "api_key_secrets",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("pepper", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_api_key_secrets"),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name="fk_api_key_secrets_key_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_api_key_secrets_key_id", "api_key_secrets", ["key_id"])
