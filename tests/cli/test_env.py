"""`tokenhub env`: what a shell takes on is what `tokenhub run` gives, and it can be taken back."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.launch.serveinfo import ServeInfo, write_serve_info

MAIN = [sys.executable, "-c", "from tokenhub_core.cli import main; main()"]
TOKENHUB = shlex.join(MAIN)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Let something listen, tell of it, and return the environment that finds it."""
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        write_serve_info(tmp_path, ServeInfo(os.getpid(), url, "", str(ca), ("api.openai.com",), 0.0))
        yield {
            "PATH": os.environ["PATH"],
            "TOKENHUB_DATA_DIR": str(tmp_path),
            "HOME": str(tmp_path),
            "PYTHONPATH": "it's mine",
            "ALL_PROXY": "socks5://x",
        }


def shell(environ: dict[str, str], script: str) -> dict[str, str]:
    """Run a script in a POSIX shell and return the environment that it ends with."""
    result = subprocess.run(
        ["sh", "-ec", script + "\nenv -0"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE,
        check=True,
    )
    assert result.stderr == ""
    found = dict(line.split("=", 1) for line in result.stdout.split("\0") if line)
    # The shell's own, and LC_CTYPE, which Python sets for itself and its children in the C locale (PEP 538).
    own = {"_", "PWD", "SHLVL", "OLDPWD", "LC_CTYPE"}
    return {name: value for name, value in found.items() if name not in own}


def test_a_shell_that_takes_it_on_has_what_run_gives(serving: dict[str, str]) -> None:
    """`eval "$(tokenhub env)"` and `tokenhub run` make the same environment."""
    taken = shell(serving, f'eval "$({TOKENHUB} env)"')
    given = shell(serving, f"exec {TOKENHUB} run -- env -0")

    assert taken == given
    assert taken["PYTHONPATH"].endswith(":it's mine")
    assert "ALL_PROXY" not in taken


def test_unset_brings_the_old_environment_back(serving: dict[str, str]) -> None:
    """After `eval "$(tokenhub env --unset)"` the shell is as it was, also when taken on twice."""
    on = f'eval "$({TOKENHUB} env)"\n'

    after = shell(serving, on + on + f'eval "$({TOKENHUB} env --unset)"')

    assert after == serving


def test_unset_works_when_nothing_is_serving_any_more(serving: dict[str, str], tmp_path: Path) -> None:
    """Leaving needs no server."""
    script = f'eval "$({TOKENHUB} env)"\nrm -r {tmp_path}/run\neval "$({TOKENHUB} env --unset)"'

    assert shell(serving, script) == serving


def test_json_is_for_programs(serving: dict[str, str]) -> None:
    """One object: a value to set, or null to remove."""
    result = subprocess.run(
        [*MAIN, "env", "--shell", "json"], env=serving, capture_output=True, text=True, check=True
    )
    found = json.loads(result.stdout)

    assert found["ALL_PROXY"] is None
    assert found["HTTPS_PROXY"].startswith("http://127.0.0.1:")


def test_a_shell_that_we_do_not_know_is_a_usage_error(serving: dict[str, str]) -> None:
    """The known ones are named."""
    result = subprocess.run(
        [*MAIN, "env", "--shell", "csh"], env=serving, capture_output=True, text=True, check=False
    )

    assert result.returncode == 2
    assert "powershell" in result.stderr


def test_with_nothing_serving_nothing_is_printed_for_the_shell(tmp_path: Path) -> None:
    """An eval of the output is harmless; the reason is on stderr."""
    result = subprocess.run(
        [*MAIN, "env", "--data-dir", str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stdout) == (2, "")
    assert "tokenhub serve" in result.stderr


def test_a_key_is_printed_only_where_that_is_asked_for(serving: dict[str, str], tmp_path: Path) -> None:
    """A terminal and its scroll-back are no place for it."""
    secret = "tokenhub_" + "c0ffee42" * 8
    keyed, file = {**serving, "TOKENHUB_KEY": secret}, tmp_path / "key"
    file.write_text(secret)

    def env(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*MAIN, "env", *args], env=keyed, capture_output=True, text=True, check=False)

    plain, asked, refused = env(), env("--show-key"), env("--key-file", str(file))
    assert (plain.returncode, secret in plain.stdout) == (0, False)
    assert f"http://x:{secret}@127.0.0.1:" in asked.stdout
    assert (refused.returncode, refused.stdout) == (2, "")
    assert secret not in refused.stderr
