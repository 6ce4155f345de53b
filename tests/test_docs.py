"""The documents say what the code says."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenhub_core import config
from tokenhub_core.access import roles
from tokenhub_core.admission.apikeys import Notice
from tokenhub_core.cli import COMMANDS
from tokenhub_core.http.operations import AREAS
from tokenhub_core.http.side import OPEN
from tokenhub_core.quirks.table import QUIRKS
from tokenhub_core.telemetry.kinds import KINDS
from tokenhub_core.telemetry.metrics import Metrics

DOCS = Path(__file__).parents[1] / "docs"


def _settings() -> list[tuple[str, ...]]:
    rows = [(f"`{name}`", f"`{default}`" if default else "", text) for name, default, text in config.table()]
    return [("variable", "default", "meaning"), *rows]


def _quirks() -> list[tuple[str, ...]]:
    return [("quirk", "what is done"), *((f"`{name}`", quirk.text) for name, quirk in QUIRKS.items())]


def _metrics() -> list[tuple[str, ...]]:
    rows = [
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), meaning)
        for name, kind, labels, meaning in Metrics().described()
    ]
    return [("name", "type", "labels", "meaning"), *rows]


def _kinds() -> list[tuple[str, ...]]:
    return [("kind", "what has happened"), *((f"`{name}`", text) for name, text in KINDS.items())]


def _routes() -> list[tuple[str, ...]]:
    served = [(one, *one.served) for area in AREAS for one in area.operations]
    rows = [
        (f"`{method} {path}`", "open" if path in OPEN else roles.least(method, path).value, one.summary)
        for one, method, path in served
    ]
    return [("route", "least role", "what it does"), *rows]


@pytest.mark.parametrize(
    ("what", "page", "made"),
    [
        ("settings", "operating.md", _settings),
        ("quirks", "quirks.md", _quirks),
        ("metrics", "metrics.md", _metrics),
        ("kinds", "events.md", _kinds),
        ("routes", "routes.md", _routes),
    ],
)
def test_a_table_in_the_manual_is_the_codes_own(
    what: str, page: str, made: Callable[[], list[tuple[str, ...]]]
) -> None:
    """Every setting, repair, metric and kind of event stands there with what the code says of it."""
    start = f"<!-- {what}: made from the code by `UPDATE_DOCS=1 scripts/test tests/test_docs.py` -->\n"
    end = f"<!-- end of {what} -->\n"
    path = DOCS / page
    text = path.read_text()
    head, found, rest = text.partition(start)
    _, _, tail = rest.partition(end)
    titles, *rows = made()
    lines = [titles, ("---",) * len(titles), *rows]
    table = "\n".join(["", *(f"| {' | '.join(cells)} |" for cells in lines), "", ""])
    wanted = f"{head}{start}{table}{end}{tail}"
    if found and os.environ.get("UPDATE_DOCS"):
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


def test_a_test_that_a_page_names_is_there() -> None:
    """What is said to be shown by a test is, by that function of that file."""
    named = {
        (page.name, *found)
        for page in DOCS.rglob("*.md")
        for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", page.read_text())
    }
    missing = [
        f"{page}: {file}::{name}"
        for page, file, name in sorted(named)
        if f"def {name}(" not in (DOCS.parent / file).read_text()
    ]
    assert len(named) > 100
    assert missing == []
