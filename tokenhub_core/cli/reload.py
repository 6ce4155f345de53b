"""`tokenhub reload`: a running server reads its settings anew."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, plain, shown, tell
from tokenhub_core.types import Json

_PATH: Final = "/admin/v1/reload"


@click.command()
@as_json
@data_option
def reload(*, json: bool, data: Path | None) -> None:
    """Let a running server read its settings anew.

    What was changed is shown. Read are the environment file (TOKENHUB_ENV_FILE), the credentials file, the CA file
    and the list of intercepted hosts. Where something in them cannot be used, nothing changes, and the exit code is 2.
    """
    told = admin_client(data).post(_PATH, {})
    if not shown(told, json=json):
        _tell(told)


def _tell(told: Json) -> None:
    for one in told["changes"]:
        later = "" if one["applied"] else "  (from the next start on)"
        tell(plain(f"{one['variable']}: {one['old'] or 'empty'} -> {one['new'] or 'empty'}{later}"))
    for one in told["sources"]:
        if one["state"] == "changed":
            tell(plain(f"{one['name']} {one['path']}: changed"))
    for word, names in (("added", told["added"]), ("removed", told["removed"])):
        for name in names:
            tell(plain(f"provider {name}: {word}"))
    for note in told["notes"]:
        tell(plain(f"note: {note}"))
    workers = f" in {told['workers']} workers" if told["workers"] > 1 else ""
    tell(f"{'settings were read anew' if told['changes'] else 'no setting was changed'}{workers}")
