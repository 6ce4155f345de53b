"""The command line of the mutants."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from scripts.mutation import report
from scripts.mutation.areas import AREAS, Area
from scripts.mutation.covering import Reach, RedError, reach
from scripts.mutation.mutants import mutants, sampled
from scripts.mutation.trial import SURVIVED, Subject, Verdict, load, tried

_ROOT: Final = Path(__file__).parents[2]


@click.command()
@click.option(
    "--area", "areas", type=click.Choice([*AREAS]), multiple=True, help="Only this; several may be said."
)
@click.option(
    "--module", "files", multiple=True, help="Only this file of the areas, as tokenhub_core/leave.py."
)
@click.option("--tests", "tests", multiple=True, help="Instead of the area's own tests.")
@click.option("--sample", type=click.IntRange(0), default=60, show_default=True, help="Mutants of each file.")
@click.option("--seed", default=1, show_default=True, help="Which ones are drawn.")
@click.option(
    "--seconds", default=30.0, show_default=True, help="Tests run for a mutant: of so many seconds at most."
)
@click.option(
    "--json", "kept", type=click.Path(path_type=Path, dir_okay=False), help="Write everything here."
)
def main(
    areas: Sequence[str],
    files: Sequence[str],
    tests: Sequence[str],
    *,
    sample: int,
    seed: int,
    seconds: float,
    kept: Path | None,
) -> None:
    """Say what the tests reach of the code that keeps doors, money and secrets, and which faults they notice."""
    if sys.platform != "linux":
        raise click.ClickException("processes are watched as only Linux lets them be")
    os.chdir(_ROOT)
    chosen = {name: _only(area, files) for name, area in AREAS.items() if name in areas or not areas}
    chosen = {name: only for name, only in chosen.items() if only}
    if not chosen:
        raise click.UsageError("no area has such a file")
    reached: dict[str, Reach] = {}
    verdicts: list[Verdict] = []
    sources = {file: (_ROOT / file).read_text() for several in chosen.values() for file in several}
    # Not what stands for it later: while pytest runs in here, its own words go nowhere.
    console = Console(file=sys.stdout, width=max(140, Console().width))
    with _progress(console) as progress:
        for name, several in chosen.items():
            progress.add_task(f"{name}: its tests, once", total=None)
            try:
                reached[name] = reach(_ROOT, several, tests or AREAS[name].tests)
            except RedError as error:
                raise click.ClickException(f"the tests of {name} fail as it is\n{error}") from None
        # What is loaded from here on would not be seen to run in a fork that measures.
        for (name, several), task in zip(chosen.items(), progress.task_ids, strict=True):
            found = reached[name]
            load(found.loaded)
            drawn = {file: sampled(mutants(sources[file]), sample, seed) for file in several}
            progress.update(task, description=name, total=sum(map(len, drawn.values())))

            def tell(one: Verdict, task: TaskID = task, name: str = name) -> None:
                verdicts.append(one)
                report.survivors([one], sources, console)
                survived = sum(one.outcome == SURVIVED for one in verdicts)
                progress.update(task, advance=1, description=f"{name}, {survived} survived so far")

            for file, faults in drawn.items():
                tried(Subject.of(_ROOT, file), faults, found, seconds=seconds, tell=tell)
    report.show(reached, verdicts, console)
    if kept is not None:
        told = report.as_json(reached, verdicts, sources, sample=sample, seed=seed, seconds=seconds)
        kept.write_text(json.dumps(told, indent=1))


def _only(area: Area, files: Sequence[str]) -> list[str]:
    return [file for file in area.files(_ROOT) if file in files or not files]


def _progress(console: Console) -> Progress:
    """Return a progress bar that disappears."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


if __name__ == "__main__":
    main(prog_name="scripts/mutate")
