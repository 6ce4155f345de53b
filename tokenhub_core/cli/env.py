"""`tokenhub env`: the environment of `tokenhub run`, for a shell to take on."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tokenhub_core.cli.options import client_options
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.client import key_from, prepare_client
from tokenhub_core.launch.environment import original_environment
from tokenhub_core.launch.exports import Shell, render
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.ports import Secret


@click.command(short_help="Print the environment of `run` for a shell.")
@client_options
@click.option(
    "--shell", type=click.Choice([shell.value for shell in Shell]), default=Shell.SH.value, show_default=True
)
@click.option(
    "--show-key", "what", flag_value="key", help="Print the key as well; without it the proxy gets none."
)
@click.option("--unset", "what", flag_value="unset", help="Print what takes it back.")
def env(
    *,
    shell: str,
    what: str | None,
    proxy: str | None,
    ca: Path | None,
    include_localhost: bool,
    key_file: Path | None,
    data: Path | None,
) -> None:
    """Print the environment of `tokenhub run`, for a shell to take on.

    \b
        eval "$(tokenhub env)"
        eval "$(tokenhub env --unset)"
        tokenhub env --shell fish | source
        tokenhub env --shell powershell | Out-String | Invoke-Expression
    """
    if what == "unset":
        changes = original_environment(os.environ)
    else:
        if key_file is not None and what != "key":
            raise ConfigError("the key would be printed: say --show-key, or leave --key-file out")
        changes = prepare_client(
            os.environ,
            data or data_dir(os.environ),
            proxy=proxy,
            ca=ca,
            include_localhost=include_localhost,
            key=key_from(key_file, os.environ) if what == "key" else Secret(""),
        )
    click.echo(render(changes, Shell(shell)), nl=False)
