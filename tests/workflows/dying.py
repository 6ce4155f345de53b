"""A `tokenhub` that kills itself at one step of a durable call, the first time that it comes there.

`dying.py POINT FLAG ARGUMENTS…`: FLAG is a file that is made before it dies, so that whoever is started after it with
the same arguments lives.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tokenhub_core.cli import main as tokenhub
from tokenhub_core.store.durable import DurableCalls
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.stepping import Stepping

POINTS = {
    "asked": (Activities, "_once", "before"),
    "marked": (DurableCalls, "begin", "after"),
    "answered": (Safe, "end", "before"),
    "kept": (Safe, "end", "after"),
    "stepped": (Safe, "keep_step", "after"),
    "settling": (Stepping, "_outcome", "before"),
    "recording": (StoreRecorder, "commit", "before"),
    "recorded": (StoreRecorder, "commit", "after"),
}
"""Where a worker dies: before or after which of its steps."""


def _arm(point: str, flag: Path) -> None:
    owner, name, when = POINTS[point]
    step = getattr(owner, name)

    async def dying(*given: Any, **named: Any) -> Any:
        done = await step(*given, **named) if when == "after" else None
        _die(flag)
        return done if when == "after" else await step(*given, **named)

    setattr(owner, name, dying)


def _die(flag: Path) -> None:
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    point, flag, *arguments = sys.argv[1:]
    if point in POINTS:
        _arm(point, Path(flag))
    sys.argv = ["tokenhub", *arguments]
    tokenhub()


if __name__ == "__main__":
    main()
