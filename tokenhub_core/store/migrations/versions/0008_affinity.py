"""The marks of conversations are kept; and whether conversations are known again can be set at run time.

The table of the one routing config is made anew around its row, as `0002_quirks` says of models.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add a table, and a column that is not set."""
    op.create_table(
        "marks",
        sa.Column("mark", sa.LargeBinary, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("mark", name="pk_marks"),
    )
    connection = op.get_bind()
    rows = [dict(row._mapping) for row in connection.execute(sa.text("SELECT * FROM routing_config"))]
    op.drop_table("routing_config")
    config = op.create_table(
        "routing_config",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("default_mode", sa.Text),
        sa.Column("default_max_budget_usd", sa.Double),
        sa.Column("default_max_latency_ms", sa.Integer),
        sa.Column("on_malformed_directive", sa.Text),
        sa.Column("fallback", sa.Boolean),
        sa.Column("explore", sa.Text),
        sa.Column("affinity", sa.Text),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routing_config"),
        sa.CheckConstraint("id = 1", name=op.f("ck_routing_config_single")),
    )
    for row in rows:
        fallback = None if row["fallback"] is None else bool(row["fallback"])
        op.bulk_insert(config, [{**row, "fallback": fallback, "affinity": None}])
