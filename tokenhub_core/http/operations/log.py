"""What happened: the request log, live events, the health of providers, and the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, UnsetType

from tokenhub_core.audit.chain import Finding
from tokenhub_core.audit.entries import Result
from tokenhub_core.chronicle import MOST
from tokenhub_core.health.tracker import View
from tokenhub_core.http import shapes
from tokenhub_core.http.exporting import MEDIA, PACKED, Format, Packing
from tokenhub_core.http.health import HISTORY
from tokenhub_core.http.log import FIRST, LAST
from tokenhub_core.http.openapi import BYTES, Area, Operation, items, many, shown
from tokenhub_core.http.operations.fleet import BASE
from tokenhub_core.proof.checking import Checked, Story
from tokenhub_core.proof.entries import Delivered, Kind, Received
from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.store.chronicle import Moved
from tokenhub_core.store.schema import REQUEST_LOGS
from tokenhub_core.types import Attempt, Capture, Composition, Json, Outcome, Shadow, Step, Usage

AttemptShown = shown(
    "AttemptShown",
    Attempt,
    without=("usage",),
    started_ms=float | None,
    ended_ms=float | None,
    step=str | UnsetType,
    head_ms=float | None | UnsetType,
    ttft_limit_ms=float | None | UnsetType,
    silence_ms=float | None | UnsetType,
    stall_limit_ms=float | None | UnsetType,
    **dict.fromkeys(Usage.__struct_fields__, int),
)
CompositionShown = shown("Composition", Composition, steps=many(shown("Step", Step, without=("plan",))))
_DECODED: Final[dict[str, Any]] = {
    "at": float,
    "outcome": Outcome,
    "tags": list[str],
    "losses": list[str],
    "attempts": many(AttemptShown),
    "decision": Json | None,
    "shadow": Shadow | None,
    "composition": CompositionShown | None,
}
"""The columns that are shown as something else than what is stored."""


def _record(name: str, without: str = "") -> type[msgspec.Struct]:
    """Return the type of a record: the columns of its table."""
    fields: list[tuple[str, Any]] = []
    for column in REQUEST_LOGS.columns:
        plain = column.type.python_type
        stored = plain | None if column.nullable else plain
        # SQLAlchemy's own kind of string is none to msgspec.
        fields.append((str(column.name), _DECODED.get(column.name, stored)))
    doc = "What happened to one call. Times in seconds since the epoch, durations in milliseconds."
    kept = [field for field in fields if field[0] != without]
    return msgspec.defstruct(name, kept, namespace={"__doc__": doc})


class _Logs(msgspec.Struct):
    """One page, newest first, which may be short, or empty, where there are more.

    `next` goes into `before` for what is older, and is null at the end; `newer` goes into `after` for what is newer,
    now or later.
    """

    next: int | None
    newer: int


HealthShown = shown(
    "HealthShown",
    View,
    provider_id=str,
    cool_off_until=float | UnsetType | None,
    parked_until=float | UnsetType | None,
)
Logs = shown("Logs", _Logs, logs=many(_record("LogEntry", "decision")))
LogRecord = _record("LogRecord")


class AuditEntry(msgspec.Struct):
    """What was done, by whom. The hash is made of everything but itself and `mac`."""

    seq: int
    at: float
    at_us: int
    actor: str
    source: str
    program: str
    request_id: str
    action: str
    subject: str
    outcome: str
    reason: str
    count: int
    before: Json | None
    after: Json | None
    key_id: str
    previous: str
    hash: str
    mac: str | None


class AuditPage(msgspec.Struct):
    """One page, newest first; `next` goes into `before` for the page after this one, null at the end."""

    entries: list[AuditEntry]
    next: int | None
    head: str
    """The end of the chain, as SEQ:HASH."""


class AuditReport(msgspec.Struct):
    """Whether every entry is what was written."""

    ok: bool
    findings: list[Finding]
    entries: int
    signed: int
    unchecked: int
    covered: int
    head: str


class _Health(msgspec.Struct):
    """The health of every provider that is registered, or was seen."""


class HealthQuery(msgspec.Struct):
    """Of which time, and of whom."""

    since: Annotated[shapes.Seconds, Meta(description="A day before `until` if left out.")] | None = None
    until: Annotated[shapes.Seconds, Meta(description="Now if left out.")] | None = None
    provider: str = ""
    limit: Annotated[int, Meta(ge=1, le=MOST)] = MOST


Health = shown("Health", _Health, providers=many(HealthShown))


class TextShown(msgspec.Struct):
    """One direction of a call. `size` is in bytes; `whole` tells whether all of it was kept."""

    text: str
    size: int
    whole: bool


class CaptureShown(msgspec.Struct):
    """The text of a call, kept until then. Moments in seconds since the epoch."""

    id: str
    at: float
    until: float
    mode: Capture
    request: TextShown
    answer: TextShown


class _Wanted(msgspec.Struct):
    """Which calls."""

    model: Annotated[str, Meta(description="That served, or was asked for.")] = ""
    provider: str = ""
    key: Annotated[str, Meta(description="The id of the client's key.")] = ""
    project: str = ""
    outcome: Outcome | None = None
    q: Annotated[str, Meta(description="A piece of an id, model, host, program, path or message.")] = ""
    host: Annotated[str, Meta(description="That the call was meant for.")] = ""
    program: str = ""
    mode: str = ""
    directive: Annotated[
        str, Meta(description="What became of it: `honoured`, `denied`, `invalid`, `ignored`.")
    ] = ""
    tag: Annotated[str, Meta(description="One of the call's tags, whole.")] = ""
    status: Annotated[str, Meta(description="One such as 404, or a class of them such as 5xx.")] = ""
    error: Annotated[str, Meta(description="A piece of the error's label or text.")] = ""
    since: shapes.Seconds | None = None
    until: shapes.Seconds | None = None


class LogQuery(_Wanted):
    """Which calls, and which page of them."""

    limit: shapes.PageSize = shapes.PAGE
    before: shapes.Seq = 0
    after: Annotated[
        shapes.Seq | None, Meta(description="The oldest calls behind this place; not with `before`.")
    ] = None


class ExportQuery(_Wanted):
    """Which calls, and how they are written."""

    format: Format = Format.JSONL
    compress: Packing = Packing.NONE
    after: Annotated[shapes.Seq, Meta(description="The last `seq` that has arrived, to go on behind it.")] = 0
    through: Annotated[shapes.Seq, Meta(description="Where to end; 0: at the end of the log.")] = 0


class AuditQuery(msgspec.Struct):
    """Which entries."""

    limit: shapes.PageSize = shapes.PAGE
    before: shapes.Seq = 0
    action: Annotated[str, Meta(description="An action, or all that begin with it: `vault`.")] = ""
    actor: str = ""
    subject: str = ""
    outcome: Result | None = None
    since: shapes.Seconds | None = None
    until: shapes.Seconds | None = None


class HeadQuery(msgspec.Struct):
    """Where the chain was known to be."""

    head: Annotated[str, Meta(description="SEQ:HASH")] | None = None


class ProofShown(msgspec.Struct):
    """One entry of the chain of proofs. The hash is made of everything but itself and `mac`."""

    seq: int
    at: float
    at_us: int
    request_id: str
    kind: Kind
    verdict: Annotated[str, Meta(description="The worst in it; empty for what was only received.")]
    said: Received | Delivered | None
    """Null where it was damaged."""
    key_id: str
    previous: str
    hash: str
    mac: str | None


class ProofPage(msgspec.Struct):
    """One page, newest first; `next` goes into `before` for the page after this one, null at the end."""

    proofs: list[ProofShown]
    next: int | None
    head: str
    """The end of the chain, as SEQ:HASH."""


class ProofQuery(msgspec.Struct):
    """Which entries."""

    limit: shapes.PageSize = shapes.PAGE
    before: shapes.Seq = 0
    verdict: Verdict | None = None


class EventsQuery(msgspec.Struct):
    """Where to begin."""

    replay: Annotated[str, Meta(description="`true`: with the recent ones.")] = ""


class EventsHeaders(msgspec.Struct, rename="kebab"):
    """Where to go on."""

    last_event_id: str | None = None


AREA: Final = Area(
    "log",
    "What happened.",
    (
        Operation(
            method="GET",
            path=f"{BASE}/logs",
            summary="List the latest calls",
            query=LogQuery,
            answers={200: Logs},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/logs/export",
            summary="Export calls as a file, oldest first; the audit log has it first",
            text="What was cut short goes on behind the last `seq` that arrived.",
            query=ExportQuery,
            answers={
                200: {
                    media: {"description": "A record a line."}
                    for media in (*MEDIA.values(), *(media for _, media in PACKED.values()))
                }
            },
            tells=(FIRST, LAST),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/logs/{{id}}",
            summary="Show one call",
            answers={200: LogRecord},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/logs/{{id}}/body",
            summary="Read the text of a call, where it was kept; the audit log has it first",
            answers={200: CaptureShown},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/events",
            summary="Hear what happens as it does",
            text="The stream has no end of its own.",
            query=EventsQuery,
            headers=EventsHeaders,
            answers={200: {"text/event-stream": {"description": "A stream of events."}}},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/health",
            summary="Show the health of providers",
            answers={200: Health},
        ),
        Operation(
            method="GET",
            path=HISTORY,
            summary="Show how the health of providers changed and which credentials were parked, newest first",
            query=HealthQuery,
            answers={200: items(Moved)},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/audit",
            summary="List who changed what",
            query=AuditQuery,
            answers={200: AuditPage},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/audit/verify",
            summary="Verify that every entry is what was written",
            query=HeadQuery,
            answers={200: AuditReport},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/audit/export",
            summary="Export all entries as JSON lines, oldest first",
            answers={200: {"application/jsonl": {"description": "One entry a line."}}},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/proofs",
            summary="List what providers sent against what callers were given",
            query=ProofQuery,
            answers={200: ProofPage},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/proofs/verify",
            summary="Verify that every proof is what was written",
            query=HeadQuery,
            answers={200: AuditReport},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/proofs/{{id}}",
            summary="Show what is proved of one call",
            answers={200: Story},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/proofs/{{id}}/check",
            summary="Compare what a client kept of its answer with what it was given and what the provider sent",
            text="The body is that of the answer, byte for byte.",
            body={},
            media=BYTES,
            answers={200: Checked},
            refuses=(404,),
        ),
    ),
)
