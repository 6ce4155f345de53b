"""The form that the answers of an alias have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0017"


def upgrade() -> None:
    """Add both columns; no alias asks for a form."""
    op.add_column("aliases", sa.Column("output_format", sa.Text))
    op.add_column("aliases", sa.Column("strip_think", sa.Boolean))
