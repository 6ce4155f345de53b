"""The commands that the documents show: blocks of code, read as a shell would read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.manual import DOCS, parse

ROOT: Final = DOCS.parent
MADE: Final = frozenset({"cli.md"})
"""Pages whose blocks are made from the parser itself, and show how a command is used rather than one."""

_PROGRAMS: Final = (
    *(".", "cd", "chmod", "createuser", "curl", "docker", "eval", "export", "for", "kubectl", "mkdir"),
    *("pg_dump", "pg_restore", "pip", "python", "temporal", "tokenhub"),
)
_ASSIGNED: Final = re.compile(r"[A-Z_]+=(\S*|\$\(.*\))")
_VENV: Final = ".venv/bin/"
_SHELL: Final = re.compile(r"[$<>|;&]")


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    """Below the repository's top."""
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def words(self) -> list[str]:
        """Its words, without what is said behind it; the command itself first."""
        first, *more = shlex.split(self.text, comments=True)
        return [first.removeprefix(_VENV), *more]

    @property
    def needs_a_shell(self) -> bool:
        """Whether it is more than a program and its arguments."""
        outside = re.sub(r"'[^']*'|#\s.*", "", self.text)
        return bool(_SHELL.search(outside)) or bool(_ASSIGNED.match(self.text))

    @property
    def is_ours(self) -> bool:
        """Whether it is `tokenhub` with arguments, and nothing else."""
        return self.words[0] == "tokenhub" and not self.needs_a_shell


def documents() -> list[Path]:
    """Return every page that may show commands."""
    return [ROOT / "README.md", *(path for path in sorted(DOCS.rglob("*.md")) if path.name not in MADE)]


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page: all lines of a `sh` block, and those of other blocks that begin with a program."""
    name = str(page.relative_to(ROOT))
    for token in parse(page.read_text()):
        if token.type not in {"fence", "code_block"} or token.map is None:
            continue
        for offset, text in _whole(token.content):
            if token.info == "sh" or _is_command(text):
                yield Command(name, token.map[0] + offset + 1, text)


def mentioned(page: Path) -> Iterator[str]:
    """Yield what a page says of `tokenhub` in its sentences, as `tokenhub logs --follow`."""
    for token in parse(page.read_text()):
        for one in token.children or ():
            if one.type == "code_inline" and one.content.startswith("tokenhub "):
                yield one.content


def _is_command(text: str) -> bool:
    first = text.split(maxsplit=1)[0]
    if first.startswith(("scripts/", _VENV)) or _ASSIGNED.match(text):
        return True
    return first in _PROGRAMS


def _whole(block: str) -> Iterator[tuple[int, str]]:
    """Yield each line of a block with its number; lines that go on, by a backslash or in quotes, are one."""
    text, began = "", 0
    for number, line in enumerate(block.splitlines()):
        began = began if text else number
        text += line
        if text.endswith("\\"):
            text = text[:-1]
            continue
        try:
            shlex.split(text, comments=True)
        except ValueError:
            text += "\n"
            continue
        if shlex.split(text, comments=True):
            yield began, text.strip()
        text = ""
    if text.strip():
        yield began, text.strip()
