"""What is configured, as one document."""

from __future__ import annotations

from typing import Final

from tokenhub_core.http.blueprint import Blueprint
from tokenhub_core.http.config import PATH, ApplyBody, Plan, PlanBody
from tokenhub_core.http.openapi import Area, Operation

AREA: Final = Area(
    "config",
    "What is configured, as one document: exported, compared, applied.",
    (
        Operation(
            method="GET",
            path=PATH,
            summary="Export what is configured; no secret is in it",
            answers={200: Blueprint},
        ),
        Operation(
            method="POST",
            path=f"{PATH}/plan",
            summary="Say what a document would change",
            body=PlanBody,
            answers={200: Plan},
        ),
        Operation(
            method="POST",
            path=f"{PATH}/apply",
            summary="Change exactly what was planned, or nothing",
            body=ApplyBody,
            answers={200: Plan},
            refuses=(409,),
        ),
    ),
)
