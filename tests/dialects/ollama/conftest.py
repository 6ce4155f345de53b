"""Golden files: `UPDATE_GOLDEN=1 pytest tests/dialects/ollama` writes them anew; read the diff."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parents[2] / "golden" / "ollama"


def _tagged(value: Any) -> Any:
    """Return a canonical value as JSON: its type, and the fields that say something."""
    if is_dataclass(value) and not isinstance(value, type):
        said = {field.name: _tagged(getattr(value, field.name)) for field in fields(value)}
        return {"": type(value).__name__} | {k: v for k, v in said.items() if v not in (None, "", {}, [])}
    if isinstance(value, Mapping):
        return {key: _tagged(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tagged(item) for item in value]
    return value


@pytest.fixture
def golden() -> Callable[[str, object], None]:
    """Compare with the file of this name: bytes as they are, anything else as JSON."""

    def check(name: str, value: object) -> None:
        if isinstance(value, bytes):
            seen = value
        else:
            seen = json.dumps(_tagged(value), indent=2, ensure_ascii=False).encode() + b"\n"
        path = HOME / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(seen)
        assert seen.decode() == path.read_bytes().decode()

    return check
