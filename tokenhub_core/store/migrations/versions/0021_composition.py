"""How several calls made one answer: in the request log their steps.

The log is made anew around its rows, as `0003_aliases` says.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

_WORDS = [
    *("lane", "client_mode", "peer", "program", "proxy_user", "origin_host", "client_request_id"),
    "requested_model",
]
_MORE_WORDS = ["model_id", "provider_id", "mode", "reason", "directive", "tags"]
_TOKENS = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"]
_DURATIONS = ["queue_ms", "route_ms", "ttft_ms", "total_ms"]
_INDEXES = {"at": ["at"], "model": ["model_id", "seq"], "provider": ["provider_id", "seq"]} | {
    "outcome": ["outcome", "seq"]
}
_PARTIAL = {"alias": ["alias", "seq"], "shadow": ["seq"], "key_id": ["key_id", "seq"]}
_NEW = "composition"


def upgrade() -> None:
    """Add the column; no row of the log has a value in it."""
    if op.get_bind().dialect.name == "sqlite":
        _make_anew()
    else:
        op.add_column("request_logs", sa.Column(_NEW, sa.Text))


def _index(name: str) -> None:
    """Make an index over the rows that have a value in the column of its name."""
    where = sa.text(f"{name} IS NOT NULL")
    op.create_index(
        f"ix_request_logs_{name}", "request_logs", _PARTIAL[name], sqlite_where=where, postgresql_where=where
    )


def _make_anew() -> None:
    for name in (*_INDEXES, *_PARTIAL):
        op.drop_index(f"ix_request_logs_{name}", "request_logs")
    op.rename_table("request_logs", "request_logs_before")
    kept = [column.name for column in _create().columns if column.name != _NEW]
    names = ", ".join(kept)
    op.execute(
        f"INSERT INTO request_logs ({names}) SELECT {names} FROM request_logs_before ORDER BY seq"  # noqa: S608 -- names of ours
    )
    # A number that was given and removed is not given again.
    op.execute(
        "UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM sqlite_sequence WHERE name LIKE 'request_logs%')"
        " WHERE name = 'request_logs'"
    )
    op.drop_table("request_logs_before")
    for name, columns in _INDEXES.items():
        op.create_index(f"ix_request_logs_{name}", "request_logs", columns)
    for name in _PARTIAL:
        _index(name)


def _create() -> sa.Table:
    return op.create_table(
        "request_logs",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("dialect", sa.Text),
        sa.Column("stream", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _WORDS),
        sa.Column("alias", sa.Text),
        sa.Column("variant", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _MORE_WORDS),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _TOKENS),
        sa.Column("usage_estimated", sa.Boolean, nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Double) for name in _DURATIONS),
        sa.Column("error_class", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("losses", sa.Text, nullable=False),
        sa.Column("identical", sa.Boolean, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("stop_reason", sa.Text, nullable=False),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.Column("decision", sa.Text),
        sa.Column("shadow", sa.Text),
        *(sa.Column(name, sa.Text) for name in ("key_id", "project", _NEW)),
        sa.UniqueConstraint("id", name="uq_request_logs_id"),
        sqlite_autoincrement=True,
    )
