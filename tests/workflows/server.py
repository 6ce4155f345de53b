"""A real Temporal server, started and stopped and killed by the scenes."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

NAMESPACE = "tokenhub"


def program() -> str | None:
    """Return the path of the `temporal` command line, None where it is not installed."""
    beside = Path(sys.executable).parent / "temporal"
    return str(beside) if beside.exists() else shutil.which("temporal")


class Temporal:
    """One server on a port of its own, whose store outlives it."""

    def __init__(self, directory: Path) -> None:
        self.store = directory / "temporal.sqlite"
        self.log = directory / "temporal.log"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Return when the server answers."""
        command = program()
        assert command is not None
        flags = ("--headless", "--namespace", NAMESPACE, "--log-level", "error")
        where = ("--port", str(self.port), "--db-filename", str(self.store))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [command, "server", "start-dev", *flags, *where], stdout=log, stderr=log
            )
        until = time.monotonic() + 120
        while not _answers(self.port):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)
        self._process = None


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as trying:
        trying.settimeout(1)
        return trying.connect_ex(("127.0.0.1", port)) == 0
