"""A provider may have several credentials, and what is parked stays parked, with a history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add three tables. A provider's own credential is where it was."""
    op.create_table(
        "credentials",
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("provider_id", "name", name="pk_credentials"),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name="fk_credentials_provider_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "parkings",
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("credential", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("provider_id", "credential", "model", name="pk_parkings"),
    )
    op.create_table(
        "parking_history",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("credential", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("parked", sa.Boolean, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_parking_history"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_parking_history_provider_id", "parking_history", ["provider_id", "seq"])
