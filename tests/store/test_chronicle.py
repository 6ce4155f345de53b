"""What became of providers is kept: each way out and back, and of flapping where it ended."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.admission.parking import Change, Parked, Place, Reason
from tokenhub_core.chronicle import Chronicle, settled
from tokenhub_core.store import parkings
from tokenhub_core.store.chronicle import Moved
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer


def moved(at: float, provider: str, before: str, after: str, reason: str = "http_500") -> Moved:
    return Moved(at, provider, "health", "", "", before, after, reason)


def test_flapping_is_one_row_and_every_ejection_is_its_own() -> None:
    """Between healthy and degraded the last word of a look counts; nothing where that is the first one."""
    moves = [
        moved(1.0, "p", "healthy", "degraded"),
        moved(1.1, "p", "degraded", "healthy"),
        moved(1.2, "q", "healthy", "degraded"),
        moved(1.3, "p", "healthy", "degraded"),
        moved(1.4, "q", "degraded", "healthy"),
        moved(1.5, "p", "degraded", "down"),
        moved(1.6, "p", "down", "half_open"),
        moved(1.7, "p", "half_open", "healthy"),
    ]
    assert [(one.at, one.before, one.after) for one in settled(moves)] == [
        (1.3, "healthy", "degraded"),
        (1.5, "degraded", "down"),
        (1.6, "down", "half_open"),
        (1.7, "half_open", "healthy"),
    ]


@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from(["healthy", "degraded", "down", "half_open"])))
)
def test_what_is_kept_leads_from_the_same_beginning_to_the_same_end(steps: list[tuple[str, str]]) -> None:
    """For each provider what is left is a chain without gaps, with every move out and back in it."""
    states, moves = {"p": "healthy", "q": "healthy"}, []
    for at, (provider, state) in enumerate(steps):
        if state != states[provider]:
            moves.append(moved(float(at), provider, states[provider], state))
            states[provider] = state
    kept = settled(moves)
    for provider, end in states.items():
        own = [one for one in kept if one.provider_id == provider]
        assert [one.after for one in own][-1:] == ([end] if own else [])
        assert own or end == "healthy"
        assert all(one.after == other.before for one, other in pairwise(own))
    out = [one for one in moves if "down" in {one.before, one.after}]
    assert [one for one in kept if "down" in {one.before, one.after}] == out


async def test_health_and_parkings_are_found_together_newest_first(
    database: Database, writer: Writer
) -> None:
    """Of the time and the provider that are asked for, and no more than that."""
    chronicle = Chronicle(database, writer)
    # Nothing is left of these, and nothing is written for them.
    chronicle.note([moved(1.0, "p", "healthy", "degraded"), moved(1.1, "p", "degraded", "healthy")])
    chronicle.note([moved(10.0, "p", "healthy", "down"), moved(20.0, "q", "healthy", "degraded", "told")])
    parked = Parked(Place("p", "main", "gpt-4o"), Reason.EXHAUSTED, "http_402", 15.0, 99.0, 1)
    change = Change(parked, parked=True, at=15.0, why="no balance")
    await writer.commit(lambda connection: parkings.save(connection, change))

    async def told(
        provider_id: str = "", since: float = 0.0, until: float = 100.0, limit: int = 9
    ) -> list[Moved]:
        return await chronicle.told(since=since, until=until, provider_id=provider_id, limit=limit)

    found = await told()
    assert writer.counts.lost == 0
    assert [(one.at, one.provider_id, one.kind) for one in found] == [
        (20.0, "q", "health"),
        (15.0, "p", "credential"),
        (10.0, "p", "health"),
    ]
    assert found[1] == Moved(15.0, "p", "credential", "main", "gpt-4o", "ready", "parked", "no balance")
    assert [one.at for one in await told("p")] == [15.0, 10.0]
    assert [one.at for one in await told(since=10.0, until=20.0)] == [15.0, 10.0]
    assert [one.at for one in await told(limit=1)] == [20.0]
