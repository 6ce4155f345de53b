from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.launch.environment import Changes
from tokenhub_core.launch.exports import Shell, render

NASTY = """a b'c"d$HOME`id`\\e;\n!f*"""


def test_a_shell_reads_back_what_was_written() -> None:
    """Nothing in a value is evaluated, and what is to go is gone."""
    script = "OLD=1; " + render(Changes({"VALUE": NASTY}, ("OLD",)), Shell.SH)

    result = subprocess.run(
        ["sh", "-ec", script + 'printf "%s|%s" "$VALUE" "${OLD-gone}"'],
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout == f"{NASTY}|gone"


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_any_value_survives_a_shell(value: str) -> None:
    """Quoting holds for any text that an environment can hold."""
    script = render(Changes({"VALUE": value}), Shell.SH) + 'printf %s "$VALUE"'

    result = subprocess.run(["sh", "-ec", script], capture_output=True, check=True)

    assert result.stdout == value.encode()


@pytest.mark.parametrize(
    ("shell", "text"),
    [
        (Shell.FISH, "set -e OLD\nset -gx NEW 'it\\'s a \\\\'\n"),
        (
            Shell.POWERSHELL,
            "Remove-Item -ErrorAction SilentlyContinue Env:OLD\n$env:NEW = 'it''s a \\'\n",
        ),
    ],
)
def test_other_shells_get_their_own_words(shell: Shell, text: str) -> None:
    """fish escapes inside single quotes, PowerShell doubles them."""
    assert render(Changes({"NEW": "it's a \\"}, ("OLD",)), shell) == text


def test_powershell_s_typographic_quotes_are_quotes() -> None:
    """A typographic quote would end the string as well, so it is doubled, too."""
    assert render(Changes({"NEW": "a\u2019b"}), Shell.POWERSHELL) == "$env:NEW = 'a\u2019\u2019b'\n"


def test_json_says_null_for_what_is_to_go() -> None:
    """One object that a program can apply."""
    assert json.loads(render(Changes({"NEW": "1"}, ("OLD",)), Shell.JSON)) == {"NEW": "1", "OLD": None}
