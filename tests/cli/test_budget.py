"""`tokenhub budget` against a TokenHub that is serving."""

from __future__ import annotations

import pytest

from tests.cli.running import Running, Shell, columns
from tokenhub_core.cli.budget import budget, dollars
from tokenhub_core.errors import ConfigError


@pytest.fixture
def run(simulated: Running) -> Shell:
    return Shell(budget, simulated.it.data / "data")


def made(run: Shell, *args: str) -> str:
    """Set a budget and return its id."""
    told = run.json("set", *args)
    assert isinstance(told["id"], str)
    return told["id"]


def test_a_budget_is_set_shown_and_removed(run: Shell) -> None:
    """In dollars, per month, hard, with three thresholds, where nothing else is said."""
    assert run("list") == "no budget is set\n"
    told = run("set", "all", "--usd", "50")
    name = told.partition(":")[0]
    assert told == f"{name}: all, $50.00 per month (UTC)\n"
    shown = run.json("show", name)
    assert (shown["limit"], shown["thresholds"], shown["hard"]) == (50_000_000, [50, 80, 95], True)
    lines = run("show", name).splitlines()
    assert lines[0] == told.strip()
    assert lines[1] == "spent $0.00, held $0.00, left $50.00"
    assert lines[2].startswith("counted since 2")
    assert ", anew at 2" in lines[2]
    assert run("remove", name) == f"{name} is removed\n"
    assert run.refusal("show", name) == f"no budget '{name}'"


def test_every_part_can_be_said(run: Shell) -> None:
    """Unit, period, zone, thresholds, and whether it refuses."""
    options = ("--per", "week", "--zone", "Asia/Tokyo", "--warn", "10, 20", "--soft")
    told = run("set", "key:k1", "--tokens", "1000", *options)
    assert told.partition(": ")[2] == "key:k1, 1,000 tokens per week (Asia/Tokyo, only warns)\n"
    assert run.json("list", "--owner", "key:k1")[0]["thresholds"] == [10, 20]
    assert run.json("set", "project:web", "--requests", "3", "--warn", "")["thresholds"] == []
    assert run.json("list", "--owner", "all") == []


def test_the_list_is_a_table(run: Shell, simulated: Running) -> None:
    """With what calls have spent of each."""
    first = made(run, "all", "--requests", "3", "--per", "total")
    second = made(run, "project:[b]x", "--usd", "0.25")
    simulated.call(max_tokens=5)
    head, _, *rows = run("list").splitlines()
    assert columns(head) == ["id", "owner", "per", "limit", "spent", "left"]
    listed = " ".join(rows).split()
    assert listed[0] == first
    assert listed[-3:] == ["$0.25", "$0.00", "$0.25"]
    assert second in listed
    assert "project:[b]x" in " ".join(rows)
    assert run("show", first).splitlines()[1:] == [
        "spent 1 requests, held 0 requests, left 2 requests",
        run("show", first).splitlines()[2],
    ]
    assert "anew" not in run("show", first)


def test_paid_begins_anew(run: Shell, simulated: Running) -> None:
    """From now on."""
    name = made(run, "all", "--requests", "1")
    simulated.call(max_tokens=5)
    assert run.json("show", name)["left"] == 0
    assert run("paid", name) == f"{name} counts from now on: 1 requests left\n"
    simulated.call(max_tokens=5)
    assert run.json("paid", name)["spent"] == 0
    assert run.json("remove", name) == {"ok": True}
    assert run.json("list") == []


def test_a_forecast_is_shown(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one: at the end, and when the limit is met."""
    name = made(run, "all", "--usd", "1")
    item = run.json("show", name)
    item["forecast"] = {"at_end": 2_500_000, "met_at": 1_767_225_600.0}

    class Told:
        def get(self, path: str) -> object:
            assert path == f"/admin/v1/budgets/{name}"
            return item

    monkeypatch.setattr("tokenhub_core.cli.budget.admin_client", lambda data: Told())
    assert run("show", name).splitlines()[3:] == [
        "at this rate $2.50 at the end",
        "at this rate the limit is met at 2026-01-01T00:00:00Z",
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("set", "all"), "a budget needs one limit: --usd, --tokens or --requests"),
        (("set", "all", "--usd", "1", "--tokens", "1"), "a budget needs one limit"),
        (("set", "all", "--usd", "much"), "--usd much: dollars, with at most six decimals"),
        (("set", "all", "--tokens", "1.5"), "--tokens 1.5: a whole number"),
        (("set", "all", "--requests", "-1"), "--requests -1: a whole number"),
        (("set", "all", "--requests", "1" * 16), "a whole number"),
        (("set", "all", "--usd", "1", "--warn", "50,x"), "--warn x: a whole number"),
        (("set", "me", "--usd", "1"), "owner: all, key:ID or project:NAME"),
        (("set", "all", "--usd", "1", "--zone", "Nowhere"), "'Nowhere' is no time zone"),
        (("show", "a/b"), "no budget 'a/b'"),
        (("paid", "none"), "no budget 'none'"),
        (("remove", "none"), "no budget 'none'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(run: Shell, args: tuple[str, ...], words: str) -> None:
    """Whether it is found here or by the server."""
    assert words in run.refusal(*args)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("50", 50_000_000),
        ("$0.25", 250_000),
        ("0.000001", 1),
        ("1e3", 10**9),
        ("1" + "0" * 9, 10**15),
    ],
)
def test_dollars_are_read_exactly(text: str, micros: int) -> None:
    """To the micro-dollar."""
    assert dollars(text) == micros


@pytest.mark.parametrize("text", ["", "-1", "NaN", "Infinity", "0.0000001", "1,5", "1000000000.01"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """And never rounded."""
    with pytest.raises(ConfigError, match="dollars"):
        dollars(text)
