"""How several calls made one answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add a column that is empty in every row so far."""
    op.add_column("request_logs", sa.Column("composition", sa.Text))
