"""The service itself: who is running, whether it is alive and ready, metrics, the admin pages, this document."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tokenhub_core.http.openapi import Area, Operation
from tokenhub_core.http.operations.fleet import BASE
from tokenhub_core.http.side import DESCRIPTION
from tokenhub_core.vault.vault import State

_TEXT: Final = {"type": "string"}


class Alive(msgspec.Struct):
    """The process is alive."""

    status: Literal["ok"]


class Checks(msgspec.Struct):
    """What has to be so."""

    store: bool
    models: bool
    serving: bool


class Ready(msgspec.Struct):
    """Whether calls can be served."""

    status: Literal["ready", "not ready"]
    checks: Checks
    providers: int
    models: int
    vault: str
    without_credential: int


class Info(msgspec.Struct):
    """What is running."""

    tokenhub: Literal["admin"]
    version: str
    simulated: bool
    vault: State
    providers: int
    models: int
    listeners: int


class SettingChange(msgspec.Struct):
    """A setting that was changed; a secret is redacted. Where it is not applied, it holds from the next start on."""

    variable: str
    old: str
    new: str
    applied: bool


class SettingSource(msgspec.Struct):
    """A file that settings come from."""

    name: str
    path: str
    state: Literal["absent", "same", "changed"]


class Reloaded(msgspec.Struct):
    """What came of reading the settings anew; `added` and `removed` are providers."""

    changes: list[SettingChange]
    sources: list[SettingSource]
    added: list[str]
    removed: list[str]
    notes: list[str]
    workers: int


class TagHeaders(msgspec.Struct, rename="kebab"):
    """What is known already."""

    if_none_match: str | None = None


AREA: Final = Area(
    "service",
    "The service itself.",
    (
        Operation(
            method="GET", path="/healthz", summary="Say that the process is alive", answers={200: Alive}
        ),
        Operation(
            method="GET",
            path="/readyz",
            summary="Say whether calls can be served",
            answers={200: Ready, 503: Ready},
        ),
        Operation(
            method="GET",
            path="/metrics",
            summary="Show metrics in Prometheus' text format",
            text="Open to whom `TOKENHUB_METRICS_ACCESS` says, by default to this machine; else it needs a viewer.",
            answers={200: {"text/plain": _TEXT}},
            refuses=(401, 503),
        ),
        Operation(
            method="GET",
            path=DESCRIPTION,
            summary="Show this document",
            answers={200: {"type": "object", "required": ["openapi", "info", "paths"]}},
        ),
        Operation(
            method="GET",
            path="/",
            summary="Show the admin pages",
            headers=TagHeaders,
            answers={200: {"text/html": _TEXT}, 304: None},
            refuses=(400,),
        ),
        Operation(
            method="GET",
            path="/login",
            summary="Show the admin pages, where a login link leads",
            headers=TagHeaders,
            answers={200: {"text/html": _TEXT}, 304: None},
            refuses=(400,),
        ),
        Operation(
            method="GET",
            path="/ui/{page}",
            summary="Show a page",
            headers=TagHeaders,
            answers={200: {"text/html": _TEXT}, 304: None},
            refuses=(400, 404),
        ),
        Operation(
            method="GET",
            path="/assets/{name}",
            summary="Show a file of the pages",
            headers=TagHeaders,
            answers={
                200: {
                    "text/css": _TEXT,
                    "text/javascript": _TEXT,
                    "image/svg+xml": _TEXT,
                    "font/woff2": _TEXT,
                },
                304: None,
            },
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/reload",
            summary="Read the settings anew",
            text="Read are the environment file, the credentials file, the CA file and the list of hosts. What cannot"
            " be used changes nothing: 400 says what it is.",
            answers={200: Reloaded},
            refuses=(409, 503),
        ),
        Operation(
            method="GET",
            path="/docs",
            summary="Show the manual",
            headers=TagHeaders,
            answers={200: {"text/html": _TEXT}, 304: None},
        ),
        Operation(
            method="GET",
            path="/docs/{page}",
            summary="Show a page of the manual",
            headers=TagHeaders,
            answers={200: {"text/html": _TEXT}, 304: None},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path="/docs/files/{name}",
            summary="Show a file of the manual",
            headers=TagHeaders,
            answers={
                200: {
                    "text/css": _TEXT,
                    "text/javascript": _TEXT,
                    "application/json": {"type": "array"},
                    "image/svg+xml": _TEXT,
                    "image/png": _TEXT,
                },
                304: None,
            },
            refuses=(404,),
        ),
        Operation(method="GET", path=f"{BASE}/info", summary="Say what is running", answers={200: Info}),
    ),
)
