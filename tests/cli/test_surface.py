"""The command line as a whole: what every command has, how it helps, and what is made from its parser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tests.cli.running import Running
from tokenhub_core import cli
from tokenhub_core.cli import _tokenhub
from tokenhub_core.cli.manual import EXIT_CODES, Page, exit_codes, markdown, pages, roff

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "cli"

WITHOUT_JSON = {
    "serve": "runs until it is told to end",
    "run": "becomes the program",
    "env": "prints for a shell",
    "console": "is mitmproxy's",
    "web": "is mitmproxy's",
    "worker": "runs until it is told to end",
    "openapi": "prints JSON anyway",
    "audit export": "prints JSON anyway",
    "logs export": "has formats of its own",
    "config export": "has formats of its own",
    "completion": "prints for a shell",
    "man": "writes files",
}
"""Commands without `--json`, and why."""

HARMLESS = {
    "tokens": "a number of tokens",
    "max_context_tokens": "a number of tokens",
    "tokens_per_minute": "a number of tokens",
    "max_output_tokens": "a number of tokens",
    "token_count": "a number of tokens",
    "key": "the id of a key",
    "key_id": "the id of a key",
}
"""Parameters whose name sounds like a secret, and what they hold."""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield what can be run, by its path."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))
    if path and (not isinstance(command, click.Group) or command.invoke_without_command):
        yield " ".join(path), command


ALL = dict(commands(_tokenhub))


def told(*args: str, **environ: str) -> tuple[int, str]:
    for command in ALL.values():
        # click keeps the option that it made where a command was called by itself, without our `-h`.
        command._help_option = None
    result = CliRunner(env={"COLUMNS": "80", **environ}).invoke(_tokenhub, list(args), prog_name="tokenhub")
    return result.exit_code, result.output


def _golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", ALL)
def test_every_command_prints_json(name: str) -> None:
    """All but those that have a reason not to; a reason that is not needed any more has to go."""
    has = any(param.name == "json" for param in ALL[name].params)
    assert has is not (name in WITHOUT_JSON)


@pytest.mark.parametrize("name", ALL)
def test_no_secret_is_an_argument(name: str) -> None:
    """What sounds like one is a flag, a file, a descriptor or the name of a variable."""
    for param in ALL[name].params:
        sounds = re.search(r"pass|secret|token|key|credential", param.name or "")
        is_place = isinstance(param.type, click.Path) or (param.name or "").endswith("_fd")
        is_flag = isinstance(param, click.Option) and param.is_flag
        assert not sounds or is_place or is_flag or param.name in HARMLESS, param.name


def test_the_help_of_every_command_is_known() -> None:
    """A change of any command's help, options or order shows in one file."""
    lines = []
    for name in ["", *ALL]:
        if name in {"console", "web"}:
            continue  # that is mitmproxy's
        code, text = told(*name.split(), "--help")
        assert code == 0, name
        assert all(len(line) <= 80 or line.startswith("  --") for line in text.splitlines()), name
        lines += [f"$ tokenhub {name} --help".replace("  ", " "), "", text, ""]
    _golden("help.txt", "\n".join(lines))


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (("provder",), "No such command 'provder'. Did you mean 'provider'?"),
        (("provider", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("vault", "secret", "gett"), "Did you mean 'get'?"),
        (("zzzzzz",), "No such command 'zzzzzz'.\n"),
        (("model", "list", "--jsn"), "--json"),
    ],
)
def test_a_slip_is_met_with_what_was_meant(args: tuple[str, ...], wanted: str) -> None:
    """At every depth; exit code 2."""
    code, text = told(*args)
    assert code == 2
    assert wanted in text


# --- completion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell: str) -> None:
    """The script names the program and the variable; bash takes it."""
    code, text = told("completion", shell)
    assert code == 0
    assert f"_TOKENHUB_COMPLETE={shell}_complete" in text
    if shell == "bash" and (bash := shutil.which("bash")):
        assert subprocess.run([bash, "-n"], input=text, text=True, check=False).returncode == 0


def completed(*args: str) -> list[str]:
    """Return what is offered for the last word."""
    *before, last = args
    return [one.value for one in ShellComplete(_tokenhub, {}, "tokenhub", "X").get_completions(before, last)]


def test_commands_and_options_are_completed() -> None:
    """Nobody needs to serve for that, and names are none where nobody does."""
    assert completed("mod") == ["model", "mode"]
    assert completed("model", "") == ["add", "list", "remove", "set"]
    assert "--provider" in completed("model", "add", "--pro")
    assert completed("provider", "remove", "--data-dir", "/nowhere", "") == []


def test_names_come_from_the_server(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of providers, models, aliases, keys and budgets that begin like what is typed."""
    monkeypatch.setenv("TOKENHUB_DATA_DIR", str(served.it.data / "data"))
    served.do(served.it.provider(served.fake, "alpha", "m1", "m2"))
    served.do(served.it.provider(served.fake, "beta", "n1"))
    served.admin("POST", "/aliases", {"name": "fast", "variants": [{"model_id": "m1", "weight": 1}]})
    key = served.admin("POST", "/apikeys", {"name": "ann"})["id"]
    assert completed("provider", "remove", "") == ["alpha", "beta"]
    assert completed("provider", "key", "list", "b") == ["beta"]
    assert completed("model", "remove", "m") == ["m1", "m2"]
    assert completed("model", "set", "m1", "--provider", "") == ["alpha", "beta"]
    assert completed("alias", "show", "") == ["fast"]
    assert completed("apikey", "show", "") == [key]
    assert completed("logs", "--model", "n") == ["n1"]


# --- the manual ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manual() -> list[Page]:
    return pages(_tokenhub)


def test_every_command_has_a_page(manual: list[Page]) -> None:
    """Groups too; each option has its words, and each page its usage."""
    names = {" ".join(page.path[1:]) for page in manual}
    assert {*ALL} <= names
    assert {*cli.COMMANDS} <= names
    for page in manual:
        assert page.usage.startswith(" ".join(page.path))
        assert page.short
        for flags, words in page.options:
            assert words or not flags.startswith("--"), (page.name, flags)


def test_the_pages_are_good_ones(manual: list[Page], tmp_path: Path) -> None:
    """`man` formats each without a warning, and shows what the parser says."""
    code, text = told("man", "--folder", str(tmp_path / "man1"))
    assert (code, text) == (0, f"{len(manual)} pages are in {tmp_path / 'man1'}\n")
    formatter = shutil.which("groff")
    if formatter is None:
        pytest.skip("groff is not installed (Debian: apt install groff-base)")
    sources = [str(path) for path in sorted((tmp_path / "man1").iterdir())]
    done = subprocess.run(
        [formatter, "-k", "-man", "-Tutf8", "-ww", "-P-c", *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r"\s+", " ", re.sub(r".\x08", "", done.stdout))
    assert "tokenhub-provider-add - Register provider ID, or change it." in shown
    assert "--base-url TEXT" in shown
    assert "tokenhub run -- python agent.py" in shown


def test_what_roff_would_obey_is_shown() -> None:
    """Dots and quotes that begin a line, backslashes and hyphens."""
    page = Page(("tokenhub", "x"), "Do.", "tokenhub x", ".SH a\\b\n\n    'example'", (("--a-b", ".c"),), ())
    text = roff(page)
    assert "\n\\&.SH a\\eb\n" in text
    assert "\n\\&'example'\n" in text
    assert "\\-\\-a\\-b" in text
    assert "\n\\&.c\n" in text


def test_the_document_is_the_parsers_own(manual: list[Page]) -> None:
    """docs/cli.md has every command with its options, and the exit codes."""
    path = ROOT / "docs" / "cli.md"
    text = path.read_text()
    wanted = text
    for name, made in (("exit codes", exit_codes()), ("commands", markdown(manual))):
        start = (
            f"<!-- {name}: made from the code by `UPDATE_DOCS=1 scripts/test tests/cli/test_surface.py` -->\n"
        )
        end = f"<!-- end of {name} -->\n"
        head, _, rest = wanted.partition(start)
        _, _, tail = rest.partition(end)
        wanted = f"{head}{start}\n{made.rstrip()}\n\n{end}{tail}"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted)
        return
    assert text == wanted


# --- exit codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--version",), 0),
        (("ca", "rotate"), 1),  # nobody says yes
        (("nonsense",), 2),
        (("model", "add"), 2),
        (("model", "list", "--data-dir", "/nowhere"), 2),
        (("run", "--proxy", "http://127.0.0.1:1", "--ca", "CA", "--", "/"), 126),
        (("run", "--proxy", "http://127.0.0.1:1", "--ca", "CA", "--", "no-such-program-here"), 127),
    ],
)
def test_the_exit_code_says_how_it_ended(args: tuple[str, ...], code: int, tmp_path: Path) -> None:
    """As the manual lists them."""
    assert code in EXIT_CODES
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
    given = [str(ca) if arg == "CA" else arg for arg in args]
    done = subprocess.run(
        [sys.executable, "-c", "from tokenhub_core.cli import main; main()", *given],
        env={**os.environ, "TOKENHUB_DATA_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert code in {0, 1} or done.stderr.count("\n") <= 4
