"""`tokenhub top`: what it counts, how it looks at fixed sizes, and what it does on a terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.cli.running import Running, Shell
from tests.fakes.terminal import Terminal
from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.dashboard import View, pressed, screen
from tokenhub_core.cli.gauges import SORTS, Gauges, percentile
from tokenhub_core.cli.top import top
from tokenhub_core.types import Json

GOLDEN = Path(__file__).parents[1] / "golden" / "cli"
NOW = 1_700_000_000.0


def event(number: int, **more: Any) -> Json:
    data: Json = {
        "request_id": f"r{number}",
        "timestamp": NOW - 10,
        "model_id": "gpt-4o",
        "provider_id": "openai",
        "outcome": "ok",
        "latency_ms": 500.0,
        "ttft_ms": 80.0,
        "cost_usd": 0.01,
        "input_tokens": 100,
        "output_tokens": 20,
    }
    return {**data, **more}


def fault(number: int, **more: Any) -> Json:
    told = {"outcome": "error", "error_class": "http_529", "error_msg": "Overloaded\x1b[2J", "cost_usd": 0.0}
    return event(number, **{**told, "model_id": "claude-sonnet-4-5", "provider_id": "anthropic", **more})


def filled(*events: Json) -> Gauges:
    gauges = Gauges()
    for one in events:
        gauges.event("route_error" if one["outcome"] == "error" else "route_success", one)
    return gauges


def scene() -> Gauges:
    """A minute of traffic at three models, with a provider that is down and a budget that is met."""
    gauges = filled(
        *(event(n, latency_ms=100.0 * n) for n in range(1, 11)),
        *(fault(n) for n in range(20, 23)),
        event(30, model_id="claude-sonnet-4-5", provider_id="anthropic", latency_ms=2500.0),
        event(40, model_id="a-model-with-a-rather-long-name-2025-01-01", provider_id="another-provider"),
    )
    gauges.info = {"version": "0.1.0", "vault": "open", "simulated": True}
    health = {"calls": 12, "error_rate": 0.0, "latency_ms": 480.0, "cooldown_until": None, "last_error": ""}
    down = {"calls": 4, "error_rate": 0.75, "cooldown_until": NOW + 12, "last_error": "http_529"}
    gauges.health = (
        {"provider_id": "openai", "state": "healthy", **health},
        {"provider_id": "anthropic", "state": "down", **health, **down},
    )
    budget = {"period": "month", "unit": "usd", "limit": 50_000_000}
    gauges.budgets = (
        {"owner": "project:apollo", "spent": 41_500_000, **budget},
        {"owner": "global", "spent": 51_000_000, **budget},
        {"owner": "key:k-ann", "period": "day", "unit": "tokens", "spent": 10, "limit": 100},
    )
    return gauges


def drawn(gauges: Gauges, view: View, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, emoji=False)
    figures = gauges.look(NOW, sort=view.sort, only=view.only)
    with console.capture() as captured:
        console.print(screen(figures, view, width=width, height=height, zone=UTC), end="")
    return captured.get().splitlines()


# --- what is counted -----------------------------------------------------------------------------------------


def test_the_last_minute_is_counted() -> None:
    """By model and provider: rates over the whole window, the share of errors, and percentiles of what was answered."""
    figures = scene().look(NOW)
    first, second, third = figures.rows
    assert (first.model, first.calls, first.errors) == ("gpt-4o", 10, 0.0)
    assert (first.p50_ms, first.p95_ms, first.ttft_ms) == (500.0, 1000.0, 80.0)
    assert first.per_second == pytest.approx(10 / 60)
    assert first.tokens_per_second == pytest.approx(1200 / 60)
    assert (second.model, second.calls, second.errors) == ("claude-sonnet-4-5", 4, 0.75)
    assert (second.p50_ms, second.p95_ms) == (2500.0, 2500.0)
    assert third.provider == "another-provider"
    assert figures.total.calls == 15
    assert figures.total.usd == pytest.approx(0.12)
    assert [call.fault for call in figures.faults] == ["http_529"] * 3


def test_a_call_counts_from_its_end_and_once() -> None:
    """A long call that has just ended is of this minute; what is told twice, by event and by the log, is one call."""
    gauges = filled(event(1, timestamp=NOW - 200, latency_ms=190_000.0), event(2, timestamp=NOW - 61))
    gauges.event("route_success", event(1))
    gauges.logged([_logged("r1"), _logged("r3")])
    assert gauges.look(NOW).total.calls == 2
    assert gauges.look(NOW + 120).total.calls == 0
    gauges.event("lost", {"count": 7})
    gauges.event("audit", {"action": "x"})
    assert gauges.look(NOW).lost == 7


def _logged(name: str) -> Json:
    return {
        "id": name,
        "at": NOW - 5,
        "total_ms": 100.0,
        "ttft_ms": None,
        "model_id": "",
        "requested_model": "m",
        "provider_id": "",
        "origin_host": "api.openai.com",
        "outcome": "passed",
        "input_tokens": 1,
        "output_tokens": 1,
        "cost_nanousd": 1000,
        "error_class": "",
        "message": "",
        "program": "curl",
        "key_id": "",
    }


@pytest.mark.parametrize("sort", SORTS)
def test_rows_come_in_the_order_that_is_asked_for(sort: str) -> None:
    """Each order is by what its name says, the most first; ties go by name."""
    rows = scene().look(NOW, sort=sort).rows
    found = [row.model[:2] for row in rows]
    wanted = {
        "calls": ["gp", "cl", "a-"],
        "tokens": ["gp", "cl", "a-"],
        "cost": ["gp", "a-", "cl"],
        "errors": ["cl", "gp", "a-"],
        "p95": ["cl", "gp", "a-"],
        "name": ["a-", "cl", "gp"],
    }
    assert found == wanted[sort]


def test_a_filter_is_for_names_of_models_providers_and_programs() -> None:
    """In any case; totals and errors are those of what is left."""
    gauges = scene()
    gauges.logged([_logged("r99")])
    assert [row.model for row in gauges.look(NOW, only="ANTHRO").rows] == ["claude-sonnet-4-5"]
    assert [row.model for row in gauges.look(NOW, only="curl").rows] == ["m"]
    assert gauges.look(NOW, only="curl").faults == ()
    assert gauges.look(NOW, only="nothing").total.p95_ms is None


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [([], 0.5, None), ([7], 0.95, 7), ([1, 2], 0.5, 1), ([1, 2, 3], 0.5, 2), ([*range(1, 101)], 0.95, 95)],
)
def test_percentiles_are_of_the_nearest_rank(values: Sequence[float], share: float, wanted: float) -> None:
    """The smallest value that so many do not exceed."""
    assert percentile(values, share) == wanted


# --- how it looks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "view", "size"),
    [
        ("80x24", View(url="http://127.0.0.1:8090"), (80, 24)),
        ("120x40", View(url="http://127.0.0.1:8090", sort="p95", paused=True), (120, 40)),
        (
            "60x16",
            View(url="http://127.0.0.1:8090", only="gpt", typing=True, broken="cannot reach it"),
            (60, 16),
        ),
        ("40x8", View(), (40, 8)),
    ],
)
def test_the_screen_looks_like_this(name: str, view: View, size: tuple[int, int]) -> None:
    """At each size it fills the screen and no more, and no error can do anything to the terminal."""
    lines = drawn(scene(), view, *size)
    assert len(lines) == size[1]
    assert all(len(line) <= size[0] for line in lines)
    assert "\x1b" not in "".join(lines)
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    path = GOLDEN / f"top-{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def ongoing(number: int, **more: Any) -> Json:
    call: Json = {
        "program": f"agent/{number}",
        "requested_model": "*",
        "model_id": "gpt-4o",
        "provider_id": "openai",
        "state": "streaming",
        "seconds": 12.5,
        "output_tokens": 340,
    }
    return {**call, **more}


def test_calls_that_are_under_way_stand_below() -> None:
    """The longest first, as many as there is room for beside the models; each with who asks and who answers."""
    gauges = scene()
    waiting = ongoing(2, model_id="", provider_id="", state="planning", seconds=0.2, output_tokens=0)
    gauges.underway = (ongoing(1), waiting, *(ongoing(n, program="x\x1b[2J") for n in range(3, 9)))
    lines = drawn(gauges, View(), 120, 40)
    assert len(lines) == 40
    head = next(at for at, line in enumerate(lines) if line.startswith("under way"))
    first, second = (lines[head + at].split() for at in (2, 3))
    assert first == ["agent/1", "*", "gpt-4o", "@", "openai", "streaming", "12.5", "s", "340"]
    assert second == ["agent/2", "*", "planning", "0.2", "s"]
    assert "\x1b" not in "".join(lines)
    small = drawn(gauges, View(), 60, 24)
    assert len(small) == 24
    assert all(len(line) <= 60 for line in small)
    only = gauges.look(NOW, only="AGENT/2")
    assert [one["program"] for one in only.underway] == ["agent/2"]


def test_nothing_at_all_can_be_drawn() -> None:
    """Before the first call, and with more rows than there is room for."""
    assert len(drawn(Gauges(), View(), 80, 24)) == 24
    many = filled(*(event(n, model_id=f"m{n:02}") for n in range(50)))
    lines = drawn(many, View(sort="name"), 80, 24)
    assert len(lines) == 24
    assert any("m00" in line for line in lines)
    assert not any("m49" in line for line in lines)


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ("p", View(paused=True)),
        ("pp", View()),
        ("s", View(sort="tokens")),
        ("s" * len(SORTS), View()),
        ("/ab", View(only="ab", typing=True)),
        ("/ab\x7f\r", View(only="a")),
        ("/q\x1b", View()),
        ("/q\rp", View(only="q", paused=True)),
        ("xyz\x00", View()),
        ("q", None),
        ("\x03", None),
        ("/\x03", None),
    ],
)
def test_keys_change_the_view(keys: str, wanted: View | None) -> None:
    """q ends, p pauses, s sorts, / filters; while a filter is typed every key is text."""
    view: View | None = View()
    for key in keys:
        assert view is not None
        view = pressed(view, key)
    assert view == wanted


# --- against a server ----------------------------------------------------------------------------------------


def test_one_look_is_printed(served: Running) -> None:
    """With `--once` as a table, with `--json` as data; a terminal is needed only to stay."""
    served.do(served.it.provider(served.fake, "p", "gpt-4o"))
    served.call()
    served.call("nobody")
    run = Shell(top, served.it.data / "data")
    told = run.json()
    assert told == {**told, "window": 60.0, "lost": 0}
    assert [(row["model"], row["provider"], row["calls"]) for row in told["rows"]] == [
        ("gpt-4o", "p", 1),
        ("nobody", "", 1),
    ]
    assert told["total"]["errors"] == 0.5
    assert told["health"][0]["provider_id"] == "p"
    assert (told["underway"], told["info"]["underway"]) == ([], 0)
    assert told["faults"][0]["fault"] == "model_not_found"
    text = run("--once")
    assert "gpt-4o" in text
    assert "50.0 % errors" in text
    assert "say --once" in run.refusal()


def test_events_go_on_where_they_broke_off(served: Running) -> None:
    """Whoever comes back with the id of the last event that was heard gets those that came meanwhile, and no other."""
    client = admin_client(served.it.data / "data")
    first = client.events()
    assert next(first)[1] == "connected"
    heard = served.call("nobody-1")
    name, kind, data = next(first)
    assert (kind, data["request_id"]) == ("route_error", heard)
    first.close()
    missed = [served.call(f"nobody-{n}") for n in (2, 3)]
    again = client.events(name)
    assert next(again)[1] == "connected"
    assert [next(again)[2]["request_id"] for _ in missed] == missed
    again.close()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed (Debian: apt install tmux)")
def test_it_is_live_on_a_terminal(served: Running) -> None:
    """Calls appear as they end, a pause holds them, a filter hides them, and `q` gives the terminal back."""
    served.do(served.it.provider(served.fake, "p", "gpt-4o", "gpt-4o-mini"))
    served.call()
    with tempfile.TemporaryDirectory(prefix="th") as name:
        program = [sys.executable, "-c", "from tokenhub_core.cli import main; main()"]
        folder, data = Path(name), str(served.it.data / "data")
        environ = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        terminal = Terminal(folder, environ, *program, "top", "--data-dir", data)
        try:
            terminal.shows(r"gpt-4o +p +0\.02")
            served.call("gpt-4o-mini")
            terminal.shows(r"gpt-4o-mini +p +0\.02")
            terminal.type("/", "mini", "Enter")
            terminal.shows(r"/ only: mini")
            terminal.lacks(r"gpt-4o +p ")
            terminal.type("p")
            terminal.shows("PAUSED")
            served.call("gpt-4o-mini")
            terminal.type("p")
            terminal.shows(r"gpt-4o-mini +p +0\.03")
            terminal.type("q")
            assert terminal.code() == 0
        finally:
            terminal.close()
