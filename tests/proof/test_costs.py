"""The measure of what proofs cost: each way makes the calls that it says, and what is not proved is no figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from scripts.benchmark import proofs
from scripts.benchmark.figures import Spread
from scripts.benchmark.proofs import WAYS, Found
from tests.proof.shop import shop
from tokenhub_core.proof.entries import Draft


def test_each_way_of_each_answer_is_measured(tmp_path: Path) -> None:
    """Two entries a call where proofs are on, which say more where words are proved, too; none where they are off."""
    told: list[str] = []
    found = proofs.run(tmp_path, calls=2, rounds=1, tell=lambda done, total, what: told.append(what))
    assert len(told) == len(found) == 2 * len(WAYS)
    for off, tools, every in (found[:3], found[3:]):
        assert (off.way, off.rows, off.stored) == ("off", 0, 0)
        assert (tools.way, tools.rows, every.way, every.rows) == ("tools", 2, "all", 2)
        assert 0 < tools.stored < every.stored


async def test_what_is_not_proved_is_no_figure(tmp_path: Path) -> None:
    """A delivery that is missing, or that is not the same."""
    async with shop(tmp_path / "proofs.sqlite") as it:
        await it.serve("req_1")
        proofs.check(it.told, 1)
        with pytest.raises(proofs.ProofError):
            proofs.check(it.told, 2)
        await it.serve("req_2", b"{}")
        changed: list[Draft] = it.told[1:]
    with pytest.raises(proofs.ProofError):
        proofs.check(changed, 1)


def test_what_it_costs_is_told_over_proofs_that_are_off() -> None:
    """A row for each way."""
    console = Console(record=True, width=110)
    found = [
        Found("a", way, Spread(1, cost, 3_000), 2, 900) for way, cost in (("off", 1_000), ("all", 1_250))
    ]
    proofs.show(found, console)
    told = console.export_text().split()
    assert {"1,000", "1,250", "250", "900"} <= {*told}
