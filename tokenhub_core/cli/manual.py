"""The manual of the command line, made from the parser: pages for `man`, and `docs/cli.md`.."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from tokenhub_core import __version__
from tokenhub_core.errors import ConfigError

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done",
    1: "done, and something is not as it should be (`verify`, `audit verify`, `ca show`, `db check`, `doctor`); or the"
    " user said no",
    2: "not done: the command line or a setting cannot be used, nothing serves, or the server refused; one line on"
    " standard error says why",
    126: "`run`: the program cannot be executed",
    127: "`run`: the program was not found",
}
"""What the exit code of a command means. That of a program is passed on by `run`."""

_SECTION: Final = "1"


class Page(msgspec.Struct, frozen=True):
    """One command."""

    path: tuple[str, ...]
    """From `tokenhub` on."""
    short: str
    usage: str
    text: str
    """Paragraphs, a blank line between them; one whose lines are indented is an example."""
    options: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    """The names of what stands below it."""

    @property
    def name(self) -> str:
        """Return what the page is called."""
        return "-".join(self.path)


def pages(root: click.Command, name: str = "tokenhub") -> list[Page]:
    """Return the page of a command and of all below it, in the order of its help."""
    return [*_pages(click.Context(root, info_name=name), ())]


def _pages(context: click.Context, path: tuple[str, ...]) -> Iterator[Page]:
    command = context.command
    here = (*path, str(context.info_name))
    below = [*_below(context)]
    # Of the program as it was started, not of the place that it stands in.
    usage = " ".join([*here, *command.collect_usage_pieces(context)])
    records = [param.get_help_record(context) for param in command.params]
    # Arguments stand in the usage, and are explained in the text.
    options = [record for record in records if record is not None and record[1]]
    yield Page(
        here,
        command.get_short_help_str(limit=200),
        usage,
        _text(command.help or ""),
        tuple((_clean(flags), " ".join(words.split())) for flags, words in options),
        tuple(str(one.info_name) for one in below),
    )
    for one in below:
        yield from _pages(one, here)


def _below(context: click.Context) -> Iterator[click.Context]:
    if not isinstance(context.command, click.Group):
        return
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        if command is not None and not command.hidden:
            yield click.Context(command, info_name=name, parent=context)


def _text(given: str) -> str:
    """Return a help text with its paragraphs on lines of their own and its examples indented."""
    paragraphs = []
    for part in re.split(r"\n\s*\n", inspect.cleandoc(given)):
        if part.startswith("\b"):
            lines = inspect.cleandoc(part.removeprefix("\b").lstrip("\n")).splitlines()
            paragraphs.append("\n".join(f"    {line.strip()}" for line in lines))
        elif part.strip():
            paragraphs.append(" ".join(part.split()))
    return "\n\n".join(paragraphs)


def _clean(flags: str) -> str:
    return " ".join(flags.split())


# --- Markdown ------------------------------------------------------------------------------------------------


def markdown(found: Sequence[Page]) -> str:
    """Return the manual as a chapter for each command, groups first."""
    lines = []
    for page in found[1:]:
        lines += [f"{'#' * min(len(page.path) + 1, 5)} {' '.join(page.path)}", "", f"    {page.usage}", ""]
        lines += [page.text or page.short, ""]
        if page.options:
            lines += ["| option | meaning |", "| --- | --- |"]
            lines += [f"| `{_cell(flags)}` | {_cell(words)} |" for flags, words in page.options]
            lines += [""]
    return "\n".join(lines)


def exit_codes() -> str:
    """Return the table of exit codes."""
    rows = [f"| {code} | {words} |" for code, words in EXIT_CODES.items()]
    return "\n".join(["| exit code | meaning |", "| --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- man -----------------------------------------------------------------------------------------------------


def roff(page: Page) -> str:
    """Return a page in the language of `man` (man(7))."""
    lines = [
        f'.TH "{page.name.upper()}" "{_SECTION}" "" "tokenhub {__version__}" "TokenHub"',
        # Options and paths that cannot be broken would be torn apart.
        ".ad l",
        ".SH NAME",
        rf"{_escaped(page.name)} \- {_escaped(page.short)}",
        ".SH SYNOPSIS",
        f".B {_escaped(' '.join(page.path))}",
        _escaped(page.usage.removeprefix(" ".join(page.path)).strip()),
        ".SH DESCRIPTION",
        *_roff_text(page.text or page.short),
    ]
    if page.options:
        lines.append(".SH OPTIONS")
        for flags, words in page.options:
            lines += [".TP", rf"\fB{_escaped(flags)}\fR", _escaped(words or " ")]
    if page.commands:
        lines.append(".SH COMMANDS")
        for name in page.commands:
            lines += [".TP", rf"\fB{_escaped(f'{page.name}-{name}')}\fR(1)"]
    if len(page.path) == 1:
        lines.append(".SH EXIT STATUS")
        for code, words in EXIT_CODES.items():
            lines += [".TP", rf"\fB{code}\fR", _escaped(words.replace("`", ""))]
    else:
        lines += [".SH SEE ALSO", rf"\fB{_escaped('-'.join(page.path[:-1]))}\fR(1)"]
    return "\n".join(line for line in lines if line) + "\n"


def _roff_text(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            yield from (".PP", ".nf", ".RS")
            yield from (_escaped(line[4:]) for line in paragraph.splitlines())
            yield from (".RE", ".fi")
        else:
            yield from (".PP", _escaped(paragraph))


def _escaped(text: str) -> str:
    r"""Return text as roff shows it: `\` and `-` are its own signs, and so is a dot or a quote that begins a line."""
    shown = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga")
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown


@click.command(short_help="Write the pages of the manual, for `man`.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where they go: a folder `man1` below one that MANPATH names.",
)
@click.pass_context
def man(ctx: click.Context, /, *, folder: Path) -> None:
    """Write the pages of the manual, for `man`.

    \b
        tokenhub man --folder ~/.local/share/man/man1
        man tokenhub-provider-add
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = pages(ctx.find_root().command)
        for page in found:
            (folder / f"{page.name}.{_SECTION}").write_text(roff(page), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    click.echo(f"{len(found)} pages are in {folder}")
