"""The command line of the lane: `scripts/test fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fuzz import lane
from tests.fuzz.lane import Outcome, Unit
from tests.fuzz.parsers import targets

_ROOT: Final = Path(__file__).parents[2]
_FULL: Final = 1_000_000


@click.command()
@click.option("--runs", default=_FULL, show_default=True, help="Inputs for each parser.")
@click.option(
    "--skip", default=0, help=f"So many of them were had by an earlier part; in steps of {lane.UNIT:,}."
)
@click.option("--minutes", default=60.0, show_default=True, help="Stop then, however many have run.")
@click.option("--seed", default=1, show_default=True, help="Another one makes other inputs.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--only", multiple=True, help="Parsers whose names hold this; may be repeated.")
@click.option(
    "--guided", is_flag=True, help="Let atheris choose the inputs by coverage (pip install atheris)."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_ROOT / "var" / "fuzz",
    help="Where findings are written.",
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(
    runs: int,
    skip: int,
    minutes: float,
    seed: int,
    jobs: int,
    only: tuple[str, ...],
    guided: bool,
    folder: Path,
    files: tuple[Path, ...],
) -> None:
    """Give every parser generated inputs, or the findings in FILES once more."""
    if files:
        for path in files:
            _again(path)
        return
    names = [one.name for one in targets() if not only or any(word in one.name for word in only)]
    if not names:
        raise click.ClickException(
            f"no parser is called so; there are: {', '.join(t.name for t in targets())}"
        )
    until = time.time() + 60 * minutes
    if guided:
        if find_spec("atheris") is None:
            raise click.ClickException("atheris is not installed: pip install atheris, or leave --guided out")
        sys.exit(_guided(names, runs, until, folder))
    work = lane.units(names, runs=runs, seed=seed, until=until, skip=skip)
    found = _generated(work, total=(runs - skip) * len(names), jobs=jobs)
    sys.exit(report(found, names, runs - skip, folder))


def _generated(work: Iterator[Unit], *, total: int, jobs: int) -> dict[str, Outcome]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=total)
        last = time.monotonic()

        def tell(outcome: Outcome) -> None:
            nonlocal last
            progress.update(task, advance=outcome.runs, description=f"{outcome.target:<28}")
            if not console.is_terminal and time.monotonic() - last > 30:
                last = time.monotonic()
                console.print(f"{progress.tasks[0].completed:,.0f} of {total:,} inputs")

        return lane.run(work, jobs, tell)


def report(found: dict[str, Outcome], names: list[str], runs: int, folder: Path) -> int:
    """Print a line for each parser and each finding; return the exit code."""
    wrong = 0
    for name in names:
        one = found.get(name, Outcome(name))
        rate = one.runs / one.seconds if one.seconds else 0.0
        short = "" if one.runs == runs else f" of {runs:,}: out of time"
        click.echo(
            f"{name:<30} {one.runs:>9,} inputs{short} {rate:>8,.0f}/s  slowest {1000 * one.slowest:6.1f} ms"
        )
        for finding in one.findings:
            wrong += 1
            path = finding.keep(folder)
            click.echo(f"  {finding.place}\n    again: scripts/test fuzz {os.path.relpath(path)}")
    click.echo(f"{sum(one.runs for one in found.values()):,} inputs, {wrong} findings")
    return 1 if wrong else 0


def _guided(names: list[str], runs: int, until: float, folder: Path) -> int:
    """Run atheris for one parser after the other: it ends its process. Return the worst exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    worst = 0
    for done, name in enumerate(names):
        seconds = max(1, int((until - time.time()) / (len(names) - done)))
        command = [sys.executable, "-m", "tests.fuzz.guided", name, str(runs), str(seconds), str(folder)]
        worst = max(worst, subprocess.run(command, cwd=_ROOT, check=False).returncode)
    return worst


def _again(path: Path) -> None:
    """Give one kept input to its parser, in the open: what it raises ends the program."""
    called = [one for one in targets() if path.name.startswith(f"{one.name}-")]
    if not called:
        raise click.ClickException(f"{path.name}: the name does not begin with that of a parser")
    target = max(called, key=lambda one: len(one.name))
    target.run(path.read_bytes())
    click.echo(f"{path}: {target.name} takes it")


if __name__ == "__main__":
    main()
