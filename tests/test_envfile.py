"""The environment file: what it may say, who wins over it, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core import envfile
from tokenhub_core.config import Settings
from tokenhub_core.envfile import Given
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Mode


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "env"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_says_variables_as_service_managers_and_shells_write_them() -> None:
    """Comments, empty lines, `export`, quotes; nothing is expanded."""
    text = "\n# words\nA=1\nexport B = two words \nC='x=$A'\nD=\"#5\"\nE=\nA=2\n"

    assert envfile.parsed(text, "file") == {"A": "2", "B": "two words", "C": "x=$A", "D": "#5", "E": ""}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A=1\nsecret words", "file, line 2: must be NAME=value"),
        ("2A=secret", "file, line 1: must be NAME=value"),
        ("A='secret", "file, line 1: a quote is not closed"),
        ('A="', "file, line 1: a quote is not closed"),
        ("TOKENHUB_DATA_DIR=/x", "file, line 1: TOKENHUB_DATA_DIR cannot be set in this file"),
        ("TOKENHUB_ENV_FILE=/x", "file, line 1: TOKENHUB_ENV_FILE cannot be set in this file"),
    ],
)
def test_a_line_that_is_none_is_told_by_its_number(text: str, wrong: str) -> None:
    """What stands in it is not told: it may be a key."""
    with pytest.raises(ConfigError) as caught:
        envfile.parsed(text, "file")

    assert str(caught.value) == wrong


@given(st.text())
def test_whatever_a_file_holds_is_variables_or_an_error(text: str) -> None:
    """No text ends in another exception."""
    try:
        found = envfile.parsed(text, "file")
    except ConfigError:
        return
    assert all(name.isascii() and name.isidentifier() for name in found)


def test_a_file_that_others_can_read_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """It holds keys; and a name of a file is a promise that there is one."""
    open_to_all = written(tmp_path, "A=1\n", 0o644)

    with pytest.raises(ConfigError, match="can be read by others; run: chmod 600"):
        envfile.read(open_to_all)
    with pytest.raises(ConfigError, match="no such file or directory"):
        envfile.read(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"A=\xff")
    (tmp_path / "bytes").chmod(0o600)
    with pytest.raises(ConfigError, match="not UTF-8"):
        envfile.read(tmp_path / "bytes")


def test_flags_win_over_the_environment_and_the_environment_over_the_file(tmp_path: Path) -> None:
    """And of each variable that does not hold it is said."""
    path = written(
        tmp_path,
        "TOKENHUB_PORT=1\nTOKENHUB_ADMIN_PORT=1\nTOKENHUB_DEFAULT_MODE=cheap\nOPENAI_API_KEY=k\n",
    )
    environ = {"TOKENHUB_ENV_FILE": str(path), "TOKENHUB_ADMIN_PORT": "2", "TOKENHUB_PORT": "2"}
    it = Given(tmp_path, environ, {"port": 3, "host": None})
    variables = it.read()
    found = it.settings(variables)

    assert (found.port, found.admin_port, found.default_mode) == (3, 2, Mode.CHEAP)
    assert it.environment(variables)["OPENAI_API_KEY"] == "k"
    assert it.warnings({**variables, "TOKENHUB_PROT": "1"}) == [
        "TOKENHUB_PROT is not a setting; did you mean TOKENHUB_PORT?",
        "TOKENHUB_ADMIN_PORT of the environment file does not hold: the process or a flag says it",
        "TOKENHUB_PORT of the environment file does not hold: the process or a flag says it",
    ]
    assert it.settings({}).default_mode is Mode.NORMAL


def test_settings_that_somebody_made_win_where_they_are_no_default(tmp_path: Path) -> None:
    """What was given as a value stays as it was given, `none` too; the rest follows the file."""
    fixed = Settings(data_dir=tmp_path, port=9, max_calls=None)
    it = Given(tmp_path, {}, fixed=fixed)

    found = it.settings({"TOKENHUB_PORT": "1", "TOKENHUB_MAX_CALLS": "7", "TOKENHUB_QUEUE_MS": "8"})

    assert (found.port, found.max_calls, found.queue_ms) == (9, None, 8.0)


def test_variables_that_are_not_for_a_process_do_not_reach_it(tmp_path: Path) -> None:
    """Workers have the vault's password from their supervisor alone."""
    it = Given(tmp_path, {"A": "1"}, without=frozenset({"SECRET"}))

    assert it.environment({"SECRET": "x", "B": "2"}) == {"A": "1", "B": "2"}
