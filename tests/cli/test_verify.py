"""`tokenhub verify`, with a running server and without one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.running import Running, Shell, running
from tests.proof.saying import delivered
from tokenhub_core.cli.verify import verify
from tokenhub_core.store.driver import choose

OTHER = "NOT byte for byte what was delivered"


@pytest.fixture
def served(tmp_path: Path, bare_environment: None) -> Iterator[Running]:
    with running(tmp_path, simulate=True, settings={"PROOF": "all"}) as it:
        yield it


@pytest.fixture
def shell(served: Running) -> Shell:
    return Shell(verify, served.it.data / "data")


def answered(served: Running, *, stream: bool = False) -> tuple[str, bytes]:
    """Make a call; return its id and its answer, once both its entries are there."""
    told = served.do(served.it.chat(stream=stream))
    name = told.header("x-request-id")
    served.do(delivered(served.it, name))
    return name, told.body


def failed(shell: Shell, *args: str) -> str:
    result = CliRunner().invoke(verify, [*args, "--data-dir", str(shell.data)])
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def test_a_chain_is_verified_at_a_server(served: Running, shell: Shell) -> None:
    """Whole, and with a head that was noted before; a head that is none is one line."""
    answered(served)
    head = shell.json()["chain"]["head"]
    assert "the chain is whole" in shell("--head", head)
    assert "SEQ:HASH" in shell.refusal("--head", "x")
    assert "entry 9 is known of" in failed(shell, "--head", f"9:{head.partition(':')[2]}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("offline", [False, True])
def test_a_transcript_is_told_from_another_one(
    served: Running, shell: Shell, tmp_path: Path, *, stream: bool, offline: bool
) -> None:
    """Byte for byte the same, or not; and whether its words are the provider's."""
    name, body = answered(served, stream=stream)
    if offline:
        (served.it.data / "data" / "run" / "serve.json").unlink()
    (tmp_path / "kept").write_bytes(body)
    (tmp_path / "other").write_bytes(re.sub(rb'("content": ?")(\w)', rb"\1Z\2", body, count=1))
    told = shell("--request", name, "--transcript", str(tmp_path / "kept"))
    assert "the transcript is byte for byte what was delivered" in told
    assert "words, in the transcript: what the provider sent" in told
    told = failed(shell, "--request", name, "--transcript", str(tmp_path / "other"))
    assert OTHER in told
    assert "words, in the transcript: NOT what the provider sent" in told


def test_the_first_break_is_told_with_its_place(served: Running, shell: Shell) -> None:
    """On the database itself, which is only read."""
    answered(served)
    answered(served)
    (served.it.data / "data" / "run" / "serve.json").unlink()
    raw = choose().module.connect(str(shell.data / "tokenhub.sqlite"))
    raw.execute(
        "UPDATE proofs SET verdict = 'same', body = replace(body, 'identical', 'identicaL') WHERE seq = 2"
    )
    raw.commit()
    raw.close()
    told = failed(shell)
    assert "first break at entry 2: entry 2 is not what was written" in told
    assert "THE CHAIN IS BROKEN" in told


def test_what_cannot_be_asked_for_is_one_line(served: Running, shell: Shell, tmp_path: Path) -> None:
    """A call that nobody made, a transcript of no call, a file that is not there."""
    assert "nothing is proved of this call" in shell.refusal("--request", "req_x")
    assert "needs --request" in shell.refusal("--transcript", str(tmp_path / "x"))
    assert "No such file" in shell.refusal("--request", "req_x", "--transcript", str(tmp_path / "x"))
    served.admin("GET", "/proofs/verify")
    (served.it.data / "data" / "run" / "serve.json").unlink()
    assert "nothing is proved of this call" in shell.refusal("--request", "req_x")


def test_another_secret_proves_nothing(served: Running, shell: Shell, tmp_path: Path) -> None:
    """The hashes are keyed by a file of the data directory: with another one nobody can compare."""
    name, body = answered(served)
    (tmp_path / "kept").write_bytes(body)
    (served.it.data / "data" / "run" / "serve.json").unlink()
    (shell.data / "salt").write_bytes(bytes(32))
    told = shell.refusal("--request", name, "--transcript", str(tmp_path / "kept"))
    assert "made with the key" in told
