"""The documents say what the code says."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tokenhub_core import config
from tokenhub_core.admission.apikeys import Notice
from tokenhub_core.cli import COMMANDS
from tokenhub_core.quirks.table import QUIRKS
from tokenhub_core.telemetry.kinds import KINDS
from tokenhub_core.telemetry.metrics import Metrics

DOCS = Path(__file__).parents[1] / "docs"
START = "<!-- settings: made from the code by `UPDATE_DOCS=1 scripts/test tests/test_docs.py` -->\n"
END = "<!-- end of settings -->\n"
KINDS_START = "<!-- kinds: made from the code by `UPDATE_DOCS=1 scripts/test tests/test_docs.py` -->\n"
KINDS_END = "<!-- end of kinds -->\n"
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


def kinds_table() -> str:
    rows = [f"| `{name}` | {text} |" for name, text in KINDS.items()]
    return "\n".join(["", "| kind | what has happened |", "| --- | --- |", *rows, "", ""])


def test_the_table_of_events_is_the_codes_own() -> None:
    """Every kind of event stands in the manual with what it says."""
    path = DOCS / "events.md"
    text = path.read_text()
    head, _, rest = text.partition(KINDS_START)
    _, _, tail = rest.partition(KINDS_END)
    wanted = f"{head}{KINDS_START}{kinds_table()}{KINDS_END}{tail}"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted)
        return
    assert text == wanted


def test_every_event_that_is_told_has_a_kind() -> None:
    """What the source publishes is in the table."""
    source = "".join(path.read_text() for path in (DOCS.parent / "tokenhub_core").rglob("*.py"))
    told = set(re.findall(r'publish\(\s*f?"(\w+)(?:\{[^}]*\})?"', source))
    assert told - {"apikey_", "credential_"} <= set(KINDS)
    assert {"health_change", "webhook_dead", "budget_threshold"} <= told
    assert {f"apikey_{one}" for one in Notice} | {"credential_parked", "credential_unparked"} <= set(KINDS)


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
