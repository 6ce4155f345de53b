"""How this server stands: settings, what exploring has learned."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tokenhub_core.http.openapi import Area, Operation
from tokenhub_core.http.standing import POSTERIORS, SETTINGS, Posterior


class SettingShown(msgspec.Struct):
    """One setting as it is."""

    variable: str
    value: str
    default: str
    source: Literal["default", "environment", "started with"]
    text: str
    secret: bool


class Answering(msgspec.Struct):
    """The process that answers, and how many workers its server has."""

    host: str
    pid: int
    workers: int


class SettingsShown(msgspec.Struct):
    """All settings of the process that answers."""

    items: list[SettingShown]
    total: int
    process: Answering


class PosteriorQuery(msgspec.Struct):
    """Of which kind of call; empty for all kinds together."""

    context: str = ""


class Posteriors(msgspec.Struct):
    """What exploring has learned of one kind of call, the best mean first."""

    contexts: list[str]
    context: str
    items: list[Posterior]
    process: Answering


AREA: Final = Area(
    "standing",
    "How this server stands.",
    (
        Operation(
            method="GET",
            path=SETTINGS,
            summary="Show each setting, its default and where it comes from; secrets only as set",
            answers={200: SettingsShown},
        ),
        Operation(
            method="GET",
            path=POSTERIORS,
            summary="Show the posterior of each model at its provider",
            query=PosteriorQuery,
            answers={200: Posteriors},
        ),
    ),
)
