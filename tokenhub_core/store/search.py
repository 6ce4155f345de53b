"""Looks for records in the request log: filters, pages in both directions, and a bound on what one question reads.

A page is cut by `seq`, the order of commits, and not by an offset: rows that arrive while someone pages move nothing.

Ten million rows are never read for one page. What an index can answer alone it answers. Every other filter looks at no
more than `SCAN` rows: of those that the best index leaves, or else of the log itself. A page that ends for that reason
is short, or empty, and says all the same where the next one begins. So that a database cannot choose otherwise, the
columns of all filters but one are hidden from it behind an expression that changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from tokenhub_core.errors import client_fault
from tokenhub_core.store import rows
from tokenhub_core.store.schema import REQUEST_LOGS
from tokenhub_core.types import Json

PAGE_MAX: Final = 1000
"""The longest page."""
SCAN: Final = 200_000
"""Rows that one page looks at where no index answers alone."""
_NEAR: Final = 50_000
"""Records of a span of time up to which its place in the log is looked up exactly."""
LONGEST: Final = 86_400.0
"""Seconds. A record is written when its call ends: one that took longer may be missed at the edge of a span of time."""

_SEARCHED: Final = (
    "id",
    "client_request_id",
    "model_id",
    "requested_model",
    "origin_host",
    "program",
    "path",
    "message",
)
_ESCAPE: Final = "/"
_COLUMNS: Final = tuple(column for column in REQUEST_LOGS.columns if column.name != "decision")
_LOG: Final = REQUEST_LOGS.c


@dataclass(frozen=True, slots=True)
class Filters:
    """Which records; empty fields choose all. Times are seconds since the epoch, `since` included, `until` not."""

    model: str = ""
    """The id of the model that served, or that was asked for."""
    provider: str = ""
    host: str = ""
    """The host that the call was meant for."""
    program: str = ""
    key: str = ""
    """The id of the client's key."""
    project: str = ""
    outcome: str = ""
    since: float | None = None
    until: float | None = None
    q: str = ""
    """A piece of an id, model, host, program, path or message; ASCII letters match in either case."""
    mode: str = ""
    directive: str = ""
    """What became of the directive: `honoured`, `denied`, `invalid` or `ignored`."""
    tag: str = ""
    """One of the call's tags, whole."""
    status: tuple[int, int] | None = None
    """The lowest and the highest status, both included."""
    error: str = ""
    """A piece of the error's label or of its text; ASCII letters match in either case."""


EVERY: Final = Filters()
"""All records."""


@dataclass(frozen=True, slots=True)
class Page:
    """Records, newest first."""

    items: tuple[Json, ...]
    next: int | None
    """Goes into `before` for what is older; None where nothing is."""
    newer: int
    """Goes into `after` for what is newer, now or later."""


@dataclass(frozen=True, slots=True)
class Span:
    """Places in the log, both excluded."""

    low: int
    high: int


def conditions(filters: Filters) -> list[ColumnElement[bool]]:
    """Return what holds for the records, as any index may use it."""
    return [
        part
        for name in _given(filters)
        for part in (or_(*(and_(*arm) for arm in _arms(name, filters))), *_rest(name, filters))
    ]


def page(
    connection: Connection,
    filters: Filters = EVERY,
    *,
    limit: int,
    before: int | None = None,
    after: int | None = None,
) -> Page:
    """Return at most `limit` records: the newest before `before`, or with `after` the oldest behind it."""
    if not 1 <= limit <= PAGE_MAX:
        raise client_fault(f"limit must be between 1 and {PAGE_MAX}", param="limit")
    if before is not None and after is not None:
        raise client_fault("give before or after, not both", param="after")
    eldest, newest = connection.execute(ends_query()).one()
    if newest is None:
        return Page((), None, after or 0)
    whole = _within(connection, filters, Span(eldest - 1, newest + 1))
    back = after is None
    asked = Span(whole.low, min(whole.high, before)) if before is not None else whole
    if after is not None:
        asked = Span(max(whole.low, after), whole.high)
    bounded = _bounded(connection, filters, asked, back=back)
    found = [dict(row) for row in connection.execute(query(filters, bounded, limit, back=back)).mappings()]
    items = tuple(rows.entry(_plain(row)) for row in found[:limit])
    if back:
        cut = items[-1]["seq"] if len(found) > limit else bounded.low + 1
        more = len(found) > limit or bounded.low > whole.low
        return Page(items, cut if more else None, newest if before is None else max(before - 1, 0))
    last = items[-1]["seq"] if len(found) > limit else bounded.high - 1
    more = len(found) > limit or bounded.high < whole.high
    # Up to the end of what there is: what the filters leave out of it is not looked at again.
    return Page(items[::-1], asked.low + 1, last if more else max(newest, after or 0))


def query(filters: Filters, span: Span, limit: int, *, back: bool) -> Select[*tuple[Any, ...]]:
    """Return what reads a page and one record more: newest first where `back`, else oldest first."""
    driver = _driver(filters)
    order = _LOG.seq.desc() if back else _LOG.seq.asc()
    rest: list[ColumnElement[bool]] = [_LOG.seq > span.low, _LOG.seq < span.high]
    for name in _given(filters):
        rest += _rest(name, filters) if name == driver else [_hidden(name, filters)]
    arms = _arms(driver, filters) if driver else [[]]
    if len(arms) == 1:
        return select(*_COLUMNS).where(*arms[0], *rest).order_by(order).limit(limit + 1)
    cut = [select(_LOG.seq).where(*arm, *rest).order_by(order).limit(limit + 1).subquery() for arm in arms]
    either = union_all(*(select(one.c.seq) for one in cut))
    return select(*_COLUMNS).where(_LOG.seq.in_(either)).order_by(order).limit(limit + 1)


def ends_query() -> Select[*tuple[Any, ...]]:
    """Return what finds the first and the last place; asked for together in one, SQLite would read every row."""
    return select(select(func.min(_LOG.seq)).scalar_subquery(), select(func.max(_LOG.seq)).scalar_subquery())


def floor_query(arm: list[ColumnElement[bool]], span: Span, *, back: bool) -> Select[int]:
    """Return what finds the first place behind the `SCAN` that may be looked at."""
    order = _LOG.seq.desc() if back else _LOG.seq.asc()
    inside = select(_LOG.seq).where(*arm, _LOG.seq > span.low, _LOG.seq < span.high)
    return inside.order_by(order).offset(SCAN).limit(1)


# --- bounds ------------------------------------------------------------------------------------------------------


def _bounded(connection: Connection, filters: Filters, span: Span, *, back: bool) -> Span:
    """Return as much of a span as may be looked at for one page."""
    driver = _driver(filters)
    if driver in _EXACT and len(_given(filters)) == 1:
        return span
    if driver is None:
        if not _given(filters):
            return span
        return (
            Span(max(span.low, span.high - SCAN - 1), span.high)
            if back
            else Span(span.low, min(span.high, span.low + SCAN + 1))
        )
    ends = [
        end
        for arm in _arms(driver, filters)
        if (end := connection.execute(floor_query(arm, span, back=back)).scalar()) is not None
    ]
    if not ends:
        return span
    return Span(max(ends), span.high) if back else Span(span.low, min(ends))


def _within(connection: Connection, filters: Filters, whole: Span) -> Span:
    """Return the part of the log that can hold a span of time.

    `at` is when a call began and `seq` counts ends. Where the span holds few records they say it themselves. Else a
    record that began a day earlier than the span also ended before it, for calls that take less than that.
    """
    at = REQUEST_LOGS.c.at
    low, high = whole.low, whole.high
    if filters.since is not None:
        span = [at >= rows.micros(filters.since)]
        if filters.until is not None:
            span.append(at < rows.micros(filters.until))
        some = select(_LOG.seq).where(*span).order_by(at).limit(_NEAR + 1).subquery()
        first, last, count = connection.execute(
            select(func.min(some.c.seq), func.max(some.c.seq), func.count())
        ).one()
        if not count:
            return Span(low, low + 1)
        if count <= _NEAR:
            return Span(first - 1, last + 1)
        earlier = (
            select(_LOG.seq).where(at < rows.micros(filters.since - LONGEST)).order_by(at.desc()).limit(1)
        )
        low = max(low, connection.execute(earlier).scalar() or low)
    if filters.until is not None:
        later = select(_LOG.seq).where(at >= rows.micros(filters.until + LONGEST)).order_by(at).limit(1)
        high = min(high, connection.execute(later).scalar() or high)
    return Span(low, high)


# --- filters -----------------------------------------------------------------------------------------------------

_EQUAL: Final[Mapping[str, str]] = {
    "key": "key_id",
    "project": "project",
    "provider": "provider_id",
    "outcome": "outcome",
    "host": "origin_host",
    "program": "program",
    "mode": "mode",
}
"""Filters that a column is equal to."""
_DRIVERS: Final = ("key", "project", "tag", "directive", "error", "model", "provider", "outcome")
"""Filters with an index, the one that mostly leaves least first."""
_EXACT: Final = frozenset(_DRIVERS) - {"tag", "error"}
"""Those of which the index leaves nothing else."""


_SPELT: Final[Mapping[str, ColumnElement[Any]]] = {
    "directive": literal_column("directive <> ''"),
    "tag": literal_column("tags <> '[]'"),
    "error": literal_column("error_class <> ''"),
}
"""Conditions of partial indexes as they stand there: with a value for the constant, none of them would be used."""


def _given(filters: Filters) -> list[str]:
    return [name for name in filters.__slots__ if getattr(filters, name) not in ("", None)]


def _driver(filters: Filters) -> str | None:
    given = _given(filters)
    return next((name for name in _DRIVERS if name in given), None)


def _arms(name: str, filters: Filters) -> list[list[ColumnElement[bool]]]:
    """Return what an index is asked for one filter: each record that is meant is in one of the arms."""
    table, value = REQUEST_LOGS.c, getattr(filters, name)
    match name:
        case "model":
            other = table.requested_model != table.model_id
            return [[table.model_id == value], [table.requested_model == value, other]]
        case "directive":
            return [[table.directive == value, _SPELT["directive"]]]
        case "tag":
            return [[_SPELT["tag"]]]
        case "error":
            return [[_SPELT["error"]]]
        case "since" | "until" | "status" | "q":
            return [[_hidden(name, filters)]]
        case _:
            return [[table[_EQUAL[name]] == value]]


def _rest(name: str, filters: Filters) -> list[ColumnElement[bool]]:
    """Return what an index leaves open of its filter."""
    return [_hidden(name, filters)] if name in {"tag", "error"} else []


def _hidden(name: str, filters: Filters) -> ColumnElement[bool]:
    """Return one filter such that no index is used for it."""
    table, value = REQUEST_LOGS.c, getattr(filters, name)
    match name:
        case "model":
            return or_(table.model_id.concat("") == value, table.requested_model.concat("") == value)
        case "directive":
            return and_(table.directive.concat("") == value)
        case "tag":
            return table.tags.contains(orjson.dumps(rows.text(value)).decode(), autoescape=True)
        case "error":
            either = (table.error_class, table.message)
            return and_(
                table.error_class.concat("") != "",
                or_(*(_holds(column, value) for column in either)),
            )
        case "since":
            return (table.at + 0) >= rows.micros(value)
        case "until":
            return table.at + 0 < rows.micros(value)
        case "status":
            return table.status.between(*value)
        case "q":
            return or_(*(_holds(table[one], value) for one in _SEARCHED))
        case _:
            return and_(table[_EQUAL[name]].concat("") == value)


class _Holds(FunctionElement[bool]):
    """A column holds a pattern of LIKE, in either case of ASCII letters."""

    inherit_cache = True


def _holds(column: ColumnElement[str], piece: str) -> ColumnElement[bool]:
    """Return what looks for a piece of text: at most 200,000 rows are looked at, so what one costs counts."""
    for special in (_ESCAPE, "%", "_"):
        piece = piece.replace(special, _ESCAPE + special)
    return and_(_Holds(column, f"%{piece}%"))


@compiles(_Holds, "sqlite")
def _by_itself(element: _Holds, compiler: SQLCompiler, **how: Any) -> str:
    # Its LIKE folds ASCII letters: to fold them first takes twice as long.
    column, pattern = (compiler.process(one, **how) for one in element.clauses)
    return f"({column} LIKE {pattern} ESCAPE '{_ESCAPE}')"


@compiles(_Holds, "postgresql")
def _by_bytes(element: _Holds, compiler: SQLCompiler, **how: Any) -> str:
    # In its own collation it would fold every letter by the rules of a language, which takes several times as long.
    column, pattern = (compiler.process(one, **how) for one in element.clauses)
    return f"({column} COLLATE \"C\" ILIKE {pattern} ESCAPE '{_ESCAPE}')"


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}
