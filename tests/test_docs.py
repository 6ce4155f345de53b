"""The documents say what the code says."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tokenhub_core import config
from tokenhub_core.cli import COMMANDS
from tokenhub_core.quirks.table import QUIRKS
from tokenhub_core.telemetry.metrics import Metrics

DOCS = Path(__file__).parents[1] / "docs"
START = "<!-- settings: made from the code by `UPDATE_DOCS=1 scripts/test tests/test_docs.py` -->\n"
END = "<!-- end of settings -->\n"
QUIRKS_START = "<!-- quirks: made from the code by `UPDATE_DOCS=1 scripts/test tests/test_docs.py` -->\n"
QUIRKS_END = "<!-- end of quirks -->\n"
METRICS_START = "<!-- metrics: made from the code by `UPDATE_DOCS=1 scripts/test tests/test_docs.py` -->\n"
METRICS_END = "<!-- end of metrics -->\n"


def settings_table() -> str:
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {text} |"
        for name, default, text in config.table()
    ]
    return "\n".join(["", "| variable | default | meaning |", "| --- | --- | --- |", *rows, "", ""])


def test_the_table_of_settings_is_the_codes_own() -> None:
    """Every setting stands in the manual with its default and meaning."""
    path = DOCS / "operating.md"
    text = path.read_text()
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{START}{settings_table()}{END}{tail}"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted)
        return
    assert text == wanted


def quirks_table() -> str:
    rows = [f"| `{name}` | {quirk.text} |" for name, quirk in QUIRKS.items()]
    return "\n".join(["", "| quirk | what is done |", "| --- | --- |", *rows, "", ""])


def test_the_table_of_quirks_is_the_codes_own() -> None:
    """Every repair stands in the manual with what it does."""
    path = DOCS / "quirks.md"
    text = path.read_text()
    head, _, rest = text.partition(QUIRKS_START)
    _, _, tail = rest.partition(QUIRKS_END)
    wanted = f"{head}{QUIRKS_START}{quirks_table()}{QUIRKS_END}{tail}"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted)
        return
    assert text == wanted


def metrics_table() -> str:
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, kind, labels, meaning in Metrics().described()
    ]
    return "\n".join(["", "| name | type | labels | meaning |", "| --- | --- | --- | --- |", *rows, "", ""])


def test_the_table_of_metrics_is_the_codes_own() -> None:
    """Every family stands in the reference with its type, labels and meaning."""
    path = DOCS / "metrics.md"
    text = path.read_text()
    head, _, rest = text.partition(METRICS_START)
    _, _, tail = rest.partition(METRICS_END)
    wanted = f"{head}{METRICS_START}{metrics_table()}{METRICS_END}{tail}"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted)
        return
    assert text == wanted


def test_every_command_stands_in_the_manual() -> None:
    """Nobody has to read the source to find a command."""
    text = (DOCS / "operating.md").read_text()
    missing = [name for name in COMMANDS if not re.search(rf"`(tokenhub )?{name}\b", text)]
    assert missing == []


def test_links_between_documents_lead_somewhere() -> None:
    """A relative link names a file that is there."""
    broken = [
        f"{page.name}: {target}"
        for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
