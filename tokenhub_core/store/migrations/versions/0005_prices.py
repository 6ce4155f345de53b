"""Models get prices of thoughts, of long calls, and the share that a batch pays.

The table of models is made anew around its rows, as `0002_quirks` says.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add three columns: nothing is known of the prices."""
    connection = op.get_bind()
    rows = [dict(row._mapping) for row in connection.execute(sa.text("SELECT * FROM models"))]
    op.drop_table("models")
    models = op.create_table(
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
        sa.Column("reasoning_nanousd", sa.Double),
        sa.Column("batch_share", sa.Double),
        sa.Column("price_tiers", sa.Text, server_default="[]", nullable=False),
        sa.Column("pricing_source", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("lacks", sa.Text, nullable=False),
        sa.Column("quirks", sa.Text, server_default="[]", nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", "provider_id", name="pk_models"),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name="fk_models_provider_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_models_provider_id", "models", ["provider_id"])
    if rows:
        op.bulk_insert(models, [{**row, "enabled": bool(row["enabled"])} for row in rows])
