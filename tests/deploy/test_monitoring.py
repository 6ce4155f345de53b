"""Dashboards and alert rules: every query is about what is counted, and Prometheus itself understands it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.telemetry.exposition import Kind
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Outcome

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RULES: Final = DEPLOY / "prometheus" / "tokenhub.rules.yml"
TESTS: Final = DEPLOY / "prometheus" / "tokenhub.rules.test.yml"
DASHBOARDS: Final = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

TARGET: Final = frozenset({"job", "instance"})
"""Labels that Prometheus adds to whatever it scrapes."""
WORDS: Final = {"outcome": frozenset(Outcome), "verdict": frozenset(Verdict), "job": frozenset({"tokenhub"})}

_METRIC: Final = re.compile(r"\b((?:tokenhub|process|python)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
_GROUPED: Final = re.compile(r"\bby\s*\(([^)]*)\)")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def series() -> dict[str, frozenset[str]]:
    """Return the labels of every series that a scrape can have, by its name."""
    metrics = Metrics()
    found = {"up": frozenset[str]()}
    for family in metrics.families():
        found[family.name] = frozenset(name for one in family.samples for name, _ in one.labels)
    for name, kind, labels, _ in metrics.described():
        found[name] = frozenset(labels)
        if kind is Kind.HISTOGRAM:
            found |= {f"{name}_{suffix}": found[name] for suffix in ("count", "sum")}
            found[f"{name}_bucket"] = found.pop(name) | {"le"}
    return {name: labels | TARGET for name, labels in found.items()}


SERIES: Final = series()


def mistakes(query: str, told: str = "") -> Iterator[str]:
    """Yield what a query says of metrics that is not so; `told` are the labels that its result is shown with."""
    used: set[str] = set()
    for name, matchers in _METRIC.findall(query):
        if name not in SERIES:
            yield f"{name} is not counted"
            continue
        used |= SERIES[name]
        for label, operator, value in _MATCHER.findall(matchers):
            if label not in SERIES[name]:
                yield f"{name} has no label {label}"
            if operator == "=" and label in WORDS and value not in WORDS[label]:
                yield f"{label} is never {value}"
    if not used:
        yield f"{query} is about nothing"
    groups = [{one.strip() for one in found.split(",")} for found in _GROUPED.findall(query)]
    yield from (f"nothing has a label {label}" for label in set().union(*groups) - used)
    left = groups[0] if groups else used if "sum(" not in query else set()
    shown = set(re.findall(r"\{\{\s*(\w+)\s*\}\}|\$labels\.(\w+)", told))
    yield from (f"{label} is not left to be shown" for label in {a or b for a, b in shown} - left)


def alerts() -> list[dict[str, Any]]:
    return [rule for group in load(RULES)["groups"] for rule in group["rules"]]


def panels(board: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(board.read_text())["panels"]
    return found


def test_every_alert_is_about_what_is_counted() -> None:
    """Names of metrics and labels are the registry's, also those that the words of an alert show."""
    found = {alert["alert"]: [*mistakes(alert["expr"], str(alert["annotations"]))] for alert in alerts()}
    assert {name: told for name, told in found.items() if told} == {}


def test_every_alert_is_seen_to_fire() -> None:
    """An alert that no test has fired may be one that cannot; each says how bad it is."""
    fired = {
        one["alertname"]
        for test in load(TESTS)["tests"]
        for one in test["alert_rule_test"]
        if one["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in alerts()}
    assert {alert["labels"]["severity"] for alert in alerts()} == {"warning", "critical"}


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.stem)
def test_every_panel_is_about_what_is_counted(board: Path) -> None:
    """As for alerts; and variables are the board's own."""
    own = {one["name"] for one in json.loads(board.read_text())["templating"]["list"]} | {"__rate_interval"}
    found = {}
    for panel in panels(board):
        for target in panel["targets"]:
            told = [*mistakes(target["expr"], target["legendFormat"])]
            told += [f"${name} is nothing" for name in set(re.findall(r"\$(\w+)", target["expr"])) - own]
            if told:
                found[panel["title"]] = told
    assert found == {}


def test_dashboards_can_be_provisioned_side_by_side() -> None:
    """Each has an id of its own, and asks whichever Prometheus is chosen."""
    boards = [json.loads(board.read_text()) for board in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 3
    for board in boards:
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("rate(tokenhub_requests_total[5m])", []),
        ("rate(tokenhub_calls_total[5m])", ["tokenhub_calls_total is not counted", "about nothing"]),
        ('tokenhub_store_up{model="m"}', ["no label model"]),
        ("sum by (state) (tokenhub_store_up)", ["nothing has a label state"]),
        ('tokenhub_requests_total{outcome="fine"}', ["outcome is never fine"]),
        ("tokenhub_request_duration_seconds", ["is not counted", "about nothing"]),
    ],
)
def test_a_query_about_something_else_is_seen(query: str, told: list[str]) -> None:
    """The checks above can fail."""
    found = [*mistakes(query)]
    assert len(found) == len(told)
    assert all(part in one for part, one in zip(told, found, strict=True))


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [["check", "config", "prometheus.yml"], ["check", "rules", RULES.name], ["test", "rules", TESTS.name]],
    ids=lambda command: " ".join(command[:2]),
)
def test_prometheus_takes_its_files_and_each_alert_fires_where_it_should(command: list[str]) -> None:
    """Its own tool says so: the configuration, the rules, and the tests of the rules."""
    told = subprocess.run(
        ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


@needs_promtool
def test_prometheus_can_read_every_panel(tmp_path: Path) -> None:
    """Each query is one that it would run."""
    rules = [
        {"record": f"q:{number}", "expr": re.sub(r"\$(\w+)", _filled, target["expr"])}
        for number, target in enumerate(
            target for board in DASHBOARDS for panel in panels(board) for target in panel["targets"]
        )
    ]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    told = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{len(rules)} rules found" in told.stdout


def _filled(variable: re.Match[str]) -> str:
    return "5m" if variable[1] == "__rate_interval" else ".*"
