"""How this server stands: settings, what exploring has learned, calls under way."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tokenhub_core.http.openapi import Area, Operation, items
from tokenhub_core.http.standing import POSTERIORS, SETTINGS, UNDERWAY, Posterior


class SettingShown(msgspec.Struct):
    """One setting as it is."""

    variable: str
    value: str
    default: str
    source: Literal["default", "environment", "started with"]
    text: str
    secret: bool


class PosteriorQuery(msgspec.Struct):
    """Of which kind of call; empty for all kinds together."""

    context: str = ""


class Posteriors(msgspec.Struct):
    """What exploring has learned of one kind of call, the best mean first."""

    contexts: list[str]
    context: str
    items: list[Posterior]


class CallsUnderway(msgspec.Struct):
    """The calls that this process is at; of many the oldest ids only."""

    calls: int
    ids: list[str]


AREA: Final = Area(
    "standing",
    "How this server stands.",
    (
        Operation(
            method="GET",
            path=SETTINGS,
            summary="Show each setting, its default and where it comes from; secrets only as set",
            answers={200: items(SettingShown)},
        ),
        Operation(
            method="GET",
            path=POSTERIORS,
            summary="Show the posterior of each model at its provider",
            query=PosteriorQuery,
            answers={200: Posteriors},
        ),
        Operation(
            method="GET",
            path=UNDERWAY,
            summary="Count the calls that are under way",
            answers={200: CallsUnderway},
        ),
    ),
)
