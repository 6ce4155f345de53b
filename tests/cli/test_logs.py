"""`tokenhub logs` and `tokenhub explain` against a TokenHub that is serving."""

from __future__ import annotations

import csv
import gzip
import io
import time
from pathlib import Path

import orjson
import pytest
import zstandard

from tests.cli.running import Running, Shell, columns, running
from tests.patience import PATIENCE
from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.following import followed
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


def test_the_list_is_filtered_by_what_the_log_says(run: Shell, served: Running) -> None:
    """Time, status, errors, program; a time that is none is refused by its option."""
    good, bad = served.call(), served.call("nobody")
    assert [row["id"] for row in run.json("--since", "1m")] == [bad, good]
    assert run.json("--until", "1m") == run.json("--since", "2200-01-01") == []
    assert [row["id"] for row in run.json("--status", "4xx")] == [bad]
    assert [row["id"] for row in run.json("--error", "not_found")] == [bad]
    assert run.json("--program", "nobody") == run.json("--tag", "x") == []
    for wrong in ("yesterday", "5x", "99999-01-01", "5d5d"):
        assert "--since" in run.refusal("--since", wrong)
    assert "status" in run.refusal("--status", "6xx")


def test_the_log_is_followed(run: Shell, served: Running) -> None:
    """What was there, then what comes, once each and in order; a restarted event stream loses nothing."""
    first = served.call()
    client = admin_client(run.data)
    found: list[str] = []
    ids = [first]
    for item in followed(client, {}, begin=5, pace=0.0, ended=lambda: len(found) >= 4):
        found.append(item["id"])
        if len(found) in {1, 3}:
            ids += [served.call() for _ in range(2)]
    assert found[:4] == ids[:4]


def test_only_what_the_filters_choose_is_followed(run: Shell, served: Running) -> None:
    """The log chooses, not whoever reads it."""
    served.call("nobody")
    found: list[str] = []
    wanted: list[str] = []
    for item in followed(
        admin_client(run.data), {"outcome": "error"}, begin=1, pace=0.0, ended=lambda: len(found) >= 2
    ):
        found.append(item["requested_model"])
        if len(found) == 1:
            wanted = [served.call(), served.call("another")]
    assert (found, len(wanted)) == (["nobody", "another"], 2)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.csv.gz", "x.jsonl.zst"])
def test_the_log_is_exported(run: Shell, served: Running, tmp_path: Path, name: str) -> None:
    """As the file's name says; the same records, for nobody else to read, and nothing of theirs is overwritten."""
    ids = [served.call(), served.call('no\nbody, "x"'), served.call()]
    file = tmp_path / name
    assert "3 calls" in run("export", str(file)).replace("\n", "")
    data = file.read_bytes()
    match file.suffix:
        case ".gz":
            data = gzip.decompress(data)
        case ".zst":
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if ".csv" in name:
        rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
        assert rows[1]["requested_model"] == 'no\nbody, "x"'
    else:
        rows = [orjson.loads(line) for line in data.splitlines()]
    assert [row["id"] for row in rows] == ids
    assert (file.stat().st_mode & 0o777, file.with_name(f"{name}.part").exists()) == (0o600, False)
    assert "is there already" in run.refusal("export", str(file))


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_an_export_that_was_cut_short_is_gone_on_with(
    run: Shell, served: Running, tmp_path: Path, name: str
) -> None:
    """Behind the last whole record, wherever the cut was; what is half written goes."""
    for model in ("gpt-4o", "no\nbody", "gpt-4o"):
        served.call(model)
    run("export", str(tmp_path / f"whole.{name}"))
    whole = (tmp_path / f"whole.{name}").read_bytes()
    for cut in (0, 5, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        file = tmp_path / f"{cut}.{name}"
        file.with_name(f"{file.name}.part").write_bytes(whole[:cut])
        run("export", str(file), "--resume")
        assert file.read_bytes() == whole, cut
    assert "nothing to go on with" in run.refusal("export", str(tmp_path / f"none.{name}"), "--resume")
    assert "packed" in run.refusal("export", str(tmp_path / "x.csv.gz"), "--resume")
    assert ".csv or .jsonl" in run.refusal("export", str(tmp_path / "x.parquet"))


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
