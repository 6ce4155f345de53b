"""What every route of the side server takes and answers with, and the OpenAPI document that is made of it.

A new route has its `Operation` in the file of its area, or in a new file with an `AREA` of its own that `AREAS` names.
"""

from __future__ import annotations

from typing import Final

from tokenhub_core import __version__
from tokenhub_core.http import openapi
from tokenhub_core.http.openapi import Area
from tokenhub_core.http.operations import (
    access,
    calls,
    config,
    fleet,
    interception,
    keys,
    log,
    naming,
    ongoing,
    routing,
    service,
    standing,
    tsdb,
    vault,
    webhooks,
    workflows,
)
from tokenhub_core.http.side import OPEN
from tokenhub_core.types import Json

AREAS: Final[tuple[Area, ...]] = (
    calls.CALLS,
    calls.NAMES,
    keys.AREA,
    fleet.AREA,
    naming.AREA,
    routing.AREA,
    config.AREA,
    log.AREA,
    webhooks.AREA,
    tsdb.AREA,
    vault.AREA,
    workflows.AREA,
    access.AREA,
    interception.AREA,
    standing.AREA,
    ongoing.AREA,
    service.AREA,
)

_WORDS: Final = {
    "x-request-id": "What to ask about.",
    "x-tokenhub-first-seq": "Where the export begins.",
    "x-tokenhub-last-seq": "Where it ends: `through` of another one that is to go on with it.",
    "x-tokenhub-decision": "The id of the decision, for `tokenhub explain`; absent where there was none.",
}


def document() -> Json:
    """Return the OpenAPI document of the side server."""
    return openapi.document(AREAS, version=__version__, open_=OPEN, words=_WORDS)
