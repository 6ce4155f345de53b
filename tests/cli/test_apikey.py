"""Making, listing, changing, rotating and revoking clients' keys from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.running import Running, Shell, columns
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.cli.apikey import _state, apikey
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.types import Json


@pytest.fixture
def run(served: Running) -> Shell:
    return Shell(apikey, served.it.data / "data")


def apart(run: Shell, *args: str) -> tuple[str, str]:
    """Return what goes to standard output and what goes beside it."""
    result = CliRunner().invoke(apikey, [*args, "--data-dir", str(run.data)], standalone_mode=False)
    assert result.exception is None
    return result.stdout, result.stderr


def test_create_prints_the_key_alone(run: Shell, served: Running) -> None:
    """So that a variable can hold it; what to do with it is said beside."""
    out, told = apart(run, "create", "nightly")
    secret = out.removesuffix("\n")
    key = served.it.app.keys.look_up(secret, 0.0)
    assert out == f"{secret}\n"
    assert told == (
        f"{key.id} (nightly) is made. Programs use it as their API key. Keep it now: it is not shown again.\n"
    )
    assert secret not in run("list") + run("show", key.id)


def test_a_shell_takes_the_key_from_the_command(run: Shell, served: Running) -> None:
    """The real program, in a real `$(…)`."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | {
        "TOKENHUB": f"{sys.executable} -c 'from tokenhub_core.cli import main; main()'",
        "TOKENHUB_DATA_DIR": str(run.data),
    }
    script = 'KEY=$(eval "$TOKENHUB apikey create nightly" 2>/dev/null) && printf "<%s>" "$KEY"'
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environ, capture_output=True, timeout=PROGRAM_PATIENCE, check=True
    )
    secret = done.stdout.decode()[1:-1]
    assert served.it.app.keys.look_up(secret, 0.0).name == "nightly"


def test_all_that_can_be_said_has_an_option(run: Shell) -> None:
    """Lists with commas; an empty one stays empty."""
    made = run.json(
        *("create", "n", "--scopes", "chat, embeddings", "--models", "gpt-*,b", "--providers", ""),
        *("--hosts", "api.openai.com", "--project", "apollo", "--tags", "x,y", "--rotation-days", "7"),
        *("--expires-in", "1h30m", "--requests-per-minute", "1", "--tokens-per-minute", "2"),
        *("--concurrency", "3", "--max-output-tokens", "4"),
        *("--directive-roles", "user", "--directives", "mode,tags", "--signed-directives"),
        *(
            "--directive-budget",
            "0.5",
            "--directive-latency",
            "900",
            "--directive-steps",
            "3",
            "--capture",
            "redacted",
            "--retention-days",
            "7",
        ),
    )
    assert made["key"].startswith("tokenhub_")
    names = ("scopes", "models", "providers", "hosts", "project", "tags", "rotation_days")
    assert [made[name] for name in names] == [
        *(["chat", "embeddings"], ["gpt-*", "b"], [], ["api.openai.com"], "apollo", ["x", "y"], 7)
    ]
    assert made["expires_at"] - made["created_at"] == pytest.approx(5400)
    assert list(made["limits"].values()) == [1, 2, 3, 4]
    assert made["trust"] == {
        "roles": ["user"],
        "names": ["mode", "tags"],
        "signed": True,
        "max_budget_usd": 0.5,
        "max_latency_ms": 900,
        "max_steps": 3,
    }
    assert made["privacy"] == {"capture": "redacted", "retention_days": 7}


def test_update_changes_what_is_given(run: Shell) -> None:
    """And gives back to the default what is said to be the default's."""
    made = run.json(
        "create", "n", "--concurrency", "3", "--expires-in", "1h", "--directive-roles", "user", "--tags", "a"
    )
    changed = run.json(
        *("update", made["id"], "--name", "m", "--disable", "--concurrency", "none", "--expires-in", "never"),
        *("--directive-roles", "default", "--directives", "", "--unsigned-directives", "--project", "p"),
    )
    assert (changed["name"], changed["enabled"], changed["expires_at"]) == ("m", False, None)
    assert changed["limits"]["concurrency"] is None
    assert changed["trust"] == {
        "roles": None,
        "names": [],
        "signed": False,
        "max_budget_usd": None,
        "max_latency_ms": None,
        "max_steps": None,
    }
    assert (changed["tags"], changed["project"], "key" in changed) == (["a"], "p", False)
    assert run.json("update", made["id"], "--enable")["enabled"] is True
    assert "state: ready\n" in run("update", made["id"], "--name", "o")
    assert run.refusal("update", made["id"]).startswith("nothing to change")


def test_rotate_prints_the_new_key_alone(run: Shell, served: Running) -> None:
    """And when the old one ends."""
    made = run.json("create", "n", "--rotation-days", "1")
    out, told = apart(run, "rotate", made["id"], "--overlap", "2h")
    new = run.json("show", made["id"])
    book = served.it.app.keys
    assert book.look_up(out.strip(), 0.0) == book.look_up(made["key"], 0.0)
    assert new["previous"][0]["expires_at"] - new["updated_at"] == pytest.approx(7200)
    assert told.startswith(f"{made['id']} (n) has a new secret; the old one ends 20")
    assert f"{made['prefix']} ends: 20" in run("show", made["id"])
    again = run.json("rotate", made["id"], "--overlap", "0s")
    with pytest.raises(TokenHubError):
        book.look_up(out.strip(), again["updated_at"])
    assert run.json("rotate", made["id"])["previous"][0]["expires_at"] > again["updated_at"] + 86_000


def test_revoke_ends_a_key(run: Shell, served: Running) -> None:
    """With the next call."""
    made = run.json("create", "n")
    assert run("revoke", made["id"]) == f"{made['id']} is revoked\n"
    with pytest.raises(TokenHubError):
        served.it.app.keys.look_up(made["key"], 0.0)
    other = run.json("create", "m")
    assert "state: ready\n" in run("show", other["id"])
    assert run.json("revoke", other["id"]) == {"ok": True}
    assert run.refusal("revoke", made["id"]) == f"there is no API key '{made['id']}'"
    assert run.json("list") == []


def test_the_list_is_a_table_of_all_pages(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a key begins, what it is for, its state; what is not printable is shown as such."""
    assert run("list") == "no API key is made\n"
    monkeypatch.setattr("tokenhub_core.cli.apikey._PAGE", 1)
    made = [run.json("create", name) for name in ("one", "[red]two[/]", "three")]
    run("update", made[0]["id"], "--disable", "--scopes", "")
    assert [item["id"] for item in run.json("list")] == [one["id"] for one in made[::-1]]
    listed = run("list")
    assert columns(listed.splitlines()[0]) == ["id", "name", "begins", "scopes", "used", "state"]
    assert "[red]two[/]" in listed
    assert "never" in listed
    assert "disabled" in listed


def test_show_says_what_a_key_may_do(run: Shell) -> None:
    """A line each; what is left to the default has none."""
    made = run.json(
        "create", "n", "--scopes", "", "--concurrency", "3", "--directives", "", "--signed-directives"
    )
    told = run("show", made["id"]).splitlines()
    assert told[:2] == [f"id: {made['id']}", "name: n"]
    for line in (
        *("scopes: none", "models: *", "tags: none", "concurrency: 3", "directive names: none"),
        *("directives: signed only", "last used: never", "expires: never", "rotate: never"),
    ):
        assert line in told
    assert not any(line.startswith(("project", "requests", "directive roles")) for line in told)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({}, "ready"),
        ({"rotation_due": True}, "rotation due"),
        ({"rotation_due": True, "enabled": False}, "disabled"),
        ({"rotation_due": True, "enabled": False, "expired": True}, "expired"),
    ],
)
def test_the_state_is_what_matters_most(said: Json, state: str) -> None:
    """Whether it can be used comes before whether it should be rotated."""
    assert _state({"enabled": True, "expired": False, "rotation_due": False, **said}) == state


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("create", "x", "--scopes", "admin"), "'admin' is none of chat"),
        (("create", "x", "--expires-in", "soon"), "--expires-in: 'soon' is no duration"),
        (("create", "x", "--concurrency", "many"), "--concurrency many: a whole number, or none"),
        (("create", "x", "--concurrency", "-1"), "--concurrency -1: a whole number, or none"),
        (("create", "x", "--max-output-tokens", "٣"), "--max-output-tokens"),
        (("create", "x", "--tokens-per-minute", "1" * 13), "--tokens-per-minute"),
        (("create", ""), "name must be"),
        (("create", "x", "--rotation-days", "-1"), "rotation_days"),
        (("rotate", "key_x", "--overlap", "1"), "--overlap: '1' is no duration"),
        (("rotate", "key_x", "--overlap", "91d"), "overlap_secs"),
        (("rotate", "key_x"), "no API key 'key_x'"),
        (("show", "a/b?c"), "no API key 'a/b?c'"),
    ],
)
def test_what_cannot_be_is_one_line(run: Shell, args: tuple[str, ...], words: str) -> None:
    """In words of the command, or of the server."""
    assert words in run.refusal(*args)


def test_without_a_server_nothing_is_made(tmp_path: Path, bare_environment: None) -> None:
    """And said so."""
    with pytest.raises(ConfigError):
        Shell(apikey, tmp_path)("create", "x")
