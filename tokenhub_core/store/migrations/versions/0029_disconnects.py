"""A provider has a policy for streams whose callers have left."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0025"


def upgrade() -> None:
    """Add the policy; providers that are there let go, as they did."""
    op.add_column("providers", sa.Column("on_disconnect", sa.Text, nullable=False, server_default="cancel"))
