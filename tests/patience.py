"""How long a test waits for what has to come.

These bound a hang and promise nothing: on a busy machine everything takes many times as long as on an idle one.
How quick something is, is measured by the load lane and by `scripts/bench`.
"""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 30.0
"""Seconds; for what happens in this process, or in one that runs already."""
PROGRAM_PATIENCE: Final = 120.0
"""Seconds; for a program that has to start first."""
