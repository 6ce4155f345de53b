"""`tokenhub audit`, with a running server and without one."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from tests.cli.running import Running, Shell
from tokenhub_core.cli.audit import audit
from tokenhub_core.errors import ConfigError
from tokenhub_core.store.driver import choose


@pytest.fixture
def shell(served: Running) -> Shell:
    """Return the command at a server where three things were changed."""
    for fallback in (True, False, True):
        served.admin("PUT", "/routing-config", {"fallback": fallback})
    return Shell(audit, served.it.data / "data")


def edited(data: Path, statement: str) -> None:
    raw = choose().module.connect(str(data / "tokenhub.sqlite"))
    raw.execute(statement)
    raw.commit()
    raw.close()


def test_a_server_tells_what_was_written(shell: Shell) -> None:
    """Newest first; filters are the server's own, and its refusals are told."""
    lines = shell("list").splitlines()
    assert "routing.change" in lines[2]
    assert "admin-token" in lines[2]
    assert [item["seq"] for item in shell.json("list", "--limit", "2", "--action", "routing")] == [3, 2]
    assert shell("list", "--subject", "nothing") == "nothing was written\n"
    assert "no action" in shell.refusal("list", "--action", "nonsense")


def test_the_chain_is_verified_at_a_server(shell: Shell) -> None:
    """Whole, and with a head that was noted before."""
    head = shell("head").strip()
    assert head.startswith("3:")
    told = shell("verify", "--head", head)
    assert told.splitlines()[0] == "3 entries, 0 signed"
    assert "the chain is whole" in told
    assert shell.json("verify")["ok"]
    assert "SEQ:HASH" in shell.refusal("verify", "--head", "x")


def test_an_export_is_lines_of_json(shell: Shell, tmp_path: Path) -> None:
    """To a file or to standard output; a place that cannot be written is one line."""
    shell("export", "--output", str(tmp_path / "out"))
    lines = [orjson.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert "No such file" in shell.refusal("export", "--output", str(tmp_path / "none" / "out"))


def test_everything_works_without_a_server(served: Running, shell: Shell, tmp_path: Path) -> None:
    """On the database itself, which is only read; a chain that is broken is said so, with exit code 1."""
    (served.it.data / "data" / "run" / "serve.json").unlink()
    data = served.it.data / "data"
    assert [item["seq"] for item in shell.json("list", "--action", "routing.change")] == [3, 2]
    assert shell("head").startswith("3:")
    assert "the chain is whole" in shell("verify")
    assert len(shell("export", "--output", str(tmp_path / "out"))) == 0
    assert len((tmp_path / "out").read_bytes().splitlines()) == 3
    edited(data, "DELETE FROM audit WHERE seq = 3")
    result = CliRunner().invoke(audit, ["verify", "--data-dir", str(data)])
    assert result.exit_code == 1
    assert "the chain ends at 2, but entry 3 is known of" in " ".join(result.output.split())
    assert "BROKEN" in result.output
    assert shell("head").startswith("2:")


def test_nothing_is_made_by_looking(tmp_path: Path, bare_environment: None) -> None:
    """Where no database is, none is made."""
    with pytest.raises(ConfigError, match="there is no database"):
        Shell(audit, tmp_path / "none")("list")
    assert not (tmp_path / "none").exists()
