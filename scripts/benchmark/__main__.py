"""The command line of the benchmark."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.benchmark import (
    coverage,
    imports,
    kept,
    memory,
    pairs,
    profiles,
    proofs,
    regret,
    rehearsals,
    report,
    rounds,
    rows,
    several,
    subjects,
    workers,
    writes,
)
from scripts.benchmark.load import LoadError
from scripts.benchmark.processes import cores
from scripts.benchmark.subjects import SubjectError

_ROOT: Final = Path(__file__).parents[2]
_TRAFFIC: Final = {
    "whole": rounds.WHOLE.traffic,
    "at-once": rounds.BURST.traffic,
    "paced": rounds.PACED.traffic,
}


@click.command()
@click.option(
    "--quick", is_flag=True, help="Three short rounds, within two minutes; otherwise five, within fifteen."
)
@click.option(
    "--litellm",
    "peer",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="LiteLLM's program, installed apart: its proxy takes part, too.",
)
@click.option("--store", is_flag=True, help="Keep this run as the one that later ones are compared with.")
@click.option(
    "--json", "written", type=click.Path(path_type=Path, dir_okay=False), help="Write every value there."
)
@click.option(
    "--profile",
    "profiled",
    type=click.Choice([subjects.HANDOFF, subjects.INSPECT, subjects.SIDE]),
    help="Instead: show where this one's CPU time goes.",
)
@click.option(
    "--traffic",
    type=click.Choice(list(_TRAFFIC)),
    default="whole",
    help="With --profile: answers whole, streamed at once, or streamed 3 ms apart.",
)
@click.option(
    "--regret",
    "instead",
    flag_value="regret",
    help="Instead: regret of every way of choosing in a simulated fleet.",
)
@click.option(
    "--coverage",
    "instead",
    flag_value="coverage",
    help="Instead: how often the intervals of off-policy estimates hold a truth that is known.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, len(regret.SEEDS)),
    default=1,
    show_default=True,
    help="With --regret: over so many seeds, with their mean and spread.",
)
@click.option(
    "--modes",
    "instead",
    flag_value="modes",
    help="Instead: what several models on one question gain for their price, in a simulated fleet.",
)
@click.option(
    "--plan", "instead", flag_value="plan", help="Instead: the CPU time of a plan by size of the fleet."
)
@click.option(
    "--imports", "instead", flag_value="imports", help="Instead: the CPU time of imports; within a minute."
)
@click.option(
    "--pairs",
    "instead",
    flag_value="pairs",
    help="Instead: how fast streams are read and written, for every client and provider; within a minute.",
)
@click.option(
    "--writes",
    "instead",
    flag_value="writes",
    help="Instead: records a second, on SQLite and on the PostgreSQL of TOKENHUB_DB_DSN; within a minute.",
)
@click.option(
    "--workers",
    "instead",
    flag_value="workers",
    help="Instead: answers a second and their CPU time with one worker and with two; within two minutes.",
)
@click.option(
    "--rows",
    "many",
    type=click.IntRange(min=1_000),
    help="Instead: fill a log with so many synthetic rows, on SQLite and on the empty PostgreSQL of"
    " TOKENHUB_DB_DSN, and time its pages, searches and time series.",
)
@click.option(
    "--memory",
    "held",
    type=click.IntRange(min=100),
    help="Instead: resident memory over so many mixed calls; 100,000 take some ten minutes.",
)
@click.option(
    "--by",
    type=click.Choice([subjects.HANDOFF, subjects.INSPECT, subjects.SIDE]),
    default=subjects.HANDOFF,
    show_default=True,
    help="With --memory: which way the calls go.",
)
@click.option(
    "--proof",
    "instead",
    flag_value="proof",
    help="Instead: what proof of delivery costs a call; within a minute.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_ROOT / "var",
    help="Where the databases are made, and removed. On a disk: a file system in memory makes commits free.",
)
def main(  # noqa: C901, PLR0912, PLR0913 - one an option
    quick: bool,
    written: Path | None,
    *,
    peer: Path | None,
    store: bool,
    profiled: str | None,
    traffic: str,
    folder: Path,
    instead: str | None,
    seeds: int,
    many: int | None,
    held: int | None,
    by: str,
) -> None:
    """Measure what a call costs by each way through TokenHub, beside stock mitmdump in the same run."""
    match instead:
        case "plan":
            rehearsals.show_plan(Console())
            return
        case "regret":
            rehearsals.show_regret(_ROOT / "docs" / "regret.svg", Console(width=120), seeds=seeds)
            return
        case "modes":
            with _progress() as progress:
                several.show(_ROOT / "docs" / "modes.svg", Console(width=120), _teller(progress))
            return
        case "coverage":
            with _progress() as progress:
                results = coverage.runs(coverage.LOGS, os.cpu_count() or 1, _teller(progress))
            coverage.show(results, Console(width=150))
            return
        case "imports":
            with _progress() as progress:
                taken = imports.imports(_teller(progress))
            imports.show(taken, Console())
            return
        case "pairs":
            _pairs(quick, written)
            return
        case "writes":
            _writes(quick, folder)
            return
        case "proof":
            _proofs(quick, folder)
            return
        case "workers":
            _workers(quick, folder)
            return
    if many is not None:
        _rows(many, folder)
        return
    if held is not None:
        _memory(held, by, folder)
        return
    if sys.platform != "linux":
        raise click.ClickException("CPU time is read from /proc, which only Linux has")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place:
            if profiled is not None:
                found = asyncio.run(profiles.profile(profiled, _TRAFFIC[traffic], Path(place), cores()))
                profiles.show(found, Console())
                return
            outcome = _measured(Path(place), rounds.QUICK if quick else rounds.FULL, peer)
    except (LoadError, SubjectError) as error:
        raise click.ClickException(str(error)) from None
    report.show(outcome, Console())
    if (before := kept.stored(_ROOT / "docs")) is not None:
        kept.show(before, outcome, Console())
    if store:
        kept.store(outcome, _ROOT / "docs")
    if written is not None:
        written.write_text(json.dumps(report.as_json(outcome), indent=1) + "\n")


def _pairs(quick: bool, written: Path | None) -> None:
    with _progress() as progress:
        try:
            found = pairs.run(pairs.QUICK if quick else pairs.FULL, _teller(progress))
        except pairs.PairError as error:
            raise click.ClickException(str(error)) from None
    pairs.show(found, Console(width=110))
    if written is not None:
        written.write_text(json.dumps({"pairs": pairs.as_json(found)}, indent=1) + "\n")


def _writes(quick: bool, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place, _progress() as progress:
        seconds = writes.QUICK if quick else writes.SECONDS
        dsn = os.environ.get("TOKENHUB_DB_DSN", "")
        found = writes.run(Path(place), dsn, seconds=seconds, tell=_teller(progress))
    writes.show(found, Console(width=110))


def _workers(quick: bool, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    seconds, turns = (workers.QUICK, 1) if quick else (workers.SECONDS, workers.ROUNDS)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place, _progress() as progress:
        try:
            found = asyncio.run(
                workers.run(Path(place), rounds=turns, seconds=seconds, tell=_teller(progress))
            )
        except (LoadError, SubjectError) as error:
            raise click.ClickException(str(error)) from None
    workers.show(found, Console(width=130))


def _memory(calls: int, lane: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place, _progress() as progress:
        try:
            found = asyncio.run(memory.run(Path(place), lane, calls, tell=_teller(progress)))
        except (LoadError, SubjectError) as error:
            raise click.ClickException(str(error)) from None
    memory.show(lane, found, Console())


def _rows(many: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place, _progress() as progress:
        sizes, taken = rows.run(
            Path(place), os.environ.get("TOKENHUB_DB_DSN", ""), many, tell=_teller(progress)
        )
    rows.show(sizes, taken, Console(width=130))


def _proofs(quick: bool, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    calls, rounds_ = (proofs.QUICK, 1) if quick else (proofs.CALLS, proofs.ROUNDS)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place, _progress() as progress:
        found = proofs.run(Path(place), calls=calls, rounds=rounds_, tell=_teller(progress))
    proofs.show(found, Console(width=110))


def _measured(place: Path, length: rounds.Length, peer: Path | None) -> rounds.Outcome:
    with _progress() as progress:
        return asyncio.run(rounds.run(place, length, cores(), _teller(progress), peer))


def _teller(progress: Progress) -> Callable[[int, int, str], None]:
    """Return what moves the line."""
    task = progress.add_task("starting", total=None)

    def tell(done: int, total: int, what: str) -> None:
        progress.update(task, completed=done, total=total or None, description=what)
        progress.refresh()

    return tell


def _progress() -> Progress:
    """Return a line on stderr that moves only when it is told to: a thread that draws would take CPU time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )


if __name__ == "__main__":
    main()
