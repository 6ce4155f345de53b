"""`tokenhub directive`: what it signs is what the engine honours."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fakes.house import House, house
from tokenhub_core.cli.directive import directive
from tokenhub_core.directives import scan
from tokenhub_core.errors import ConfigError
from tokenhub_core.signing import Signatures, secret_of
from tokenhub_core.types import ApiKey

SECRET = secret_of(b"r" * 32, "k1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(urlsafe_b64encode(SECRET).decode() + "\n")
    return path


def run(*args: str) -> str:
    result = CliRunner().invoke(directive, [*args], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_signed_directive_is_one_that_is_honoured(file: Path) -> None:
    """Each with a nonce of its own, good for as long as was said."""
    lines = [
        run("sign", "k1", "mode=cheap budget=0.01", "--seconds", "60", "--secret-file", str(file))
        for _ in "ab"
    ]
    known = Signatures(lambda key_id: SECRET)
    nonces = set()
    for line in lines:
        (found,) = scan(line)
        assert found.signed is not None
        nonces.add(found.signed.nonce)
        assert 55 <= found.signed.expires - time.time() <= 60
        assert known.refusal(found.signed, ApiKey(id="k1"), line, time.time()) == ""
    assert len(nonces) == 2


@pytest.mark.parametrize("wishes", ["mode=chep", "", "mode=cheap\nHi", "@@tokenhub mode=cheap"])
def test_what_is_no_directive_is_not_signed(file: Path, wishes: str) -> None:
    """And what is wrong is told."""
    with pytest.raises(ConfigError, match="is no directive"):
        run("sign", "k1", wishes, "--secret-file", str(file))


@pytest.mark.parametrize("text", [b"", b"short", b"\xff\xfe", b"A" * 43, b"A" * 500])
def test_what_is_no_secret_is_refused(tmp_path: Path, text: bytes) -> None:
    """One line that does not show it."""
    (tmp_path / "secret").write_bytes(text)
    with pytest.raises(ConfigError) as raised:
        run("sign", "k1", "mode=cheap", "--secret-file", str(tmp_path / "secret"))
    assert "AAAA" not in str(raised.value)


def test_a_key_that_is_none_is_refused(file: Path, tmp_path: Path) -> None:
    """Before anybody is asked; a file that is not there is told too."""
    for args in (("secret", "a b"), ("sign", "a:b", "mode=cheap", "--secret-file", str(file))):
        with pytest.raises(ConfigError, match="is no id of a key"):
            run(*args)
    with pytest.raises(ConfigError, match="cannot be read"):
        run("sign", "k1", "mode=cheap", "--secret-file", str(tmp_path / "none"))


async def test_the_server_gives_a_keys_secret_while_the_vault_is_open(tmp_path: Path) -> None:
    """It is always the same, another one for another key, and in the audit log before it leaves."""
    path = "/directives/secrets/"
    async with house(tmp_path) as it:
        assert await _status(it, path + "k1") == 503
        await it.done("POST", "/vault/init", {"admin_password": "correct horse battery"})
        one = await it.done("GET", path + "k1")
        assert one == await it.done("GET", path + "k1")
        other = await it.done("GET", path + "k2")
        assert one["secret"] != other["secret"]
        assert await _status(it, path + "a:b") == 400
        read = await it.done("GET", "/audit?action=secret.read")
        assert [entry["subject"] for entry in read["entries"]] == [
            "directives:k2",
            "directives:k1",
            "directives:k1",
        ]
        assert one["secret"] not in str(read)
        await it.done("POST", "/vault/lock", {})
        assert await _status(it, path + "k1") == 503


async def _status(it: House, path: str) -> int:
    status: int = (await it.admin("GET", path)).status
    return status
