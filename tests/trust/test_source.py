"""What the source does not have, so that no caller can come to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import rules
from tests.rules import Module

ROOT: Final = Path(__file__).parents[2]
STARTERS: Final = ("create_subprocess_", "posix_spawn", "popen", "system", "exec", "spawn")
"""How functions of asyncio and os begin that start a program."""
READERS: Final = ("jinja2", "mako", "marshal", "pickle", "shelve", "subprocess")
"""Packages that run what they are given, or start it."""
ALLOWED: Final = {
    "tokenhub_core.cli.run",  # the user's own command
    "tokenhub_addon.doctor",  # an operator's command, which tries the programs it finds
    "tokenhub_addon.workers",  # ourselves, once more
}


def starts(module: Module) -> Iterator[str]:
    """Yield what of a module can run code or a program that somebody hands it."""
    yield from (breach.detail for breach in rules.forbidden_imports(module, READERS))
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os" | "asyncio"), attr=name)) if (
                name.startswith(STARTERS)
            ):
                yield name


def test_nothing_that_serves_can_start_a_program() -> None:
    """No eval, no templates, no pickles, no shell and no program: a `test` endpoint cannot become a way in."""
    house = [
        *rules.read(ROOT / "tokenhub_core", prefix="tokenhub_core"),
        *rules.read(ROOT / "addon" / "tokenhub_addon", prefix="tokenhub_addon"),
    ]

    assert {module.name for module in house if [*starts(module)]} == ALLOWED
    served = [module for module in house if module.name.startswith("tokenhub_core.http")]
    assert [module.name for module in served if rules.imports(module) & ALLOWED] == []


@pytest.mark.parametrize(
    "bad",
    [
        "import subprocess",
        "from pickle import loads",
        "eval(x)",
        "exec(x)",
        "os.system(x)",
        "os.execvp(x, y)",
        "asyncio.create_subprocess_shell(x)",
    ],
)
def test_what_would_start_one_is_seen(bad: str) -> None:
    """Each way is one that the test above would find."""
    assert [*starts(Module("tokenhub_core.x", bad))] != []
    assert [*starts(Module("tokenhub_core.x", "re.compile(x)\nconnection.execute(y)\nself.system(z)"))] == []
