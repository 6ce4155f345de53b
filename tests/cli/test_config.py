"""`tokenhub config`: a file out, a file in, and what is asked in between."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.cli.running import Running, Shell
from tokenhub_core.cli.config import config


@pytest.fixture
def run(served: Running) -> Shell:
    served.do(served.it.provider(served.fake, "p", "gpt-4o"))
    return Shell(config, served.it.data / "data")


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_a_file_goes_out_and_in(run: Shell, served: Running, tmp_path: Path, name: str) -> None:
    """What is exported changes nothing; what is edited is shown, asked about, and applied."""
    file = tmp_path / name
    run("export", str(file))
    assert run("plan", str(file), "--prune") == "nothing would change\n"
    text = file.read_text()
    file.write_text(text.replace("weight: 5", "weight: 7").replace('"weight": 5', '"weight": 7'))
    with pytest.raises(click.Abort):
        run("apply", str(file), input="n\n")
    told = run("apply", str(file), input="y\n")
    assert "~ models gpt-4o @ p\n    weight: 5 -> 7\n" in told
    assert "applied: 1 changes" in told
    assert served.admin("GET", "/models")["items"][0]["weight"] == 7
    assert "nothing would change" in run("apply", str(file))


def test_a_plan_is_applied_by_its_fingerprint(run: Shell, served: Running, tmp_path: Path) -> None:
    """That one, and no other."""
    file = tmp_path / "a.yaml"
    file.write_text("version: 1\nrouting: {default_mode: cheap}\n")
    print_ = run("plan", str(file)).splitlines()[-1]
    assert run.json("plan", str(file))["fingerprint"] == print_
    served.admin("PATCH", "/models/gpt-4o", {"weight": 1})
    assert "plan it again" in run.refusal("apply", str(file), "--fingerprint", print_)
    assert run("apply", str(file), "--yes").endswith("applied: 1 changes\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version: 1\nversion: 1\n", "duplicate"),
        ("- a\n", "no document"),
        ("{", "a.yaml"),
        ("version: 3\n", "version"),
        ("!!python/object/apply:os.system ['true']\n", "a.yaml"),
        ("\xff", "no document"),
    ],
)
def test_a_file_that_is_none_is_refused(run: Shell, tmp_path: Path, text: str, why: str) -> None:
    """In one line, and nothing in it is run."""
    file = tmp_path / "a.yaml"
    file.write_text(text)
    assert why in run.refusal("plan", str(file))
    assert "No such file" in run.refusal("plan", str(tmp_path / "none.yaml"))
