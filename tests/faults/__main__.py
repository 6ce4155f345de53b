"""The command line of the lab: `scripts/test faults`."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

import click
import orjson
import pytest
from rich.console import Console
from rich.table import Table

from tests.faults.case import Case, Lab
from tests.faults.registry import CASES
from tokenhub_core.types import Json

_DOCS: Final = Path(__file__).parents[2] / "docs" / "resilience.md"
_BEGIN: Final = "<!-- cases: written by `scripts/test faults --docs` -->"
_END: Final = "<!-- end of cases -->"
_HEAD: Final = "| case | fault | what must come of it | control: the protection off | n | result |"
_RULE: Final = "| --- | --- | --- | --- | --- | --- |"
_QUIET: Final = 400
"""Characters of what fell short that a line holds."""


async def repeated(case: Case, lab: Lab, n: int) -> str:
    """Run a case; return what fell short, empty where nothing did."""
    try:
        async with asyncio.timeout(case.limit):
            await case.run(lab, n)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 -- whatever it is, the case has failed
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        name = "AssertionError" if isinstance(error, pytest.fail.Exception) else type(error).__name__
        return f"{name} at {where}: {error}"[:_QUIET]
    return ""


async def judged(case: Case, lab: Lab, n: int) -> Json:
    """Run a case and its control; return its line."""
    began = time.monotonic()
    lab.told = {}
    short = await repeated(case, lab, n)
    measured, took = dict(lab.told), time.monotonic() - began
    told = seen = lab.told.pop("control", "")
    if case.off is not None:
        with case.off(lab):
            told = seen = await repeated(case, lab, case.red)
            # Red is a claim that does not hold, or waiting for what never comes; anything else is a fault of the lab.
            seen = seen if seen.startswith(("AssertionError", "TimeoutError")) else ""
    return {
        "id": case.id,
        "pass": not short and bool(seen),
        "n": n,
        "control": "red" if seen else "green",
        "seconds": round(took, 1),
        "lanes": [lane.value for lane in case.lanes],
        "measured": measured,
        "control_says": told,
        **({"short": short} if short else {}),
    }


async def _all(cases: list[Case], factor: float, seed: int, json_file: Path | None) -> list[Json]:
    lines: list[Json] = []
    console = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="tokenhub-faults-") as folder:
        lab = Lab(Path(folder), seed)
        try:
            for number, case in enumerate(cases, 1):
                console.print(f"[{number}/{len(cases)}] {case.id} {case.fault}")
                line = await judged(case, lab, max(1, round(case.n * factor)))
                lines.append(line)
                sys.stdout.write(orjson.dumps(line).decode() + "\n")
                sys.stdout.flush()
        finally:
            await lab.close()
    if json_file is not None:
        await asyncio.to_thread(json_file.write_bytes, b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return lines


def table(lines: list[Json]) -> Table:
    """Return what came of it, for people."""
    by_id: dict[str, Case] = {case.id: case for case in CASES}
    made = Table("case", "fault", "n", "result", "control", "seconds")
    for line in lines:
        case = by_id[line["id"]]
        result = (
            "passed" if line["pass"] else f"[red]FELL SHORT[/] {line.get('short', 'its control is green')}"
        )
        made.add_row(case.id, case.fault, str(line["n"]), result, line["control"], f"{line['seconds']:.1f}")
    return made


def written(lines: list[Json], path: Path) -> None:
    """Put what came of the cases that ran into the table of a document; the others keep their rows."""
    head, begin, rest = path.read_text().partition(_BEGIN)
    old, end, tail = rest.partition(_END)
    rows = {row[2:5]: row for row in old.splitlines() if row.startswith("| F")}
    by_id = {case.id: case for case in CASES}
    for line in lines:
        case = by_id[line["id"]]
        result = "passed" if line["pass"] else f"**falls short**: {_reason(line)}"
        cells = (case.id, case.fault, case.claim, case.control, str(line["n"]), result)
        rows[case.id] = f"| {' | '.join(one.replace('|', '/') for one in cells)} |"
    table_ = ["", "", _HEAD, _RULE, *(rows[name] for name in sorted(rows)), "", ""]
    path.write_text(head + begin + "\n".join(table_) + end + tail)


def _reason(line: Json) -> str:
    if line["control"] == "green" and "short" not in line:
        return "its control stays green"
    return str(line.get("short", "")).partition(": ")[2].splitlines()[0][:160]


@click.command()
@click.option("--only", multiple=True, help="Cases whose ids begin so; may be repeated.")
@click.option(
    "--times", default=1.0, show_default=True, help="So many times the repetitions of the quick profile."
)
@click.option("--seed", default=0, show_default=True, help="Another one breaks other bytes.")
@click.option("--docs", is_flag=True, help="Write what came of it into docs/resilience.md.")
@click.option("--list", "listed", is_flag=True, help="Say what each case claims, and run nothing.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the lines there, too."
)
def main(
    only: tuple[str, ...], times: float, seed: int, docs: bool, listed: bool, json_file: Path | None
) -> None:
    """Break providers, callers and ourselves in 58 ways, and look what comes of it."""
    cases = [case for case in CASES if not only or case.id.startswith(only)]
    console = Console(soft_wrap=True)
    if listed:
        for case in cases:
            console.print(f"[bold]{case.id}[/] {case.fault}\n     {case.claim}\n     control: {case.control}")
        return
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    lines = asyncio.run(_all(cases, times, seed, json_file))
    console.print(table(lines))
    if docs:
        written(lines, _DOCS)
    passed = sum(bool(line["pass"]) for line in lines)
    console.print(f"{passed} of {len(lines)} cases in {time.monotonic() - began:.0f} s")
    sys.exit(passed != len(lines))


if __name__ == "__main__":
    main()
