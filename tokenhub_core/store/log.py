"""The request log: one row a record. `store.search` says how it is paged and searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Select, bindparam, func, select
from sqlalchemy.dialects import sqlite

from tokenhub_core.ports import Charge
from tokenhub_core.routing.experiment import Call
from tokenhub_core.routing.savings import Seen
from tokenhub_core.store import budgets, rows, search
from tokenhub_core.store.database import Database
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.schema import REQUEST_LOGS
from tokenhub_core.store.search import EVERY, Filters, Page
from tokenhub_core.types import Json, Record, Shadow

_CHUNK: Final = 500
"""Records that are read at once by someone who reads many."""
_DECIDED: Final = (
    "seq",
    "id",
    "at",
    "peer",
    "proxy_user",
    "program",
    "origin_host",
    "alias",
    "error_class",
    "attempts",
    "decision",
)


@dataclass(frozen=True, slots=True)
class Shadowed:
    """Which calls in shadow; empty fields choose all."""

    host: str = ""
    user: str = ""
    alias: str = ""


class RequestLog:
    """Reads records, and says how one is written. Reads take a connection of their own in the calling thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = _insert_statement()

    def insert(self, record: Record, charges: Iterable[Charge] = ()) -> Insert:
        """Return the work that stores `record` once: a row with its id that is already there is left as it is.

        So are the budgets' counts then, which else have `charges` added to them in the same transaction.
        """
        return Insert(self._insert, rows.record_row(record), tuple(map(budgets.charge, charges)))

    def page(
        self,
        *,
        limit: int = 100,
        before_seq: int | None = None,
        after_seq: int | None = None,
        filters: Filters = EVERY,
    ) -> Page:
        """Return records without their decisions; see `search.page`."""
        with self._database.reading() as connection:
            return search.page(connection, filters, limit=limit, before=before_seq, after=after_seq)

    def get(self, record_id: str) -> Json | None:
        """Return one record with its decision, None where there is none of that id."""
        with self._database.reading() as connection:
            row = (
                connection.execute(select(REQUEST_LOGS).where(REQUEST_LOGS.c.id == record_id))
                .mappings()
                .first()
            )
        return None if row is None else rows.entry(_plain(row))

    def calls(
        self, alias: str, *, limit: int, since: float | None = None, until: float | None = None
    ) -> list[Call]:
        """Return the newest `limit` calls that this alias stood for a model in, newest first."""
        table = REQUEST_LOGS.c
        names = ("variant", "model_id", "outcome", "cost_nanousd", "total_ms", "ttft_ms")
        query = select(*(table[name] for name in (*names, "input_tokens", "output_tokens")))
        # Where it was only decided in shadow, the alias stood for nothing; nor is a mode's cost that of one target.
        query = query.where(table.alias == alias, table.shadow.is_(None), table.composition.is_(None))
        query = _filtered(query, Filters(since=since, until=until))
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(table.seq.desc()).limit(limit))
            return [_call(row) for row in found]

    def decided(self, filters: Filters = EVERY, *, limit: int) -> Iterator[Json]:
        """Yield those of the newest `limit` records that hold a decision that was carried out, oldest first.

        Not those of calls that several calls answered: what was paid for them is not what that decision came to.

        They are read page by page, each in a view of its own: nothing is held open between two of them, and what is
        recorded meanwhile is not among them.
        """
        table = REQUEST_LOGS.c
        ends = _filtered(select(func.min(table.seq), func.max(table.seq), func.count()), filters)
        eldest = _filtered(select(table.seq), filters).order_by(table.seq.desc()).offset(limit - 1).limit(1)
        with self._database.reading() as connection:
            low, high, count = connection.execute(ends).one()
            if count > limit:
                low = connection.execute(eldest).scalar_one()
        query = _filtered(select(*(table[name] for name in _DECIDED)), filters)
        query = (
            query.where(table.decision.is_not(None), table.shadow.is_(None), table.composition.is_(None))
            .order_by(table.seq)
            .limit(_CHUNK)
        )
        while low is not None:
            with self._database.reading() as connection:
                found = connection.execute(query.where(table.seq.between(low, high))).mappings().all()
            for row in found:
                yield rows.entry(_plain(row))
            if len(found) < _CHUNK:
                return
            low = found[-1]["seq"] + 1

    def shadows(
        self, among: Shadowed, *, limit: int, since: float | None = None, until: float | None = None
    ) -> list[Seen]:
        """Return the newest `limit` calls that were decided in shadow, newest first."""
        table = REQUEST_LOGS.c
        names = ("outcome", "status", "model_id", "requested_model", "origin_host", "usage_estimated")
        query = select(*(table[name] for name in (*names, "shadow"))).where(table.shadow.is_not(None))
        chosen = {"origin_host": among.host, "proxy_user": among.user, "alias": among.alias}
        query = query.where(*(table[name] == value for name, value in chosen.items() if value))
        query = _filtered(query, Filters(since=since, until=until))
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(table.seq.desc()).limit(limit))
            return [_seen(row) for row in found]

    def count(self, filters: Filters = EVERY) -> int:
        """Return how many records there are."""
        with self._database.reading() as connection:
            return connection.execute(
                _filtered(select(func.count()).select_from(REQUEST_LOGS), filters)
            ).scalar_one()


@cache
def _insert_statement() -> str:
    """Return driver SQL for one row. Compiled once: running a compiled statement costs more than the row.

    PostgreSQL reads what SQLite's dialect writes.
    """
    statement = (
        sqlite.insert(REQUEST_LOGS)
        .values({name: bindparam(name) for name in rows.COLUMNS})
        .on_conflict_do_nothing(index_elements=[REQUEST_LOGS.c.id])
        .compile(dialect=sqlite.dialect())
    )
    return str(statement)


def _filtered[S: Select[*tuple[Any, ...]]](query: S, filters: Filters) -> S:
    return query.where(*search.conditions(filters))


def _call(row: Row[Any]) -> Call:
    """Return a row as the report reads it; of a pool's row the variant is the model that served."""
    variant, model = row.variant, row.model_id
    return Call(
        variant=variant or model,
        outcome=row.outcome,
        cost=row.cost_nanousd,
        total_ms=row.total_ms,
        ttft_ms=row.ttft_ms,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        failed_over=bool(model) and variant not in {"", model} and variant.partition("/")[2] != model,
    )


def _seen(row: Row[Any]) -> Seen:
    """Return a row as the savings report reads it."""
    return Seen(
        outcome=row.outcome,
        status=row.status,
        model=row.model_id or row.requested_model,
        host=row.origin_host,
        estimated=row.usage_estimated,
        shadow=msgspec.json.decode(row.shadow, type=Shadow),
    )


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}
