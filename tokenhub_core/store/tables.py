"""What all tables hang on, those of the time series and of health; `schema` has the others, and names these too."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
"""All tables. Constraints have names because a later migration can only change what it can name."""

# SQLite numbers rows by itself only where the key's type is spelt INTEGER; PostgreSQL's INTEGER ends at 2^31.
SEQ: Final = BigInteger().with_variant(Integer(), "sqlite")

WHERE: Final = "where"
"""Under which an index has its condition for other databases than SQLite: to say it to theirs loads their dialect."""


def some(name: str, *columns: str, where: str) -> Index:
    """Return an index of those rows alone: the others cost nothing."""
    index = Index(name, *columns, sqlite_where=text(where))
    index.info[WHERE] = where
    return index


# What a series is of: `telemetry.series.Key`.
SERIES: Final = Table(
    "series",
    METADATA,
    Column("id", SEQ, primary_key=True, autoincrement=False),  # a digest of the rest
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("key", Text, nullable=False),  # the id of the client's key
    Column("project", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("program", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("status", Text, nullable=False),  # the class: 2xx
    Column("cause", Text, nullable=False),
)

# What calls of a series came to in one stretch of time: `telemetry.series.Sums`. Without a row id SQLite keeps rows in
# the order of the key, which is the order in which they are read and deleted.
SERIES_CELLS: Final = Table(
    "series_cells",
    METADATA,
    Column("resolution", Integer, primary_key=True, autoincrement=False),  # seconds
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("series", BigInteger, primary_key=True, autoincrement=False),
    Column("calls", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    Column("passed", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("saved_nanousd", BigInteger, nullable=False),
    Column("took_us", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),  # packed sketches, empty where nothing was timed
    Column("ttft", LargeBinary, nullable=False),
    Column("pace", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# What each process has seen of providers; what it only heard of is written by who saw it.
HEALTH_HISTORY: Final = Table(
    "health_history",
    METADATA,
    Column("seq", SEQ, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("before", Text, nullable=False),  # `health.tracker.State`
    Column("after", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_health_history_at", "at"),
    sqlite_autoincrement=True,
)
