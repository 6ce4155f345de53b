from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import click
import pytest
from click.testing import CliRunner

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core import __version__, cli
from tokenhub_core.errors import ConfigError


def tokenhub(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from tokenhub_core.cli import main; main()", *args],
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE,
        check=False,
    )


def test_version_says_the_version() -> None:
    """One line, exit code 0."""
    result = tokenhub("--version")

    assert (result.stdout, result.returncode) == (f"tokenhub {__version__}\n", 0)


def test_help_lists_every_command_and_imports_none() -> None:
    """The list comes from the table; mitmproxy, aiohttp and the store stay unloaded."""
    program = (
        "import sys; from click.testing import CliRunner; from tokenhub_core.cli import _tokenhub; "
        "print(CliRunner().invoke(_tokenhub, ['--help']).output); "
        "print(sorted(m for m in sys.modules if m.startswith('tokenhub_core')))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    for name, (_, line) in cli.COMMANDS.items():
        assert name in result.stdout
        assert line in result.stdout
    assert result.stdout.endswith("['tokenhub_core', 'tokenhub_core.cli', 'tokenhub_core.errors']\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_table_and_the_command_say_the_same(name: str) -> None:
    """Each entry leads to a command of that name whose own help begins with the table's line."""
    target, line = cli.COMMANDS[name]
    if find_spec(target.partition(":")[0]) is None:
        with pytest.raises(ConfigError, match="is missing"):
            cli.load(target)
        return

    command = cli.load(target)

    assert command.name == name
    assert command.get_short_help_str(limit=200) == line


def test_an_unknown_command_is_a_usage_error() -> None:
    """Exit code 2, and the name on stderr."""
    result = tokenhub("nonsense")

    assert result.returncode == 2
    assert "No such command 'nonsense'" in result.stderr


def test_a_setting_that_cannot_be_used_is_one_line(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A ConfigError reaches the operator as one line on stderr and exit code 2."""
    result = tokenhub("run", "--data-dir", str(tmp_path_factory.mktemp("data")), "--", "true")

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("tokenhub: nothing is serving")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("tokenhub_core.cli.nowhere:nowhere", "tokenhub_core.cli.nowhere is missing"),
        ("tokenhub_core.cli.run:nowhere", "has no such command"),
        ("tokenhub_core.errors:ConfigError", "has no such command"),
    ],
)
def test_a_command_that_this_build_lacks_is_named(target: str, words: str) -> None:
    """A missing module, a missing attribute and one that is no command are told apart from a crash."""
    with pytest.raises(ConfigError, match=words):
        cli.load(target)


def test_every_option_is_explained() -> None:
    """Each option of the commands that run programs has a line of help or a name that needs none."""
    for module in ("run", "env"):
        command = getattr(import_module(f"tokenhub_core.cli.{module}"), module)
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help or option.name == "shell"
        assert CliRunner().invoke(command, ["--help"]).exit_code == 0
