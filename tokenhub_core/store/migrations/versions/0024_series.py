"""Time series of calls, made of the request log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

_WORDS = ["model", "provider", "key", "project", "host", "program", "mode", "status", "cause"]
_COUNTERS = ["calls", "answered", "errors", "cancelled", "passed"]
_AMOUNTS = ["input_tokens", "output_tokens", "cached_tokens", "cost_nanousd", "saved_nanousd", "took_us"]


def upgrade() -> None:
    """Add two tables that are empty; what the log holds is added to them while the service runs."""
    op.create_table(
        "series",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        *(sa.Column(name, sa.Text, nullable=False) for name in _WORDS),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
    )
    op.create_table(
        "series_cells",
        sa.Column("resolution", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("series", sa.BigInteger, autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTERS + _AMOUNTS),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("latency", "ttft", "pace")),
        sa.PrimaryKeyConstraint("resolution", "at", "series", name="pk_series_cells"),
        sqlite_with_rowid=False,
    )
