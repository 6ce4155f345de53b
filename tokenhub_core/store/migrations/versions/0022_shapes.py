"""The form that the answers of an alias have.

The table is made anew around its rows, as `0003_aliases` says.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

_KEEP = (
    "INSERT INTO aliases (name, strategy, targets, sticky, enabled, created_at, updated_at)"
    " SELECT name, strategy, targets, sticky, enabled, created_at, updated_at FROM aliases_before"
)


def upgrade() -> None:
    """Add both columns; no alias asks for a form."""
    if op.get_bind().dialect.name != "sqlite":
        op.add_column("aliases", sa.Column("output_format", sa.Text))
        op.add_column("aliases", sa.Column("strip_think", sa.Boolean))
        return
    op.rename_table("aliases", "aliases_before")
    op.create_table(
        "aliases",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("targets", sa.Text, nullable=False),
        sa.Column("sticky", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("output_format", sa.Text),
        sa.Column("strip_think", sa.Boolean),
        sa.PrimaryKeyConstraint("name", name="pk_aliases"),
    )
    op.execute(_KEEP)
    op.drop_table("aliases_before")
