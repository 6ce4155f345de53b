"""What every Python client of the matrix does with its features: one line of JSON each.

A feature is a function that talks to its SDK, asserts what it needs and returns a remark: empty where everything
came that was asked for, or a few words on what a program has to do without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel

PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG of one dot, in base64."""

HELLO: Final = "Say hello"
WEATHER: Final = "Use get_weather for the city of Paris"
BOTH: Final = "Use get_weather and get_time for the city of Paris"
"""A question that the simulated models answer by calling both tools at once."""

CITY: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Final = ("get_weather", "get_time")
UNKNOWN: Final = "nobody-serves-this"
"""A model that there is not."""
WITHOUT_THINKING: Final = "without thinking"
NOT_SHOWN: Final = "not shown"


class Capital(BaseModel):
    """What the structured answer has to be."""

    city: str
    inhabitants: int


def same(seen: object, wanted: object) -> None:
    """Fail, naming both, where they differ."""
    if seen != wanted:
        raise AssertionError(f"{seen!r} instead of {wanted!r}")


def said(text: str | None, question: str) -> None:
    """Fail where the answer is not the simulated one to `question`."""
    if not (text or "").startswith(f'You asked: "{question}"'):
        raise AssertionError(f"{text!r} does not answer {question!r}")


def told(text: str | None, *results: str) -> None:
    """Fail where an answer does not repeat what the tools said."""
    for result in results:
        if f'answered: "{result}"' not in (text or ""):
            raise AssertionError(f"{text!r} does not tell {result!r}")


def counted(*tokens: int | None) -> None:
    """Fail where a count of the usage is missing."""
    if not all(tokens):
        raise AssertionError(f"usage is {tokens}")


def perform(features: Mapping[str, Callable[[], str]]) -> None:
    """Try each feature and print what came of it; whatever an SDK raises is its feature's failure."""
    for name, feature in features.items():
        try:
            line = {"feature": name, "ok": True, "detail": feature()}
        except Exception as error:  # noqa: BLE001 -- any way in which an SDK fails is a finding
            line = {"feature": name, "ok": False, "detail": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
