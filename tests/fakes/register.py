"""A register of who may do admin work that has nobody in it but the bootstrap token, and no store behind it."""

from __future__ import annotations

from typing import Any

from tokenhub_core.access.marks import Marks
from tokenhub_core.access.register import Register
from tokenhub_core.ports import Clock, Secret


def bare_register(token: str, clock: Clock) -> Register:
    """Return a register that can be asked, and not changed."""
    absent: Any = None
    return Register(absent, absent, clock=clock, marks=Marks(bytes(32)), token=Secret(token), entropy=bytes)
