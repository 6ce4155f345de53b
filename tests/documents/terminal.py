"""Somebody who types the commands of a page, one after the other, beside a TokenHub that runs."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
from click.testing import CliRunner

from tests.documents.commands import ROOT, Command
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.cli import _tokenhub

_PROGRAMS: Final = frozenset({"run", "env", "doctor"})
"""Commands that become, start or address another program: they are one themselves here."""
_TOKENHUB: Final = f"""#!/bin/sh
exec {sys.executable} -c 'from tokenhub_core.cli import main; main()' "$@"
"""


@dataclass
class Terminal:
    """A shell in `folder`, whose commands find the server by `data`."""

    folder: Path
    data: Path
    names: Mapping[str, str] = field(default_factory=dict)
    """What stands in the page → what it is here, an id or an address."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Words of a command → what comes on its standard input."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Words of a command → what is typed each time when it asks at a terminal."""
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bin_ = self.folder / "bin"
        bin_.mkdir(exist_ok=True)
        for name, text in (("tokenhub", _TOKENHUB), ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o700)
        self.environ |= {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "TOKENHUB_DATA_DIR": str(self.data),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'addon'}",
        }

    def type(self, command: Command) -> str:
        """Run a command and return what it printed; one that fails is an assertion."""
        text = self._here(command.text)
        for words, answer in self.asked.items():
            if words in command.text:
                return self._at_a_terminal(command, text, answer)
        given = next((given for words, given in self.given.items() if words in command.text), None)
        if command.is_ours and command.words[1] not in _PROGRAMS:
            arguments = shlex.split(text, comments=True)[1:]
            done = CliRunner().invoke(_tokenhub, arguments, input=given, env=self.environ)
            assert done.exit_code == 0, f"{command}\n{done.output}{done.exception or ''}"
            return done.output
        ran = subprocess.run(
            ["/bin/sh", "-c", text],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.environ,
            timeout=PROGRAM_PATIENCE,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def latest(self) -> str:
        """Return the id of the newest call."""
        told = CliRunner().invoke(_tokenhub, ["logs", "--json"], env=self.environ)
        newest: str = orjson.loads(told.output)[0]["id"]
        return newest

    def _at_a_terminal(self, command: Command, text: str, answer: str) -> str:
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "r+b", buffering=0) as screen:
            # In a session of its own, so that it cannot reach the terminal that the tests run on.
            program = subprocess.Popen(
                ["/bin/sh", "-c", text],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                cwd=self.folder,
                env=self.environ,
                start_new_session=True,
            )
            os.close(theirs)
            seen = b""
            with suppress(OSError):  # EIO is how a terminal on Linux says that its program has ended
                while chunk := screen.read(1024):
                    seen += chunk
                    if seen.endswith(b": "):
                        screen.write(f"{answer}\n".encode())
            assert program.wait(PROGRAM_PATIENCE) == 0, f"{command}\n{seen.decode()}"
        return seen.decode()

    def _here(self, text: str) -> str:
        for there, here in self.names.items():
            text = text.replace(there, here)
        return text.replace(".venv/bin/", "")
