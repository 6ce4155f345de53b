"""`tokenhub env`: the environment of `tokenhub run`, for a shell to take on."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tokenhub_core.cli.options import client_options
from tokenhub_core.launch.client import prepare_client
from tokenhub_core.launch.environment import original_environment
from tokenhub_core.launch.exports import Shell, render
from tokenhub_core.launch.paths import data_dir


@click.command(short_help="Print the environment of `run` for a shell.")
@client_options
@click.option(
    "--shell", type=click.Choice([shell.value for shell in Shell]), default=Shell.SH.value, show_default=True
)
@click.option("--unset", is_flag=True, help="Print what takes it back.")
def env(
    *,
    shell: str,
    unset: bool,
    proxy: str | None,
    ca: Path | None,
    include_localhost: bool,
    data: Path | None,
) -> None:
    """Print the environment of `tokenhub run`, for a shell to take on.

    \b
        eval "$(tokenhub env)"
        eval "$(tokenhub env --unset)"
        tokenhub env --shell fish | source
        tokenhub env --shell powershell | Out-String | Invoke-Expression
    """
    if unset:
        changes = original_environment(os.environ)
    else:
        changes = prepare_client(
            os.environ, data or data_dir(os.environ), proxy=proxy, ca=ca, include_localhost=include_localhost
        )
    click.echo(render(changes, Shell(shell)), nl=False)
