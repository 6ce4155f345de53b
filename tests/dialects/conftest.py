"""Golden files: `UPDATE_GOLDEN=1 pytest tests/dialects/openai_chat` writes that dialect's anew; read the diff."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

HOME: Final = Path(__file__).parents[1] / "golden"


def _fields(value: Any) -> tuple[str, ...] | None:
    """Return the names of a canonical value's fields, None of anything else."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in fields(value))
    return None


def _tagged(value: Any) -> Any:
    """Return a canonical value as JSON: its type, and the fields that say something."""
    if (names := _fields(value)) is not None:
        said = {name: _tagged(getattr(value, name)) for name in names}
        return {"": type(value).__name__} | {k: v for k, v in said.items() if v not in (None, "", {}, [])}
    if isinstance(value, Mapping):
        return {key: _tagged(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tagged(item) for item in value]
    return value


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Compare with the file of this name in the dialect's folder: bytes as they are, anything else as JSON."""
    home = HOME / request.path.parent.name

    def check(name: str, value: object) -> None:
        if isinstance(value, bytes):
            seen = value
        else:
            seen = json.dumps(_tagged(value), indent=2, ensure_ascii=False).encode() + b"\n"
        path = home / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(seen)
        assert seen.decode() == path.read_bytes().decode()

    return check
