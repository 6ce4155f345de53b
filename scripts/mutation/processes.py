"""Work in a process of its own, which is ended with all that it started when it takes too long."""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

OVERDUE: Final = -1


def forked(work: Callable[[], int], *, patience: float, output: Path) -> int:
    """Do the work in a fork and return its code; OVERDUE where it takes longer than `patience` seconds.

    What it prints goes to `output`.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _run(work, output)
    watch = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([watch], [], [], patience)
        if not ready:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(watch)
    return os.waitstatus_to_exitcode(status) if ready else OVERDUE


def _run(work: Callable[[], int], output: Path) -> None:
    """Never returns: what the parent has registered for its own end is none of the child's."""
    code = 1
    try:
        os.setpgid(0, 0)
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, 1)
        os.dup2(target, 2)
        # Whoever has put another file in their place has done so for itself.
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- ends with the process
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- as above
        code = work()
    except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
