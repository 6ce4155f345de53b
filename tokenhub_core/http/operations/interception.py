"""What is intercepted, and the CA that vouches for it."""

from __future__ import annotations

from typing import Final

import msgspec

from tokenhub_core.http import shapes
from tokenhub_core.http.openapi import Area, Operation
from tokenhub_core.http.operations.fleet import BASE

_PATH: Final = f"{BASE}/ca"


class CaShown(msgspec.Struct):
    """The root, its files, and the hosts that are intercepted; times in seconds since the epoch."""

    subject: str
    sha256: str
    not_before: float
    not_after: float
    permitted: list[str]
    hosts: list[str]
    added: list[str]
    file: str
    modes: dict[str, str]
    alarms: list[str]


AREA: Final = Area(
    "interception",
    "The hosts whose calls are taken in, and the CA for them. Without a CA, showing it is a 404.",
    (
        Operation(
            method="GET",
            path=_PATH,
            summary="Show the CA and the hosts that are intercepted",
            answers={200: CaShown},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{_PATH}/rotate",
            summary="Make a new root with a new key",
            text="Programs that run fail until they trust it.",
            answers={200: CaShown},
            refuses=(503,),
        ),
        Operation(
            method="POST",
            path=f"{_PATH}/hosts",
            summary="Intercept a host",
            body=shapes.HostBody,
            answers={200: CaShown},
            refuses=(503,),
        ),
        Operation(
            method="DELETE",
            path=_PATH + "/hosts/{host}",
            summary="Leave a host alone that was added",
            answers={200: CaShown},
            refuses=(404, 503),
        ),
    ),
)
