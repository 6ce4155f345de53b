"""The request log is searched by project, by the name that was asked for, directive, tags and errors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0023"

_INDEXES = {
    "ix_request_logs_project": (["project", "seq"], "project IS NOT NULL"),
    "ix_request_logs_asked": (["requested_model", "seq"], "requested_model <> model_id"),
    "ix_request_logs_directive": (["directive", "seq"], "directive <> ''"),
    "ix_request_logs_tags": (["seq"], "tags <> '[]'"),
    "ix_request_logs_error": (["seq"], "error_class <> ''"),
}


def upgrade() -> None:
    """Add indexes of a few rows each: what most rows do not have is in none of them."""
    for name, (columns, where) in _INDEXES.items():
        op.create_index(
            name, "request_logs", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
        )
