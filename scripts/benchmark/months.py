"""A month of synthetic calls: rows of the request log, and the cells of the time series that as many calls come to.

Everything follows from one seed. Calls come evenly over `DAYS` days that end at `END`. A row is one of `KINDS` rows
that real records were turned into, with an id and a time of its own. Those of the last `DECIDED_DAYS` days hold their
decision, as where `TOKENHUB_DECISION_RETENTION_DAYS` is set to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from msgspec import structs
from sqlalchemy import Connection, Table

from scripts.benchmark.rehearsals import stocked
from tokenhub_core.ids import request_id
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.plan import plan
from tokenhub_core.store import rows
from tokenhub_core.store.schema import SERIES, SERIES_CELLS
from tokenhub_core.store.spelling import spelling_of
from tokenhub_core.telemetry import sketches
from tokenhub_core.telemetry.rollups import DAY, HOUR, MINUTE, RESOLUTIONS, TEN_SECONDS
from tokenhub_core.telemetry.series import Key
from tokenhub_core.types import (
    ApiKey,
    Attempt,
    Caller,
    Dialect,
    Features,
    Mode,
    Outcome,
    Plan,
    Policy,
    Record,
    Standing,
    Timings,
    Usage,
)

DAYS: Final = 30
END: Final = int(1_700_000_000 // DAY + 1) * DAY
"""Seconds since the epoch."""
DECIDED_DAYS: Final = 3
KEPT: Final = {TEN_SECONDS: 2, MINUTE: 14, HOUR: DAYS, DAY: DAYS}
"""Days of each resolution, as the settings have it."""
KEYS: Final = [
    Key(f"model-{n % 10}", f"p{n % 5}", f"key-{n // 10}", mode="normal", status="2xx") for n in range(100)
]
"""The series: each of ten models for each of ten keys."""
KINDS: Final = 4_096
NEEDLE: Final = "needle in the haystack"
"""Stands in the message of one failed call in a million, the oldest one among them."""
RARE: Final = "rare.example"
"""The host of one kind of call."""
BATCH: Final = 20_000
_EVERY: Final = 1_000_000
_SEED: Final = 7
_FAULTS: Final = (
    ("timeout", 504, "the provider did not answer within 60 s"),
    ("rate_limited", 429, "Rate limit reached for requests per minute"),
    ("context_overflow", 400, "This model's maximum context length is 128000 tokens"),
    ("http_500", 502, "The server had an error while processing your request"),
)
type Row = tuple[Any, ...]


def log(count: int, *, different: int = KINDS) -> Iterator[list[Row]]:
    """Yield so many rows of so many kinds in the order of `rows.COLUMNS`, oldest first, at most `BATCH` at once."""
    chance = np.random.default_rng(_SEED)
    kinds = _kinds(np.random.default_rng(_SEED), different)
    bare = [_without(row, "decision") for row in kinds]
    at, message = (rows.COLUMNS.index(name) for name in ("at", "message"))
    apart = DAYS * DAY * rows.MICROS / count
    decided = count * (DAYS - DECIDED_DAYS) // DAYS
    batch = min(BATCH, count // DAYS)
    for first in range(0, count, batch):
        size = min(batch, count - first)
        places = np.arange(first, first + size)
        moments = (places * apart + chance.uniform(0, apart, size)).astype(np.int64)
        moments += (END - DAYS * DAY) * rows.MICROS
        chosen, entropy = chance.integers(0, different, size), chance.bytes(8 * size)
        made = []
        for n, (moment, kind) in enumerate(zip(moments.tolist(), chosen.tolist(), strict=True)):
            needle = (first + n) % _EVERY == 0
            row = (kinds if first + n >= decided else bare)[0 if needle else kind]
            name = request_id(moment / rows.MICROS, entropy[8 * n : 8 * n + 8])
            if needle:
                row = (*row[:message], NEEDLE, *row[message + 1 :])
            made.append((name, moment, *row[at + 1 :]))
        yield made


def _without(row: Row, column: str) -> Row:
    place = rows.COLUMNS.index(column)
    return (*row[:place], None, *row[place + 1 :])


def _kinds(chance: np.random.Generator, different: int) -> list[Row]:
    """Return rows of calls of every kind: 5 % failed, 2 % with tags, 1 % with a directive, one to a rare host."""
    view, _, learner = stocked(12)
    standings = {name: Standing(True, False, 0.01, 300.0) for name in view.providers}
    ask = Features(model="*", text_bytes=8_000, turns=4, max_output_tokens=800)
    now = Circumstances(standings, lambda _: True, learner, at=float(END))
    decided = plan(view, ask, Policy(), now=now, seed="s")
    assert isinstance(decided, Plan)
    return [rows.record_row(_record(n, chance, decided)) for n in range(different)]


def _record(n: int, chance: np.random.Generator, decided: Plan) -> Record:
    series = KEYS[int(chance.integers(len(KEYS)))]
    tokens, answered = (int(one) for one in chance.lognormal((6.5, 5.0), 0.8))
    took = float(chance.lognormal(7.2, 0.7))
    fault, status, message = _FAULTS[n // 20 % len(_FAULTS)] if n % 20 == 0 else ("", 200, "")
    tags = (f"team-{n % 7}",) if n % 50 == 1 else ()
    key = ApiKey(series.key, project=f"project-{n % 5}")
    usage = Usage() if fault else Usage(tokens, answered)
    cost = usage.input_tokens * 2_500 + usage.output_tokens * 10_000
    tried = Attempt(
        1,
        series.model,
        series.provider,
        0.4,
        took,
        took / 3,
        status,
        fault,
        message,
        usage,
        cost,
        head_ms=9.0,
    )
    return Record(
        id="",
        at=0.0,
        outcome=Outcome.ERROR if fault else Outcome.OK,
        status=status,
        caller=Caller("10.0.0.7", program=f"program-{n % 12}", key=key),
        method="POST",
        path="/v1/chat/completions",
        dialect=Dialect.OPENAI_CHAT,
        stream=n % 3 != 0,
        origin_host=RARE if n == 77 else "api.openai.com",
        requested_model="auto" if n % 10 == 3 else series.model,
        model=series.model,
        provider=series.provider,
        reason=decided.reason,
        directive="honoured" if n % 100 == 2 else "",
        usage=usage,
        cost_nanousd=cost,
        timings=Timings(0.1, 0.6, took / 3, took),
        fault=fault,
        message=message,
        attempts=(tried,),
        plan=structs.replace(decided, policy=Policy(tags=tags, mode=Mode.NORMAL)),
    )


def cells(connection: Connection, calls: int) -> int:
    """Fill in the time series of so many calls, and return how many cells that is."""
    chance = np.random.default_rng(_SEED)
    put(connection, SERIES, SERIES.c.keys(), [(key.id, *key) for key in KEYS])

    @cache
    def sums(calls: int, variant: int) -> tuple[int | bytes, ...]:
        """Return a cell's share of so many calls, spread as latencies are; a few of each number are enough."""
        del variant
        where = chance.normal(sketches.slot(2000), 40, min(calls, 200)).astype(int)
        counts = {
            int(one): int(n) * (calls // 200 or 1)
            for one, n in zip(*np.unique(where, return_counts=True), strict=True)
        }
        sketch = sketches.packed(counts)
        tokens = (calls * 1000, calls * 200, 0)
        return (calls, calls, 0, 0, 0, *tokens, calls * 5000, 0, calls * 2_000_000, sketch, sketch, sketch)

    ids, written = sorted(key.id for key in KEYS), 0
    for resolution in RESOLUTIONS:
        mean = calls / DAYS / DAY * resolution / len(KEYS)
        for at in range(END - KEPT[resolution] * DAY, END, resolution):
            counts = chance.poisson(mean, len(KEYS)).tolist()
            some = [
                (resolution, at * rows.MICROS, one, *sums(calls, n % 16))
                for n, (one, calls) in enumerate(zip(ids, counts, strict=True))
                if calls
            ]
            put(connection, SERIES_CELLS, SERIES_CELLS.c.keys(), some)
            written += len(some)
    return written


def put(connection: Connection, table: Table, columns: Sequence[str], some: Sequence[Row]) -> None:
    """Add rows as quickly as each database can."""
    names = ", ".join(columns)
    if spelling_of(connection.dialect.name).shared:
        raw: Any = connection.connection.dbapi_connection
        with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
            for row in some:
                copy.write_row(row)
    elif some:
        marks = ", ".join("?" * len(columns))
        insert = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 -- names of the schema
        connection.exec_driver_sql(insert, [*some])
