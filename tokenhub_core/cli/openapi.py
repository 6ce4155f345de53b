"""`tokenhub openapi`: the description of the side server's API, for generators of clients."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from tokenhub_core.errors import ConfigError
from tokenhub_core.http.operations import document


@click.command(short_help="Write the OpenAPI document of the side server.")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
def openapi(*, file: Path | None) -> None:
    """Write the OpenAPI document (3.1) of the side server to FILE, or print it.

    No server needs to run: it is what a server of this version shows at /openapi.json.
    """
    text = orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
