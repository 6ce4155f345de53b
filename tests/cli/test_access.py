"""`tokenhub admin` against a TokenHub that is serving."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tests.cli.running import Running, Shell
from tests.fakes.access import PASSWORD, Browser, cheap_passwords, log_in, opened
from tokenhub_core.cli.access import admin


@pytest.fixture
def run(served: Running) -> Iterator[Shell]:
    with cheap_passwords():
        yield Shell(admin, served.it.data / "data")


def come_in(served: Running, name: str, password: str) -> int:
    return served.do(log_in(served.it, name, password)).status


def test_users_are_added_changed_and_removed(served: Running, run: Shell) -> None:
    """The password comes from standard input and is on no command line."""
    assert "no users" in run("user", "list")
    assert run("user", "add", "ada", "--role", "admin", "--password-stdin", input=PASSWORD) == "ada: admin\n"
    assert (
        run("user", "add", "bob", "--role", "viewer", "--password-stdin", input=PASSWORD) == "bob: viewer\n"
    )
    assert come_in(served, "bob", PASSWORD) == 200
    assert run("user", "role", "bob", "operator") == "bob: operator\n"
    lines = [line.split() for line in run("user", "list").splitlines()[2:]]
    assert [line[:3] for line in lines] == [["ada", "admin", "yes"], ["bob", "operator", "yes"]]
    assert lines[0][3] == "never"
    assert lines[1][3].startswith("20")
    assert run("user", "passwd", "bob", "--password-stdin", input="another password\r\n") == "bob: operator\n"
    assert (come_in(served, "bob", PASSWORD), come_in(served, "bob", "another password")) == (401, 200)
    assert run("user", "disable", "bob") == "bob: operator, disabled\n"
    assert come_in(served, "bob", "another password") == 401
    assert run("user", "enable", "bob") == "bob: operator\n"
    assert "last admin" in run.refusal("user", "role", "ada", "viewer")
    assert run("user", "remove", "bob") == "bob is removed\n"
    assert [item["name"] for item in run.json("user", "list")] == ["ada"]
    assert "no user 'bob'" in run.refusal("user", "remove", "bob")


def test_a_new_password_ends_a_lock(served: Running, run: Shell) -> None:
    """Whoever runs the machine has decided already that it is the right user."""
    run("user", "add", "ada", "--role", "viewer", "--password-stdin", input=PASSWORD)
    served.do(asyncio.sleep(0))
    for _ in range(5):
        come_in(served, "ada", "wrong" * 3)
    assert come_in(served, "ada", PASSWORD) == 429
    run("user", "passwd", "ada", "--password-stdin", input="another password")
    told = served.admin("GET", "/audit?action=login.unlock")["entries"]
    assert [entry["subject"] for entry in told] == ["user:ada"]


def test_what_cannot_be_is_one_line(run: Shell) -> None:
    """Too short a password, none, a name that is none, no terminal to ask at."""
    add = ("user", "add", "ada", "--role", "viewer")
    assert "at least 12" in run.refusal(*add, "--password-stdin", input="short")
    assert "no password" in run.refusal(*add, "--password-stdin", input="\n")
    assert "--password-stdin" in run.refusal(*add)
    assert "a name has" in run.refusal(
        "user", "add", "Ada", "--role", "viewer", "--password-stdin", input=PASSWORD
    )
    assert "no token 'x'" in run.refusal("token", "revoke", "x")
    assert "--expires soon" in run.refusal("token", "create", "ci", "--role", "viewer", "--expires", "soon")


def test_a_password_is_asked_for_twice_at_a_terminal(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not shown."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    told = run("user", "add", "ada", "--role", "viewer", input=f"{PASSWORD}\n{PASSWORD}\n")
    assert told.endswith("ada: viewer\n")
    assert PASSWORD not in told


def test_tokens_are_made_listed_and_revoked(served: Running, run: Shell) -> None:
    """The value is printed once, alone on its line, for a pipe to take."""
    assert "no tokens" in run("token", "list")
    token = run("token", "create", "ci", "--role", "operator", "--expires", "30d").strip()
    forever = run.json("token", "create", "cd", "--role", "viewer")
    assert (forever["expires_at"], forever["role"]) == (None, "viewer")
    shown = {"authorization": f"Bearer {token}"}
    assert served.do(served.it.ask("GET", "/admin/v1/session", headers=shown)).json["actor"] == "token:ci"
    rows = [line.split() for line in run("token", "list").splitlines()[2:]]
    assert [row[:4] for row in rows] == [
        ["cd", "viewer", f"{forever['prefix']}…", "admin-token"],
        ["ci", "operator", f"{token[:16]}…", "admin-token"],
    ]
    assert (rows[0][4], rows[1][4][:2]) == ("never", "20")
    assert token not in str(run.json("token", "list"))
    assert run("token", "revoke", "ci") == "ci is revoked\n"
    assert served.do(served.it.ask("GET", "/admin/v1/session", headers=shown)).status == 401


def test_a_login_link_is_printed_and_signs_in(served: Running, run: Shell) -> None:
    """Whole on one line, with the ticket behind the `#`, where no server and no log gets it."""
    link = run("login").strip()
    where, _, ticket = link.partition("#")
    assert where == f"{served.it.url}/login"
    told = served.do(served.it.ask("POST", "/admin/v1/login", {"ticket": ticket}))
    browser: Browser = opened(served.it, told)
    assert served.do(browser.in_())
    assert run.json("login")["expires_in_secs"] == 600


def test_help_names_every_command() -> None:
    """Without importing what a command needs to run."""
    told = CliRunner().invoke(admin, ["--help"]).output
    assert all(name in told for name in ("user", "token", "login"))
