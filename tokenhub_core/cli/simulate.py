"""`tokenhub simulate`: where a call would go, without making it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.decision import imagined
from tokenhub_core.cli.options import as_json, data_option, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Dialect, Mode, Need

_NEEDS: Final = ", ".join(need.value for need in Need)

# The options are named as the fields of the API that they fill.


@click.command(short_help="Show where a call would go, without making it.")
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="What counts most.")
@click.option(
    "--model", "model_hint", default="", help="Asked for by name; none leaves the choice to scores."
)
@click.option("--tokens", "token_count", type=click.IntRange(0), default=500, show_default=True, help="In.")
@click.option(
    "--max-output", "max_output_tokens", type=click.IntRange(0), help="The caller's cap, in tokens."
)
@click.option("--needs", default="", metavar="NEED,…", help=f"Of {_NEEDS}.")
@click.option("--provider", help="Only this one may serve.", shell_complete=Names("provider"))
@click.option("--budget", "max_budget_usd", type=float, help="Most dollars for the call.")
@click.option("--latency", "max_latency_ms", type=click.IntRange(1), help="Most milliseconds for the call.")
@click.option("--min-weight", type=click.IntRange(0, 10))
@click.option("--fallback/--no-fallback", default=None, help="Whether other models may stand in.")
@click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    default=Dialect.OPENAI_CHAT.value,
    show_default=True,
    help="The caller's.",
)
@click.option("--stream", is_flag=True, help="The answer is to be streamed.")
@click.option("--seed", help="What breaks ties; in a call it is the call's id.")
@as_json
@data_option
def simulate(*, needs: str, json: bool, data: Path | None, **fields: Any) -> None:
    """Show where a call would go: every candidate with its score, and who is left out for what.

    Nothing is called and nothing is changed.
    """
    wanted = [need.strip() for need in needs.split(",") if need.strip()]
    if strange := set(wanted) - {need.value for need in Need}:
        raise ConfigError(f"--needs knows {_NEEDS}, not {min(strange)}")
    body = {name: value for name, value in fields.items() if value is not None}
    told = admin_client(data).post("/admin/v1/routing/simulate", {**body, "needs": wanted})
    if not shown(told, json=json):
        tell(imagined(told))
