"""Changes of an environment, written so that a shell can evaluate them."""

from __future__ import annotations

import json
import re
import shlex
from enum import StrEnum
from typing import Final, assert_never

from tokenhub_core.launch.environment import Changes


class Shell(StrEnum):
    """The languages that `tokenhub env` writes. `sh` serves every POSIX shell."""

    SH = "sh"
    FISH = "fish"
    POWERSHELL = "powershell"
    JSON = "json"


_POWERSHELL_QUOTES: Final = re.compile("['\u2018\u2019\u201a\u201b]")
"""PowerShell ends a single-quoted string at a typographic quote, too."""


def render(changes: Changes, shell: Shell) -> str:
    """Return the statements, one per change, each value quoted so that nothing in it is evaluated.

    `json` is one object of names and values, null for a variable to remove.
    """
    values = changes.set.items()
    match shell:
        case Shell.SH:
            lines = [f"unset {name}" for name in changes.unset]
            lines += [f"export {name}={shlex.quote(value)}" for name, value in values]
        case Shell.FISH:
            lines = [f"set -e {name}" for name in changes.unset]
            lines += [f"set -gx {name} '{_fish(value)}'" for name, value in values]
        case Shell.POWERSHELL:
            lines = [f"Remove-Item -ErrorAction SilentlyContinue Env:{name}" for name in changes.unset]
            lines += [f"$env:{name} = '{_powershell(value)}'" for name, value in values]
        case Shell.JSON:
            lines = [json.dumps(dict(values) | dict.fromkeys(changes.unset), indent=2)]
        case _:
            assert_never(shell)
    return "".join(f"{line}\n" for line in lines)


def _fish(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _powershell(value: str) -> str:
    return _POWERSHELL_QUOTES.sub(r"\g<0>\g<0>", value)
