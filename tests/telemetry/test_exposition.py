"""Values as Prometheus's text, and those of several processes put together."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tokenhub_core.telemetry.counting import OTHER, Bound, Counter, Gauge, Histogram
from tokenhub_core.telemetry.exposition import Across, Families, Family, Kind, Sample, merged, text

type Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200)), max_size=30)


def read(families: Families) -> Series:
    """Return every sample by its name and labels, as Prometheus's own parser reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text(families))
        for sample in family.samples
    }


def counted(values: list[tuple[str, int]]) -> Families:
    """Return what a process shows that counted these."""
    calls, times = Counter("calls", "Calls", ("who",)), Histogram("seconds", "Seconds", ("who",), (1, 10, 50))
    latest = Gauge("latest", "The largest", across=Across.MAX)
    for who, value in values:
        calls.add(who)
        times.row(who).observe(value)
    latest.put(max((value for _, value in values), default=0))
    return [calls.family(), times.family(), latest.family()]


@given(WORDS, WORDS, st.floats())
def test_whatever_a_label_says_is_read_back(told: str, meaning: str, value: float) -> None:
    """Quotes, line feeds and backslashes included; so are values without an end, and values that are none."""
    family = Family("one", Kind.GAUGE, meaning, (Sample((("a", told),), value),))
    ((key, found),) = read([family]).items()
    assert key == ("one", frozenset({("a", told)}))
    assert found == value or (math.isnan(found) and math.isnan(value))


def test_a_histogram_is_what_prometheus_expects() -> None:
    """Buckets count everything up to their bound, the last one everything."""
    row = Histogram("seconds", "Seconds", (), (0.1, 1))
    for value in (0.05, 0.1, 0.7, 3):
        row.row().observe(value)
    assert text([row.family()]).splitlines() == [
        "# HELP seconds Seconds",
        "# TYPE seconds histogram",
        'seconds_bucket{le="0.1"} 2.0',
        'seconds_bucket{le="1.0"} 3.0',
        'seconds_bucket{le="+Inf"} 4.0',
        "seconds_count 4.0",
        "seconds_sum 3.85",
    ]


@given(st.lists(VALUES, max_size=4))
def test_several_processes_show_what_one_would_have_counted(shares: list[list[tuple[str, int]]]) -> None:
    """However the calls were spread over them."""
    together = read(merged(counted(share) for share in shares))
    assert together == (read(counted([one for share in shares for one in share])) if shares else {})


def test_families_travel_as_bytes() -> None:
    """A worker hands them to whoever answers the scrape."""
    families = counted([("a", 3)])
    sent = msgspec.msgpack.encode(families)
    assert msgspec.msgpack.decode(sent, type=list[Family]) == families


@pytest.mark.parametrize(("across", "value"), [(Across.SUM, 7), (Across.MAX, 5), (Across.MIN, 2)])
def test_a_gauge_says_what_several_of_it_are(across: Across, value: int) -> None:
    """Connections add up; of one vault that all open, the worst."""
    ours = [[Family("g", Kind.GAUGE, "", (Sample((), one),), across)] for one in (5, 2)]
    assert read(merged(ours)) == {("g", frozenset()): value}


def test_bounds_that_not_all_have_are_left_out() -> None:
    """While two versions serve, no bucket counts the values of one of them only."""
    old, new = Histogram("s", "", (), (1, 2, 4)), Histogram("s", "", (), (1, 3, 4))
    for histogram, value in ((old, 1.5), (new, 2.5), (new, 5)):
        histogram.row().observe(value)
    found = read(merged([[old.family()], [new.family()]]))
    buckets = {dict(labels)["le"]: value for (name, labels), value in found.items() if name == "s_bucket"}
    assert buckets == {"1.0": 0, "4.0": 2, "+Inf": 3}
    assert found["s_count", frozenset()] == 3


def test_the_first_names_have_labels_and_all_later_ones_share_one() -> None:
    """Ten thousand made-up names are eleven labels, and those that were there first stay what they are."""
    bound = Bound(10)
    labels = [bound(f"model-{number}") for number in range(10_000)]
    assert labels[:10] == [f"model-{number}" for number in range(10)]
    assert set(labels[10:]) == {OTHER}
    assert bound("model-3") == "model-3"


def test_names_that_are_called_the_same_take_no_place() -> None:
    """Hosts that callers choose are one label, however many there are."""
    bound = Bound(1, lambda name: "origin" if name.startswith("origin:") else name)
    assert {bound(f"origin:h{number}") for number in range(100)} == {"origin"}
    assert bound("p") == "p"


def test_the_name_other_is_no_way_around_the_bound() -> None:
    """A provider of that name shares the label, and nothing else."""
    bound = Bound(1)
    assert (bound("p"), bound(OTHER), bound("q")) == ("p", OTHER, OTHER)
