"""Durable calls, as Temporal knows them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tokenhub_core.http.openapi import Area, Operation, shown
from tokenhub_core.http.operations.fleet import BASE
from tokenhub_core.http.workflows import MOST, PAGE
from tokenhub_core.workflows.way import Happening, Workflow

_Status = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELED", "TERMINATED", "CONTINUED_AS_NEW", "TIMED_OUT"]

WorkflowShown = shown("WorkflowShown", Workflow, status=_Status)
EventShown = shown("EventShown", Happening)


class WorkflowList(msgspec.Struct):
    """The latest first. `temporal_enabled` is false where no call can be durable."""

    workflows: list[WorkflowShown]  # type: ignore[valid-type] # made at run time
    temporal_enabled: bool


class WorkflowHistory(msgspec.Struct):
    """What happened in one workflow, oldest first."""

    workflow_id: str
    events: list[EventShown]  # type: ignore[valid-type] # made at run time


class Done(msgspec.Struct):
    """It was asked for."""

    ok: bool


class WorkflowQuery(msgspec.Struct):
    """Which workflows."""

    limit: Annotated[int, Meta(ge=1, le=MOST)] = PAGE
    status: _Status | None = None


AREA: Final = Area(
    "workflows",
    "Calls that go on whatever dies.",
    (
        Operation(
            method="GET",
            path=f"{BASE}/workflows",
            summary="List durable calls",
            query=WorkflowQuery,
            answers={200: WorkflowList},
            refuses=(503,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/workflows/{{id}}",
            summary="Show one durable call",
            answers={200: WorkflowShown},
            refuses=(404, 503),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/workflows/{{id}}/history",
            summary="Show what happened in one durable call; nothing of what was said",
            answers={200: WorkflowHistory},
            refuses=(404, 503),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/workflows/{{id}}/cancel",
            summary="End one durable call, as if its caller had left",
            answers={200: Done},
            refuses=(404, 503),
        ),
    ),
)
