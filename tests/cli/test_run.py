"""`tokenhub run` becomes the program: exit codes, signals, arguments and streams are the program's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.launch.serveinfo import ServeInfo, write_serve_info

MAIN = [sys.executable, "-c", "from tokenhub_core.cli import main; main()"]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Let something listen, tell of it, and return the environment that finds it."""
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        write_serve_info(tmp_path, ServeInfo(os.getpid(), url, "", str(ca), ("api.openai.com",), 0.0))
        yield {"PATH": os.environ["PATH"], "TOKENHUB_DATA_DIR": str(tmp_path), "HOME": str(tmp_path)}


def run(environ: dict[str, str], *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, "run", *args],
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_program_s(serving: dict[str, str], code: int) -> None:
    """Whatever the program exits with is what the caller sees."""
    assert run(serving, "--", "sh", "-c", f"exit {code}").returncode == code


def test_the_streams_are_the_program_s(serving: dict[str, str]) -> None:
    """Standard input reaches it, and both outputs come back untouched."""
    result = run(serving, "--", "sh", "-c", "cat; echo err >&2", stdin="in")

    assert (result.stdout, result.stderr) == ("in", "err\n")


def test_a_program_is_not_handed_what_opens_the_server(serving: dict[str, str]) -> None:
    """The admin token and the vault's password stay with the operator; other variables go on."""
    ours = {"TOKENHUB_ADMIN_TOKEN": "t0ken", "TOKENHUB_VAULT_PASSWORD": "passw0rd"}
    told = run({**serving, **ours, "OPENAI_API_KEY": "theirs"}, "--", "env").stdout

    assert "OPENAI_API_KEY=theirs" in told
    assert "t0ken" not in told
    assert "passw0rd" not in told


def test_the_arguments_are_the_program_s(serving: dict[str, str]) -> None:
    """With or without `--`, what follows the program is not read as options of ours."""
    program = ["sh", "-c", 'printf "%s|" "$@"', "name", "--proxy", "-x", "", "a b", "--"]

    assert run(serving, *program).stdout == "--proxy|-x||a b|--|"
    assert run(serving, "--", *program).stdout == "--proxy|-x||a b|--|"


def test_the_program_has_the_environment_and_the_user_s_own(serving: dict[str, str]) -> None:
    """The proxy and its trust are set; everything else is as it was."""
    result = run(serving | {"MINE": "1"}, "--", "sh", "-c", "echo $MINE $NO_PROXY; echo $TOKENHUB_ACTIVE")

    assert result.stdout.splitlines()[0] == "1 localhost,127.0.0.1,::1"
    assert result.stdout.splitlines()[1].startswith("http://127.0.0.1:")


def test_a_run_inside_a_run_is_the_same_environment(serving: dict[str, str]) -> None:
    """Nesting adds nothing: no second preload, no second bundle."""
    listing = ["env", "-0"]
    once = run(serving, "--", *listing).stdout.split("\0")
    twice = run(serving, "--", *MAIN, "run", "--", *listing).stdout.split("\0")

    assert sorted(once) == sorted(twice)


def test_a_program_that_is_not_there_is_127(serving: dict[str, str]) -> None:
    """The code that shells use, and one line."""
    result = run(serving, "--", "no-such-program")

    assert (result.returncode, result.stderr) == (127, "tokenhub: no-such-program: command not found\n")


def test_a_file_that_cannot_be_executed_is_126(serving: dict[str, str], tmp_path: Path) -> None:
    """The code that shells use, and one line."""
    (tmp_path / "plain").write_text("text")

    result = run(serving, "--", str(tmp_path / "plain"))

    assert result.returncode == 126
    assert result.stderr == f"tokenhub: {tmp_path / 'plain'}: Permission denied\n"


def test_without_a_command_usage_is_shown(serving: dict[str, str]) -> None:
    """Nothing to run is a usage error."""
    assert run(serving).returncode == 2


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """What runs in the background may have been started without these, and would hand that on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def start(environ: dict[str, str], command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([*MAIN, "run", "--", *command], env=environ, stdout=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGKILL"])
def test_a_signal_reaches_the_program_and_its_death_is_seen(serving: dict[str, str], name: str) -> None:
    """There is no process in between: what is sent to us is sent to the program, and it dies of it."""
    number = signal.Signals[name]
    program = "ulimit -c 0; trap - INT QUIT; echo ready; exec sleep 30"
    with start(serving, ["sh", "-c", program]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)

        assert process.wait(timeout=PROGRAM_PATIENCE) == -number


@pytest.mark.usefixtures("_interruptible")
def test_a_program_that_handles_a_signal_decides_itself(serving: dict[str, str]) -> None:
    """A program's own handler runs, and its exit code counts."""
    program = (
        "import signal, sys, time\nsignal.signal(2, lambda *_: sys.exit(7))\nprint('ready', flush=True)\n"
    )
    with start(serving, [sys.executable, "-c", program + "time.sleep(30)"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=PROGRAM_PATIENCE) == 7


def test_a_closed_pipe_ends_the_program_as_it_would_without_us(serving: dict[str, str]) -> None:
    """SIGPIPE is not ignored on the program's behalf: `yes | head` ends."""
    with start(serving, ["yes"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.wait(timeout=PROGRAM_PATIENCE) == -signal.SIGPIPE


SECRET = "tokenhub_" + "c0ffee42" * 8


def test_a_key_says_to_the_proxy_who_the_program_is(serving: dict[str, str], tmp_path: Path) -> None:
    """From a file or a variable, never from the command line; it stands in the proxy's URL and in no other variable."""
    file = tmp_path / "key"
    file.write_text(SECRET + "\n")
    keyed = {**serving, "TOKENHUB_KEY": SECRET}
    for told in (run(serving, "--key-file", str(file), "--", "env").stdout, run(keyed, "--", "env").stdout):
        names = {line.partition("=")[0] for line in told.splitlines() if SECRET in line}
        assert names == {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}
        assert f"HTTPS_PROXY=http://x:{SECRET}@127.0.0.1:" in told
        assert "TOKENHUB_KEY" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("sk-ant-of-somebody", "must be an API key of TokenHub"), (None, "cannot be read")],
)
def test_what_is_no_key_is_refused_unseen(
    serving: dict[str, str], tmp_path: Path, text: str | None, said: str
) -> None:
    """One line, exit code 2, and nothing runs."""
    if text is not None:
        (tmp_path / "key").write_text(text)
    told = run(serving, "--key-file", str(tmp_path / "key"), "--", "echo", "ran")
    assert (told.returncode, told.stdout) == (2, "")
    assert said in told.stderr.replace("\n", "")
    assert not text or text not in told.stderr
