"""The `tokenhub` command: one table of subcommands, each imported when it is used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click
from click.exceptions import NoSuchCommand

from tokenhub_core import __version__
from tokenhub_core.errors import ConfigError

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": ("tokenhub_addon.commands:serve", "Start the proxy and the side server."),
    "run": ("tokenhub_core.cli.run:run", "Run a program with its LLM traffic coming through TokenHub."),
    "env": ("tokenhub_core.cli.env:env", "Print the environment of `run` for a shell."),
    "doctor": ("tokenhub_addon.doctor:doctor", "Prove what is captured on this machine, and of one program."),
    "console": ("tokenhub_addon.console:console", "Open mitmproxy's console with TokenHub in it."),
    "web": ("tokenhub_addon.console:web", "Open mitmweb with TokenHub in it."),
    "provider": ("tokenhub_core.cli.provider:provider", "Register and list providers."),
    "model": ("tokenhub_core.cli.model:model", "Register and list models."),
    "apikey": (
        "tokenhub_core.cli.apikey:apikey",
        "Give programs keys of their own, and say what each may do.",
    ),
    "alias": ("tokenhub_core.cli.alias:alias", "Let names stand for models: experiments and pools."),
    "budget": ("tokenhub_core.cli.budget:budget", "Limit what keys, projects and everybody may spend."),
    "mode": (
        "tokenhub_core.cli.mode:mode",
        "Say what is done with calls: routed, shadow, observed, off.",
    ),
    "shadow": ("tokenhub_core.cli.shadow:shadow", "Show what calls in shadow cost, and would have cost."),
    "verify": (
        "tokenhub_core.cli.verify:verify",
        "Check the chain of proofs, and what is proved of one call.",
    ),
    "top": ("tokenhub_core.cli.top:top", "Watch calls, costs, health and budgets as they are."),
    "logs": ("tokenhub_core.cli.logs:logs", "List the latest calls."),
    "explain": ("tokenhub_core.cli.logs:explain", "Show how one call was routed."),
    "stats": (
        "tokenhub_core.cli.stats:stats",
        "Show what the last minute, hour and day came to.",
    ),
    "simulate": ("tokenhub_core.cli.simulate:simulate", "Show where a call would go, without making it."),
    "rehearse": (
        "tokenhub_core.cli.rehearse:rehearse",
        "Show what logged traffic would come to under another policy.",
    ),
    "config": ("tokenhub_core.cli.config:config", "Keep what is configured in a file."),
    "reload": (
        "tokenhub_core.cli.reload:reload",
        "Let a running server read its settings anew.",
    ),
    "webhook": ("tokenhub_core.cli.webhook:webhook", "Tell others of events over HTTP, signed."),
    "prices": ("tokenhub_core.cli.prices:prices", "Show what models cost, and compare with another list."),
    "admin": ("tokenhub_core.cli.access:admin", "Say who may use the admin API, and sign in."),
    "audit": ("tokenhub_core.cli.audit:audit", "Show who changed what, and prove it."),
    "directive": (
        "tokenhub_core.cli.directive:directive",
        "Sign directives, so that only who holds a key's secret directs.",
    ),
    "ca": ("tokenhub_core.cli.ca:ca", "Show and change what is intercepted, and the CA for it."),
    "db": ("tokenhub_core.cli.db:db", "Check, back up and restore the database."),
    "openapi": (
        "tokenhub_core.cli.openapi:openapi",
        "Write the OpenAPI document of the side server.",
    ),
    "workflow": ("tokenhub_core.cli.workflow:workflow", "List, show and end durable calls."),
    "worker": ("tokenhub_core.cli.worker:worker", "Make durable calls for servers elsewhere."),
    "vault": ("tokenhub_core.cli.vault:vault", "Keep credentials sealed."),
    "import": ("tokenhub_core.cli.importing:import_", "Bring the configuration of another gateway over."),
    "completion": (
        "tokenhub_core.cli.completion:completion",
        "Print what lets a shell complete commands, options and names.",
    ),
    "man": ("tokenhub_core.cli.manual:man", "Write the pages of the manual, for `man`."),
}
"""Name → (`module:attribute`, the line for `--help`). The line stands here so that help imports nothing."""


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, None for a name that the table does not know."""
        if cmd_name not in COMMANDS:
            return None
        return load(COMMANDS[cmd_name][0])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; of a name that the table does not know, the error says which one was meant."""
        name = args[0]
        if name in COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise NoSuchCommand(name, possibilities=COMMANDS, ctx=ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def load(target: str) -> click.Command:
    """Return the command at `module:attribute`. Raises `ConfigError` where this build does not have it."""
    module_name, _, attribute = target.partition(":")
    try:
        command = getattr(import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"this build cannot run {attribute}: {error.name} is missing") from error
    if not isinstance(command, click.Command):
        raise ConfigError(f"this build cannot run {attribute}: {module_name} has no such command")
    return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tokenhub", message="%(prog)s %(version)s")
def _tokenhub() -> None:
    """TokenHub routes a program's LLM calls without changing the program."""


def main() -> None:
    """Run the command line. A setting that cannot be used is one line on stderr and exit code 2."""
    try:
        _tokenhub.main(prog_name="tokenhub")
    except ConfigError as error:
        click.echo(f"tokenhub: {error}", err=True)
        sys.exit(2)
