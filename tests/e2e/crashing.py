"""`tokenhub serve`, started over and over by forking, so that its imports are paid for once; run by `test_crash.py`.

`crashing.py DATA_DIR [early]` forks one `tokenhub serve` for each line that it reads, and prints its process id; each
is expected to be killed. With `early` the record of a reply is handed over without waiting for it to be stored, which
the test must notice.
"""

from __future__ import annotations

import os
import sys

from tokenhub_addon import commands
from tokenhub_core.cli import main as tokenhub
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Record

__all__ = ["commands"]  # imported for its weight: the command imports it when it is used


async def _not_waiting(self: StoreRecorder, record: Record) -> None:
    """Break the promise: the reply goes on at once."""
    self.post(record)


def _tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    data = sys.argv[1]
    if "early" in sys.argv:
        StoreRecorder.commit = _not_waiting  # type: ignore[method-assign] # the breach that the test must notice
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)
            sys.argv = ["tokenhub", "serve", "--data-dir", data, "--port", "0", "--admin-port", "0"]
            tokenhub()
            return
        _tell(pid)
        _, status = os.waitpid(pid, 0)
        _tell(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
