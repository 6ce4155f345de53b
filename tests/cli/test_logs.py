"""`tokenhub logs` and `tokenhub explain` against a TokenHub that is serving."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cli.running import Running, Shell, columns, running
from tests.patience import PATIENCE
from tokenhub_core.cli.logs import explain, logs
from tokenhub_core.errors import ConfigError


@pytest.fixture
def run(served: Running) -> Shell:
    served.do(served.it.provider(served.fake, "p", "gpt-4o"))
    return Shell(logs, served.it.data / "data")


def test_the_latest_calls_are_a_table(run: Shell, served: Running) -> None:
    """Newest first, in eighty columns, with ids in one piece to be copied."""
    assert run() == "no call was recorded\n"
    first = served.call()
    second = served.call("nobody")
    head, _, *rows = run().splitlines()
    assert columns(head) == ["time", "call", "why", "tokens, cost"]
    bad, bad_id, good, good_id = (columns(line) for line in rows)
    assert bad[1:] == ["nobody", "model_not_found"]
    assert bad_id[1:] == [second, "error"]
    assert good[1:3] == ["gpt-4o @ p", "routed-hint-exact"]
    assert good_id[1:3] == [first, "ok"]
    assert good_id[3].startswith("$0.")


def test_a_failover_says_what_was_asked_and_who_served(run: Shell, served: Running) -> None:
    """With an arrow."""
    served.do(served.it.provider(served.fake, "q", "gpt-4o-mini"))
    served.fake.script("gpt-4o", ["500"])
    served.call()
    assert "gpt-4o → gpt-4o-mini @ q" in run()


def test_the_list_is_filtered_and_cut(run: Shell, served: Running) -> None:
    """By what the API filters by."""
    ids = [served.call(name) for name in ("gpt-4o", "nobody", "gpt-4o")]
    assert [row["id"] for row in run.json("--limit", "2")] == [ids[2], ids[1]]
    assert [row["id"] for row in run.json("--model", "gpt-4o")] == [ids[2], ids[0]]
    assert [row["id"] for row in run.json("--outcome", "error")] == [ids[1]]
    assert run.json("--provider", "none") == []
    assert run.json("--provider", "p", "--outcome", "error") == []
    (row,) = run.json("--limit", "1")
    assert row["at"] == pytest.approx(time.time(), abs=60)


def test_a_strangers_words_do_nothing_to_a_terminal(run: Shell, served: Running) -> None:
    """Codes, markup and line breaks in a model's name are shown, not obeyed."""
    name = "\x1b]0;owned\x07[red]x[/]\r\n:smile:"
    call = served.call(name)
    told = run() + Shell(explain, run.data)(call)
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "[red]x[/]" in told
    assert ":smile:" in told


def test_one_call_is_explained(run: Shell, served: Running) -> None:
    """The candidates, the tries with their faults, the end, and who was left out."""
    served.do(served.it.provider(served.fake, "q", "gpt-4o-mini"))
    served.admin("PATCH", "/models/gpt-4o-mini", {"weight": 0})
    served.do(served.it.provider(served.fake, "off", "gone"))
    served.admin("PATCH", "/providers/off", {"enabled": False})
    served.fake.script("gpt-4o", ["500"])
    call = served.call()
    told = Shell(explain, run.data)(call)
    assert f"How {call} was routed" in told
    tries = [line.split() for line in told[told.index("try ") :].splitlines()]
    assert [line[:4] for line in tries if line[:1] in (["1"], ["2"])] == [
        ["1", "gpt-4o", "@", "p"],
        ["2", "gpt-4o-mini", "@", "q"],
    ]
    assert "http_500" in told
    assert "answered" in told
    assert ["disabled", "1", "gone", "@", "off"] in [line.split() for line in told.splitlines()]
    assert Shell(explain, run.data).json(call)["candidates"][0]["model"] == "gpt-4o"


def test_a_call_that_nobody_served_is_explained_too(run: Shell, served: Running) -> None:
    """With its fault; there is no table without candidates."""
    told = Shell(explain, run.data)(served.call("nobody"))
    assert "asked for nobody" in told
    assert "error 404 model_not_found: The model 'nobody' is not registered." in told.replace("\n", " ")


@pytest.mark.parametrize("name", ["req_none", "a/b", "../info", "x?y", "%2e%2e"])
def test_an_id_that_is_none_is_refused(run: Shell, name: str) -> None:
    """Whatever stands in it, it is looked up as an id and nothing else."""
    assert "there is no such decision" in Shell(explain, run.data).refusal(name)


def test_what_a_call_said_is_shown_where_it_was_kept(tmp_path: Path) -> None:
    """Both directions, what is left out of them, and nothing that a terminal would obey."""
    kept = {"CAPTURE": "redacted", "CAPTURE_MAX_BYTES": "256", "VAULT_PASSWORD": "a password for the vault"}
    with running(tmp_path, settings=kept) as served:
        served.do(served.it.provider(served.fake, "p", "gpt-4o"))
        text = "mail bob@example.org \x9b31m" + "x" * 500
        call = served.call(messages=[{"role": "user", "content": text}])
        show = Shell(logs, tmp_path / "data")
        deadline = time.monotonic() + PATIENCE
        told = ""
        while not told and time.monotonic() < deadline:
            try:
                told = show("body", call)
            except (ConfigError, AssertionError):
                time.sleep(0.05)
        assert "mail [email]" in told
        assert "request (redacted, cut from " in told
        assert "answer (redacted, " in told
        assert '"chat.completion"' in told
        assert "\x9b" not in told
        assert show.json("body", call)["request"]["whole"] is False
