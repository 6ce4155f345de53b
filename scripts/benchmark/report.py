"""What a run has found, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from scripts.benchmark import subjects
from scripts.benchmark.figures import Bar, Spread, differences, ratios, spread
from scripts.benchmark.rounds import LOADED, SINGLE, Outcome, Workload

BARS: Final = (Bar(subjects.HANDOFF, 0.5), Bar(subjects.INSPECT, 1.0))
"""What a lane may cost at most, as a share of what mitmdump costs."""


def cpu_ratios(outcome: Outcome, workload: Workload) -> dict[str, Spread]:
    """Return each subject's CPU time for one answer as a share of the reference's, over the rounds."""
    found = outcome.results[workload.name]
    reference = [one.cpu for one in found[workload.reference]]
    return {name: spread(ratios([one.cpu for one in rounds], reference)) for name, rounds in found.items()}


def added(outcome: Outcome, workload: Workload, field: str) -> dict[str, Spread]:
    """Return what each subject adds to the upstream's own latency, in milliseconds, over the rounds."""
    found = outcome.results[workload.name]
    floor = [getattr(one, field) for one in found[subjects.DIRECT]]
    return {
        name: spread(differences([getattr(one, field) for one in rounds], floor))
        for name, rounds in found.items()
        if name != subjects.DIRECT
    }


def added_share(outcome: Outcome, workload: Workload, field: str) -> dict[str, Spread]:
    """Return what each subject adds as a share of what the reference adds."""
    found = outcome.results[workload.name]
    floor = [getattr(one, field) for one in found[subjects.DIRECT]]
    by_name = {
        name: differences([getattr(one, field) for one in rounds], floor) for name, rounds in found.items()
    }
    reference = by_name[workload.reference]
    return {
        name: spread(ratios(values, reference)) for name, values in by_name.items() if name != subjects.DIRECT
    }


def show(outcome: Outcome, console: Console) -> None:
    """Print the tables."""
    console.print(_cpu_table(outcome))
    console.print(_latency_table(outcome))
    where = outcome.surroundings
    console.print(
        f"{where['system']}, {where['cores']} cores, Python {where['python']}, mitmproxy {where['mitmproxy']}, "
        f"aiohttp {where['aiohttp']}; load average {where['load_average']}, busy {where['busy_percent']} %, "
        f"stolen {where['stolen_percent']} %{'' if where['pinned'] else '; not pinned'}"
    )
    memory = ", ".join(f"{name} {size:.0f} MB" for name, size in outcome.memory.items())
    console.print(f"Resident at the end: {memory}.")
    told = ", ".join(f"{name} {count}" for name, count in outcome.records.items())
    console.print(f"One record an answer: {told}.")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return everything, each round's values included."""
    return {
        "surroundings": outcome.surroundings,
        "rounds": {
            workload: {name: [asdict(one) for one in rounds] for name, rounds in found.items()}
            for workload, found in outcome.results.items()
        },
        "cpu_ratios": {
            workload.name: {name: asdict(value) for name, value in cpu_ratios(outcome, workload).items()}
            for workload in LOADED
        },
        "added_ms": {
            workload.name: {
                field: {name: asdict(value) for name, value in added(outcome, workload, field).items()}
                for field in ("first", "whole", "late")
            }
            for workload in SINGLE
        },
        "bars": [
            {
                "workload": workload.name,
                "subject": bar.subject,
                "most": bar.most,
                "met": bar.met(cpu_ratios(outcome, workload)),
            }
            for workload in LOADED
            for bar in BARS
        ],
        "memory_mb": outcome.memory,
        "records": outcome.records,
    }


def _cpu_table(outcome: Outcome) -> Table:
    table = Table(
        title="CPU time of one answer, eight at a time, as a share of mitmdump's",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("workload", no_wrap=True)
    table.add_column("subject", no_wrap=True)
    for heading in ("ms", "min", "median", "max", "bar"):
        table.add_column(heading, justify="right", no_wrap=True)
    for workload in LOADED:
        found, shares = outcome.results[workload.name], cpu_ratios(outcome, workload)
        for number, (name, share) in enumerate(_sorted(shares).items()):
            table.add_row(
                workload.name if not number else "",
                name,
                f"{spread([one.cpu for one in found[name]]).middle:.2f}",
                *_numbers(share, 2),
                _verdict(name, shares),
                end_section=number == len(shares) - 1,
            )
    return table


def _latency_table(outcome: Outcome) -> Table:
    table = Table(
        title="Added latency, ms: first content, its share of mitmdump's, the end",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("workload", no_wrap=True)
    table.add_column("subject", no_wrap=True)
    for heading in ("min", "median", "max", "share", "end", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for workload in SINGLE:
        first, whole, late = (added(outcome, workload, field) for field in ("first", "whole", "late"))
        share = added_share(outcome, workload, "first")
        for number, name in enumerate(_sorted(first)):
            table.add_row(
                workload.name if not number else "",
                name,
                *_numbers(first[name], 2),
                f"{share[name].middle:.2f}",
                f"{whole[name].middle:.2f}",
                f"{late[name].middle:.2f}",
                end_section=number == len(first) - 1,
            )
    return table


def _sorted[V](by_name: Mapping[str, V]) -> dict[str, V]:
    """Return it in the order in which subjects are told, whatever the first round's was."""
    order = (
        subjects.BUFFERING,
        subjects.STREAMING,
        subjects.INSPECT,
        subjects.HANDOFF,
        subjects.SIDE,
        subjects.DIRECT,
    )
    return {name: by_name[name] for name in order if name in by_name}


def _numbers(value: Spread, digits: int) -> tuple[str, str, str]:
    return f"{value.low:.{digits}f}", f"{value.middle:.{digits}f}", f"{value.high:.{digits}f}"


def _verdict(name: str, shares: Mapping[str, Spread]) -> str:
    for bar in BARS:
        if bar.subject == name:
            return f"{bar.most:g} {'met' if bar.met(shares) else 'over'}"
    return ""
