"""`tokenhub completion`, and the names of what is registered for it: asked of the server, where that answers fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from tokenhub_core.cli.admin import running_client
from tokenhub_core.errors import ConfigError

_VARIABLE: Final = "_TOKENHUB_COMPLETE"
_SECONDS: Final = 1.0
"""Nobody waits longer for a list to choose from."""

_KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "provider": ("providers", "id", "type"),
    "model": ("models", "id", "provider_id"),
    "alias": ("aliases", "name", ""),
    "key": ("apikeys", "id", "name"),
    "budget": ("budgets", "id", "owner"),
}
"""What is completed → the list of the admin API, the field of the name, and that of a word about it."""


class Names:
    """Completes the names of one kind. To be given to a parameter as `shell_complete`."""

    def __init__(self, kind: str) -> None:
        self._path, self._name, self._word = _KINDS[kind]

    def __call__(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what begins like this; nothing where no server answers in time."""
        del param
        data = ctx.params.get("data")
        try:
            client = running_client(data if isinstance(data, Path) else None, seconds=_SECONDS)
            items: list[dict[str, Any]] = client.get(f"/admin/v1/{self._path}")["items"] if client else []
        except (ConfigError, KeyError):
            return []
        found = {str(one[self._name]): str(one.get(self._word) or "") for one in items}
        return [
            CompletionItem(name, help=_plain(word) or None)
            for name, word in sorted(found.items())
            if name.startswith(incomplete) and name.isprintable()
        ]


def _plain(text: str) -> str:
    return "".join(char for char in text if char.isprintable())


@click.command(short_help="Print what lets a shell complete commands, options and names.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, /, *, shell: str) -> None:
    """Print what lets a shell complete commands, options and names.

    Names of providers, models, aliases, keys and budgets come from the server that is running here.

    \b
        eval "$(tokenhub completion bash)"
        eval "$(tokenhub completion zsh)"
        tokenhub completion fish > ~/.config/fish/completions/tokenhub.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise ConfigError(f"there is no completion for {shell}")
    made = kind(ctx.find_root().command, {}, "tokenhub", _VARIABLE)
    click.echo(made.source_template % made.source_vars())
