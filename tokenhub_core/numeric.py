"""NumPy, loaded when something is first computed with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenhub_core.later import Later

if TYPE_CHECKING:
    import numpy as np
else:
    np = Later("numpy")

__all__ = ["np"]
