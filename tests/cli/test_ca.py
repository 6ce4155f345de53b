"""`tokenhub ca`: what is shown, a new root, and hosts that are added."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import orjson
import pytest
from click.testing import CliRunner, Result

from tokenhub_core import config, hostlist
from tokenhub_core.ca import CertificateAuthority, facts
from tokenhub_core.cli.ca import ca
from tokenhub_core.errors import ConfigError
from tokenhub_core.recognise import HOSTS


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TOKENHUB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENHUB_DATA_DIR", str(tmp_path))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    CertificateAuthority.open(tmp_path / "ca", HOSTS, now=time.time)
    return tmp_path / "ca"


def run(*args: str) -> Result:
    result = CliRunner().invoke(ca, [*args], standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_root_is_shown(place: Path) -> None:
    """For people and as JSON: fingerprint, end, what it vouches for, and every file's mode."""
    told = orjson.loads(run("show", "--json").output)
    assert told["sha256"] == facts(place).sha256
    assert told["hosts"] == list(HOSTS)
    assert (told["added"], told["alarms"]) == ([], [])
    assert told["modes"][str(place / "ca-key.pem")] == "0600"
    shown = run("show")
    assert shown.exit_code == 0
    assert facts(place).sha256 in shown.output.replace("\n", "")
    assert "in 88 days" in shown.output or "in 89 days" in shown.output


def test_what_is_not_as_it_should_be_is_an_alarm(tmp_path: Path) -> None:
    """A root that ends soon or a key that others can read: exit code 1, and what to do."""
    CertificateAuthority.open(tmp_path / "ca", HOSTS, now=lambda: time.time() - 80 * 86_400)
    (tmp_path / "ca" / "ca-key.pem").chmod(0o644)
    shown = run("show")
    assert shown.exit_code == 1
    told = "".join(shown.output.split())  # a long path wraps anywhere
    assert "ca-key.pemisopentootherusers" in told
    assert "therootendsin9days" in told or "therootendsin8days" in told


def test_without_an_authority_there_is_nothing_to_show() -> None:
    """One line, and nothing is made."""
    with pytest.raises(ConfigError, match="there is no CA"):
        run("show")


def test_a_new_root_is_made_when_it_is_meant(place: Path) -> None:
    """It asks first; then key and certificate are new, and what to do is told."""
    before = facts(place).sha256
    with pytest.raises(click.Abort):
        run("rotate")
    assert facts(place).sha256 == before
    told = run("rotate", "--yes").output.replace("\n", "")
    assert facts(place).sha256 != before
    assert facts(place).sha256 in told
    assert "tokenhub run" in told


def test_a_host_is_added_kept_and_removed(place: Path, tmp_path: Path) -> None:
    """The root vouches for it at once, the list says it at the next start, and removing it undoes both."""
    run("add-host", "LLM.corp.example", "openai_chat")
    run("add-host", "*.llm.example", "anthropic_messages")
    run("add-host", "llm.corp.example.", "anthropic_messages")
    assert hostlist.read(tmp_path) == (
        "*.llm.example=anthropic_messages",
        "llm.corp.example=anthropic_messages",
    )
    assert {"llm.corp.example", "llm.example", "api.openai.com"} <= set(facts(place).permitted)
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o600
    settings = config.parse({"TOKENHUB_EXTRA_HOSTS": "x.example=gemini"}, data_dir=tmp_path)
    assert hostlist.merged(settings).extra_hosts == (*hostlist.read(tmp_path), "x.example=gemini")
    assert "llm.corp.example" in orjson.loads(run("show", "--json").output)["hosts"]
    run("remove-host", "llm.corp.example")
    assert hostlist.read(tmp_path) == ("*.llm.example=anthropic_messages",)
    assert "llm.corp.example" not in facts(place).permitted


def test_what_was_not_added_is_not_removed(place: Path) -> None:
    """A vendor's host is left alone with a mode."""
    with pytest.raises(ConfigError, match=r"tokenhub mode set api\.openai\.com off"):
        run("remove-host", "api.openai.com")


@pytest.mark.parametrize("host", ["", "a b", "ü.example", "a" * 300, "a-.example", "*.*.example", "a..b"])
def test_a_host_that_cannot_be_vouched_for_is_not_kept(place: Path, tmp_path: Path, host: str) -> None:
    """Neither in the list nor in the root."""
    before = facts(place).sha256
    with pytest.raises(ConfigError):
        run("add-host", host, "openai_chat")
    assert hostlist.read(tmp_path) == ()
    assert facts(place).sha256 == before


@pytest.mark.parametrize(
    ("text", "said"), [(b"x.example=telnet\n", "must be host=dialect"), (b"\xff", "cannot be read")]
)
def test_a_list_that_cannot_be_used_says_why(tmp_path: Path, text: bytes, said: str) -> None:
    """Before anything is started with half of it."""
    (tmp_path / "hosts").write_bytes(text)
    with pytest.raises(ConfigError, match=said):
        hostlist.read(tmp_path)
