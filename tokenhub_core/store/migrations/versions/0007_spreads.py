"""How long models' streams take to begin is kept as spreads, beside the averages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "spreads",
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("next", sa.Double, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "provider_id", name="pk_spreads"),
    )
