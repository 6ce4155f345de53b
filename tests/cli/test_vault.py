"""`tokenhub vault`, with a running server and without one."""

from __future__ import annotations

import asyncio
import getpass
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import click
import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core import app, config
from tokenhub_core.cli.audit import audit
from tokenhub_core.cli.vault import secret, vault
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.serveinfo import ServeInfo, write_serve_info

MAIN = [sys.executable, "-c", "from tokenhub_core.cli import main; main()"]
PASSWORD = "correct horse battery"
WRONG = "incorrect horse battery"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TOKENHUB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENHUB_DATA_DIR", str(tmp_path))


def run(*args: str, password: str | None = None) -> str:
    """Run `tokenhub vault …` here and return what it printed; its errors are raised."""
    given = [] if password is None else ["--password-stdin"]
    result = CliRunner().invoke(
        vault, [*args, *given], input=password and password + "\n", standalone_mode=False
    )
    if result.exception is not None:
        raise result.exception
    return result.output


@contextmanager
def serving(data: Path) -> Iterator[None]:
    """Serve the engine's admin API from `data`, as `tokenhub serve` would, until the end of the block."""
    ready, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        settings = config.parse(os.environ, data_dir=data, overrides={"simulate": True})
        async with app.running(settings, {}) as engine:
            runner = web.AppRunner(engine.side)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            write_serve_info(data, ServeInfo(os.getpid(), url, url, "", (), 0.0))
            ready.set()
            await ended.wait()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(PROGRAM_PATIENCE)
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        (data / "run" / "serve.json").unlink(missing_ok=True)


# --- with a server -----------------------------------------------------------------------------------------


def test_a_vault_is_made_closed_and_opened_at_the_server(tmp_path: Path) -> None:
    """The whole life of a vault, and it is still there after a restart, locked."""
    with serving(tmp_path):
        assert run("status") == "the vault is uninitialised, 0 entries\n"
        assert run("init", password=PASSWORD) == "the vault is unlocked, 0 entries\n"
        assert run("lock") == "the vault is locked, 0 entries\n"
        with pytest.raises(ConfigError, match="this is not the vault's password"):
            run("unlock", password=WRONG)
        assert run("status") == "the vault is locked, 0 entries\n"
        assert run("unlock", password=PASSWORD) == "the vault is unlocked, 0 entries\n"
    assert run("status") == "the vault is locked, 0 entries\n"
    with serving(tmp_path):
        assert run("status") == "the vault is locked, 0 entries\n"
        with pytest.raises(ConfigError, match="already"):
            run("init", password=PASSWORD)


def test_a_vault_made_without_a_server_opens_at_one(tmp_path: Path) -> None:
    """Both work on the same database; what is made by itself stays locked."""
    assert run("init", password=PASSWORD) == "the vault is locked, 0 entries\n"
    with serving(tmp_path):
        assert run("unlock", password=PASSWORD) == "the vault is unlocked, 0 entries\n"


def test_the_servers_refusal_is_told(tmp_path: Path) -> None:
    """A short password is refused in the server's words."""
    with serving(tmp_path), pytest.raises(ConfigError, match="at least 12 characters"):
        run("init", password="short")


# --- without one -------------------------------------------------------------------------------------------


def test_looking_makes_nothing(tmp_path: Path) -> None:
    """The status of a place that was never used leaves no file there."""
    assert run("status") == "the vault is uninitialised, 0 entries\n"
    assert list(tmp_path.iterdir()) == []


def test_init_makes_a_private_place(tmp_path: Path) -> None:
    """The directory and the database are for their owner only."""
    place = tmp_path / "new"
    run("init", "--data-dir", str(place), password=PASSWORD)

    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "tokenhub.sqlite").stat().st_mode & 0o777 == 0o600
    assert run("status", "--data-dir", str(place)) == "the vault is locked, 0 entries\n"


def test_the_database_of_the_settings_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `tokenhub serve` would find it."""
    monkeypatch.setenv("TOKENHUB_DB_DSN", f"sqlite:///{tmp_path}/elsewhere.sqlite")
    run("init", password=PASSWORD)

    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not (tmp_path / "tokenhub.sqlite").exists()
    assert run("status") == "the vault is locked, 0 entries\n"


def test_init_refuses_what_the_server_refuses() -> None:
    """A short password, a second vault; each one line."""
    with pytest.raises(ConfigError, match="at least 12 characters"):
        run("init", password="short")
    run("init", password=PASSWORD)
    with pytest.raises(ConfigError, match="already"):
        run("init", password=WRONG)


@pytest.mark.parametrize("command", ["lock", "unlock"])
def test_only_a_server_can_be_locked_and_unlocked(command: str) -> None:
    """One line that says what to start, exit code 2, and no password is asked for."""
    result = subprocess.run(
        [*MAIN, "vault", command], capture_output=True, text=True, timeout=PROGRAM_PATIENCE, check=False
    )

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("tokenhub: nothing is serving")
    assert result.stderr.count("\n") == 1


# --- where the password comes from -------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


def opens(data: Path, password: str) -> bool:
    with serving(data):
        return run("unlock", password=password) == "the vault is unlocked, 0 entries\n"


def test_a_password_comes_from_a_file(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag wins over the environment."""
    monkeypatch.setenv("TOKENHUB_VAULT_PASSWORD", WRONG)
    run("init", "--password-file", str(file))

    monkeypatch.delenv("TOKENHUB_VAULT_PASSWORD")
    assert opens(tmp_path, PASSWORD)


def test_a_file_that_others_can_read_is_refused(file: Path) -> None:
    """Before anything is made."""
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        run("init", "--password-file", str(file))

    assert run("status") == "the vault is uninitialised, 0 entries\n"


def test_the_environment_is_read_as_the_server_reads_it(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same variables the next server opens the vault by itself."""
    monkeypatch.setenv("TOKENHUB_VAULT_PASSWORD", f" {PASSWORD} ")
    run("init")
    with serving(tmp_path):
        assert run("status") == "the vault is unlocked, 0 entries\n"
    monkeypatch.delenv("TOKENHUB_VAULT_PASSWORD")
    monkeypatch.setenv("TOKENHUB_VAULT_PASSWORD_FILE", str(file))
    with serving(tmp_path):
        assert run("lock") == "the vault is locked, 0 entries\n"
        assert run("unlock") == "the vault is unlocked, 0 entries\n"


@pytest.mark.parametrize(
    ("given", "words"), [(b"", "no password came"), (b"\n", "no password"), (b"\xff", "UTF-8")]
)
def test_standard_input_must_hold_a_password(given: bytes, words: str) -> None:
    """Nothing, an empty line or no text is one line."""
    result = CliRunner().invoke(vault, ["init", "--password-stdin"], input=given)

    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


def test_two_sources_exclude_each_other(file: Path) -> None:
    """Nobody has to know which one wins."""
    with pytest.raises(ConfigError, match="exclude"):
        run("init", "--password-file", str(file), password=PASSWORD)


def test_without_a_terminal_nobody_is_asked() -> None:
    """What is piped in by mistake is no password: that needs --password-stdin."""
    result = CliRunner().invoke(vault, ["init"], input=f"{PASSWORD}\n{PASSWORD}\n")

    assert isinstance(result.exception, ConfigError)
    assert "--password-stdin" in str(result.exception)


def test_a_password_is_no_argument() -> None:
    """Every process can read another one's arguments."""
    for command in vault.commands.values():
        if not isinstance(command, click.Group):
            assert all(isinstance(option, click.Option) for option in command.params)
            assert CliRunner().invoke(vault, [command.name or "", PASSWORD]).exit_code == 2
    for command in secret.commands.values():
        assert [one.name for one in command.params if isinstance(one, click.Argument)] in ([], ["name"])
        assert CliRunner().invoke(secret, [command.name or "", "name", PASSWORD]).exit_code == 2


def typed(*lines: str) -> tuple[int, str]:
    """Run `tokenhub vault init` on a terminal of its own, type, and return its exit code and all that was seen."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as screen:
        # In a session of its own, so that it cannot reach the terminal that the tests run on.
        program = subprocess.Popen(
            [*MAIN, "vault", "init"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        seen, waiting = b"", list(lines)
        with suppress(OSError):  # EIO is how a terminal on Linux says that its program has ended
            while chunk := screen.read(1024):
                seen += chunk
                if waiting and seen.endswith(b": "):
                    screen.write(waiting.pop(0).encode() + b"\n")
        return program.wait(PROGRAM_PATIENCE), seen.decode()


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    """A slip of the finger would lock everything away for good, so it is asked again."""
    code, seen = typed(PASSWORD, WRONG, PASSWORD, PASSWORD)

    assert code == 0
    assert "do not match" in seen
    assert seen.endswith("the vault is locked, 0 entries\r\n")
    assert PASSWORD not in seen
    assert opens(tmp_path, PASSWORD)


def piped(data: str) -> str:
    """Return the number of an open file that `data` can be read from."""
    ours, theirs = os.pipe()
    os.write(theirs, data.encode())
    os.close(theirs)
    return str(ours)


def test_a_password_comes_from_an_open_file(tmp_path: Path) -> None:
    """What started us may have it already; two sources exclude each other here too."""
    run("init", "--password-fd", piped(PASSWORD + "\n"))
    with pytest.raises(ConfigError, match="exclude"):
        run("init", "--password-fd", "9", password=PASSWORD)
    assert opens(tmp_path, PASSWORD)


def test_a_service_has_its_password_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reads the credential, and so does the server, which opens its vault at start."""
    (tmp_path / "tokenhub-vault-password").write_text(PASSWORD + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    run("init")
    assert run("status") == "the vault is locked, 0 entries\n"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert opens(tmp_path, PASSWORD)


# --- another password, another key, secrets ----------------------------------------------------------------

NEW = "another password"


@pytest.mark.parametrize("with_server", [False, True])
def test_password_key_and_secrets_with_a_server_and_without(tmp_path: Path, with_server: bool) -> None:
    """The same commands do the same; without a server the password is asked for each time."""
    run("init", password=PASSWORD)
    with serving(tmp_path) if with_server else nullcontext():
        if with_server:
            run("unlock", password=PASSWORD)
        asked = [] if with_server else ["--password-fd", piped(PASSWORD)]
        run("secret", "set", "ci/deploy key", "--value-fd", piped("a value\n"), *asked)
        asked = [] if with_server else ["--password-fd", piped(PASSWORD)]
        assert run("secret", "get", "ci/deploy key", *asked) == "a value\n"
        assert run("secret", "list") == "ci/deploy key\n"
        new = ["--new-password-fd", piped(NEW)]
        state = "unlocked" if with_server else "locked"
        assert run("password", *new, password=PASSWORD) == f"the vault is {state}, 1 entry\n"
        assert run("rotate", password=NEW) == f"the vault is {state}, 1 entry\n"
        with pytest.raises(ConfigError, match="not the vault's password"):
            run("rotate", password=PASSWORD)
        run("secret", "remove", "ci/deploy key")
        assert run("secret", "list", "--json").strip().startswith("{")
        with pytest.raises(ConfigError, match="no secret"):
            run("secret", "remove", "ci/deploy key")
        asked = [] if with_server else ["--password-fd", piped(NEW)]
        with pytest.raises(ConfigError, match="no secret"):
            run("secret", "get", "ci/deploy key", *asked)


def test_what_is_done_without_a_server_is_audited_as_this_users(tmp_path: Path) -> None:
    """Reading a secret too."""
    run("init", password=PASSWORD)
    run("secret", "set", "a", "--value-fd", piped("v"), "--password-fd", piped(PASSWORD))
    run("secret", "get", "a", password=PASSWORD)
    result = CliRunner().invoke(audit, ["list", "--json"], standalone_mode=False)
    entries = orjson.loads(result.output)

    assert [entry["action"] for entry in entries][::-1] == [
        "vault.create",
        "vault.unlock",
        "secret.create",
        "vault.unlock",
        "secret.read",
    ]
    assert {entry["actor"] for entry in entries} == {f"cli:{getpass.getuser()}"}


def test_a_value_comes_from_standard_input(tmp_path: Path) -> None:
    """Where it does not hold the password; nothing, and far too much, are refused."""
    run("init", password=PASSWORD)
    with serving(tmp_path):
        run("unlock", password=PASSWORD)
        for given, words in (("", "no value came"), ("x" * 70_000, "too long")):
            result = CliRunner().invoke(vault, ["secret", "set", "a"], input=given)
            assert words in str(result.exception)
        assert CliRunner().invoke(vault, ["secret", "set", "a"], input="piped\n").exit_code == 0
        assert run("secret", "get", "a") == "piped\n"
    with pytest.raises(ConfigError, match="--value-fd"):
        run("secret", "set", "b", password=PASSWORD)
