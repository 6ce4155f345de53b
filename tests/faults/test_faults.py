"""The cheap part of the lab, and what holds for all of it: every case is there, and each can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.__main__ import judged
from tests.faults.case import Lab
from tests.faults.registry import CASES

_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
QUICK = [case for case in CASES if case.quick]


def test_there_are_58_cases_and_each_says_what_it_claims() -> None:
    """In order, without a gap; each has a control."""
    assert [case.id for case in CASES] == [f"F{number:02}" for number in range(1, 59)]
    for case in CASES:
        assert case.fault
        assert case.claim
        assert case.protection
        assert case.control
        assert case.n > 0
    assert [case.id for case in CASES if case.off is None] == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """One TokenHub for all of them."""
    made = Lab(tmp_path_factory.mktemp("faults"))
    yield made
    await made.close()


@pytest.mark.load
@_ONE_LOOP
@pytest.mark.parametrize("case", QUICK, ids=[case.id for case in QUICK])
async def test_what_a_fault_comes_to(lab: Lab, case: object) -> None:
    """A few repetitions of a case, and its control, which must go red; `scripts/test faults` runs all of it."""
    (found,) = [one for one in QUICK if one is case]
    line = await judged(found, lab, min(found.n, 12))
    assert line["pass"], line


@pytest.mark.load
@_ONE_LOOP
async def test_the_lab_notices_a_case_that_cannot_fail(tmp_path: Path) -> None:
    """A control that stays green fails its case, however well the case itself went."""
    lab = Lab(tmp_path)
    case = QUICK[0]

    async def agrees(_: Lab, __: int) -> None:
        """Claim nothing."""

    line = await judged(type(case)(**{**vars(case), "run": agrees}), lab, 1)
    assert (line["control"], line["pass"]) == ("green", False)
