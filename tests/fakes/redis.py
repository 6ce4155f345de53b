"""A real Redis for tests: a server of a test's own that may be stopped, paused and resumed."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.patience import PROGRAM_PATIENCE


def missing() -> str:
    """Return why there is no Redis, empty where there is one."""
    return "" if shutil.which("redis-server") else "redis-server is not installed"


class Server:
    """One server, with its port."""

    def __init__(self, directory: Path, *, bind: str = "127.0.0.1") -> None:
        self._directory = directory
        self._bind = bind
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self._port),
                "--bind",
                self._bind,
                "--protected-mode",
                "no",
                "--save",
                "",
                "--appendonly",
                "no",
            ],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + PROGRAM_PATIENCE
        while not self._answers():
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        """End it; what it knew is gone."""
        if self._process is not None:
            self.resume()
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as one:
                one.sendall(b"PING\r\n")
                return one.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def redis(directory: Path) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = Server(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()
