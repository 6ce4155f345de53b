"""An audit log, and what the vault's second format keeps of itself.

The table of sealed entries is made anew around its rows, as `0002_quirks` says of models.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add three tables, and the version of each sealed entry: 0 for those of the first format."""
    connection = op.get_bind()
    rows = [dict(row._mapping) for row in connection.execute(sa.text("SELECT * FROM vault_entries"))]
    op.drop_table("vault_entries")
    entries = op.create_table(
        "vault_entries",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_vault_entries"),
    )
    if rows:
        op.bulk_insert(entries, [{**row, "version": 0} for row in rows])
    op.create_table(
        "vault_state",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("seals", sa.BigInteger, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("removed", sa.Text, nullable=False),
        sa.Column("anchored", sa.Boolean, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vault_state"),
        sa.CheckConstraint("id = 1", name=op.f("ck_vault_state_single")),
    )
    op.create_table(
        "vault_attempts",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vault_attempts"),
        sa.CheckConstraint("id = 1", name=op.f("ck_vault_attempts_single")),
    )
    op.create_table(
        "audit",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("program", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("mac", sa.LargeBinary),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
