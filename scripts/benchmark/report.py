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
from scripts.benchmark.rounds import (
    BURST,
    FOREIGN_BURST,
    LOADED,
    PACED,
    RATED,
    SINGLE,
    WHOLE,
    Outcome,
    Workload,
)

BARS: Final[Mapping[str, tuple[Bar, ...]]] = {
    WHOLE.name: (
        Bar(subjects.HANDOFF, 0.33),
        Bar(subjects.INSPECT, 0.70),
        Bar(subjects.SIDE, 1 / 20, of=subjects.LITELLM),
    ),
    BURST.name: (Bar(subjects.HANDOFF, 0.40), Bar(subjects.SIDE, 1 / 20, of=subjects.LITELLM)),
    PACED.name: (Bar(subjects.HANDOFF, 0.40),),
    FOREIGN_BURST.name: (Bar(subjects.HANDOFF, 0.80),),
}
"""What each may cost at most, by workload."""


def cpu_ratios(outcome: Outcome, workload: Workload, of: str = "") -> dict[str, Spread]:
    """Return each subject's CPU time for one answer as a share of the reference's, or of another's, over the rounds."""
    found = outcome.results[workload.name]
    if (of or workload.reference) not in found:
        return {}
    reference = [one.cpu for one in found[of or workload.reference]]
    return {name: spread(ratios([one.cpu for one in rounds], reference)) for name, rounds in found.items()}


def verdicts(outcome: Outcome) -> list[tuple[Workload, Bar, float | None]]:
    """Return every bar with the share that was measured, None where one of its subjects took no part."""
    found = []
    for workload in LOADED:
        for bar in BARS.get(workload.name, ()):
            measured = cpu_ratios(outcome, workload, bar.of).get(bar.subject)
            found.append((workload, bar, measured.middle if measured else None))
    return found


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
    if any(outcome.results[workload.name] for workload in RATED):
        console.print(_rated_table(outcome))
    console.print(_size_table(outcome))
    where = outcome.surroundings
    console.print(
        f"{where['system']}, {where['cores']} cores, Python {where['python']}, mitmproxy {where['mitmproxy']}, "
        f"aiohttp {where['aiohttp']}; load average {where['load_average']}, busy {where['busy_percent']} %, "
        f"stolen {where['stolen_percent']} %{'' if where['pinned'] else '; not pinned'}"
    )
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
                for field in ("first", "whole", "late", "latest")
            }
            for workload in (*SINGLE, *RATED)
            if outcome.results[workload.name]
        },
        "bars": [
            {
                "workload": workload.name,
                "subject": bar.subject,
                "of": bar.of or workload.reference,
                "most": bar.most,
                "measured": measured,
                "met": None if measured is None else measured <= bar.most,
            }
            for workload, bar, measured in verdicts(outcome)
        ],
        "memory_mb": outcome.memory,
        "started": {name: asdict(one) for name, one in outcome.started.items()},
        "streams": {name: asdict(one) for name, one in outcome.held.items()},
        "dropped": outcome.dropped,
        "records": outcome.records,
    }


def _cpu_table(outcome: Outcome) -> Table:
    table = _table("CPU time of one answer, eight at a time, as a share of mitmdump's")
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
                _verdict(outcome, workload, name),
                end_section=number == len(shares) - 1,
            )
    return table


def _latency_table(outcome: Outcome) -> Table:
    table = _table("Added latency, ms: first content, its share of mitmdump's, the end")
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


def _rated_table(outcome: Outcome) -> Table:
    table = _table("Added latency at a fixed rate of whole answers, ms, medians of the rounds")
    for heading in ("half", "95 %", "99 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for workload in RATED:
        half, late, latest = (added(outcome, workload, field) for field in ("whole", "late", "latest"))
        for number, name in enumerate(_sorted(half)):
            values = (half[name], late[name], latest[name])
            table.add_row(
                workload.name if not number else "",
                name,
                *(f"{value.middle:.2f}" for value in values),
                end_section=number == len(half) - 1,
            )
    return table


def _size_table(outcome: Outcome) -> Table:
    table = _table("From nothing to ready; memory after the rounds; peak; streams held at once", "subject")
    for heading in ("ready s", "CPU s", "MB", "peak/s", "held", "ms", "99 %", "CPU ms", "KB"):
        table.add_column(heading, justify="right", no_wrap=True)
    peaks = outcome.results[WHOLE.name]
    for name, size in _sorted(outcome.memory).items():
        begun, held = outcome.started[name], outcome.held.get(name)
        peak = spread([one.per_second for one in peaks[name]]).middle if name in peaks else None
        table.add_row(
            name,
            f"{begun.seconds:.1f}",
            f"{begun.cpu:.1f}",
            f"{size:.0f}",
            "" if peak is None else f"{peak:.0f}",
            *(
                ("lost",) * (name in outcome.dropped)
                if held is None
                else (
                    f"{held.streams:,}",
                    f"{held.middle:.1f}",
                    f"{held.late:.1f}",
                    f"{held.cpu:.2f}",
                    f"{held.memory:.0f}",
                )
            ),
        )
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in names or ("workload", "subject"):
        table.add_column(name, no_wrap=True)
    return table


def _sorted[V](by_name: Mapping[str, V]) -> dict[str, V]:
    """Return it in the order in which subjects are told, whatever the first round's was."""
    order = (
        subjects.BUFFERING,
        subjects.STREAMING,
        subjects.INSPECT,
        subjects.HANDOFF,
        subjects.SPLICE,
        subjects.SIDE,
        subjects.LITELLM,
        subjects.DIRECT,
    )
    return {name: by_name[name] for name in order if name in by_name}


def _numbers(value: Spread, digits: int) -> tuple[str, str, str]:
    return f"{value.low:.{digits}f}", f"{value.middle:.{digits}f}", f"{value.high:.{digits}f}"


def _verdict(outcome: Outcome, workload: Workload, name: str) -> str:
    told = [
        f"{bar.most:.2g}{f' of {bar.of} ({measured:.3f})' if bar.of else ''} "
        f"{'met' if measured <= bar.most else 'over'}"
        for work, bar, measured in verdicts(outcome)
        if work is workload and bar.subject == name and measured is not None
    ]
    return ", ".join(told)
