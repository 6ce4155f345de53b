"""What providers sent against what callers were given, as a chain of hashes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add a table that is empty until somebody asks for proofs."""
    op.create_table(
        "proofs",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("mac", sa.LargeBinary),
        sa.PrimaryKeyConstraint("seq", name="pk_proofs"),
    )
    op.create_index("ix_proofs_request_id", "proofs", ["request_id"])
    op.create_index("ix_proofs_verdict", "proofs", ["verdict", "seq"])
