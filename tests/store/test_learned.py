"""What was learned, in the database and back."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from tokenhub_core.routing import spread
from tokenhub_core.routing.affinity import Served
from tokenhub_core.routing.bandit import Bandit, Kept
from tokenhub_core.routing.learning import Average, Key, Measure
from tokenhub_core.store import learned
from tokenhub_core.store.database import Database
from tokenhub_core.store.schema import ESTIMATES

RECORDS = [
    Kept("m", "p", "small", 0.1 + 0.2, 1 / 3, 7, 1_800_000_000_123_456),
    Kept("m", "p", "", 1e-300, 12.5, 9, 1_800_000_000_123_457),
]
AVERAGES = [
    (Key(Measure.TOKENS, "m", "prose"), Average(1 / 3, 0.1 + 0.2, 17)),
    (Key(Measure.PACE, "", "p"), Average(12.34567890123)),
]


def saved(database: Database, records: list[Kept], averages: list[tuple[Key, Average]]) -> None:
    with database.writing() as connection:
        learned.save(connection, records, averages, now=1.8e9)


def read(database: Database) -> tuple[list[Kept], dict[Key, Average]]:
    with database.reading() as connection:
        return learned.posteriors(connection), dict(learned.estimates(connection))


def test_what_is_saved_comes_back_to_the_last_bit(database: Database) -> None:
    """Every number is the same number, so a restart changes no decision."""
    saved(database, RECORDS, AVERAGES)
    assert read(database) == (RECORDS, dict(AVERAGES))


def test_a_record_takes_the_place_of_the_one_it_has_grown_from(database: Database) -> None:
    """Saving writes what stands, not what was added: nothing is ever counted twice, or taken for a whole."""
    saved(database, RECORDS, AVERAGES)
    grown = Kept("m", "p", "small", 5.0, 6.0, 8, 1_800_000_000_200_000)
    saved(database, [grown], [(AVERAGES[0][0], Average(0.5))])
    records, averages = read(database)
    assert records == [grown, RECORDS[1]]
    assert averages == {AVERAGES[0][0]: Average(0.5), AVERAGES[1][0]: AVERAGES[1][1]}


def test_spreads_come_back_to_the_last_bit(database: Database) -> None:
    """Buckets, weights and counts; the later one takes the earlier one's place."""
    first = spread.Kept("m", "p", ((0, 1 / 3), (159, 0.1 + 0.2)), 1 / 0.995, 7)
    grown = spread.Kept("m", "p", ((3, 1e-7),), 2.0, 8)
    other = spread.Kept("n", "p", ((1, 1.0),), 1.0, 1)
    for times in ([first, other], [grown]):
        with database.writing() as connection:
            learned.save(connection, [], [], times, now=1.8e9)
        with database.reading() as connection:
            found = {one.model: one for one in learned.spreads(connection)}
        assert found == {"m": times[0], "n": other}


def test_nothing_learned_is_nothing_saved(database: Database) -> None:
    """An empty saving is fine."""
    saved(database, [], [])
    assert read(database) == ([], {})


def test_names_of_strangers_can_be_stored(database: Database) -> None:
    """Half characters, NUL and length: such names are made storable, and two that become one are one."""
    odd = [Kept(name, "p", "small", 1.0, 0.0, 1, 1) for name in ("\ud800", "\ud801", "\0", "x" * 999)]
    saved(database, odd, [(Key(Measure.OUTPUT, "\udfff", "\0"), Average(3.0))])
    records, averages = read(database)
    assert len(records) == 3
    assert len(averages) == 1


def test_a_measure_of_another_version_is_left_out(database: Database) -> None:
    """What this version does not know it does not use."""
    row = {"measure": "smell", "model_id": "m", "subject": "", "mean": 1.0, "error": 0.0, "count": 1}
    with database.writing() as connection:
        connection.execute(insert(ESTIMATES).values(**row, updated_at=1))
    assert read(database)[1] == {}


@pytest.mark.parametrize(("won", "lost"), [(0.0, 0.0), (-3.0, -3.0)])
def test_zeros_in_the_database_are_no_parameters(database: Database, won: float, lost: float) -> None:
    """The stored counts stand on top of the prior: an arm whose counts are zero can be drawn."""
    saved(database, [Kept("m", "p", "small", won, lost, 1, 1)], [])
    bandit = Bandit(read(database)[0])
    (draw,) = bandit.draw([("m", "p")], "small", penalties=[0.0], seed="s", now=1.8e9)
    assert (draw.alpha, draw.beta) == (1.0, 1.0)


# --- marks of conversations -----------------------------------------------------------------------------------

MARKS = [
    (b"\x00" * 16, Served("m", "p", 1_800_000_000.25, 2_000)),
    (b"\xff" * 16, Served("", "", 1_800_000_001.5, 0)),
]


def kept(database: Database) -> list[tuple[bytes, Served]]:
    with database.reading() as connection:
        return learned.marks(connection)


def keep(database: Database, noted: list[tuple[bytes, Served]], forgotten: list[bytes] | None = None) -> None:
    with database.writing() as connection:
        learned.save_marks(connection, noted, forgotten)


def test_marks_come_back_the_oldest_first(database: Database) -> None:
    """Those that two have left come back as such."""
    keep(database, MARKS[::-1], [])
    assert kept(database) == MARKS


def test_a_mark_is_replaced_and_a_forgotten_one_is_gone(database: Database) -> None:
    """The store holds what is known, and not what was."""
    keep(database, MARKS, [])
    newer = (MARKS[0][0], Served("n", "q", 1_800_000_002.0, 5))
    keep(database, [newer], [MARKS[1][0]])
    assert kept(database) == [newer]


def test_all_that_is_known_takes_the_place_of_all_that_was(database: Database) -> None:
    """At the end, and after a saving that failed, nobody knows what was forgotten since."""
    keep(database, MARKS, [])
    keep(database, MARKS[:1])
    assert kept(database) == MARKS[:1]
