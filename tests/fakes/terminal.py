"""A terminal of tmux's with a program in it, for scenes that have to see a screen."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.patience import PROGRAM_PATIENCE


def until[T](look: Callable[[], T | None]) -> T:
    """Return what `look` returns once there is something."""
    deadline = time.monotonic() + PROGRAM_PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return seen


class Terminal:
    """A terminal of tmux's with one command in it."""

    def __init__(self, folder: Path, environ: Mapping[str, str], *command: str) -> None:
        self._server = ("tmux", "-u", "-S", str(folder / "s"), "-f", "/dev/null")
        self._environ = dict(environ)
        self._code = folder / "code"
        line = f"{shlex.join(command)}; echo $? > {shlex.quote(str(self._code))}"
        self._tmux("new-session", "-d", "-x", "150", "-y", "40", line)

    def screen(self) -> str:
        """Return what is on the screen."""
        return self._tmux("capture-pane", "-p")

    def type(self, *keys: str) -> None:
        """Press keys."""
        self._tmux("send-keys", *keys)

    def shows(self, pattern: str) -> re.Match[str]:
        """Wait until this can be read."""
        try:
            return until(lambda: re.search(pattern, self.screen()))
        except AssertionError:
            raise AssertionError(f"{pattern!r} is not on the screen:\n{self.screen()}") from None

    def lacks(self, pattern: str) -> None:
        """Wait until this can be read no more."""
        until(lambda: not re.search(pattern, self.screen()))

    def code(self) -> int:
        """Wait for the command to end, and return its exit code."""
        return int(until(lambda: self._code.read_text() if self._code.exists() else ""))

    def close(self) -> None:
        """End everything."""
        self._tmux("kill-server", check=False)

    def _tmux(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self._server, *args],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=PROGRAM_PATIENCE,
            check=check,
        )
        return done.stdout
