"""What an answer says, as text, and when two of them say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from tokenhub_core.orchestration.asks import Told

_SPACE: Final = re.compile(r"\s+")
_EDGES: Final = " .,;:!\"'*_`"


def spoken(told: Told) -> str:
    """Return an answer as it is shown to another model: its text, and the tools that it would call."""
    calls = [f"[calls the tool {call.name} with {call.arguments or '{}'}]" for call in told.calls]
    return "\n".join(filter(None, (told.text, *calls)))


def gist(told: Told) -> str:
    """Return what two answers have in common that say the same.

    Case, white space and the marks around the text do not count, nor how the arguments of a tool are written.
    """
    text = _SPACE.sub(" ", told.text).strip(_EDGES).casefold()
    calls = sorted(f"{call.name} {_canonical(call.arguments)}" for call in told.calls)
    return json.dumps([text, calls])


def voices(answers: Iterable[Told]) -> Mapping[str, int]:
    """Return how many different models say each gist. One that was asked twice is likely to agree with itself."""
    said: dict[str, set[str]] = {}
    for one in answers:
        if one.fault is None:
            said.setdefault(gist(one), set()).add(one.model)
    return {what: len(models) for what, models in said.items()}


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
