"""`tokenhub run -- CMD…`: one program behind TokenHub, and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from tokenhub_core.cli.options import client_options
from tokenhub_core.launch.client import KEY, key_from, prepare_client
from tokenhub_core.launch.paths import data_dir

_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
OURS: Final = frozenset({"TOKENHUB_ADMIN_TOKEN", "TOKENHUB_VAULT_PASSWORD", KEY})
"""What an operator's shell may hold and no program needs that asks a model; a key stands in the proxy's URL."""


@click.command(
    short_help="Run a program with its LLM traffic coming through TokenHub.",
    context_settings={"allow_interspersed_args": False},
)
@client_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    *,
    command: tuple[str, ...],
    proxy: str | None,
    ca: Path | None,
    include_localhost: bool,
    key_file: Path | None,
    data: Path | None,
) -> None:
    """Run COMMAND with its LLM traffic coming through TokenHub.

    Only this program and what it starts are affected; nothing is installed or changed. Its exit code and
    signals pass through.

    \b
        tokenhub run -- python agent.py
        tokenhub run -- claude
    """
    changes = prepare_client(
        os.environ,
        data or data_dir(os.environ),
        proxy=proxy,
        ca=ca,
        include_localhost=include_localhost,
        key=key_from(key_file, os.environ),
    )
    given = {name: value for name, value in os.environ.items() if name not in OURS}
    sys.exit(_become(command, changes.apply(given)))


def _become(command: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """Turn this process into the program; return an exit code where that was not possible.

    No process of ours is left in between: terminal, job control, signals and exit code are the program's
    own. Windows cannot do that; there the program is waited for.
    """
    try:
        if os.name != "posix":
            return subprocess.run(command, env=environ, check=False).returncode  # noqa: S603 - the user's command
        # Python ignores these two, and what is ignored stays ignored across exec: `… | head` would never end.
        for name in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        sys.stdout.flush()
        os.execvpe(command[0], command, environ)  # noqa: S606 - the user's command
    except (FileNotFoundError, NotADirectoryError):
        click.echo(f"tokenhub: {command[0]}: command not found", err=True)
        return _NOT_FOUND
    except OSError as error:
        click.echo(f"tokenhub: {command[0]}: {error.strerror}", err=True)
        return _NOT_EXECUTABLE
